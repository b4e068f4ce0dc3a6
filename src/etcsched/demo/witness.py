"""What the demo's jobs themselves say of their execution: ground truth apart from etcd.

Each line of the ledger is written by a job's own process with one append: start, a beat every
0.1 s, end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

import msgspec

BEAT_S = 0.1

SCRIPT = f"""
ledger=$1; beats=$2
tell() {{
  echo "$1 $ETCSCHED_JOB $ETCSCHED_RUN $ETCSCHED_TOKEN $(date +%s.%N)" >> "$ledger"
}}
tell start
while [ "$beats" -gt 0 ]; do sleep {BEAT_S}; tell beat; beats=$((beats - 1)); done
tell end
"""


class Execution(msgspec.Struct, frozen=True):
    """One process of one run, by its own words; seconds of Unix time. ``end_s`` None: it never
    said that it ended."""

    job: str
    run: str
    token: int
    start_s: float
    last_s: float
    end_s: float | None


def executions(lines: Iterable[str]) -> list[Execution]:
    """In the order in which they began. A torn last line is left out."""
    found: dict[tuple[str, str, int], Execution] = {}
    for line in lines:
        words = line.split()
        if len(words) != 5:
            continue
        what, job, run, token, at = words[0], words[1], words[2], int(words[3]), float(words[4])
        key = (job, run, token)
        begun = found.get(key)
        if what == "start" and begun is None:
            found[key] = Execution(job, run, token, at, at, None)
        elif begun is not None:
            end_s = at if what == "end" else begun.end_s
            found[key] = msgspec.structs.replace(begun, last_s=max(begun.last_s, at), end_s=end_s)
    return list(found.values())


def overlaps(all_of_them: Iterable[Execution]) -> list[tuple[Execution, Execution]]:
    """Pairs of executions of one run of which the second began before the first was silent."""
    by_run: dict[tuple[str, str], list[Execution]] = defaultdict(list)
    for execution in all_of_them:
        by_run[(execution.job, execution.run)].append(execution)
    pairs: list[tuple[Execution, Execution]] = []
    for several in by_run.values():
        several.sort(key=lambda execution: execution.start_s)
        pairs += [(a, b) for a, b in pairwise(several) if b.start_s < a.last_s]
    return pairs
