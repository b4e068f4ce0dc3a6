"""``make sim``: many seeds, or one again, or a scenario that was kept (docs/testing.md)."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import msgspec

from etcsched.testing.sim.generate import scenario_of
from etcsched.testing.sim.scenario import Scenario
from etcsched.testing.sim.shrink import shrink
from etcsched.testing.sim.simulate import Result, simulate
from etcsched.testing.sim.stretched import stretched


def main() -> int:
    parser = argparse.ArgumentParser(prog="make sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one, with its story")
    parser.add_argument("--scenario", type=Path, help="replay one that was kept as JSON")
    parser.add_argument("--seeds", type=int, default=300, help="how many (300)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--stretch", type=int, default=1, help="so much slower: 60, 600, 3600 (1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--no-shrink", action="store_true", help="don't look for a smaller one")
    parser.add_argument("--quiet", action="store_true", help="no story")
    given = parser.parse_args()
    if given.stretch < 1:
        parser.error("--stretch: how many times slower, at least 1")
    if given.scenario is not None:
        scenario = msgspec.json.decode(given.scenario.read_bytes(), type=Scenario)
        return _replay(scenario, quiet=given.quiet, shrinks=not given.no_shrink)
    if given.seed is not None:
        scenario = stretched(scenario_of(given.seed), given.stretch)
        return _replay(scenario, quiet=given.quiet, shrinks=not given.no_shrink)
    return _many(range(given.first, given.first + given.seeds), given.stretch, given.jobs)


def _replay(scenario: Scenario, *, quiet: bool, shrinks: bool) -> int:
    result = simulate(scenario, keeps_lines=not quiet)
    print(*result.lines, sep="\n")
    _print_failure(result)
    print(f"seed {result.seed}: trace {result.trace_hash}, {result.lasted_s:.0f} s simulated")
    if not result.failed:
        print("nothing is wrong")
        return 0
    if shrinks:
        smaller = shrink(scenario, result, say=lambda line: print(f"smaller: {line}"))
        print("the smallest that fails likewise (make sim SCENARIO=file replays it):")
        print(msgspec.json.encode(smaller).decode())
    return 1


def _print_failure(result: Result) -> None:
    for line in (result.crash, *result.violations, *result.invalid):
        if line:
            print(f"FAILED: {line}")


def _collect_seldom() -> None:
    """A simulated cluster is small, and gone as a whole."""
    gc.set_threshold(100_000, 20, 20)


def _one(stretch: int, seed: int) -> Result:
    return simulate(stretched(scenario_of(seed), stretch))


class _Sum:
    def __init__(self) -> None:
        self.seeds = 0
        self.simulated_s = 0.0
        self.began_s = time.monotonic()
        self.injected: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.failed: dict[str, list[int]] = {}

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.simulated_s += result.lasted_s
        self.injected += result.injected
        self.counts += result.counts
        if result.failed:
            what = " ".join(sorted(result.symptoms))
            self.failed.setdefault(what, []).append(result.seed)

    @property
    def line(self) -> str:
        hours = self.simulated_s / 3600
        minutes = (time.monotonic() - self.began_s) / 60
        failed = sum(map(len, self.failed.values()))
        return (
            f"{self.seeds} seeds, {hours:.1f} simulated hours, {hours / minutes:.0f} a minute, "
            f"{failed} failed"
        )


def _many(seeds: range, stretch: int, jobs: int) -> int:
    total, said_s = _Sum(), 0.0
    with multiprocessing.Pool(jobs, initializer=_collect_seldom) as pool:
        for result in pool.imap_unordered(partial(_one, stretch), seeds, chunksize=4):
            total.add(result)
            if result.failed:
                print(f"\nseed {result.seed}:")
                _print_failure(result)
            if sys.stdout.isatty() or time.monotonic() - said_s > 10:
                said_s = time.monotonic()
                print(f"\r{total.line}", end="" if sys.stdout.isatty() else "\n", flush=True)
    _print_sum(total, stretch)
    return 1 if total.failed else 0


def _print_sum(total: _Sum, stretch: int) -> None:
    print(f"\r{total.line}")
    print(f"commit {_commit()}")
    for title, counts in (("faults", total.injected), ("what came of it", total.counts)):
        print(f"{title}:")
        for name, number in sorted(counts.items(), key=lambda item: -item[1]):
            print(f"  {number:8}  {name}")
    for what, seeds in sorted(total.failed.items()):
        some = " ".join(map(str, sorted(seeds)[:8]))
        again = f"SEED={seeds[0]}" + (f" STRETCH={stretch}" if stretch > 1 else "")
        print(f"FAILED {what}: {len(seeds)} seeds ({some}); replay: make sim {again}")


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
