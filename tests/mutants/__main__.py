"""``make mutants``: switches on each planted bug in turn, on the scenario that is kept of it, and
fails unless it is caught. On demand it looks, too, how soon new seeds bring another one."""

from __future__ import annotations

import argparse
import multiprocessing
import sys

from tests.mutants.hunt import Catch, hunt, keep, try_kept
from tests.mutants.planted import PLANTED, Planted


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", help="the name of one of them")
    parser.add_argument("--seeds", type=int, default=0, help="look through so many new ones (0)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--keep", action="store_true", help="keep what they bring")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    given = parser.parse_args()
    wanted = [p.name for p in PLANTED if given.only in (None, p.name)]
    if not wanted:
        print(f"there is no planted bug {given.only!r}: {', '.join(p.name for p in PLANTED)}")
        return 2
    escaped: set[str] = set()
    with multiprocessing.Pool(given.jobs) as pool:
        for catch in pool.imap(_try_kept, () if given.keep else wanted):
            print(line_of(catch), flush=True)
            if catch.scenario is None:
                escaped.add(catch.name)
        if given.seeds:
            print("by new seeds:")
            tasks = [(name, given.first, given.seeds, given.keep) for name in wanted]
            for catch in pool.imap_unordered(_hunt, tasks):
                print(line_of(catch), flush=True)
    if not given.keep:
        print(f"{len(wanted) - len(escaped)} of {len(wanted)} planted bugs were caught")
    return 1 if escaped else 0


def _named(name: str) -> Planted:
    (planted,) = [each for each in PLANTED if each.name == name]
    return planted


def _try_kept(name: str) -> Catch:
    return try_kept(_named(name))


def _hunt(task: tuple[str, int, int, bool]) -> Catch:
    name, first, seeds, keeps = task
    catch = hunt(_named(name), first, seeds)
    if keeps and catch.scenario is not None:
        keep(_named(name), catch)
    return catch


def line_of(catch: Catch) -> str:
    if catch.scenario is None:
        return f"ESCAPED {catch.name:29} {catch.seeds} seeds, {catch.took_s:.1f} s"
    where = f"{catch.seeds} seeds" if catch.seeds > 1 else f"seed {catch.scenario.seed}"
    by = " ".join(catch.by)
    return (
        f"caught  {catch.name:29} by {by:8} {where:10} {catch.took_s:6.1f} s  {catch.first[:120]}"
    )


if __name__ == "__main__":
    sys.exit(main())
