"""What the answers to writes mean to those who decided on them."""

from __future__ import annotations

from etcsched.core.agent import events as agent_ev
from etcsched.core.leader import events as leader_ev
from etcsched.core.records import Report
from etcsched.keyspace.codec import decode
from etcsched.keyspace.ops import RangeResult
from etcsched.keyspace.outbox import Committed, Refused, Rejected, WriteResult

__all__ = ["agent_event", "leader_event"]


def leader_event(result: WriteResult) -> leader_ev.LeaderEvent:
    """Of a write whose id is its ``seq``."""
    assert isinstance(result.id, int)
    match result:
        case Committed():
            return leader_ev.WriteCommitted(result.id, result.revision)
        case Refused():
            exists = any(
                isinstance(found, RangeResult) and found.count > 0 for found in result.responses
            )
            return leader_ev.WriteRefused(result.id, result.revision, exists)
        case Rejected():
            return leader_ev.WriteRefused(result.id, None)


def agent_event(result: Committed | Refused, attempt_id: str, *, is_claim: bool) -> agent_ev.Event:
    match result:
        case Committed():
            if is_claim:
                return agent_ev.ClaimCommitted(attempt_id)
            return agent_ev.OutcomeStored(attempt_id, late=False)
        case Refused():
            if is_claim:
                return agent_ev.ClaimRefused(attempt_id, _report_in(result))
            return agent_ev.OutcomeStored(attempt_id, late=True)


def _report_in(refused: Refused) -> Report | None:
    (found,) = refused.responses
    assert isinstance(found, RangeResult)
    return decode(Report, found.kvs[0].value) if found.kvs else None
