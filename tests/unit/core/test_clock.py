from __future__ import annotations

import pytest

from etcsched.core.clock import Instant, SkewWatch, TickClock


def test_tick_time_follows_the_wall_clock_and_never_goes_back() -> None:
    clock = TickClock(Instant(10_000, 0.0))
    assert clock.at(Instant(11_000, 1.0)) == 11_000
    assert clock.at(Instant(10_500, 1.0)) == 11_000
    assert clock.at(Instant(11_500, 2.0)) == 11_950  # Half a second behind: slewed by 5 %.


@pytest.mark.parametrize("jump_ms", [2_500, -2_500])
def test_a_jump(jump_ms: int) -> None:
    clock = TickClock(Instant(10_000, 0.0))
    assert clock.at(Instant(11_000 + jump_ms, 1.0)) is None


def test_small_steps_that_add_up() -> None:
    clock = TickClock(Instant(0, 0.0))
    found = [clock.at(Instant(1_900 * n, float(n) / 10)) for n in range(1, 4)]
    assert found[0] is not None
    assert found[-1] is None


@pytest.mark.parametrize(
    ("offsets_s", "is_trusted"),
    [
        ([], True),
        ([3600.0], True),  # Two nodes: nobody can tell which is right.
        ([3600.0, 3600.0], False),
        ([3600.0, 0.0], True),
        ([-3600.0, 3600.0], True),  # The median is ours.
        ([10.0, 10.0, 0.0], True),
        ([10.0, 10.0, 10.0], False),
        ([-10.0, -12.0, -11.0, 0.0], False),
        ([4.9, 4.9, 4.9], True),
    ],
)
def test_the_median_decides(offsets_s: list[float], is_trusted: bool) -> None:
    watch = SkewWatch()
    now = Instant(100_000_000, 50.0)
    for number, offset_s in enumerate(offsets_s):
        watch.sample(f"n{number}", now.wall_ms + int(offset_s * 1000), now)
    verdict = watch.verdict(now)
    assert (verdict is None) is is_trusted
    if verdict is not None:
        assert ("behind" in verdict) is (offsets_s[0] > 0)


def test_old_samples_say_nothing() -> None:
    watch = SkewWatch(kept_s=180.0)
    for node in ("a", "b"):
        watch.sample(node, 3_600_000, Instant(0, 0.0))
    assert watch.verdict(Instant(100_000, 100.0)) is not None
    assert watch.verdict(Instant(181_000, 181.0)) is None


def test_nodes_that_come_under_ever_new_names_are_forgotten() -> None:
    """Agents in containers, say."""
    watch = SkewWatch(kept_s=180.0)
    for second in range(10_000):
        watch.sample(f"agent-{second}", second * 1000, Instant(second * 1000, float(second)))
    assert len(watch) == 181
    assert watch.verdict(Instant(20_000_000, 20_000.0)) is None
    assert len(watch) == 0


def test_what_others_showed_counts_against_our_clock_as_it_is_now() -> None:
    """Ours is set wrong by an hour after the others were seen, and right again later."""
    watch = SkewWatch()
    for node in ("a", "b"):
        watch.sample(node, 1_000_000, Instant(1_000_000, 10.0))
    assert watch.verdict(Instant(1_005_000, 15.0)) is None
    verdict = watch.verdict(Instant(1_006_000 + 3_600_000, 16.0))
    assert verdict is not None
    assert "3600.0 s ahead" in verdict
    assert watch.verdict(Instant(1_007_000, 17.0)) is None


@pytest.mark.parametrize("jump_ms", [-3_600_000, 3_600_000])
def test_of_two_clocks_the_one_that_jumped_is_wrong(jump_ms: int) -> None:
    watch = SkewWatch()
    watch.sample("a", 1_000_000, Instant(1_000_000, 10.0))
    assert watch.verdict(Instant(1_001_000 + jump_ms, 11.0)) is not None


def test_a_clock_that_jumped_to_where_the_other_is_is_trusted() -> None:
    watch = SkewWatch()
    watch.sample("a", 1_000_000, Instant(1_000_000 - 3_600_000, 10.0))
    assert watch.verdict(Instant(1_001_000, 11.0)) is None


def test_a_jump_that_nobody_can_judge_is_forgotten_in_time() -> None:
    watch = SkewWatch(kept_s=180.0)
    watch.verdict(Instant(0, 0.0))
    watch.verdict(Instant(3_600_000, 1.0))
    watch.sample("a", 190_000, Instant(3_790_000, 190.0))
    assert watch.verdict(Instant(3_790_000, 190.0)) is None
