"""Simulated clusters under faults, judged. ``make sim`` runs more of them, and replays one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from etcsched.core.leader.run_decider import RunDecider
from etcsched.testing.sim.generate import scenario_of
from etcsched.testing.sim.scenario import Scenario
from etcsched.testing.sim.simulate import Result, simulate
from etcsched.testing.sim.stretched import stretched

ROUNDS = 6
SEEDS_A_ROUND = 25
KEPT = sorted((Path(__file__).parent / "seeds").glob("*.json"))


def story_of(result: Result, stretch: int = 1) -> str:
    found = [result.crash, *result.violations, *result.invalid]
    again = f"make sim SEED={result.seed} STRETCH={stretch}"
    return f"seed {result.seed} (replay: {again}):\n" + "\n".join(found)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_whatever_goes_wrong(number: int) -> None:
    for seed in range(number * SEEDS_A_ROUND, (number + 1) * SEEDS_A_ROUND):
        result = simulate(scenario_of(seed))
        assert not result.failed, story_of(result)


@pytest.mark.parametrize("seed", range(600, 606))
def test_whatever_goes_wrong_at_the_pace_of_everyday(seed: int) -> None:
    """Hours, with ticks minutes apart: what a day's retention, or an outage of an hour, does."""
    result = simulate(stretched(scenario_of(seed), 60))
    assert not result.failed, story_of(result, 60)
    assert result.lasted_s > 3600


def test_a_stretched_scenario_is_slower_and_no_different() -> None:
    fast = scenario_of(7)
    slow = stretched(fast, 60)
    assert stretched(fast, 1) is fast
    assert slow.faulty_s == 60 * fast.faulty_s
    assert [plan.kind for plan in slow.faults] == [plan.kind for plan in fast.faults]
    assert [job.chain for job in slow.jobs] == [job.chain for job in fast.jobs]
    late = [(s.at_s, f.at_s) for s, f in zip(slow.acts, fast.acts, strict=True) if f.at_s > 3.0]
    assert late
    for slow_s, fast_s in late:  # As far from a whole second as before.
        assert round(slow_s - round(fast_s) * 60, 6) == round(fast_s - round(fast_s), 6)
    assert msgspec.json.decode(msgspec.json.encode(slow), type=Scenario) == slow


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_failed_once(path: Path) -> None:
    scenario = msgspec.json.decode(path.read_bytes(), type=Scenario)
    result = simulate(scenario)
    assert not result.failed, story_of(result)


def test_each_kept_scenario_is_explained() -> None:
    """... and each that is explained is there."""
    text = (Path(__file__).parent / "seeds" / "README.md").read_text()
    assert sorted(re.findall(r"^- `([a-z-]+)`:", text, re.MULTILINE)) == [p.stem for p in KEPT]


def test_a_leader_that_forgets_to_look_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).parent / "seeds" / "first-of-the-blocked-has-ended.json"
    scenario = msgspec.json.decode(path.read_bytes(), type=Scenario)
    monkeypatch.setattr(RunDecider, "look_at_waiting", lambda _self, _lane: None)
    assert "which nothing holds up" in simulate(scenario).crash


@pytest.mark.parametrize("seed", [17, 8001, 8068])
def test_a_seed_is_the_same_everywhere(seed: int) -> None:
    """Also in another process, whatever its hashes of strings are."""
    code = (
        "from etcsched.testing.sim.generate import scenario_of\n"
        "from etcsched.testing.sim.simulate import simulate\n"
        f"print(simulate(scenario_of({seed})).trace_hash)"
    )
    hashes = {simulate(scenario_of(seed)).trace_hash for _ in range(2)}
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.add(done.stdout.strip())
    assert len(hashes) == 1


def test_a_scenario_can_be_kept_as_json() -> None:
    scenario = scenario_of(5)
    assert msgspec.json.decode(msgspec.json.encode(scenario), type=Scenario) == scenario
