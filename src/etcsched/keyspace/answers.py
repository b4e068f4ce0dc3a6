"""What the answers to writes mean to those who decided on them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as agent_ev
from etcsched.core.agent.attempt import report_id
from etcsched.core.leader import events as leader_ev
from etcsched.core.records import Report
from etcsched.keyspace.codec import MalformedRecord, decode
from etcsched.keyspace.ops import OperationResult, RangeResult
from etcsched.keyspace.outbox import Committed, Refused, Rejected, WriteResult

log = logging.getLogger(__name__)

__all__ = ["AgentWriteId", "agent_event", "leader_event", "refusal_of", "write_id_of"]


def leader_event(result: WriteResult) -> leader_ev.LeaderEvent:
    """Of a write whose id is its ``seq``."""
    assert isinstance(result.id, int)
    match result:
        case Committed():
            return leader_ev.WriteCommitted(result.id, result.revision)
        case Refused():
            return refusal_of(result.id, result.responses, result.revision)
        case Rejected():
            return leader_ev.WriteRefused(result.id, None)


def refusal_of(
    seq: int, responses: Iterable[OperationResult], revision: int
) -> leader_ev.WriteRefused:
    """``responses`` are those of its else branch: what is there already."""
    found = [each.kvs for each in responses if isinstance(each, RangeResult)]
    there = [kv.mod_revision for kvs in found for kv in kvs]
    return leader_ev.WriteRefused(
        seq, max(there, default=revision), bool(there), tuple(map(bool, found))
    )


class AgentWriteId(NamedTuple):
    """What an agent's write is known by until it is answered."""

    effect: type[fx.Claim | fx.Adopt | fx.ReportOutcome]
    attempt_id: str
    incarnation: str


def write_id_of(effect: fx.Claim | fx.Adopt | fx.ReportOutcome) -> AgentWriteId:
    return AgentWriteId(type(effect), report_id(effect.report), effect.report.incarnation)


def agent_event(result: WriteResult, write_id: AgentWriteId) -> agent_ev.Event:
    effect, attempt_id, incarnation = write_id
    match result:
        case Committed():
            if effect is fx.Claim:
                return agent_ev.ClaimCommitted(attempt_id)
            if effect is fx.Adopt:
                return agent_ev.Adopted(attempt_id, incarnation)
            return agent_ev.OutcomeStored(attempt_id, late=False)
        case Refused():
            if effect is fx.Claim:
                return agent_ev.ClaimRefused(attempt_id, _report_in(result))
            if effect is fx.Adopt:
                return agent_ev.AdoptionRefused(attempt_id, incarnation, _report_in(result))
            return agent_ev.OutcomeStored(attempt_id, late=True)
        case Rejected():
            if effect is fx.Claim:
                return agent_ev.ClaimRejected(attempt_id)
            if effect is fx.Adopt:
                return agent_ev.AdoptionRefused(attempt_id, incarnation, None, is_rejected=True)
            return agent_ev.OutcomeRejected(attempt_id, str(result.error))


def _report_in(refused: Refused) -> Report | None:
    (found,) = refused.responses
    assert isinstance(found, RangeResult)
    if not found.kvs:
        return None
    try:
        return decode(Report, found.kvs[0].value)
    except MalformedRecord as error:
        log.warning("counted as absent: %s: %s", found.kvs[0].key, error)
        return None
