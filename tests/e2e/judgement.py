"""What must hold of a whole history: every due tick decided once, every process accounted for.

Due ticks come from croniter, applied to the definitions that were acknowledged; what ran comes from
the jobs' own words. No decision of the product's is asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta

import msgspec
from croniter import croniter

from etcsched.core.records import Run
from etcsched.core.states import Origin, RunState
from etcsched.core.times import ms_of
from etcsched.demo.witness import Execution, executions, overlaps

Runs = Mapping[tuple[str, str], Run]
"""All that were ever archived, by job and id."""

Due = Mapping[str, Collection[str]]
"""Ids of due ticks, by job."""


class Definition(msgspec.Struct, frozen=True):
    """What was acknowledged: from ``since_ms`` on a job's ticks are this cron's (None: none)."""

    since_ms: int
    cron: str | None


def due_ticks(
    definitions: Iterable[Definition], paused_ms: Iterable[tuple[int, int]], now_ms: int
) -> set[str]:
    """Ids of a job's ticks up to now, in UTC. ``paused_ms``: [since, until) of each pause."""
    found: set[str] = set()
    in_order = list(definitions)
    ends_ms = [*(definition.since_ms for definition in in_order[1:]), now_ms]
    for definition, end_ms in zip(in_order, ends_ms, strict=True):
        if definition.cron is not None:
            found |= _ticks(definition.cron, definition.since_ms, end_ms)
    for since_ms, until_ms in paused_ms:
        found = {tick for tick in found if not since_ms <= _tick_ms(tick) < until_ms}
    return found


def _ticks(cron: str, since_ms: int, end_ms: int) -> set[str]:
    """In [since, end)."""
    fields = cron.split()
    moved = " ".join((*fields[1:], fields[0])) if len(fields) == 6 else cron
    before = datetime.fromtimestamp((since_ms - 1) // 1000, UTC)
    found: set[str] = set()
    for moment in croniter(moved, before, ret_type=datetime):
        if moment.timestamp() * 1000 >= end_ms:
            break
        found.add(moment.strftime("%Y%m%dT%H%M%SZ"))
    return found


def _tick_ms(tick: str) -> int:
    moment = datetime.strptime(tick, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return int((moment - datetime.fromtimestamp(0, UTC)) / timedelta(milliseconds=1))


def undecided(due: Due, runs: Runs) -> list[str]:
    """Ticks without their run or record."""
    decided = _decided(due, runs)
    return [f"{job}/{t}" for job, ticks in due.items() for t in ticks if not decided[job][t]]


def _decided(due: Due, runs: Runs) -> dict[str, Counter[str]]:
    """How often each tick became a run, or lies in a record of missed ones."""
    decided: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs.values():
        if run.origin not in (Origin.SCHEDULE, Origin.RECOVERY):
            continue
        if run.missed_through is None:
            decided[run.job][run.id] += 1
            continue
        assert run.scheduled_at is not None
        span = range(ms_of(run.scheduled_at), ms_of(run.missed_through) + 1)
        decided[run.job].update(tick for tick in due[run.job] if _tick_ms(tick) in span)
    return decided


def judge_ticks(due: Due, runs: Runs) -> list[str]:
    """I1: every due tick is exactly one run, or lies in one record of missed ones; nothing else
    ran by schedule."""
    complaints = [f"I1: {tick}: due, and lost" for tick in undecided(due, runs)]
    for job, decided in _decided(due, runs).items():
        complaints += [f"I1: {job}/{t}: wasn't due" for t in decided if t not in due[job]]
        complaints += [f"I1: {job}/{t}: decided {n} times" for t, n in decided.items() if n > 1]
    return complaints


def judge_chains(runs: Runs) -> list[str]:
    """Every run that an end began is there, once, and knows what it came from."""
    complaints = []
    begun = Counter(
        (follow.job, follow.run, place)
        for place, run in runs.items()
        for follow in run.followed_by
        if follow.run
    )
    complaints += [f"chains: {who}: begun {n} times" for who, n in begun.items() if n > 1]
    for job, run_id, source in begun:
        follower = runs.get((job, run_id))
        if follower is None:
            complaints.append(f"chains: {job}/{run_id}, which {source} began, is lost")
        elif source not in {(each.job, each.run) for each in follower.chained_from}:
            complaints.append(f"chains: {job}/{run_id} doesn't know of {source}")
    for place, run in runs.items():
        if run.origin is Origin.CHAIN:
            sources = [(each.job, each.run) for each in run.chained_from]
            unknown = [each for each in sources if (*place, each) not in begun]
            complaints += [f"chains: {place}: {each} didn't begin it" for each in unknown]
    return complaints


def judge_executions(ledger: list[str], runs: Runs) -> list[str]:
    """I3, I5, I7: what the processes say fits what etcd says. ``ledger`` is their lines."""
    complaints = []
    starts = Counter(tuple(line.split()[1:4]) for line in ledger if line.startswith("start "))
    complaints += [f"I3: {' '.join(who)}: started {n} times" for who, n in starts.items() if n > 1]
    all_of_them = executions(ledger)
    for first, second in overlaps(all_of_them):
        ms = (first.last_s - second.start_s) * 1000
        complaints.append(
            f"I3: {first.job}/{first.run}: tokens {first.token} and {second.token} overlapped "
            f"by {ms:.0f} ms"
        )
    by_run: dict[tuple[str, str], list[Execution]] = defaultdict(list)
    for execution in all_of_them:
        by_run[execution.job, execution.run].append(execution)
    for place, its in by_run.items():
        name, run = "/".join(place), runs.get(place)
        tokens = [execution.token for execution in its]
        if tokens != sorted(tokens):
            complaints.append(f"I5: {name}: tokens {tokens}")
        if run is None:
            complaints.append(f"I7: {name}: ran, and isn't in etcd")
        elif not set(tokens) <= {attempt.token for attempt in run.attempts}:
            complaints.append(f"I7: {name}: ran with {tokens}, etcd knows {run.attempts}")
    for place, run in runs.items():
        if run.state is RunState.COMPLETED:
            token = run.attempts[-1].token
            if not any(e.token == token and e.end_s is not None for e in by_run[place]):
                complaints.append(f"I7: {'/'.join(place)}: completed, says etcd alone")
    return complaints
