"""What an answer means where somebody else's program wrote what it shows."""

from __future__ import annotations

import pytest

from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.keyspace.answers import AgentWriteId, agent_event
from etcsched.keyspace.ops import KeyValue, RangeResult
from etcsched.keyspace.outbox import Refused

KEY = "/etcsched/reports/a1/job/r1"


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (fx.Claim, ev.ClaimRefused("job/r1/1/100", None)),
        (fx.Adopt, ev.AdoptionRefused("job/r1/1/100", "i1", None)),
    ],
)
def test_a_report_that_cant_be_read_counts_as_absent_and_is_named(
    effect: type[fx.Claim | fx.Adopt], expected: ev.Event, caplog: pytest.LogCaptureFixture
) -> None:
    found = RangeResult(
        kvs=(
            KeyValue(key=KEY, value=b"junk", create_revision=3, mod_revision=3, version=1, lease=0),
        ),
        count=1,
        more=False,
        revision=9,
        raft_term=1,
    )
    write_id = AgentWriteId(effect, "job/r1/1/100", "i1")
    assert agent_event(Refused(id=write_id, revision=9, responses=(found,)), write_id) == expected
    assert KEY in caplog.text
