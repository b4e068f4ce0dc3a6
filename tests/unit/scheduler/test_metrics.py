"""What a scheduler's metrics say of its view, its watch and its writes."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.core.clock import Instant
from etcsched.core.leader import effects as fx
from etcsched.core.records import (
    Assignment,
    Change,
    ClusterSettings,
    Drain,
    Gap,
    Kind,
    Noop,
    Presence,
    Record,
    Report,
    Run,
    Seat,
    StartSeen,
    Term,
    Watermark,
)
from etcsched.core.states import Origin, Outcome, RunState
from etcsched.core.times import utc_of
from etcsched.core.view import View
from etcsched.etcd.writer import Committed, Refused
from etcsched.ports import MemberStatus
from etcsched.scheduler.metrics import SchedulerMetrics
from tests.unit.agent.script import presence_of

NOW_MS = 1_800_000_000_000
TERM = Term(number=7, leader="s1", election_key="a", token=5, since=utc_of(NOW_MS))


class Bed:
    def __init__(self) -> None:
        self.view = View()
        self.leading: Term | None = None
        self.metrics = SchedulerMetrics(
            "s1", self.view, lambda: self.leading, lambda: Instant(NOW_MS, 1000.0)
        )

    def put(self, kind: Kind, record: Record, *ids: str, created: int = 0) -> Change:
        revision = self.view.revision + 1
        change = Change(kind, ids, record, revision, created or revision)
        self.view.apply([change], revision)
        return change

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def bed() -> Bed:
    return Bed()


def run(id_: str, state: RunState = RunState.ASSIGNED, **fields: Any) -> Run:
    times = {"created_at": utc_of(NOW_MS), "scheduled_at": utc_of(NOW_MS)}
    return Run(job="j", id=id_, state=state, **{"origin": Origin.SCHEDULE, **times, **fields})


def report(run_id: str, claimed_ms: int, **fields: Any) -> Report:
    return Report(
        **{
            "job": "j",
            "run": run_id,
            "attempt": 1,
            "token": 1,
            "incarnation": "i",
            "supervisor": "s",
            "claimed_at": utc_of(claimed_ms),
            **fields,
        }
    )


def test_runs_by_state(bed: Bed) -> None:
    """A held run keeps its claim, and so does one whose outcome no leader knows: neither runs."""
    for number, state in enumerate(
        (RunState.ASSIGNED, RunState.ASSIGNED, RunState.ASSIGNED, RunState.HELD)
    ):
        bed.put(Kind.RUN, run(f"r{number}", state, agent="a1", attempt=1), "j", f"r{number}")
    for number, state in enumerate((RunState.QUEUED, RunState.READY), 4):
        bed.put(Kind.RUN, run(f"r{number}", state), "j", f"r{number}")
    bed.put(Kind.REPORT, report("r0", NOW_MS), "a1", "j", "r0")
    bed.put(Kind.REPORT, report("r1", NOW_MS, outcome=Outcome.COMPLETED), "a1", "j", "r1")
    bed.put(Kind.REPORT, report("r3", NOW_MS), "a1", "j", "r3")
    expected = {"assigned": 2, "running": 1, "queued": 1, "ready": 1, "held": 1, "retrying": 0}
    for state_name, count in expected.items():
        assert bed.value("etcsched_runs", state=state_name) == count
    assert bed.value("etcsched_runs", state="completed") is None


def test_who_leads_and_who_is_here(bed: Bed) -> None:
    assert (bed.value("etcsched_leader"), bed.value("etcsched_term")) == (0, 0)
    assert bed.value("etcsched_undecided_seconds") is None
    bed.put(Kind.TERM, TERM)
    bed.put(Kind.WATERMARK, Watermark(through=utc_of(NOW_MS - 2500), term=7))
    bed.put(Kind.GAP, Gap(job="j", since=TERM.since, decided_through=TERM.since, reason="r"), "j")
    presence = Presence(
        agent="a1",
        incarnation="i",
        supervisor="s",
        slots=4,
        host="h",
        pid=1,
        since=TERM.since,
        clock=TERM.since,
        version="1",
        draining=True,
    )
    bed.put(Kind.PRESENCE, presence, "a1")
    bed.leading = TERM
    assert (bed.value("etcsched_leader"), bed.value("etcsched_term")) == (1, 7)
    assert bed.value("etcsched_undecided_seconds") == 2.5
    assert bed.value("etcsched_outages") == 1
    assert (bed.value("etcsched_slots"), bed.value("etcsched_agents_draining")) == (0, 1)


def test_slots_are_those_of_agents_that_may_get_something_new(bed: Bed) -> None:
    """Those of others would hide that what is left of them is full."""
    for name in ("a1", "a2", "a3"):
        bed.put(Kind.PRESENCE, replace(presence_of("i"), agent=name, slots=4), name)
        taken = Assignment(
            job="j", run=name, agent=name, incarnation="i", attempt=1, action=Noop(),
            seen=StartSeen(job=1), assigned_at=TERM.since, term=1,
        )  # fmt: skip
        bed.put(Kind.ASSIGNMENT, taken, name, "j", name)
    assert (bed.value("etcsched_slots"), bed.value("etcsched_slots_in_use")) == (12, 3)
    bed.put(Kind.DRAIN, Drain(agent="a1", since=TERM.since), "a1")
    assert (bed.value("etcsched_slots"), bed.value("etcsched_slots_in_use")) == (8, 2)
    bed.put(Kind.SETTINGS, ClusterSettings(max_active_agents=1))
    bed.put(Kind.SEAT, Seat(agent="a2", since=TERM.since, term=1), "a2")
    assert (bed.value("etcsched_slots"), bed.value("etcsched_slots_in_use")) == (4, 1)


def test_lateness_is_that_of_first_claims_of_ticks(bed: Bed) -> None:
    splayed = run("splayed", not_before=utc_of(NOW_MS + 2000))
    bed.put(Kind.RUN, run("tick"), "j", "tick")
    bed.put(Kind.RUN, splayed, "j", "splayed")
    bed.put(Kind.RUN, run("asked", origin=Origin.REQUEST), "j", "asked")
    claim = bed.put(Kind.REPORT, report("tick", NOW_MS + 40), "a1", "j", "tick")
    adopted = bed.put(
        Kind.REPORT, report("tick", NOW_MS + 40), "a1", "j", "tick", created=claim.mod_revision
    )
    again = bed.put(Kind.REPORT, report("tick", NOW_MS + 9000, attempt=2), "a2", "j", "tick")
    asked = bed.put(Kind.REPORT, report("asked", NOW_MS + 5000), "a1", "j", "asked")
    late = bed.put(Kind.REPORT, report("splayed", NOW_MS + 2300), "a1", "j", "splayed")
    bed.metrics.seen([claim, adopted, again, asked, late])
    assert bed.value("etcsched_lateness_seconds_count") == 2
    assert bed.value("etcsched_lateness_seconds_sum") == pytest.approx(0.34)
    assert bed.value("etcsched_lateness_seconds_bucket", le="0.05") == 1


def test_what_ended_is_counted_once_it_is_committed(bed: Bed) -> None:
    done = run("done", RunState.COMPLETED)
    missed = run("missed", RunState.MISSED, missed_count=12)
    bed.metrics.sending(fx.EndRun(seq=1, run=done, run_revision=1))
    bed.metrics.sending(fx.EndRun(seq=2, run=run("x", RunState.FAILED), run_revision=1))
    gap = Gap(job="j", since=TERM.since, decided_through=TERM.since, reason="r")
    bed.metrics.sending(
        fx.RecoverTicks(
            seq=3,
            job="j",
            job_revision=1,
            pause_revision=0,
            cluster_pause_revision=0,
            gap_revision=1,
            gap=gap,
            created=(),
            archived=(missed,),
        )
    )
    bed.metrics.sending(fx.ForgetAnswer(seq=4, request="r", revision=1))
    assert bed.value("etcsched_runs_ended_total", state="completed") == 0
    bed.metrics.answered([Committed(1, 9, ()), Refused(2, 9, ()), Committed(3, 9, ())])
    bed.metrics.answered([Committed(1, 9, ()), Committed(4, 9, ())])
    assert bed.value("etcsched_runs_ended_total", state="completed") == 1
    assert bed.value("etcsched_runs_ended_total", state="failed") == 0
    assert bed.value("etcsched_runs_ended_total", state="missed") == 12


def test_what_was_sent_in_a_term_that_is_over_is_not_counted(bed: Bed) -> None:
    bed.metrics.sending(fx.EndRun(seq=1, run=run("done", RunState.COMPLETED), run_revision=1))
    bed.metrics.demoted()
    bed.metrics.answered([Committed(1, 9, ())])
    assert bed.value("etcsched_runs_ended_total", state="completed") == 0


def test_etcd_s_members(bed: Bed) -> None:
    up = MemberStatus("e1:1", version="3.5", db_size_bytes=4096, alarms=("NOSPACE",))
    bed.metrics.etcd_answered([up, MemberStatus("e2:1", error="refused")])
    assert bed.value("etcsched_etcd_up", endpoint="e1:1") == 1
    assert bed.value("etcsched_etcd_db_size_bytes", endpoint="e1:1") == 4096
    assert bed.value("etcsched_etcd_alarms", endpoint="e1:1") == 1
    assert bed.value("etcsched_etcd_up", endpoint="e2:1") == 0
    assert bed.value("etcsched_etcd_db_size_bytes", endpoint="e2:1") is None


def test_what_a_member_of_etcd_does_not_tell_is_absent(bed: Bed) -> None:
    told = MemberStatus("e1:1", version="3.5", db_size_bytes=4096, alarms=("NOSPACE",))
    for later in (
        MemberStatus("e1:1", version="3.5", db_size_bytes=None, alarms=None),
        MemberStatus("e1:1", error="refused"),
    ):
        bed.metrics.etcd_answered([told])
        bed.metrics.etcd_answered([later])
        assert bed.value("etcsched_etcd_up", endpoint="e1:1") == float(not later.error)
        assert bed.value("etcsched_etcd_db_size_bytes", endpoint="e1:1") is None
        assert bed.value("etcsched_etcd_alarms", endpoint="e1:1") is None


def test_calls_batches_and_sessions(bed: Bed) -> None:
    metrics = bed.metrics
    metrics.called("Txn", 0.002, False)
    metrics.called("Txn", 5.0, True)
    metrics.batch_sent(40)
    assert bed.value("etcsched_etcd_call_seconds_count", call="Txn") == 2
    assert bed.value("etcsched_etcd_call_failures_total", call="Txn") == 1
    assert bed.value("etcsched_batch_writes_sum") == 40
    assert bed.value("etcsched_session_remaining_seconds") == 0
    metrics.session_opened(1008.0)
    metrics.session_renewed(1010.0)
    assert bed.value("etcsched_session_slack_seconds_sum") == 8
    assert bed.value("etcsched_session_remaining_seconds") == 10
    metrics.session_lost()
    assert bed.value("etcsched_session_remaining_seconds") == 0
    assert bed.value("etcsched_sessions_lost_total") == 1
