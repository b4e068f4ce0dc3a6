from __future__ import annotations

import pytest
from msgspec.structs import replace

from etcsched.core.leader import recovery
from etcsched.core.limits import NO_LIMITS
from etcsched.core.records import Job
from etcsched.core.states import Recovery
from etcsched.core.times import ms_of
from tests.support.jobs import NOON, job

START_MS = ms_of(NOON)


def at(*seconds: int) -> tuple[int, ...]:
    return tuple(START_MS + second * 1000 for second in seconds)


def stretch(first_s: int, last_s: int, count: int) -> recovery.Stretch:
    first_ms, last_ms = at(first_s, last_s)
    steps = (((last_ms - first_ms) // (count - 1), count - 1),) if count > 1 else ()
    return recovery.Stretch(first_ms, last_ms, count, steps)


def hourly(**fields: object) -> Job:
    """Due at each full minute; the buffer is 90 s, the reach 5 minutes."""
    fields = {"pickup_buffer_s": 90.0, "recover_within_s": 300.0, **fields}
    return job(cron="*/1 * * * *", **fields)  # type: ignore[arg-type]


def plan(definition: Job, after_s: int, now_s: int, can_start: bool = True) -> recovery.Plan:
    after_ms, now_ms = at(after_s, now_s)
    return recovery.plan(definition, NO_LIMITS, after_ms, now_ms, can_start)


@pytest.mark.parametrize(
    ("mode", "chosen_s"),
    [(Recovery.ALL, (300, 360, 420, 480)), (Recovery.LAST, ()), (Recovery.NONE, ())],
)
def test_modes_where_late_ticks_run_anyway(mode: Recovery, chosen_s: tuple[int, ...]) -> None:
    """Now is 10 minutes: 540 and 600 are late, 300 is the oldest within reach."""
    made = plan(hourly(recovery=mode), 0, 600)
    assert sorted(made.chosen) == list(at(*chosen_s))
    assert made.late_from_ms == START_MS + 510_000


def test_last_where_none_is_late() -> None:
    made = plan(hourly(recovery=Recovery.LAST, pickup_buffer_s=10.0), 0, 630)
    assert made.chosen == frozenset(at(600))


def test_the_limit_takes_the_newest() -> None:
    made = plan(hourly(recovery=Recovery.ALL, catch_up_limit=2), 0, 600)
    assert sorted(made.chosen) == list(at(420, 480))


def test_the_edges_of_buffer_and_reach_are_inside() -> None:
    made = plan(hourly(recovery=Recovery.ALL, pickup_buffer_s=60.0), 0, 600)
    assert made.late_from_ms == START_MS + 540_000
    assert min(made.chosen) == START_MS + 300_000


def test_a_job_that_must_not_start_recovers_nothing_and_has_nothing_late() -> None:
    definition = hourly(recovery=Recovery.ALL)
    made = plan(definition, 0, 600, can_start=False)
    part = recovery.next_step(definition, NO_LIMITS, made, START_MS)
    assert (part.chosen, part.late) == ((), ())
    assert [stretch.count for stretch in part.missed] == [10]


def test_what_is_missed_is_summarised_between_what_runs() -> None:
    definition = hourly(recovery=Recovery.ALL, catch_up_limit=1)
    part = recovery.next_step(definition, NO_LIMITS, plan(definition, 0, 600), START_MS)
    assert part.chosen == at(480)
    assert part.late == at(540, 600)
    assert part.missed == (stretch(60, 420, 7),)
    assert (part.first_ms, part.through_ms) == at(60, 600)


def test_steps_cover_everything_once() -> None:
    definition = job(every_s=1, recovery=Recovery.ALL, pickup_buffer_s=5.0)
    made = plan(definition, 0, 40)
    after_ms, found = START_MS, []
    while after_ms < made.through_ms:
        part = recovery.next_step(definition, NO_LIMITS, made, after_ms)
        assert len(part.chosen) + len(part.late) <= recovery.MAX_RUNS_PER_STEP
        found += [*part.chosen, *part.late]
        after_ms = part.through_ms
    assert found == list(at(*range(1, 41)))


@pytest.mark.parametrize("can_start", [True, False])
def test_what_only_a_wrong_clocks_watermark_has_passed_is_missed(can_start: bool) -> None:
    """It isn't due yet: it can't be late, whatever the mode."""
    definition = hourly(recovery=Recovery.ALL)
    made = replace(plan(definition, 540, 600, can_start), through_ms=START_MS + 900_000)
    part = recovery.next_step(definition, NO_LIMITS, made, START_MS + 540_000)
    assert (part.chosen, part.late) == ((), at(600) if can_start else ())
    assert part.missed[-1].last_ms == part.through_ms == START_MS + 900_000
    assert sum(stretch.count for stretch in part.missed) == (5 if can_start else 6)


def test_a_cautious_step_decides_one_tick() -> None:
    definition = hourly(recovery=Recovery.NONE)
    part = recovery.next_step(definition, NO_LIMITS, plan(definition, 0, 600), START_MS, 1)
    assert part.missed == (stretch(60, 60, 1),)
    assert part.through_ms == START_MS + 120_000 - 1


def test_a_long_outage_is_summarised_in_steps() -> None:
    definition = job(every_s=1, recovery=Recovery.NONE, pickup_buffer_s=0.0)
    made = plan(definition, 0, 7 * 86_400)
    part = recovery.next_step(definition, NO_LIMITS, made, START_MS)
    assert [stretch.count for stretch in part.missed] == [recovery.MAX_TICKS_PER_STEP]


@pytest.mark.parametrize("count", [0, 1, 5, 1000])
def test_newest(count: int) -> None:
    definition = hourly()
    found = recovery.newest(definition, NO_LIMITS, START_MS, START_MS + 6_000_000, count)
    every = [START_MS + n * 60_000 for n in range(1, 101)]
    assert found == (every[-count:] if count else [])


@pytest.mark.parametrize(
    ("mode", "newer", "is_latest", "is_recent", "runs"),
    [
        (Recovery.ALL, 1, False, True, True),
        (Recovery.ALL, 2, False, True, False),
        (Recovery.ALL, 0, True, False, False),
        (Recovery.LAST, 0, True, True, True),
        (Recovery.LAST, 0, False, True, False),
        (Recovery.LAST, 0, True, False, False),
        (Recovery.NONE, 0, True, True, False),
    ],
)
def test_runs_that_waited(
    mode: Recovery, newer: int, is_latest: bool, is_recent: bool, runs: bool
) -> None:
    definition = hourly(recovery=mode, catch_up_limit=2)
    found = recovery.is_chosen(definition, newer, is_latest=is_latest, is_recent=is_recent)
    assert found is runs
