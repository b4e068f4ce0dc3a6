"""When the loss of a claimed attempt's agent is believed (DESIGN 3, etcd's own leader change).

A presence key that is gone proves little: somebody may have deleted it while the lease lives, or
a revoke from a frozen etcd leader's log may have killed a lease that its agent still counts on.
A loss is believed once one raft term has lasted the session's TTL and an election timeout, since
by then the agent's own deadline has passed, and once etcd says that the lease is gone.

The job's ``disconnect_grace`` is counted from then, by each leader anew: a takeover only lengthens
it.
"""

from __future__ import annotations

import math

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context
from etcsched.core.leader.reasons import Why
from etcsched.core.records import Assignment, Report

ASK_AGAIN_S = 0.5


class Losses:
    """Per session (its lease in hexadecimal): asked about, confirmed, or to be asked later."""

    def __init__(self, context: Context, raft_term: int, raft_term_since_s: float) -> None:
        self._context = context
        self._raft_term = raft_term
        self._raft_term_since_s = raft_term_since_s
        self._ask_at_s: dict[str, float] = {}
        self._confirmed_s: dict[str, float] = {}

    def raft_term_seen(self, raft_term: int, since_s: float) -> None:
        if raft_term > self._raft_term:
            self._raft_term = raft_term
            self._raft_term_since_s = since_s

    def is_final(self, assignment: Assignment, report: Report, then: str = "") -> bool:
        """Whether the claim's session is surely over, and the grace, too; if not yet, the agent's
        runs are looked at again when that may have changed. ``then``: what follows, in words."""
        then = then and f"; {then}"
        context, grace_s = self._context, assignment.disconnect_grace_s
        key, gone = (assignment.job, assignment.run), f"{assignment.agent} is gone"
        if not self._is_confirmed(assignment, report):
            grace = f", and then its disconnect_grace of {grace_s:g} s is over" if grace_s else ""
            sure = "that is believed once etcd confirms that its lease has ended"
            context.because(key, Why.LOSS, lambda: f"{gone}; {sure}{grace}{then}")
            return False
        over_s = self._confirmed_s[report.incarnation] + grace_s
        if context.mono_s < over_s:
            words = f"{gone}; its disconnect_grace of {grace_s:g} s isn't over{then}"
            context.because(key, Why.LOSS, lambda: words)
            context.wake_at(over_s, ("agent", assignment.agent))
            return False
        return True

    def _is_confirmed(self, assignment: Assignment, report: Report) -> bool:
        """If not yet, etcd is asked about the session."""
        session = report.incarnation
        if session in self._confirmed_s:
            return True
        context = self._context
        ttl_s = report.session_ttl_s or assignment.session_ttl_s
        lasts_s = ttl_s + context.options.election_timeout_s
        believable_s = self._raft_term_since_s + lasts_s
        if context.mono_s < believable_s:
            context.wake_at(believable_s, ("agent", assignment.agent))
        elif context.mono_s >= self._ask_at_s.get(session, 0.0):
            self._ask_at_s[session] = math.inf
            context.effects.append(fx.ConfirmLoss(agent=assignment.agent, lease=int(session, 16)))
        return False

    def answered(self, agent: str, lease: int, is_gone: bool, raft_term: int) -> None:
        """etcd's word on the lease; an answer from another raft term starts the wait anew."""
        session = f"{lease:x}"
        if raft_term > self._raft_term:
            self.raft_term_seen(raft_term, self._context.mono_s)
        elif is_gone and raft_term == self._raft_term:
            self._confirmed_s.setdefault(session, self._context.mono_s)
            self._ask_at_s.pop(session, None)
            return
        # The key is gone but the lease lives: its agent puts the key again, or the lease ends.
        self._ask_at_s[session] = again_s = self._context.mono_s + ASK_AGAIN_S
        self._context.wake_at(again_s, ("agent", agent))

    def sweep(self) -> None:
        """Forget sessions that no claim names any more."""
        if self._confirmed_s or self._ask_at_s:
            named = {entry.record.incarnation for entry in self._context.view.reports.values()}
            for of_session in (self._confirmed_s, self._ask_at_s):
                for session in of_session.keys() - named:
                    del of_session[session]
