"""What outlives a session, until when, and how it is taken up again (T6)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from etcsched.agent.supervisor.attempt import Attempt as Supervised
from etcsched.agent.supervisor.messages import EndReason, Start
from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.core.records import Change, Kind, Order
from etcsched.core.session import margin_of
from etcsched.core.states import OnDisconnect, Outcome
from etcsched.core.times import utc_of
from tests.unit.agent.script import (
    JOINED,
    LEASE,
    START_MS,
    TTL_S,
    Script,
    attempt_id,
    ended,
    ids,
    presence_of,
    report,
)

GRACE_S = 20.0
ID = attempt_id()
GRACE: dict[str, Any] = {"disconnect_grace_s": GRACE_S}
CONTINUE: dict[str, Any] = {"on_disconnect": OnDisconnect.CONTINUE}
CLAIM = report()


def running(*, slots: int = 2, **fields: Any) -> Script:
    """Started at 1000, in a session whose last keepalive was sent at 1000."""
    script = Script(slots=slots)
    script.tell(ev.SupervisorReady(incarnation="s1"))
    script.tell(
        ev.SessionOpened(
            incarnation="i1",
            lease=LEASE,
            ttl_s=TTL_S,
            deadline_mono_s=1000.0 + TTL_S - margin_of(TTL_S),
        ),
        ev.PresenceJoined(JOINED),
        ev.ReportsRead(JOINED, ()),
    )
    script.run(**fields)
    return script


def back(script: Script, *claims: Any, joined: int = 80) -> list[fx.Effect]:
    """In session i2, whose lease was granted now."""
    return script.tell(
        ev.SessionOpened(
            incarnation="i2",
            lease=88,
            ttl_s=TTL_S,
            deadline_mono_s=script.mono_s + TTL_S - margin_of(TTL_S),
        ),
        ev.PresenceJoined(joined),
        ev.ReportsRead(joined, claims),
    )


@pytest.mark.parametrize(
    ("fields", "deadline_s"),
    [
        ({}, 1000 + TTL_S - 1.5),
        (GRACE, 1000 + TTL_S + GRACE_S - 3.0),
        ({"disconnect_grace_s": 2.0}, 1000 + TTL_S + 2.0 - 1.5),
        (CONTINUE, math.inf),
        ({**CONTINUE, **GRACE}, math.inf),
    ],
)
def test_a_process_may_live_until_shortly_before_its_attempt_can_move(
    fields: dict[str, Any], deadline_s: float
) -> None:
    """The margin: 1.5 s, or a tenth of TTL and grace together."""
    script = running()
    script.assign("r2", 101, **fields)
    script.commit_claim("r2", 101)
    assert script.one(fx.StartProcess).deadline_mono_s == pytest.approx(deadline_s)


def test_renewals_move_each_by_its_grace() -> None:
    script = running(**GRACE)
    script.run("r2", 101)
    moved = script.tell(ev.SessionRenewed(1020.0))
    assert moved == [fx.MoveDeadlines(1020.0, {ID: 1020.0 + GRACE_S - 1.5})]


@pytest.mark.parametrize("fields", [GRACE, CONTINUE])
def test_a_lost_session_leaves_it_running(fields: dict[str, Any]) -> None:
    script = running(**fields)
    script.run("r2", 101)
    script.tell(ev.SessionLost())
    assert script.one(fx.KillProcess).attempt_id == attempt_id("r2", 101)
    assert not script.of(fx.MoveDeadlines)


def test_a_lease_that_went_early_shortens_the_grace_also_once_its_time_is_over() -> None:
    """Etcd's answer comes late, to an agent that has found its session over by itself."""
    script = running(**GRACE)
    acknowledged_s = script.mono_s
    script.passes(8.5)
    assert script.of(fx.OpenSession)
    script.tell(ev.SessionLost(lease_gone=True))
    deadline_s = acknowledged_s + GRACE_S - margin_of(GRACE_S)
    assert script.one(fx.MoveDeadlines).single == {ID: deadline_s}
    assert not script.of(fx.OpenSession)


def test_a_lease_that_went_early_shortens_the_grace() -> None:
    """Some leader may have seen it go right after the keepalive sent at 1000."""
    script = running(**GRACE)
    script.tell(ev.SessionLost(lease_gone=True))
    latest_s = 1000 + GRACE_S - margin_of(GRACE_S)
    moved = script.one(fx.MoveDeadlines)
    assert moved.deadline_mono_s is None
    assert moved.single == pytest.approx({ID: latest_s})


@pytest.mark.parametrize("granted_s", [5, 30])
def test_the_ttl_that_counts_is_the_granted_one(granted_s: int) -> None:
    """etcd may grant more than was asked for; a resumed lease has its own."""
    script = Script()
    script.tell(ev.SupervisorReady(incarnation="s1"))
    deadline_s = 1000.0 + granted_s - margin_of(granted_s)
    script.tell(
        ev.SessionOpened(
            incarnation="i1", lease=LEASE, ttl_s=granted_s, deadline_mono_s=deadline_s
        ),
        ev.PresenceJoined(JOINED),
        ev.ReportsRead(JOINED, ()),
    )
    assert script.one(fx.JoinPresence).presence.session_ttl_s == granted_s
    assert script.machine.session_ttl_s == granted_s
    script.run(**GRACE)
    latest_s = 1000 + granted_s + GRACE_S - margin_of(granted_s + GRACE_S)
    assert script.machine.deadline_of(ID) == pytest.approx(latest_s)
    script.tell(ev.SessionLost(lease_gone=True))
    latest_s = 1000 + GRACE_S - margin_of(GRACE_S)
    assert script.machine.deadline_of(ID) == pytest.approx(latest_s)


@pytest.mark.parametrize(("assigned_s", "claimed_s"), [(TTL_S, 0), (5, TTL_S)])
def test_a_claim_says_the_ttl_where_its_assignment_says_another(
    assigned_s: int, claimed_s: int
) -> None:
    script = Script().ready()
    script.assign(session_ttl_s=assigned_s)
    assert script.one(fx.Claim).report.session_ttl_s == claimed_s


def test_continue_is_never_shortened() -> None:
    script = running(**CONTINUE)
    script.tell(ev.SessionLost(lease_gone=True))
    assert not script.of(fx.MoveDeadlines)


def test_revoking_the_old_lease_begins_the_grace_now() -> None:
    script = running(**GRACE)
    script.tell(ev.SessionLost())
    script.mono_s = 1001.0
    script.tell(
        ev.SessionOpened(incarnation="i2", lease=88, ttl_s=TTL_S, deadline_mono_s=1009.5),
        ev.PresenceTaken(presence=presence_of("i1"), lease=LEASE, create_revision=JOINED),
    )
    moved, revoke = [e for e in script.effects if isinstance(e, fx.MoveDeadlines | fx.RevokeLease)]
    assert moved == fx.MoveDeadlines(None, {ID: 1001.0 + GRACE_S - margin_of(GRACE_S)})
    assert revoke == fx.RevokeLease(LEASE)


@pytest.mark.parametrize("fields", [GRACE, CONTINUE])
def test_a_returning_agent_adopts(fields: dict[str, Any]) -> None:
    script = running(**fields)
    script.tell(ev.SessionLost())
    script.mono_s = 1012.0
    back(script, (CLAIM, 60))
    adopt = script.one(fx.Adopt)
    assert (adopt.agent, adopt.token, adopt.report_revision) == ("a1", 100, 60)
    assert (adopt.report.incarnation, adopt.report.session_ttl_s) == ("i2", TTL_S)
    assert not script.of(fx.KillProcess)


def test_deadlines_move_only_after_the_adoption_is_committed() -> None:
    script = running(**GRACE)
    script.tell(ev.SessionLost())
    script.mono_s = 1012.0
    back(script, (CLAIM, 60))
    assert not script.of(fx.MoveDeadlines)
    held = {ID: 1000.0 + TTL_S + GRACE_S - 3.0}
    assert script.tell(ev.SessionRenewed(1022.0)) == [fx.MoveDeadlines(1022.0, held)]
    script.tell(ev.Adopted(ID, "i2"))
    after_s = 1022.0 + GRACE_S - 1.5
    assert script.one(fx.MoveDeadlines) == fx.MoveDeadlines(None, {ID: after_s})
    script.tell(ended(), ev.OutcomeStored(ID, late=False))
    assert script.outcome().incarnation == "i2"


def test_an_adoption_for_a_session_that_is_over_moves_nothing() -> None:
    script = running(**GRACE)
    script.tell(ev.SessionLost())
    back(script, (CLAIM, 60))
    script.tell(ev.SessionLost())
    assert script.tell(ev.Adopted(ID, "i2")) == []


@pytest.mark.parametrize(
    ("is_rejected", "why"),
    [
        (False, "stopped, since its run was moved while it was cut off"),
        (True, "stopped, since etcd doesn't take that it goes on in a new session"),
    ],
)
def test_a_refused_adoption_ends_the_process(is_rejected: bool, why: str) -> None:
    script = running(**GRACE)
    script.tell(ev.SessionLost())
    back(script, (CLAIM, 60))
    script.tell(ev.AdoptionRefused(ID, "i2", None, is_rejected=is_rejected))
    assert script.one(fx.KillProcess).cause is fx.KillCause.FENCED
    script.tell(ended(cause=ev.EndCause.FENCED))
    assert script.outcome().reason == why


def test_an_adoption_whose_answer_was_lost_is_known_by_the_report() -> None:
    script = running(**GRACE)
    script.tell(ev.SessionLost())
    script.mono_s = 1005.0
    back(script, (CLAIM, 60))
    script.tell(ev.AdoptionRefused(ID, "i2", script.one(fx.Adopt).report))
    assert not script.of(fx.KillProcess)
    script.one(fx.MoveDeadlines)


def test_what_continues_runs_on_though_its_run_was_moved() -> None:
    script = running(**CONTINUE)
    script.tell(ev.SessionLost())
    back(script)
    script.unassign()
    script.tell(ev.AdoptionRefused(ID, "i2", None))
    assert not script.of(fx.KillProcess)
    script.tell(ended())
    assert script.outcome().outcome is Outcome.COMPLETED


def test_what_continues_runs_on_where_its_agent_wakes_after_its_run_was_moved() -> None:
    """The move is what it hears first."""
    script = running(**CONTINUE)
    script.mono_s += 60.0
    script.unassign()
    assert not script.of(fx.KillProcess)
    assert script.one(fx.OpenSession)


@pytest.mark.parametrize("is_found", [False, True])
def test_what_continues_ends_once_its_agent_hears_that_it_was_cancelled(is_found: bool) -> None:
    """Its run is over by then, and its order is all that is left of it; so too where the agent
    itself began anew, and its supervisor says only later what runs."""
    at = utc_of(START_MS)
    order = Order(job="job", run="r1", token=100, at=at, by="ada", reason="cancelled by ada")
    orders = (Change(Kind.ORDER, ("a1", "job", "r1"), order, 400),)
    listed = [ev.Listed(Kind.ASSIGNMENT, (), 500), ev.Listed(Kind.ORDER, orders, 500)]
    if is_found:
        script = Script()
        left = ev.ProcessStarted(
            attempt_id=attempt_id(), started_ms=START_MS, deadline_mono_s=math.inf
        )
        script.tell(*listed, ev.SupervisorReady(incarnation="s1", running=(left,)))
    else:
        script = running(**CONTINUE)
        script.tell(ev.SessionLost(lease_gone=True))
        script.tell(*listed)
    kill = script.one(fx.KillProcess)
    assert (kill.attempt_id, kill.cause) == (attempt_id(), fx.KillCause.CANCELLED)


def test_what_continues_after_its_run_was_moved_takes_no_slot() -> None:
    """The leader gives it to another."""
    script = running(slots=1, **CONTINUE)
    script.tell(ev.SessionLost())
    back(script)
    script.assign("r2", 200, incarnation="i2")
    assert not script.of(fx.Claim)
    script.unassign()
    assert script.one(fx.Claim).token == 200


def test_what_was_being_killed_as_its_agent_restarted_isnt_adopted() -> None:
    script = Script()
    order = Start(
        attempt_id=attempt_id(), argv=("true",), env={}, cwd="/", output_path="/o",
        output_cap_bytes=1, kill_grace_s=0.0, deadline_mono_s=script.mono_s + 8.0,
    )  # fmt: skip
    supervised = Supervised(order, pid=1, started_ms=START_MS, now_s=script.mono_s)
    supervised.kill(EndReason.FENCED, 0.0, script.mono_s)
    told = supervised.running()
    found = ev.ProcessStarted(
        attempt_id=told.attempt_id,
        started_ms=told.started_ms,
        deadline_mono_s=told.deadline_mono_s,
        disconnect_grace_s=told.disconnect_grace_s,
    )
    script.tell(ev.SupervisorReady(incarnation="s1", running=(found,)))
    script.session("i2", reports=(report(),))
    assert not script.of(fx.Adopt)


def test_what_continues_is_stopped_when_it_is_withdrawn_within_the_session() -> None:
    script = running(**CONTINUE)
    script.unassign()
    script.one(fx.KillProcess)


def test_an_outcome_of_the_grace_is_kept_and_sent() -> None:
    script = running(**GRACE)
    script.tell(ev.SessionLost(), ended())
    assert script.one(fx.OpenSession)
    assert not script.of(fx.ReportOutcome)
    back(script, (CLAIM, 60))
    assert ids(script.of(fx.ReportOutcome)) == [ID]
    assert not script.of(fx.Adopt)


@pytest.mark.parametrize("grace_s", [0.0, GRACE_S])
def test_a_restarted_agent_adopts_what_its_supervisor_kept(grace_s: float) -> None:
    script = Script()
    found = ev.ProcessStarted(
        attempt_id=ID, started_ms=START_MS, deadline_mono_s=1009.0, disconnect_grace_s=grace_s
    )
    script.tell(ev.SupervisorReady(incarnation="s1", running=(found,)))
    back(script, (CLAIM, 60))
    assert bool(script.of(fx.Adopt)) is (grace_s > 0)
    assert bool(script.of(fx.KillProcess)) is (grace_s == 0)
    held = {ID: 1009.0}
    assert script.tell(ev.SessionRenewed(1015.0)) == [fx.MoveDeadlines(1015.0, held)]
