"""What is written of an agent's presence, and what an answer to it means."""

from __future__ import annotations

import pytest

from etcsched.core.agent import effects as fx
from etcsched.core.errors import AgentIdInUse
from etcsched.core.records import Presence
from etcsched.core.times import Utc
from etcsched.keyspace.codec import decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue, Put, RangeResult, Txn, TxnResult
from etcsched.keyspace.presence_steps import PresenceSteps
from tests.unit.agent.script import presence_of

LATER = Utc("2026-11-22T12:34:56.000Z")


def clock_in(txn: Txn) -> Utc:
    (put,) = (operation for operation in txn.then if isinstance(operation, Put))
    return decode(Presence, put.value).clock


def test_the_clock_is_that_of_the_sending() -> None:
    """What is sent again after an outage would show a clock that is behind by as much."""
    steps, presence = PresenceSteps(Keys()), presence_of("i1")
    for step in (fx.JoinPresence(presence, 7), fx.UpdatePresence(presence, 7, 9)):
        for clock in (presence.clock, LATER):
            assert clock_in(steps.txn_of(step, clock)) == clock


def test_a_presence_that_cant_be_read_is_an_id_in_use() -> None:
    steps, join = PresenceSteps(Keys()), fx.JoinPresence(presence_of("i1"), 7)
    kv = KeyValue("/there", b"junk", create_revision=3, mod_revision=3, version=1, lease=255)
    found = RangeResult(kvs=(kv,), count=1, more=False, revision=9, raft_term=1)
    answer = TxnResult(succeeded=False, revision=9, responses=(found,), raft_term=1)
    with pytest.raises(AgentIdInUse, match=r"/there \(lease ff\) that can't be read"):
        steps.answered(join, answer)
