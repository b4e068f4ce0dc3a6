"""What follows when a run ends (SEMANTICS, chains): which runs its job's chain begins.

The one place that is asked, by whoever ends a run or records a tick that never became one. What it
answers goes into that very transaction, so no crash can lose or double it. A chained run is made
waiting; who gets it is decided as for any other.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from etcsched.core.conditions import first_unmet, is_within
from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import Matter, run_matter
from etcsched.core.leader.runs import new_run
from etcsched.core.records import (
    MAX_PARAMS_BYTES,
    Arrival,
    Follow,
    Job,
    Join,
    Kind,
    Link,
    Run,
    Source,
    params_bytes,
)
from etcsched.core.results import as_params
from etcsched.core.states import JobState, Origin, Overlap, RunState
from etcsched.core.times import Utc, ms_of, tick_id
from etcsched.core.view import Entry, RunKey

CHAINABLE = (JobState.ENABLED, JobState.CHAIN_ACTIVE)

NOBODY_TOLD: Mapping[str, Utc] = {}

_ONCE = "once for all ticks missed in a row"

LOOK_AGAIN_S = 0.05
MAX_JOIN_BYTES = 256 << 10
"""Of the parameters that those who have come to a join hand on: it is one record, and goes into
one transaction with the run that comes."""

MAX_JOINS_BYTES = 768 << 10
"""Of all joins that one run comes to, likewise."""

MAX_CHAIN_DEPTH = 100
"""Runs one behind the other. A cycle that two edits made at once ends here."""


def join_matter(target: str, instance: str) -> Matter:
    return ("join", target, instance)


class Chains:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._view = context.view
        self._joining: defaultdict[str, set[str]] = defaultdict(set)
        self._joins_of: dict[str, tuple[str, ...]] = {}
        self._ending: defaultdict[str, set[str]] = defaultdict(set)
        """Disabled jobs: their runs that are in progress come to the join still."""
        self._blocked: set[RunKey] = set()
        self._behind: defaultdict[Matter, dict[Matter, None]] = defaultdict(dict)
        """By the join that one is just coming to: who comes to it, too."""
        self._again: dict[Matter, float] = {}
        for name in self._view.jobs:
            self.job_changed(name)

    def job_changed(self, name: str) -> None:
        """Keep in mind which jobs' joins it takes part in."""
        for target in self._joins_of.pop(name, ()):
            self._joining[target].discard(name)
            self._ending[target].discard(name)
        entry = self._view.jobs.get(name)
        if entry is None or not entry.record.chain:
            return
        current, joining = entry.record.current, self._joining
        if current.state is JobState.DELETED:
            return
        if current.state is JobState.DISABLED:
            joining = self._ending
        targets = tuple(link.to for link in entry.record.chain if link.joins)
        if targets:
            self._joins_of[name] = targets
        for target in targets:
            joining[target].add(name)

    def missing_of(
        self, target: str, instance: str, arrived: tuple[Arrival, ...]
    ) -> frozenset[str]:
        """The jobs that a join of this target waits for still."""
        sources = self._joining.get(target, set())
        ending = {
            j for j in self._ending.get(target, ())
            if self._has_window_left(j) or self._is_in_progress(j, instance)
        }  # fmt: skip
        return frozenset((sources | ending) - {arrival.job for arrival in arrived})

    def _has_window_left(self, job: str) -> bool:
        """In which it is no more disabled."""
        entry = self._view.jobs.get(job)
        return entry is not None and self._context.states_ahead(entry.record) != {JobState.DISABLED}

    def _is_in_progress(self, job: str, instance: str) -> bool:
        runs = self._view.runs_of_job.get(job, ())
        return any(self._view.runs[(job, run)].record.chain == instance for run in runs)

    def sweep(self) -> None:
        """Joins that wait for nobody any more, since a source was stopped or taken out."""
        for matter in [m for m in self._behind if not self._context.is_busy(m)]:
            del self._behind[matter]
        for matter in [m for m, at_s in self._again.items() if at_s < self._context.mono_s]:
            del self._again[matter]
        for (target, instance), entry in self._view.joins.items():
            job, join = self._view.jobs.get(target), entry.record
            if job is None or self.missing_of(target, instance, join.arrived):
                continue
            if job.record.current.state is not JobState.DELETED:
                self._end_join(instance, entry, job)

    def _end_join(self, instance: str, entry: Entry[Join], target: Entry[Job]) -> None:
        """All have come: its run begins, unless its job is stopped, as with any link."""
        context, join, created = self._context, entry.record, tuple[Run, ...]()
        key, why_not = (join.job, join.run), self.why_stopped(target.record)
        if context.is_busy(join_matter(join.job, instance), run_matter(key)):
            return
        if why_not is None:
            if key in self._view.runs or size_of(target.record, join.arrived) > MAX_PARAMS_BYTES:
                return  # It is forgotten in time, and said to have waited in vain.
            created = (self.chained_run(target.record, join.run, instance, join.arrived),)
        else:
            names = ", ".join(f"{a.job}/{a.run}" for a in join.arrived)
            text = f"{names}: the chain to {join.job} doesn't go on: {why_not}"
            context.say(text, warn=True)
        change = fx.JoinChange(
            target=join.job, instance=instance, revision=entry.mod_revision, join=None
        )
        following = fx.Following(
            created=created,
            joins=(change,),
            jobs=((join.job, target.mod_revision),),
            edited_revision=self._view.seen(Kind.EDITED),
        )
        write = fx.EndJoin(seq=context.next_seq(), following=following)
        context.write(write, *self.matters(following))
        self.sent(following)

    def why_stopped(self, target: Job) -> str | None:
        """Why no chained run of this job begins now; None: one may."""
        state = self._context.state_of(target)
        return None if state in CHAINABLE else f"that job is {state.value}"

    def chained_run(
        self, target: Job, run_id: str, instance: str, arrived: tuple[Arrival, ...]
    ) -> Run:
        """Begun by the last of those that have arrived."""
        last = arrived[-1]
        state, where = self.state_of_new(target)
        return new_run(
            self._context.author,
            target,
            run_id,
            state,
            f"chained from {last.job}/{last.run}, which {_ended(last.state)}{where}",
            origin=Origin.CHAIN,
            scheduled_at=last.scheduled_at,
            params=params_of(target, arrived),
            instance=instance,
            depth=1 + max(arrival.depth for arrival in arrived),
            chained_from=tuple(Source(job=a.job, run=a.run, state=a.state) for a in arrived),
        )

    # --- what a write carries

    def after(
        self,
        run: Run,
        ended_at: Utc | None = None,
        told: Mapping[str, Utc] = NOBODY_TOLD,
    ) -> tuple[Run, fx.Following | None]:
        """The final record with its links, and what comes with it (None: nothing; whoever writes
        that compares the job). ``ended_at``: of the attempt that it ends with. ``told``: targets
        that were asked for the missed ticks with which this record's go on (see ``Gap``)."""
        entry = self._view.jobs.get(run.job)
        if entry is None or not entry.record.chain:
            return run, None
        if entry.record.current.state is JobState.DELETED:
            return run, None
        links = [link for link in entry.record.chain if run.state in link.on]
        if not links:
            return run, None
        plan = _Plan(self, self._context, run, entry, ended_at or self._context.now)
        for link in links:
            if link.to in told:
                plan.note(link.to, f"{_ONCE}: see {run.job}/{tick_id(ms_of(told[link.to]))}")
            else:
                plan.take(link)
        if all(link.to in told for link in links):
            return replace(run, followed_by=tuple(plan.follows)), None
        followed = replace(run, followed_by=tuple(plan.follows))
        return followed, plan.following()

    def following_missed(self, job: Job) -> tuple[str, ...]:
        """The targets that a record of missed ticks is asked for."""
        if job.current.state is JobState.DELETED:
            return ()
        named = (link.to for link in job.chain if RunState.MISSED in link.on)
        return tuple(dict.fromkeys(named))

    def matters(self, following: fx.Following | None) -> list[Matter]:
        if following is None:
            return []
        joins = [join_matter(change.target, change.instance) for change in following.joins]
        return [*joins, *(run_matter((run.job, run.id)) for run in following.created)]

    def is_beginning(self, following: fx.Following | None) -> bool:
        """Whether another end is just beginning one of these runs, or coming to one of these
        joins. Who finds so waits (``wait``)."""
        return self._context.is_busy(*self.matters(following))

    def wait(self, following: fx.Following | None, *matters: Matter) -> None:
        """These are looked at again a little later; or as soon as a join that they come to is
        free, one after the other."""
        context = self._context
        for matter in matters:
            if self._again.get(matter, 0.0) <= context.mono_s:  # One timer each.
                self._again[matter] = again_s = context.mono_s + LOOK_AGAIN_S
                context.wake_at(again_s, matter)
        for change in following.joins if following is not None else ():
            join = join_matter(change.target, change.instance)
            if context.is_busy(join):
                self._behind[join] |= dict.fromkeys(matters)

    def next_behind(self, join: Matter) -> Matter | None:
        """Who is to be looked at now that the one before has come to it."""
        behind = self._behind.get(join)
        if not behind:
            return None
        first = next(iter(behind))
        del behind[first]
        return first

    def sent(self, following: fx.Following | None) -> None:
        for run in following.created if following is not None else ():
            self._context.comes(run.job, 1)

    def settled(self, following: fx.Following | None) -> None:
        """The write is answered and seen."""
        for run in following.created if following is not None else ():
            self._context.comes(run.job, -1)

    def block(self, source: RunKey, following: fx.Following | None) -> None:
        """The write was refused, since one of the runs to create is there, which only a hand or a
        restored backup can bring about: its source ends without any."""
        if following is not None and following.created:
            self._blocked.add(source)

    def is_blocked(self, source: RunKey) -> bool:
        return source in self._blocked

    def state_of_new(self, target: Job) -> tuple[RunState, str]:
        """A chained run is never dropped for another's sake: it queues behind what is active."""
        name = target.name
        is_free = target.overlap is Overlap.ALLOW or not (
            self._view.active_runs(name)
            or self._context.is_coming(name)
            or any(
                self._context.is_busy(run_matter((name, run)))
                for run in self._view.runs_of_job.get(name, ())
            )
        )
        if is_free:
            return RunState.READY, ""
        return RunState.QUEUED, ", behind another run of its job"


class _Plan:
    """What one run's end begins."""

    def __init__(
        self, chains: Chains, context: Context, run: Run, entry: Entry[Job], ended_at: Utc
    ) -> None:
        self._chains = chains
        self._context = context
        self._view = context.view
        self._run = run
        self._entry = entry
        self._ended_at = ended_at
        self._instance = run.chain
        self._created: list[Run] = []
        self._joins: list[fx.JoinChange] = []
        self._jobs: dict[str, int] = {run.job: entry.mod_revision}
        self._joins_bytes = 0
        self._edited_revision: int | None = None
        self.follows: list[Follow] = []

    def following(self) -> fx.Following:
        return fx.Following(
            created=tuple(self._created),
            joins=tuple(self._joins),
            jobs=tuple(self._jobs.items()),
            edited_revision=self._edited_revision,
        )

    def take(self, link: Link) -> None:
        target = self._view.jobs.get(link.to)
        self._jobs[link.to] = self._view.seen(Kind.JOB, link.to)
        why_not = self._why_not(link, target)
        if why_not is not None or target is None:
            self._skip(link.to, why_not or "")
        elif link.joins:
            self._join(link, target.record)
        else:
            self._begin(target.record, self._id_for(link.to), (self._arrival(),))

    def note(self, target: str, note: str) -> None:
        self.follows.append(Follow(job=target, note=note))

    def _skip(self, target: str, why: str) -> None:
        self.note(target, why)
        text = f"chain to {target} doesn't go on: {why}"
        self._context.say(text, run=(self._run.job, self._run.id))

    def _why_not(self, link: Link, target: Entry[Job] | None) -> str | None:
        run, at = self._run, self._ended_at
        unmet = first_unmet(link.when, run.results)
        if unmet is not None:
            return f"its condition doesn't hold: {unmet}"
        timezone = self._entry.record.current.timezone
        if link.within and not is_within(link.within, timezone, ms_of(at)):
            return f"it ended outside of {link.within}"
        if target is None or target.record.current.state is JobState.DELETED:
            return "there is no such job"
        # (Of a join it is asked once all have come.)
        stopped = None if link.joins else self._chains.why_stopped(target.record)
        if stopped is not None:
            return stopped
        if run.depth >= MAX_CHAIN_DEPTH:
            return f"{MAX_CHAIN_DEPTH} runs are chained one behind the other; is it a cycle?"
        for follow in self.follows:
            if follow.job == link.to and follow.run:  # The first that holds counts.
                waits = "counts, and waits for others" if follow.note else "has begun it"
                return f"a link before this one {waits}"
        if self._chains.is_blocked((run.job, run.id)):
            return "a run of this chain was there already, made by hand or by a restored backup"
        return None

    def _arrival(self) -> Arrival:
        run = self._run
        return Arrival(
            job=run.job,
            run=run.id,
            state=run.state,
            at=self._context.now,
            depth=run.depth,
            scheduled_at=run.scheduled_at,
            params={**self._entry.record.params, **run.params, **as_params(run.results)},
        )

    def _join(self, link: Link, target: Job) -> None:
        entry = self._view.joins.get((target.name, self._instance))
        join = entry.record if entry is not None else None
        before = join.arrived if join is not None else ()
        arrived = (*(a for a in before if a.job != self._run.job), self._arrival())
        run_id = join.run if join is not None else self._id_for(target.name)
        missing = self._chains.missing_of(target.name, self._instance, arrived)
        stopped = self._chains.why_stopped(target) if not missing else None
        size = sum(len(msgspec.json.encode(arrival.params)) for arrival in arrived)  # As written.
        most = min(MAX_JOIN_BYTES, MAX_JOINS_BYTES - self._joins_bytes)
        if missing and size > most:
            why = f"what waits there takes {size} bytes, more than {most}"
            self._skip(target.name, why)
            return
        if missing:
            self._joins_bytes += size
            changed = Join(
                job=target.name,
                instance=self._instance,
                run=run_id,
                since=join.since if join is not None else self._context.now,
                arrived=arrived,
            )
            note = f"waits for {', '.join(sorted(missing))}"
            self.follows.append(Follow(job=target.name, run=run_id, note=note))
        elif stopped is not None:
            self._skip(target.name, stopped)
            if any(change.target == target.name for change in self._joins):
                return  # By a link before this one.
            if not self._view.seen(Kind.JOIN, target.name, self._instance):
                # It is the only one that comes: nothing is there, and nothing will be seen to go.
                self._edited_revision = self._view.seen(Kind.EDITED)
                return
            changed = None
        elif self._begin(target, run_id, arrived):
            changed = None
        else:
            return
        if changed is None:
            self._edited_revision = self._view.seen(Kind.EDITED)
        self._joins.append(
            fx.JoinChange(
                target=target.name,
                instance=self._instance,
                revision=self._view.seen(Kind.JOIN, target.name, self._instance),
                join=changed,
            )
        )

    def _begin(self, target: Job, run_id: str, arrived: tuple[Arrival, ...]) -> bool:
        """False: it can't be, and the record says why."""
        size, why = size_of(target, arrived), None
        if size > MAX_PARAMS_BYTES:
            why = f"its parameters take {size} bytes, more than {MAX_PARAMS_BYTES}"
        elif (target.name, run_id) in self._view.runs:
            why = f"run {run_id} is there already"
        if why is not None:
            self._skip(target.name, why)
            return False
        self._created.append(self._chains.chained_run(target, run_id, self._instance, arrived))
        self.follows.append(Follow(job=target.name, run=run_id))
        return True

    def _id_for(self, target: str) -> str:
        """Derived from its source, and sorted by the same time."""
        return chained_id(self._run, target)


def params_of(target: Job, arrived: tuple[Arrival, ...]) -> dict[str, str]:
    """The job's own, and over them what those that came hand on."""
    params = dict(target.params)
    for arrival in sorted(arrived, key=lambda arrival: arrival.job):
        params.update(arrival.params)
    return params


def size_of(target: Job, arrived: tuple[Arrival, ...]) -> int:
    return params_bytes(params_of(target, arrived))


def chained_id(source: Run, target: str) -> str:
    """Of the run of ``target`` that ``source`` chains to: the source's time, which retention goes
    by, and what tells it from every other of that time."""
    begin, end = source.id[:15], source.id[15:]
    is_timed = begin[8:9] == "T" and (begin[:8] + begin[9:]).isdigit() and bool(end)
    time = f"{begin}Z" if is_timed else tick_id(ms_of(source.created_at) // 1000 * 1000)
    digest = hashlib.sha256(f"{source.job}/{source.id}/{target}".encode()).hexdigest()
    return f"{time}-{digest[:12]}"


def _ended(state: RunState) -> str:
    return {RunState.MISSED: "was missed", RunState.CANCELLED: "was cancelled"}.get(
        state, f"ended {state.value}"
    )
