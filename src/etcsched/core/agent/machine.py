"""The agent as one state machine: ``handle(event, now)`` returns what is to be done about it.

It holds together four things that come and go by themselves: the supervisor with its processes, the
session (a lease), the presence (the key that says so), and the attempts (``assignments``,
``processes``, ``outcomes``).

- Without a session nothing is claimed or started, and what runs is stopped.
- Without a presence nothing is written; outcomes are kept and sent once it is there.
- An agent that leaves claims nothing more.
"""

from __future__ import annotations

import math
from typing import assert_never

from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.core.agent.adoption import Adoption
from etcsched.core.agent.assignments import Assignments
from etcsched.core.agent.attempt import Phase
from etcsched.core.agent.attempts import Attempts
from etcsched.core.agent.deadlines import Deadlines
from etcsched.core.agent.leaving import Leaving
from etcsched.core.agent.outcomes import Outcomes
from etcsched.core.agent.processes import Processes
from etcsched.core.agent.standing import Settings, Standing
from etcsched.core.clock import CLOCK_EVERY_S, Instant
from etcsched.core.records import Assignment, Change, Drain, Kind, Live, Order, Presence

_REJOIN_AFTER_S = 0.3
_LOOK_AGAIN_AFTER_S = 1.0
_TTLS_TO_END_IN = 2
"""A lease that nobody renews has ended after so many of its TTLs, if no leader of etcd changes."""


class AgentMachine:
    """``now.mono_s`` never goes back."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._effects: list[fx.Effect] = []
        self._standing = Standing(settings)
        self._attempts = Attempts()
        self._outcomes = Outcomes(self._standing, self._attempts, self._emit)
        self._deadlines = Deadlines(self._standing, self._attempts, self._emit)
        self._processes = Processes(
            self._standing, self._attempts, self._outcomes, self._deadlines, self._emit
        )
        self._adoption = Adoption(
            self._standing, self._attempts, self._processes, self._deadlines, self._emit
        )
        self._assignments = Assignments(
            self._standing, self._attempts, self._outcomes, self._processes, self._emit
        )
        self._leaving = Leaving(
            self._standing, self._attempts, self._processes, self._assignments,
            self._update_presence, self._emit,
        )  # fmt: skip
        self._past_ends_by_s: float | None = None

    def _emit(self, effect: fx.Effect) -> None:
        self._effects.append(effect)

    @property
    def occupied_slots(self) -> int:
        return len(self._attempts.occupying)

    @property
    def occupying(self) -> tuple[str, ...]:
        """The attempts that take up those slots."""
        return tuple(self._attempts.occupying)

    def lacking(self, now: Instant) -> str:
        """What keeps it from running anything though it should; empty: nothing."""
        return self._standing.lacking(now)

    def deadline_of(self, attempt_id: str) -> float | None:
        """Until when its process may live, on the monotonic clock; None: there is none."""
        attempt = self._attempts.by_id.get(attempt_id)
        if attempt is None or attempt.deadline_mono_s == math.inf:
            return None
        return attempt.deadline_mono_s

    @property
    def knows_processes(self) -> bool:
        """Whether its supervisor has said which there are."""
        return self._standing.supervisor is not None

    @property
    def session_ttl_s(self) -> int:
        """As granted, of the session that there is, or was last."""
        return self._standing.session_ttl_s

    @property
    def is_drained(self) -> bool:
        return self._standing.drained

    @property
    def is_unsettled(self) -> bool:
        """Whether something is under way, or an outcome neither in etcd nor on disk."""
        return self._attempts.is_unsettled

    @property
    def is_leaving(self) -> bool:
        return self._leaving.has_begun

    def phase_of(self, attempt_id: str) -> Phase | None:
        """None: unknown, or done and gone from etcd."""
        return self._attempts.phase_of(attempt_id)

    def handle(self, event: ev.Event, now: Instant) -> list[fx.Effect]:
        if self._leaving.is_over:
            return []
        if not isinstance(event, ev.SessionRenewed | ev.SessionLost):
            self._lose_expired_session(now)
        if not self._leaving.is_over:
            self._handle(event, now)
            self._assignments.fill(now)
        self._leaving.go_on(now)
        effects, self._effects = self._effects, []
        return effects

    def _handle(self, event: ev.Event, now: Instant) -> None:  # noqa: C901 - one case an event
        match event:
            case ev.Changed(change):
                self._change(change, now)
            case ev.ClaimCommitted(attempt_id):
                self._assignments.claim_committed(attempt_id, now)
            case ev.ClaimRefused(attempt_id, found):
                self._assignments.claim_refused(attempt_id, found, now)
            case ev.ClaimRejected(attempt_id):
                self._assignments.claim_rejected(attempt_id, now)
            case ev.Adopted(attempt_id, incarnation):
                self._adoption.committed(attempt_id, incarnation)
            case ev.AdoptionRefused():
                self._adoption.refused(event)
            case ev.OutcomeStored(attempt_id):
                self._outcomes.outcome_stored(attempt_id, now)
            case ev.OutcomeRejected(attempt_id, why):
                self._outcomes.outcome_rejected(attempt_id, why, now)
            case ev.ProcessStarted():
                self._processes.process_started(event)
            case ev.ProcessEnded() | ev.StartFailed():
                self._processes.process_over(event, now)
            case ev.TimePassed():
                self._time_passed(now)
            case ev.SessionRenewed(deadline_mono_s):
                self._renewed(deadline_mono_s)
            case ev.Listed(kind, changes, revision):
                self._list(kind, changes, revision, now)
            case ev.SupervisorReady():
                self._supervisor_ready(event, now)
            case ev.SupervisorClosing():
                self._standing.is_supervisor_closing = True
                self._update_presence(now)
            case ev.SupervisorGone():
                self._standing.supervisor = None
                self._emit(fx.StartSupervisor())
            case ev.SessionOpened():
                self._session_opened(event, now)
            case ev.SessionLost(lease_gone):
                self._session_lost(now, lease_gone=lease_gone)
            case ev.PresenceJoined(create_revision):
                if self._standing.session is not None:
                    self._joined(create_revision)
                    if self._standing.leaving or self._standing.slots != self._standing.slots_shown:
                        self._update_presence(now)  # Told so while the presence was on its way.
            case ev.PresenceTaken():
                self._presence_taken(event, now)
            case ev.PresenceGone(create_revision):
                if create_revision == self._standing.joined:
                    self._presence_gone(now)
            case ev.PresenceLeft():
                self._leaving.quit()
            case ev.ReportsRead(create_revision, reports):
                if create_revision == self._standing.joined:
                    for report, revision in reports:
                        self._outcomes.reconcile(report, now)
                        self._adoption.reconcile(report, revision)
                    self._standing.reports_read = True
                    self._outcomes.send_unanswered()
                    self._assignments.send_claims_again()
            case ev.SpoolRead(reports):
                self._outcomes.spool_read(reports)
            case ev.OutcomeSpooled(attempt_id):
                self._outcomes.outcome_spooled(attempt_id)
            case ev.SpoolFailed(attempt_id):
                self._outcomes.spool_failed(attempt_id, now)
            case ev.StopRequested(kill):
                self._leaving.stop(kill, now)
            case ev.RestartRequested():
                self._leaving.restart(now)
            case _:
                assert_never(event)

    # --- keys ---

    def _change(self, change: Change, now: Instant) -> None:
        match change.kind, change.record:
            case Kind.ASSIGNMENT, Assignment() as assignment:
                self._assignments.assign(assignment, change.mod_revision, now)
            case Kind.ASSIGNMENT, None:
                self._assignments.unassign(change.ids[1], change.ids[2])
            case Kind.ORDER, Order() as order:
                self._assignments.order(order)
            case Kind.ORDER, None:
                self._assignments.forget_order(change.ids[1], change.ids[2])
            case Kind.DRAIN, record:
                self._standing.drained = record is not None
            case Kind.LIVE, record:
                self._leaving.told(record if isinstance(record, Live) else None, now)
            case Kind.PRESENCE, record:
                joined = self._standing.joined
                ours = record is not None and change.create_revision == joined
                if joined is not None and change.mod_revision > joined and not ours:
                    self._presence_gone(now)
            case _:
                raise AssertionError(f"no agent follows {change!r}")

    def _list(self, kind: Kind, changes: tuple[Change, ...], revision: int, now: Instant) -> None:
        match kind:
            case Kind.ASSIGNMENT:
                self._assignments.list_assignments(
                    [
                        (change.record, change.mod_revision)
                        for change in changes
                        if isinstance(change.record, Assignment)
                    ],
                    {(c.ids[1], c.ids[2]) for c in changes if c.record is None},
                    now,
                )
            case Kind.ORDER:
                self._assignments.list_orders(
                    change.record for change in changes if isinstance(change.record, Order)
                )
            case Kind.DRAIN:
                self._standing.drained = any(isinstance(c.record, Drain) for c in changes)
            case Kind.LIVE:
                records = [c.record for c in changes if isinstance(c.record, Live)]
                self._leaving.told(records[0] if records else None, now)
            case Kind.PRESENCE:
                joined = self._standing.joined
                ours = any(c.create_revision == joined for c in changes)
                if joined is not None and revision >= joined and not ours:
                    self._presence_gone(now)
            case _:
                raise AssertionError(f"no agent follows {kind}")

    # --- the supervisor ---

    def _supervisor_ready(self, ready: ev.SupervisorReady, now: Instant) -> None:
        self._standing.supervisor = ready.incarnation
        self._standing.is_supervisor_closing = ready.is_closing
        self._processes.supervisor_ready(ready.running, ready.ended, now)
        self._assignments.heed_orders()
        if self._leaving.has_killed:
            self._processes.stop_all("the agent was stopped", now)
        if self._standing.joined is not None:
            self._update_presence(now)

    # --- the session and the presence ---

    def _session_opened(self, session: ev.SessionOpened, now: Instant) -> None:
        standing = self._standing
        standing.session = session
        standing.session_ttl_s = session.ttl_s
        standing.deadline_mono_s = session.deadline_mono_s
        standing.incarnations.add(session.incarnation)
        standing.held.add(session.incarnation)
        if not session.resumed:
            # Of another session: nothing protects them any more.
            self._processes.session_over()
        self._emit(fx.JoinPresence(standing.presence(now), session.lease))

    def _renewed(self, deadline_mono_s: float) -> None:
        if self._standing.session is not None:
            self._standing.deadline_mono_s = deadline_mono_s
            self._deadlines.renewed()

    def _lose_expired_session(self, now: Instant) -> None:
        """Before anything else that an agent hears as it wakes: most of it came of its absence."""
        if self._standing.session is not None and not self._standing.has_session(now):
            self._session_lost(now)

    def _session_lost(self, now: Instant, *, lease_gone: bool = False) -> None:
        if lease_gone:
            # Also where its time is over here already: a grace is counted from what etcd knows.
            self._deadlines.lease_gone_early()
        if self._standing.session is None:
            return
        self._standing.session = None
        self._standing.joined = None
        self._standing.reports_read = False
        self._processes.session_over()
        self._assignments.give_up_claims()
        self._outcomes.writer_lost()
        self._outcomes.spool_all()
        if self._leaving.is_farewell:
            # The presence has gone with its lease; a session anew would only join.
            self._leaving.quit()
        else:
            self._emit(fx.OpenSession())

    def _joined(self, create_revision: int) -> None:
        """The answer to an earlier session's join may have come before: it counts no more."""
        self._standing.joined = create_revision
        self._standing.reports_read = False
        self._outcomes.writer_lost()
        self._emit(fx.ReadReports(create_revision))

    def _presence_taken(self, taken: ev.PresenceTaken, now: Instant) -> None:
        session = self._standing.session
        if session is None:
            return
        there = taken.presence
        # A supervisor is one state directory's, where one agent comes after the other. It may have
        # died with the one before, and the host's name may have changed since: not both.
        is_mine = there.supervisor == self._standing.supervisor or (
            there.incarnation in self._standing.held and there.host == self._settings.host
        )
        is_this_session = taken.lease == session.lease or (
            not taken.lease and there.incarnation == session.incarnation  # A hand wrote over it.
        )
        if is_mine and is_this_session:
            # Resumed, or the answer to an earlier sending was lost.
            self._joined(taken.create_revision)
            self._update_presence(now)
        elif not taken.lease:
            self._processes.stop_all("a hand has taken this agent's id", now, grace_s=0.0)
            self._leaving.quit(
                f"the presence of agent {there.agent} has no lease, so that it never goes: no "
                f"agent put it there; delete it: etcdctl del {taken.key}"
            )
        elif is_mine:
            if not self._deadlines.some_need_earlier_leases:
                self._deadlines.leases_revoked(now)
                self._emit(fx.RevokeLease(taken.lease))
            self._emit(
                fx.JoinPresence(self._standing.presence(now), session.lease, _REJOIN_AFTER_S)
            )
        elif self._may_end_by_itself(there, now):
            self._emit(
                fx.JoinPresence(self._standing.presence(now), session.lease, _LOOK_AGAIN_AFTER_S)
            )
        else:
            self._processes.stop_all("another agent has taken this agent's id", now, grace_s=0.0)
            self._leaving.quit(
                f"agent {there.agent} is already running on host {there.host} as process "
                f"{there.pid} (since {there.since}); stop it, or give this one another --id"
            )

    def _may_end_by_itself(self, there: Presence, now: Instant) -> bool:
        """A session that this disk knows, but this process never held: this agent's before its host
        rebooted, or that of another live one which the disk is a copy of. Its lease tells."""
        if there.incarnation not in self._standing.incarnations - self._standing.held:
            return False
        if self._past_ends_by_s is None:
            self._past_ends_by_s = now.mono_s + _TTLS_TO_END_IN * there.session_ttl_s
        return now.mono_s < self._past_ends_by_s

    def _presence_gone(self, now: Instant) -> None:
        """Deleted by hand, while the lease lives: put it again."""
        if self._leaving.is_farewell:
            return  # It is we who deleted it: the answer is on its way.
        self._standing.joined = None
        self._standing.reports_read = False
        self._outcomes.writer_lost()
        session = self._standing.session
        if session is not None:
            self._emit(fx.JoinPresence(self._standing.presence(now), session.lease))

    def _update_presence(self, now: Instant) -> None:
        session, joined = self._standing.session, self._standing.joined
        if session is not None and joined is not None:
            self._emit(fx.UpdatePresence(self._standing.presence(now), session.lease, joined))

    # --- time ---

    def _time_passed(self, now: Instant) -> None:
        self._outcomes.time_passed(now)
        if now.mono_s - self._standing.clock_shown_s >= CLOCK_EVERY_S:
            self._update_presence(now)
