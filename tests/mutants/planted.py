"""The planted bugs. Each takes one thing away that the design rests on, and names the invariants by
which that has to show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import msgspec
from msgspec.structs import replace

from etcsched.agent.supervisor.attempt import Attempt, Stage
from etcsched.core.candidate import CandidateEffect, CandidateMachine
from etcsched.core.clock import Instant
from etcsched.core.leader import effects as fx
from etcsched.core.leader.conflicts import Conflicts
from etcsched.core.leader.context import Context
from etcsched.core.leader.declines import Declines, state_when_declined, words_of
from etcsched.core.leader.loss import Losses
from etcsched.core.leader.missed_in_a_row import MissedInARow
from etcsched.core.leader.outages import Outages, Ruling
from etcsched.core.leader.placement import Requirement
from etcsched.core.leader.reservation import Reservation
from etcsched.core.leader.tick_decider import TickDecider
from etcsched.core.leader.waiting_runs import WaitingRuns
from etcsched.core.outage import OutageProof, Poll, Sight
from etcsched.core.records import Assignment, Change, Job, Kind, Report, Run, Term
from etcsched.core.states import FINAL
from etcsched.core.times import ms_of
from etcsched.core.view import Entry, RunKey, View
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Compare, Txn
from etcsched.keyspace.transactions import AgentTransactions, LeaderGuard, LeaderTransactions
from etcsched.testing.sim.loop import Clock
from etcsched.testing.sim.parts import PRODUCT, Parts

Patch = tuple[type[Any], str, Callable[..., Any]]


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """``shows_as``: at least one of these invariants must be violated. ``faults``: the kinds that
    are likely to show it. ``patches``: methods that are replaced while it is on; a replacement is
    called with the original before its arguments."""

    name: str
    what: str
    shows_as: frozenset[str]
    faults: tuple[str, ...] = ()
    parts: Parts = PRODUCT
    patches: tuple[Patch, ...] = ()

    @contextmanager
    def switched_on(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, instead in self.patches:
                stack.enter_context(mock.patch.object(owner, name, _bound(owner, name, instead)))
            yield


def _bound(owner: type[Any], name: str, instead: Callable[..., Any]) -> Callable[..., Any]:
    original = getattr(owner, name)

    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return instead(original, self, *arguments, **named)

    return method


# --- compares


class _NoKeyCompare(LeaderGuard):
    def __init__(self, keys: Keys, term: Term, term_revision: int) -> None:
        super().__init__(keys, term, term_revision)
        self.compares = self.compares[1:]  # type: ignore[assignment]


class _NoTermCompare(LeaderGuard):
    def __init__(self, keys: Keys, term: Term, term_revision: int) -> None:
        super().__init__(keys, term, term_revision)
        self.compares = self.compares[:1]  # type: ignore[assignment]


class _WatchesOnePredecessor(CandidateMachine):
    """Leads as soon as the one candidate is gone that stood right before it when it joined."""

    _predecessor: str | None = None

    def _decide(self, now: Instant) -> list[CandidateEffect]:
        token = self.own_token
        places = {key: each.create_revision for key, each in self._view.candidates.items()}
        before = {key: place for key, place in places.items() if place < token}
        if not token:
            self._predecessor = None
        elif self._predecessor is None and before:
            self._predecessor = max(before, key=lambda key: before[key])
        elif self._predecessor not in places and self.leading is None and self._lease is not None:
            return self._campaign(self._lease, token, now)
        return super()._decide(now)


class _NoTokenCompare(AgentTransactions):
    def build(self, write: Any) -> Txn:
        txn = super().build(write)
        place = self._keys.of(Kind.ASSIGNMENT)
        return replace(txn, compares=_without(txn.compares, place))


class _NoReportCompare(LeaderTransactions):
    def _move(self, write: Any) -> Txn:
        txn = super()._move(write)
        return replace(txn, compares=_without(txn.compares, self._keys.of(Kind.REPORT)))


def _without(compares: tuple[Compare, ...], prefix: str) -> tuple[Compare, ...]:
    return tuple(compare for compare in compares if not compare.key.startswith(prefix))


# --- beliefs


def _believes_at_once(
    _original: Any, losses: Losses, _assignment: Assignment, report: Report
) -> bool:
    losses._confirmed_s.setdefault(report.incarnation, losses._context.mono_s)
    return True


def _asks_at_once(original: Any, losses: Losses, *arguments: Any) -> bool:
    losses._raft_term_since_s = -math.inf
    return bool(original(losses, *arguments))


def _believes_any_term(
    original: Any, losses: Losses, agent: str, lease: int, is_gone: bool, raft_term: int
) -> None:
    losses._raft_term = raft_term
    original(losses, agent, lease, is_gone, raft_term)


class _MissesDeletes(View):
    def differences(self, snapshot: Any, revision: int) -> list[Change]:
        return [c for c in super().differences(snapshot, revision) if c.record is not None]


class _OneMajorityPoll(OutageProof):
    """Takes one look at which a majority seemed to be without a leader for a proof."""

    def __init__(self, election_timeout_s: float) -> None:
        pass

    def polled(self, poll: Poll) -> float | None:
        sights = list(poll.sights.values())
        proven = sum(sight in (Sight.DOWN, Sight.LEADERLESS) for sight in sights)
        return poll.sent_s if proven > len(sights) / 2 else None


# --- time


def _mono_by_wall(_original: Any, clock: Clock) -> float:
    wall_ms: float = clock._wall_less_mono_ms + _steady_s(clock) * 1000
    return wall_ms / 1000


def _steady_s(clock: Clock) -> float:
    return clock._mono_s + (clock._loop.now_s - clock._since_s) * clock.rate


def _now_by_wall(_original: Any, clock: Clock) -> Instant:
    wall_s = clock.mono_s()
    return Instant(round(wall_s * 1000), wall_s)


def _runs_at(_original: Any, clock: Clock, rate: float) -> None:
    clock._mono_s, clock._since_s = _steady_s(clock), clock._loop.now_s
    clock.rate = rate


def _is_set_right(_original: Any, clock: Clock) -> None:
    clock.run_at(1.0)
    clock._wall_less_mono_ms = clock._loop.now_ms - _steady_s(clock) * 1000


class _Unsupervised(Attempt):
    """Nobody ends it by itself: its agent does, as long as there is one."""

    def next_due_s(self) -> float:
        return self.timeout_at_s if self.stage is Stage.RUNNING else self.kill_at_s


# --- the watermark, plans, rulings


def _counts_sent_ones(original: Any, ticks: TickDecider) -> int:
    """Ticks whose decisions are under way count as decided: the watermark goes with them."""
    untaken = [place[0] for place in ticks._open._untaken if ticks._open.is_open(*place[::2][::-1])]
    parked = [place[0] for places in ticks._open._parked.values() for place in places]
    return min([ticks._index.through_ms, *(tick - 1 for tick in (*untaken, *parked))])


def _counts_all(_original: Any, ticks: TickDecider) -> int:
    return ticks._index.through_ms


def _is_never_busy(_original: Any, _context: Context, *_matters: Any) -> bool:
    return False


def _gives_up_at_once(
    original: Any, declines: Declines, entry: Entry[Run], job: Job, requirement: Requirement
) -> bool:
    if not declines.have_all(requirement):
        return bool(original(declines, entry, job, requirement))
    run = entry.record
    declines._ends.end_waiting(entry, state_when_declined(run), words_of(run))
    return True


def _offers_once(
    original: Any, waiting: WaitingRuns, requirement: Requirement, key: RunKey
) -> bool:
    return not requirement.without and bool(original(waiting, requirement, key))


def _finds_none(_original: Any, _conflicts: Conflicts, *_arguments: Any) -> None:
    return None


def _reserves_nothing(
    _original: Any, context: Context, write: Any, *matters: Any, agent: str | None = None
) -> None:
    context._reservations[write.seq] = Reservation(write, matters, None)
    context.effects.append(write)


def _releases(_original: Any, context: Context) -> list[Reservation]:
    released = [context._reservations.pop(seq) for seq in context._answered]
    context._answered = []
    return released


def _shows_at_once(
    original: Any, context: Context, seq: int, revision: int, *, is_shown: bool
) -> Reservation | None:
    """What is over goes into the archive, and nothing of it comes by on the watch: so it was
    thought, and what it chains was forgotten."""
    write = context.write_of(seq)
    if isinstance(write, fx.CreateRun) and write.run.state in FINAL:
        is_shown = False
    reservation: Reservation | None = original(context, seq, revision, is_shown=is_shown)
    return reservation


def _rules_by_open_gaps(original: Any, outages: Outages, name: str, tick_ms: int) -> Ruling:
    gap = outages._view.gaps.get(name)
    ruling: Ruling = original(outages, name, tick_ms)
    if gap is not None and gap.record.closed and ruling is Ruling.DECIDED:
        return Ruling.NONE
    return ruling


def _after_open_gaps(original: Any, outages: Outages, name: str) -> int:
    gap = outages._view.gaps.get(name)
    if gap is not None and gap.record.closed:
        watermark = outages._view.watermark
        return ms_of(watermark.record.through) if watermark is not None else 0
    return int(original(outages, name))


def _invariants(*names: str) -> frozenset[str]:
    return frozenset(names)


def _never_goes_on(_original: Any, _missed: MissedInARow, *_arguments: Any) -> bool:
    return False


PLANTED = (
    Planted(
        name="leader-compare-dropped",
        what="the leader's writes don't compare its election key",
        shows_as=_invariants("I6"),
        faults=("etcd elects", "watch lags"),
        parts=Parts(leader_guard=_NoKeyCompare),
    ),
    Planted(
        name="term-compare-dropped",
        what="the leader's writes don't compare the term, and a candidate watches one predecessor",
        shows_as=_invariants("I6"),
        faults=("scheduler killed",),
        parts=Parts(leader_guard=_NoTermCompare, candidate=_WatchesOnePredecessor),
    ),
    Planted(
        name="token-compare-dropped",
        what="agents claim and report without comparing their token",
        shows_as=_invariants("I5"),
        parts=Parts(agent_transactions=_NoTokenCompare),
    ),
    Planted(
        name="report-compare-dropped",
        what="a run is moved (T5) without comparing the report as it was seen",
        shows_as=_invariants("I4", "I7"),
        faults=("agent stopped", "slow", "agent restarted", "lossy"),
        parts=Parts(leader_transactions=_NoReportCompare),
    ),
    Planted(
        name="loss-not-confirmed",
        what="a run is moved before the loss of its session is confirmed",
        shows_as=_invariants("I3", "I4"),
        faults=("presence deleted",),
        patches=((Losses, "_is_confirmed", _believes_at_once),),
    ),
    Planted(
        name="deletes-not-derived",
        what="what was deleted while history was compacted away stays in a view",
        shows_as=_invariants("I13"),
        faults=("watch broken", "compacted"),
        parts=Parts(view=_MissesDeletes),
    ),
    Planted(
        name="unknown-taken-for-failed",
        what="a transaction whose outcome is unknown counts as failed",
        shows_as=_invariants("I3", "I4", "I7", "I8", "I12", "I15"),
        parts=Parts(unknown_is_failure=True),
    ),
    Planted(
        name="deadline-on-wall-clock",
        what="deadlines count on the wall clock",
        shows_as=_invariants("I3", "I11"),
        faults=("clock stepped", "cut"),
        patches=(
            (Clock, "mono_s", _mono_by_wall),
            (Clock, "now", _now_by_wall),
            (Clock, "run_at", _runs_at),
            (Clock, "set_right", _is_set_right),
        ),
    ),
    Planted(
        name="no-supervisor",
        what="nobody but its agent ends what runs",
        shows_as=_invariants("I3", "I11"),
        faults=("agent killed",),
        parts=Parts(supervised=_Unsupervised),
    ),
    Planted(
        name="watermark-with-decisions",
        what="the watermark goes in the transaction of the decisions that it rests on",
        shows_as=_invariants("I1"),
        patches=((TickDecider, "decided_through_ms", _counts_sent_ones),),
    ),
    Planted(
        name="watermark-too-early",
        what="the watermark passes ticks that aren't decided",
        shows_as=_invariants("I1"),
        patches=((TickDecider, "decided_through_ms", _counts_all),),
    ),
    Planted(
        name="outage-proof-from-one-poll",
        what="one look at which a majority of etcd seemed down proves its outage",
        shows_as=_invariants("I3", "I11"),
        faults=("etcd down", "cut"),
        parts=Parts(outage_proof=_OneMajorityPoll),
    ),
    Planted(
        name="outage-proof-from-refusals",
        what="a refused connection shows that a member of etcd is down",
        shows_as=_invariants("I3", "I11"),
        faults=("cut",),
        parts=Parts(sight_of_refusal=Sight.DOWN),
    ),
    Planted(
        name="loss-believed-after-election",
        what="a loss is believed right after a change of etcd's leader",
        shows_as=_invariants("I3", "I4", "I11"),
        faults=("etcd elects",),
        patches=(
            (Losses, "_is_confirmed", _asks_at_once),
            (Losses, "answered", _believes_any_term),
        ),
    ),
    Planted(
        name="plans-without-reservations",
        what="what is in flight isn't reserved",
        shows_as=_invariants("I4", "I10"),
        patches=(
            (Context, "is_busy", _is_never_busy),
            (Context, "write", _reserves_nothing),
            (Context, "release", _releases),
        ),
    ),
    Planted(
        name="chained-run-forgotten",
        what="a run that a dropped tick chains isn't reserved until the view shows it",
        shows_as=_invariants("I10"),
        patches=((Context, "committed", _shows_at_once),),
    ),
    Planted(
        name="priority-in-group-ignored",
        what="whichever run of a conflict group is looked at first begins",
        shows_as=_invariants("I10"),
        patches=((Conflicts, "ahead_of", _finds_none), (Conflicts, "passed_over", _finds_none)),
    ),
    Planted(
        name="declined-given-up-at-once",
        what="a run ends as soon as all that are here have declined it",
        shows_as=_invariants("I10"),
        patches=((Declines, "end_if_given_up", _gives_up_at_once),),
    ),
    Planted(
        name="declined-offered-once",
        what="a run that was declined isn't offered to who has a slot later",
        shows_as=_invariants("I10"),
        patches=((WaitingRuns, "_offer", _offers_once),),
    ),
    Planted(
        name="closed-gap-ignored",
        what="ticks that a closed gap accounts for count as undecided",
        shows_as=_invariants("I1", "I9"),
        faults=("scheduler killed", "leader killed at write", "host killed"),
        patches=(
            (Outages, "ruling", _rules_by_open_gaps),
            (Outages, "after_ms", _after_open_gaps),
        ),
    ),
    Planted(
        name="missed-followed-again",
        what="each record of ticks that were missed in a row is asked what follows",
        shows_as=_invariants("I7"),
        faults=("users gone", "scheduler killed", "leader killed at write"),
        patches=((MissedInARow, "_goes_on", _never_goes_on),),
    ),
)
"""FAULTS names thirteen; two of them come in two forms, and the last six came later."""

__all__ = ["PLANTED", "Planted"]
