"""From assignment to outcome: claims, processes, orders."""

from __future__ import annotations

import math
from typing import Any

import pytest

from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.core.agent.assignments import CLAIM_AGAIN_S
from etcsched.core.agent.attempt import Phase
from etcsched.core.records import Change, Exec, Kind, Noop, Report, Shell
from etcsched.core.states import Outcome
from tests.unit.agent.script import (
    START_MS,
    Script,
    assignment,
    attempt_id,
    drain,
    ended,
    gone,
    order,
    report,
)


def test_only_a_committed_claim_starts_the_process() -> None:
    script = Script().ready()
    script.assign(timeout_s=9.0, kill_grace_s=4.0, workdir="/w")
    claim = script.one(fx.Claim)
    assert claim.token == 100
    assert claim.report == report()
    assert not script.of(fx.StartProcess)
    script.commit_claim()
    start = script.one(fx.StartProcess)
    assert start.attempt_id == "job/r1/1/100"
    assert start.argv == ("/bin/sh", "-c", "true")
    assert (start.timeout_s, start.kill_grace_s, start.workdir) == (9.0, 4.0, "/w")
    assert start.deadline_mono_s == script.mono_s + 8.0
    assert start.user is None
    assert start.output_path == "/out/job/r1/1.log"
    assert script.commit_claim() == [], "told twice, started once"


def test_a_refused_claim_is_forgotten_once_its_assignment_is_gone() -> None:
    script = Script().ready()
    script.assign()
    assert script.tell(ev.ClaimRefused(attempt_id(), None)) == []
    assert script.machine.occupied_slots == 0
    assert script.assign() == [], "the same assignment isn't claimed again at once"
    assert script.unassign() == []
    assert script.machine.phase_of(attempt_id()) is None


def test_a_claim_that_a_drain_refused_is_sent_again_once_that_is_over() -> None:
    """The leader sees an assignment whose grounds are as they were, and waits for its claim."""
    script = Script().ready()
    script.assign()
    script.tell(drain(), ev.ClaimRefused(attempt_id(), None))
    script.passes(CLAIM_AGAIN_S)
    assert not script.of(fx.Claim)
    script.tell(gone(Kind.DRAIN, "a1"))
    assert script.one(fx.Claim).token == 100
    script.commit_claim()
    assert script.one(fx.StartProcess)


def test_a_refused_claim_holds_up_no_other() -> None:
    script = Script(slots=1).ready()
    script.assign("r1", 100)
    script.assign("r2", 101)
    script.tell(ev.ClaimRefused(attempt_id("r1", 100), None))
    assert script.one(fx.Claim).token == 101
    script.tell(ev.ClaimRefused(attempt_id("r2", 101), None))
    script.passes(CLAIM_AGAIN_S)
    assert script.one(fx.Claim).token == 100, "and is sent again before what came later"


@pytest.mark.parametrize(
    ("found", "starts"),
    [
        (report(), True),
        (report(claimed_at="2020-01-01T00:00:00.000Z"), True),
        (report(token=99), False),
        (report(incarnation="i0"), False),
        (report(supervisor="s0"), False),
        (report(outcome=Outcome.DIED), False),
    ],
    ids=[
        "mine",
        "mine of an earlier moment",
        "other token",
        "other session",
        "other supervisor",
        "over",
    ],
)
def test_a_refused_claim_whose_report_is_mine_was_committed_before(
    found: Report, starts: bool
) -> None:
    script = Script().ready()
    script.assign()
    script.tell(ev.ClaimRefused(attempt_id(), found))
    assert bool(script.of(fx.StartProcess)) is starts


def test_a_claim_of_this_session_under_a_supervisor_that_died_is_reported() -> None:
    """The leader waits for the outcome of a claim whose session lives."""
    script = Script().ready()
    script.assign()
    script.tell(ev.ClaimRefused(attempt_id(), report(supervisor="s0")))
    assert script.outcome().outcome is Outcome.DIED
    assert script.outcome().supervisor == "s0"
    assert script.machine.occupied_slots == 0


@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        ({}, Outcome.COMPLETED, ""),
        ({"exit_code": 3}, Outcome.FAILED, "exit code 3"),
        (
            {"exit_code": None, "signal": 9, "cause": ev.EndCause.SIGNALED},
            Outcome.FAILED,
            "ended by signal 9",
        ),
        ({"cause": ev.EndCause.TIMED_OUT}, Outcome.TIMED_OUT, "ran longer than its timeout"),
        ({"cause": ev.EndCause.CANCELLED}, Outcome.CANCELLED, "cancelled"),
        (
            {"cause": ev.EndCause.FENCED},
            Outcome.DIED,
            "stopped, since the agent's session was lost",
        ),
        ({"cause": ev.EndCause.VANISHED}, Outcome.DIED, "its supervisor was gone, so it was ended"),
    ],
)
def test_how_a_process_ended_is_how_the_attempt_ended(
    changes: dict[str, Any], outcome: Outcome, reason: str
) -> None:
    script = Script().ready()
    script.run()
    script.tell(ended(cpu_s=0.5, peak_memory_bytes=9, output_bytes=4, tail="tail", **changes))
    sent = script.outcome()
    assert (sent.outcome, sent.reason) == (outcome, reason)
    assert (sent.claimed_at, sent.token, sent.incarnation) == (report().claimed_at, 100, "i1")
    assert (sent.cpu_s, sent.peak_memory_bytes, sent.output_bytes, sent.tail) == (0.5, 9, 4, "tail")


def test_the_supervisor_may_forget_only_what_etcd_has() -> None:
    script = Script().ready()
    script.run()
    script.tell(ended())
    assert not script.of(fx.Acknowledge)
    assert script.tell(ev.OutcomeStored(attempt_id(), late=False)) == [fx.Acknowledge(attempt_id())]
    assert script.machine.phase_of(attempt_id()) is Phase.DONE
    script.unassign()
    assert script.machine.phase_of(attempt_id()) is None


def test_a_process_that_cant_start_fails_with_the_reason() -> None:
    script = Script().ready()
    script.assign()
    script.commit_claim()
    script.tell(ev.StartFailed(attempt_id=attempt_id(), reason="no such file", failed_ms=5))
    sent = script.outcome()
    assert (sent.outcome, sent.reason, sent.started_at) == (Outcome.FAILED, "no such file", None)


def test_a_noop_completes_at_once() -> None:
    script = Script().ready()
    script.assign(action=Noop(), user="somebody")
    script.commit_claim()
    assert script.outcome().outcome is Outcome.COMPLETED
    assert script.machine.occupied_slots == 0
    assert script.tell(ev.OutcomeStored(attempt_id(), late=False)) == []


@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        ({"user": "root"}, Outcome.DECLINED, "agent a1 runs no jobs as root"),
        (
            {"action": Exec(("x", "{what}"))},
            Outcome.FAILED,
            "{what} in '{what}' is no parameter of this run "
            "(it has attempt, job, run, scheduled_date, scheduled_time, "
            "source_job, source_run, source_state)",
        ),
    ],
)
def test_what_wont_be_run_is_claimed_with_its_outcome(
    changes: dict[str, Any], outcome: Outcome, reason: str
) -> None:
    script = Script().ready()
    script.assign(**changes)
    claim = script.one(fx.Claim).report
    assert (claim.outcome, claim.reason) == (outcome, reason)
    assert script.commit_claim() == []
    assert script.machine.phase_of(attempt_id()) is Phase.DONE


def test_a_job_without_a_user_is_declined_where_nobody_is_the_default() -> None:
    script = Script(users=("*",), default_user="").ready()
    script.assign()
    assert script.one(fx.Claim).report.reason == "agent a1 runs no jobs without a user"
    script.assign("r2", 101, user="somebody")
    assert script.one(fx.Claim).report.outcome is None
    script.commit_claim("r2", 101)
    assert script.one(fx.StartProcess).user == "somebody"


# --- when nothing is claimed ---------------------------------------------------------------


def test_slots_bound_what_is_claimed_and_a_free_one_goes_to_the_first() -> None:
    script = Script(slots=1).ready()
    script.run("r1", 100)
    assert script.assign("r2", 101) == []
    assert script.assign("r3", 102) == []
    script.tell(ended("r1", 100))
    assert script.one(fx.Claim).token == 101


def test_a_process_that_cant_be_killed_keeps_no_slot_once_its_run_was_moved() -> None:
    script = Script(slots=1).ready()
    script.run("r1")
    script.tell(ev.SessionLost())
    assert script.one(fx.KillProcess).cause is fx.KillCause.FENCED
    script.session("i2")
    script.unassign("r1")
    script.assign("r2", 1000, incarnation="i2")
    assert script.one(fx.Claim).token == 1000


def test_a_process_that_runs_on_is_found_after_its_run_was_moved_and_keeps_no_slot() -> None:
    script = Script(slots=1)
    left = ev.ProcessStarted(attempt_id=attempt_id(), started_ms=START_MS, deadline_mono_s=math.inf)
    script.tell(ev.Listed(Kind.ASSIGNMENT, (), 800))
    script.tell(ev.SupervisorReady(incarnation="s1", running=(left,)))
    script.session("i2")
    script.assign("r2", 900, incarnation="i2")
    assert script.one(fx.Claim).token == 900


def test_an_assignment_that_cant_be_read_ends_no_process_before_it_is_gone() -> None:
    """Its leader sees that, too, and ends the run."""
    script = Script().ready()
    script.run()
    ids = ("a1", "job", "r1")
    spoiled = Change(Kind.ASSIGNMENT, ids, None, mod_revision=790, create_revision=100)
    script.tell(ev.Listed(Kind.ASSIGNMENT, (spoiled,), 800))
    assert not script.of(fx.KillProcess)
    script.tell(ev.Listed(Kind.ASSIGNMENT, (), 801))
    assert script.one(fx.KillProcess).attempt_id == attempt_id()


def test_a_process_that_cant_be_killed_keeps_no_slot_while_its_run_is_held() -> None:
    """Its assignment stays, and the leader counts it no more."""
    script = Script(slots=1).ready()
    script.run("r1")
    script.tell(ev.SessionLost())
    script.mono_s += 9.0
    script.session("i2")
    script.assign("r2", 1000, incarnation="i2")
    assert script.one(fx.Claim).token == 1000


def test_what_gets_no_process_doesnt_wait_behind_what_has_no_slot() -> None:
    script = Script(slots=1).ready()
    script.run("r1", 100)
    script.assign("r2", 101)
    script.assign("r3", 102)
    script.tell(order("r3", 102))
    claim = script.one(fx.Claim)
    assert (claim.token, claim.report.outcome) == (102, Outcome.CANCELLED)
    script.tell(ended("r1", 100))
    assert not script.of(fx.Claim)
    script.commit_claim("r3", 102)
    assert script.one(fx.Claim).token == 101


def test_a_drained_agent_claims_nothing_until_it_is_undone() -> None:
    script = Script().ready()
    script.tell(drain())
    assert script.assign() == []
    script.tell(gone(Kind.DRAIN, "a1"))
    script.one(fx.Claim)


def test_a_drain_in_a_listing_counts_too() -> None:
    script = Script().ready()
    script.tell(ev.Listed(Kind.DRAIN, (drain().change,), 60))
    assert script.assign() == []
    script.tell(ev.Listed(Kind.DRAIN, (), 61))
    script.one(fx.Claim)


def test_an_assignment_of_another_session_is_never_claimed() -> None:
    script = Script().ready()
    assert script.assign(incarnation="i0") == []
    assert script.tell(ev.SessionRenewed(script.mono_s + 8.0)) == [
        fx.MoveDeadlines(script.mono_s + 8.0)
    ]
    script.assign("r2", 101)
    script.one(fx.Claim)


def test_nothing_is_claimed_when_little_of_the_session_is_left() -> None:
    script = Script().ready()
    script.passes(5.6)  # 2.4 s are left, which is less than a quarter of the TTL.
    assert script.assign() == []
    script.tell(ev.SessionRenewed(script.mono_s + 8.0))
    script.one(fx.Claim)


def test_nothing_is_claimed_without_a_supervisor() -> None:
    script = Script().ready()
    assert script.tell(ev.SupervisorGone()) == [fx.StartSupervisor()]
    assert script.assign() == []
    script.tell(ev.SupervisorReady(incarnation="s2"))
    assert script.one(fx.Claim).report.supervisor == "s2"


@pytest.mark.parametrize("has_just_come", [False, True])
def test_nothing_is_claimed_while_the_supervisor_is_stopping(has_just_come: bool) -> None:
    """It would start nothing, and each attempt would count as one that died."""
    script = Script().ready()
    if has_just_come:
        script.tell(ev.SupervisorGone(), ev.SupervisorReady(incarnation="s1", is_closing=True))
    else:
        script.tell(ev.SupervisorClosing())
    assert script.assign() == []
    assert "told to stop" in script.machine.lacking(script.now())
    script.tell(ev.SupervisorGone(), ev.SupervisorReady(incarnation="s2"))
    assert script.one(fx.Claim).report.supervisor == "s2"
    assert script.machine.lacking(script.now()) == ""


def test_an_agent_whose_supervisor_is_stopping_shows_no_slots() -> None:
    """Else what it is given waits there, unclaimed, for as long as the last of its processes
    takes to end, while other agents have nothing to do."""
    script = Script(slots=3).ready()
    assert script.tell(ev.SupervisorClosing()) != []
    assert script.one(fx.UpdatePresence).presence.slots == 0
    script.tell(ev.SupervisorGone(), ev.SupervisorReady(incarnation="s2"))
    assert script.one(fx.UpdatePresence).presence.slots == 3


@pytest.mark.parametrize("is_first", [True, False])
def test_the_slots_that_it_shows_are_right_though_they_change_as_it_joins(is_first: bool) -> None:
    script = Script(slots=3)
    session = ev.SessionOpened(
        incarnation="i1", lease=77, ttl_s=10, deadline_mono_s=script.mono_s + 8.0
    )
    script.tell(ev.SupervisorReady(incarnation="s1", is_closing=not is_first), session)
    assert script.one(fx.JoinPresence).presence.slots == (3 if is_first else 0)
    if is_first:
        script.tell(ev.SupervisorClosing())
    else:
        script.tell(ev.SupervisorGone(), ev.SupervisorReady(incarnation="s2"))
    script.tell(ev.PresenceJoined(50))
    assert script.one(fx.UpdatePresence).presence.slots == (0 if is_first else 3)


def test_nothing_is_claimed_before_the_reports_were_read() -> None:
    script = Script()
    script.tell(
        ev.SupervisorReady(incarnation="s1"),
        ev.SessionOpened(incarnation="i1", lease=7, ttl_s=10, deadline_mono_s=1008.0),
        ev.PresenceJoined(50),
    )
    assert script.assign() == []
    assert script.tell(ev.ReportsRead(49, ())) == [], "of an earlier presence"
    script.tell(ev.ReportsRead(50, ()))
    script.one(fx.Claim)


def test_a_claim_committed_after_the_session_ended_starts_nothing() -> None:
    script = Script().ready()
    script.assign()
    script.mono_s += 8.0
    script.commit_claim()
    assert not script.of(fx.StartProcess)
    script.session("i2", reports=(report(),))
    assert script.outcome().outcome is Outcome.DIED


def test_a_claim_committed_under_a_supervisor_that_died_starts_nothing() -> None:
    script = Script().ready()
    script.assign()
    script.tell(ev.SupervisorGone(), ev.SupervisorReady(incarnation="s2"))
    script.commit_claim()
    assert not script.of(fx.StartProcess)
    assert script.outcome().reason == "the supervisor died before it started"


# --- the leader changes its mind -----------------------------------------------------------


def test_an_order_kills_with_the_jobs_grace_once() -> None:
    script = Script().ready()
    script.run(kill_grace_s=4.0)
    kill = fx.KillProcess(attempt_id=attempt_id(), cause=fx.KillCause.CANCELLED, grace_s=4.0)
    assert script.tell(order()) == [kill]
    assert script.tell(order()) == []


def test_an_order_of_another_token_is_none_of_this_attempt() -> None:
    script = Script().ready()
    script.run()
    assert script.tell(order(token=99)) == []


def test_an_order_before_its_assignment_cancels_in_the_claim() -> None:
    script = Script().ready()
    script.tell(order())
    script.assign()
    assert script.one(fx.Claim).report.outcome is Outcome.CANCELLED


def test_an_order_before_its_process_was_found_kills_it() -> None:
    """The watches are there before the supervisor, at a restart."""
    script = Script()
    script.tell(order(), script.assigned())
    left = ev.ProcessStarted(
        attempt_id=attempt_id(), started_ms=START_MS, deadline_mono_s=script.mono_s + 8.0
    )
    script.tell(ev.SupervisorReady(incarnation="s1", running=(left,)))
    kill = script.one(fx.KillProcess)
    assert (kill.attempt_id, kill.cause) == (attempt_id(), fx.KillCause.CANCELLED)


def test_an_order_during_the_claim_keeps_the_process_from_starting() -> None:
    script = Script().ready()
    script.assign()
    assert script.tell(order()) == []
    script.commit_claim()
    assert script.outcome().outcome is Outcome.CANCELLED


def test_an_order_that_was_deleted_counts_no_more() -> None:
    script = Script().ready()
    script.tell(order(), gone(Kind.ORDER, "a1", "job", "r1"))
    script.assign()
    assert script.one(fx.Claim).report.outcome is None


def test_a_run_that_is_taken_away_is_killed_and_reported() -> None:
    script = Script().ready()
    script.run()
    script.unassign()
    assert script.one(fx.KillProcess).cause is fx.KillCause.FENCED
    script.tell(ended(cause=ev.EndCause.FENCED))
    assert script.outcome().reason == "stopped, since its run was moved or ended without it"
    script.tell(ev.OutcomeStored(attempt_id(), late=True))
    assert script.machine.phase_of(attempt_id()) is None


def test_a_waiting_assignment_that_is_taken_away_is_forgotten() -> None:
    script = Script(slots=1).ready()
    script.run("r1", 100)
    script.assign("r2", 101)
    script.unassign("r2")
    script.tell(ended("r1", 100))
    assert not script.of(fx.Claim)


def test_a_claim_whose_run_was_taken_away_meanwhile_starts_nothing() -> None:
    script = Script().ready()
    script.assign()
    assert script.unassign() == []
    script.commit_claim()
    assert script.outcome().reason == "its run was moved before it started"


def test_a_new_attempt_in_the_same_place_ends_the_old_one() -> None:
    script = Script().ready()
    script.run(token=100)
    script.assign(token=200, attempt=2)
    assert script.one(fx.KillProcess).attempt_id == attempt_id(token=100)
    assert script.one(fx.Claim).token == 200


def test_a_listing_takes_away_what_it_lacks() -> None:
    script = Script(slots=3).ready()
    script.run("r1", 100)
    script.run("r2", 101)
    script.assign("r3", 102)
    change = Change(
        kind=Kind.ASSIGNMENT, ids=("a1", "job", "r2"), record=assignment("r2"), mod_revision=101
    )
    script.tell(ev.Listed(Kind.ASSIGNMENT, (change,), 500))
    assert script.one(fx.KillProcess).attempt_id == attempt_id("r1", 100)
    script.commit_claim("r3", 102)
    assert not script.of(fx.StartProcess)


def test_the_deletion_of_a_finished_run_may_come_before_its_answer() -> None:
    script = Script().ready()
    script.run()
    script.tell(ended())
    assert script.unassign() == []
    script.tell(ev.OutcomeStored(attempt_id(), late=False))
    assert script.one(fx.Acknowledge)


def test_runs_of_one_batch_share_their_token() -> None:
    script = Script().ready()
    script.run("r1", 100)
    script.run("r2", 100)
    script.tell(ended("r1", 100, exit_code=4))
    assert (script.outcome().run, script.outcome().exit_code) == ("r1", 4)
    assert script.machine.phase_of(attempt_id("r2", 100)) is Phase.RUNNING


def test_the_shell_gets_parameters_in_its_environment_only() -> None:
    script = Script(base_env={"PATH": "/bin", "HOME": "/home/me"}).ready()
    script.run(action=Shell("echo {x}"), params={"x": "1"}, env={"A": "b"})
    script.assign("r2", 101, user="other", params={"a-b.c": "2"})
    script.commit_claim("r2", 101)
    env = script.one(fx.StartProcess).env
    assert env["ETCSCHED_PARAM_A_B_C"] == "2"
    assert "HOME" not in env
    assert env["PATH"] == "/bin"
