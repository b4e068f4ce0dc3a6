"""What an agent does about its presence key, one step after another, purely: which step is next,
which have become pointless, and what an answer means. Whoever owns the steps does the calls, each
until its answer is definite or it is ``superseded``.
"""

from __future__ import annotations

from collections import deque

from msgspec.structs import replace

from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.core.errors import AgentIdInUse
from etcsched.core.records import OutputAccess, Presence
from etcsched.core.times import Utc
from etcsched.keyspace.codec import MalformedRecord, decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import RangeResult, Txn, TxnResult
from etcsched.keyspace.transactions import join_presence, leave_presence, update_presence

PresenceWrite = fx.JoinPresence | fx.UpdatePresence | fx.LeavePresence
Step = PresenceWrite | fx.RevokeLease | fx.ReadReports


class PresenceSteps:
    def __init__(self, keys: Keys, access: OutputAccess | None = None) -> None:
        """``access`` stands beside the presence."""
        self._keys = keys
        self._access = access
        self._steps: deque[Step] = deque()
        self._newest = 0
        """Revision of the newest presence that is known to be ours."""

    def __bool__(self) -> bool:
        return bool(self._steps)

    def submit(self, step: Step) -> None:
        """A join or leave takes the place of whatever else is still to be done."""
        if isinstance(step, fx.JoinPresence | fx.LeavePresence):
            self._steps = deque(s for s in self._steps if isinstance(s, fx.RevokeLease))
        elif isinstance(step, fx.UpdatePresence):
            self._steps = deque(s for s in self._steps if not isinstance(s, fx.UpdatePresence))
        self._steps.append(step)

    def next(self) -> Step:
        return self._steps.popleft()

    @property
    def superseded(self) -> bool:
        """Whether a later step has made the one that is being taken pointless."""
        return any(isinstance(s, fx.JoinPresence | fx.LeavePresence) for s in self._steps)

    def txn_of(self, step: PresenceWrite, clock: Utc) -> Txn:
        """To be asked for anew whenever it is sent: others compare ``clock``, this host's as it
        is sent, with theirs as they see it."""
        match step:
            case fx.JoinPresence():
                presence = replace(step.presence, clock=clock)
                return join_presence(self._keys, step.lease, presence, self._access)
            case fx.UpdatePresence():
                presence = replace(step.presence, clock=clock)
                seen = max(self._newest, step.create_revision)
                return update_presence(self._keys, step.lease, seen, presence, self._access)
            case fx.LeavePresence():
                return leave_presence(self._keys, step.agent, step.create_revision)

    def answered(self, step: PresenceWrite, result: TxnResult) -> ev.Event | None:
        """What the agent's machine is told of a definite answer; None: nothing (yet).
        ``AgentIdInUse`` where what stands there can't be read."""
        match step:
            case fx.JoinPresence():
                return self._joined(step, result)
            case fx.UpdatePresence():
                return self._updated(step, result)
            case fx.LeavePresence():
                return ev.PresenceLeft()

    def _updated(self, step: fx.UpdatePresence, result: TxnResult) -> ev.Event | None:
        if result.succeeded:
            self._newest = result.revision
            return None
        (found,) = result.responses
        assert isinstance(found, RangeResult)
        if not found.kvs or found.kvs[0].create_revision != step.create_revision:
            return ev.PresenceGone(step.create_revision)
        # Ours, as an update left it whose answer was lost, or one of this session's before a
        # restart. A later step says more than this one, if there is any.
        self._newest = found.kvs[0].mod_revision
        if not any(isinstance(s, fx.UpdatePresence) for s in self._steps):
            self._steps.appendleft(step)
        return None

    def _joined(self, step: fx.JoinPresence, result: TxnResult) -> ev.Event | None:
        if result.succeeded:
            return ev.PresenceJoined(result.revision)
        (found,) = result.responses
        assert isinstance(found, RangeResult)
        if not found.kvs:
            self.submit(step)  # Gone between our compare and our look.
            return None
        there = found.kvs[0]
        try:
            presence = decode(Presence, there.value)
        except MalformedRecord as error:
            raise AgentIdInUse(
                f"agent {step.presence.agent}: somebody has put a presence at {there.key} (lease "
                f"{there.lease:x}) that can't be read: {error}; stop whoever that is and delete "
                "the key, or give this agent another --id"
            ) from None
        return ev.PresenceTaken(
            presence=presence,
            lease=there.lease,
            create_revision=there.create_revision,
            key=there.key,
        )
