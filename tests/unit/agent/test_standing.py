"""Sessions, presence, supervisor, spool, restart and stop."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.core.agent.attempt import Phase
from etcsched.core.clock import CLOCK_EVERY_S
from etcsched.core.records import Change, Kind, Noop, Presence
from etcsched.core.states import Occasion, Outcome, Stage
from tests.unit.agent.script import (
    JOINED,
    LEASE,
    START_MS,
    Script,
    assignment,
    attempt_id,
    drain,
    ended,
    gone,
    ids,
    live,
    presence_of,
    report,
)

# --- the session ---------------------------------------------------------------------------


def test_a_session_is_announced_and_renewed() -> None:
    script = Script(labels={"role": "erp"})
    script.tell(ev.SupervisorReady(incarnation="s1"))
    script.tell(ev.SessionOpened(incarnation="i1", lease=LEASE, ttl_s=10, deadline_mono_s=1008.0))
    join = script.one(fx.JoinPresence)
    assert join.lease == LEASE
    assert (join.presence.incarnation, join.presence.supervisor) == ("i1", "s1")
    assert (join.presence.slots, join.presence.labels) == (2, {"role": "erp"})
    assert script.tell(ev.PresenceJoined(JOINED)) == [fx.ReadReports(JOINED)]
    assert script.tell(ev.SessionRenewed(1010.0)) == [fx.MoveDeadlines(1010.0)]


@pytest.mark.parametrize(
    "lose",
    [lambda s: s.tell(ev.SessionLost()), lambda s: s.passes(8.0)],
    ids=["told", "deadline passed"],
)
def test_a_lost_session_stops_everything_and_begins_anew(lose: Callable[[Script], object]) -> None:
    script = Script().ready()
    script.run("r1", 100)
    script.assign("r2", 101)
    lose(script)
    kill = fx.KillProcess(attempt_id=attempt_id("r1", 100), cause=fx.KillCause.FENCED, grace_s=0.0)
    assert script.one(fx.KillProcess) == kill
    assert script.effects[-1] == fx.OpenSession()
    assert script.tell(ev.SessionLost()) == []
    script.tell(ended("r1", 100, cause=ev.EndCause.FENCED))
    assert not script.of(fx.ReportOutcome), "nothing is written without a presence"
    script.session("i2", reports=(report("r1", 100), report("r2", 101)))
    sent = script.of(fx.ReportOutcome)
    assert ids(sent) == [attempt_id("r1", 100), attempt_id("r2", 101)]
    assert [effect.report.outcome for effect in sent] == [Outcome.DIED, Outcome.DIED]
    assert {effect.report.incarnation for effect in sent} == {"i1"}
    assert not script.of(fx.Claim), "what waits was meant for the session before"


def test_outcomes_wait_for_the_next_session_in_their_order() -> None:
    script = Script().ready()
    script.run("r1", 100)
    script.run("r2", 101)
    script.tell(ev.SessionLost(), ended("r2", 101), ended("r1", 100))
    script.session("i2")
    assert ids(script.of(fx.ReportOutcome)) == [attempt_id("r2", 101), attempt_id("r1", 100)]


def test_a_renewal_of_a_session_that_is_lost_moves_nothing() -> None:
    script = Script().ready()
    script.tell(ev.SessionLost())
    assert script.tell(ev.SessionRenewed(2000.0)) == []


# --- the presence --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        gone(Kind.PRESENCE, "a1", revision=60),
        ev.Listed(Kind.PRESENCE, (), 60),
        ev.PresenceGone(JOINED),
    ],
    ids=["watched", "listed", "a write was refused"],
)
def test_a_presence_deleted_by_hand_is_put_again(event: ev.Event) -> None:
    script = Script(slots=3).ready()
    script.run("r1", 100)
    script.run("r2", 101)
    script.tell(ended("r1", 100))
    script.assign("r3", 102)
    script.tell(event)
    assert script.one(fx.JoinPresence).presence.incarnation == "i1"
    assert not script.of(fx.KillProcess)
    script.tell(ended("r2", 101))
    assert not script.of(fx.ReportOutcome)
    script.tell(ev.PresenceJoined(70))
    claims = (report("r1", 100), report("r2", 101), report("r3", 102))
    script.tell(ev.ReportsRead(70, tuple((claim, 60) for claim in claims)))
    assert ids(script.of(fx.ReportOutcome)) == [attempt_id("r1", 100), attempt_id("r2", 101)]
    assert script.one(fx.Claim).report == report("r3", 102), "sent again, identically"


@pytest.mark.parametrize(
    "event",
    [
        gone(Kind.PRESENCE, "a1", revision=49),
        ev.Listed(Kind.PRESENCE, (), 49),
        ev.Listed(Kind.PRESENCE, (Change(Kind.PRESENCE, ("a1",), None, 61, JOINED),), 62),
        ev.PresenceGone(49),
        ev.Changed(
            Change(
                kind=Kind.PRESENCE,
                ids=("a1",),
                record=presence_of("i1"),
                mod_revision=60,
                create_revision=JOINED,
            )
        ),
    ],
    ids=["deleted before", "listed before", "can't be read", "an older guard", "updated"],
)
def test_old_news_of_the_presence_change_nothing(event: ev.Event) -> None:
    script = Script().ready()
    assert script.tell(event) == []


def opened(script: Script, *, resumed: bool = False) -> None:
    script.tell(ev.SupervisorReady(incarnation="s1"))
    script.tell(
        ev.SessionOpened(
            incarnation="i1", lease=LEASE, ttl_s=10, deadline_mono_s=1008.0, resumed=resumed
        )
    )


def test_another_live_agent_of_this_id_isnt_touched() -> None:
    script = Script()
    opened(script)
    there = presence_of("x", host="h2", pid=4711)
    (effect,) = script.tell(ev.PresenceTaken(presence=there, lease=5, create_revision=9))
    assert isinstance(effect, fx.Quit)
    assert "host h2 as process 4711" in effect.id_in_use
    assert script.tell(ev.TimePassed()) == []


@pytest.mark.parametrize("supervisor", ["s1", "another"])
def test_a_presence_that_never_goes_is_told_from_another_agents(supervisor: str) -> None:
    script = Script()
    opened(script)
    there = presence_of("x", supervisor=supervisor)
    script.tell(ev.PresenceTaken(presence=there, lease=0, create_revision=9, key="/p/a1"))
    assert "has no lease" in script.one(fx.Quit).id_in_use
    assert "etcdctl del /p/a1" in script.one(fx.Quit).id_in_use


def test_its_own_presence_overwritten_by_hand_gets_its_lease_again() -> None:
    """While it was away: it has resumed its session."""
    script = Script()
    opened(script, resumed=True)
    there = presence_of("i1", supervisor="s1")
    script.tell(ev.PresenceTaken(presence=there, lease=0, create_revision=9))
    update = script.one(fx.UpdatePresence)
    assert (update.lease, update.create_revision) == (LEASE, 9)


def test_its_clock_is_shown_now_and_then() -> None:
    """... to schedulers, who go by most clocks; counted from the last time that it was."""
    script = Script().ready()
    script.tell(ev.SessionRenewed(script.mono_s + 1000.0))
    script.passes(CLOCK_EVERY_S - 1.0)
    assert not script.of(fx.UpdatePresence)
    script.tell(ev.SupervisorReady(incarnation="s2"))
    assert script.of(fx.UpdatePresence)
    script.passes(CLOCK_EVERY_S - 1.0)
    assert not script.of(fx.UpdatePresence)
    script.passes(1.0)
    update = script.one(fx.UpdatePresence)
    script.passes(1.0)
    assert not script.of(fx.UpdatePresence)
    assert (update.create_revision, update.lease) == (JOINED, LEASE)


def test_without_a_presence_no_clock_is_shown() -> None:
    script = Script()
    opened(script)
    script.tell(ev.SessionRenewed(script.mono_s + 1000.0))
    script.passes(2 * CLOCK_EVERY_S)
    assert not script.of(fx.UpdatePresence)


def test_the_presence_of_a_resumed_lease_is_taken_over() -> None:
    script = Script()
    opened(script, resumed=True)
    there = presence_of("i1")
    script.tell(ev.PresenceTaken(presence=there, lease=LEASE, create_revision=9))
    assert script.one(fx.ReadReports).create_revision == 9
    update = script.one(fx.UpdatePresence)
    assert (update.create_revision, update.presence.pid) == (9, 11)


def test_a_copy_of_this_agents_disk_elsewhere_isnt_this_agent() -> None:
    script = Script()
    opened(script, resumed=True)
    there = presence_of("i1", host="h2")
    script.tell(ev.PresenceTaken(presence=there, lease=LEASE, create_revision=9))
    assert script.one(fx.Quit).id_in_use


def test_a_host_that_has_another_name_now_is_the_same_by_its_supervisor() -> None:
    script = Script()
    opened(script, resumed=True)
    there = presence_of("i1", host="h2", supervisor="s1")
    script.tell(ev.PresenceTaken(presence=there, lease=LEASE, create_revision=9))
    assert script.one(fx.ReadReports).create_revision == 9
    assert script.one(fx.UpdatePresence).presence.host == "h1"


def lost_and_opened(script: Script) -> None:
    opened(script)
    script.tell(ev.SessionLost())
    script.tell(ev.SessionOpened(incarnation="i2", lease=88, ttl_s=10, deadline_mono_s=1009.5))


@pytest.mark.parametrize(
    "there",
    [presence_of("i1"), presence_of("i0", host="h2", supervisor="s1")],
    ids=["held by this process", "with this supervisor"],
)
def test_the_presence_of_an_earlier_session_of_mine_is_revoked(there: Presence) -> None:
    script = Script()
    lost_and_opened(script)
    script.tell(ev.PresenceTaken(presence=there, lease=5, create_revision=9))
    assert script.one(fx.RevokeLease).lease == 5
    assert script.one(fx.JoinPresence).after_s > 0


def test_the_lease_of_an_earlier_session_outlives_its_processes() -> None:
    """The leader gives their attempts away once that is gone; they were only told to end."""
    script = Script().ready()
    script.run()
    script.passes(8.0)
    in_session_i2(script)
    taken = ev.PresenceTaken(presence=presence_of("i1"), lease=LEASE, create_revision=JOINED)
    script.tell(taken)
    assert script.one(fx.JoinPresence).after_s > 0
    assert not script.of(fx.RevokeLease)
    script.tell(ended(cause=ev.EndCause.FENCED), taken)
    assert script.one(fx.RevokeLease).lease == LEASE


def in_session_i2(script: Script) -> list[fx.Effect]:
    return script.tell(
        ev.SessionOpened(incarnation="i2", lease=88, ttl_s=10, deadline_mono_s=script.mono_s + 8.0)
    )


def test_a_join_that_is_answered_after_its_session_is_none() -> None:
    """In the next one nothing is claimed before the reports are read."""
    script = Script()
    opened(script)
    script.tell(ev.SessionLost())
    assert script.tell(ev.PresenceJoined(JOINED)) == []
    in_session_i2(script)
    script.tell(ev.PresenceJoined(70))
    script.assign(incarnation="i2")
    assert not script.of(fx.Claim)
    script.tell(ev.ReportsRead(70, ()))
    assert script.one(fx.Claim)


def test_an_outcome_that_was_sent_behind_an_earlier_sessions_join_is_sent_again() -> None:
    """That join's answer came in the next session already. Its writer is over with its presence."""
    script = Script().ready()
    script.run(disconnect_grace_s=60.0)
    script.tell(ended(), ev.SessionLost())
    in_session_i2(script)
    script.tell(ev.PresenceJoined(61), ev.ReportsRead(61, ((report(), 55),)))
    assert script.one(fx.ReportOutcome)
    script.tell(ev.PresenceTaken(presence=presence_of("i1"), lease=LEASE, create_revision=61))
    script.tell(ev.PresenceJoined(70))
    script.assign("r2", 200, incarnation="i2")
    assert not script.of(fx.Claim)
    script.tell(ev.ReportsRead(70, ((report(), 55),)))
    assert script.one(fx.ReportOutcome)


@pytest.mark.parametrize("host", ["h1", "h2"])
def test_a_session_that_only_the_disk_knows_is_left_to_end(host: str) -> None:
    """This agent's before a reboot, or that of the agent whose disk was copied."""
    script = Script(past_incarnations=("i0",))
    opened(script)
    there = presence_of("i0", host=host)
    taken = ev.PresenceTaken(presence=there, lease=5, create_revision=9)
    script.tell(taken)
    assert script.one(fx.JoinPresence).after_s > 0
    assert not script.of(fx.RevokeLease)
    script.mono_s += 2 * there.session_ttl_s
    script.tell(ev.SessionRenewed(script.mono_s + 8.0))
    script.tell(taken)
    assert script.one(fx.Quit).id_in_use, "somebody keeps it alive"
    assert not script.of(fx.RevokeLease)


# --- the supervisor ------------------------------------------------------------------------


def test_a_dead_supervisors_attempts_are_reported_once_its_successor_knows() -> None:
    script = Script(slots=3).ready()
    script.run("r1", 100)
    script.run("r2", 101)
    script.run("r3", 102)
    assert script.tell(ev.SupervisorGone()) == [fx.StartSupervisor()]
    script.tell(
        ev.SupervisorReady(
            incarnation="s2",
            ended=(ended("r1", 100), ended("r2", 101, cause=ev.EndCause.VANISHED)),
        )
    )
    outcomes = {e.report.run: e.report.outcome for e in script.of(fx.ReportOutcome)}
    assert outcomes == {"r1": Outcome.COMPLETED, "r2": Outcome.DIED, "r3": Outcome.DIED}
    assert {e.report.supervisor for e in script.of(fx.ReportOutcome)} == {"s1"}
    assert script.one(fx.UpdatePresence).presence.supervisor == "s2"


# --- a restart of the agent's program ------------------------------------------------------


def test_a_restart_within_the_lease_takes_everything_back() -> None:
    script = Script(slots=5)
    spooled = report("r4", 103, outcome=Outcome.COMPLETED)
    script.tell(ev.SpoolRead((spooled,)))
    script.tell(
        ev.SupervisorReady(
            incarnation="s1",
            running=(
                ev.ProcessStarted(
                    attempt_id=attempt_id("r1", 100), started_ms=START_MS, deadline_mono_s=1003.0
                ),
            ),
            ended=(ended("r2", 101, exit_code=5), ended("r4", 103)),
        )
    )
    assert script.effects == [fx.Acknowledge(attempt_id("r4", 103))]
    script.tell(
        ev.SessionOpened(
            incarnation="i1", lease=LEASE, ttl_s=10, deadline_mono_s=1008.0, resumed=True
        )
    )
    assert not script.of(fx.MoveDeadlines), "the claim may be of an earlier session"
    claims = tuple(
        (report(run, token, claimed_at="2026-01-01T00:00:00.000Z"), 200)
        for run, token in (("r1", 100), ("r2", 101), ("r3", 102))
    )
    changes = tuple(
        Change(
            kind=Kind.ASSIGNMENT,
            ids=("a1", "job", run),
            record=assignment(run),
            mod_revision=token,
        )
        for run, token in (("r1", 100), ("r2", 101), ("r3", 102), ("r4", 103), ("r5", 104))
    )
    assert script.tell(ev.Listed(Kind.ASSIGNMENT, changes, 300)) == []
    script.tell(ev.PresenceJoined(JOINED), ev.ReportsRead(JOINED, claims))
    assert script.one(fx.MoveDeadlines) == fx.MoveDeadlines(None, {attempt_id("r1", 100): 1008.0})
    sent = {e.report.run: e.report for e in script.of(fx.ReportOutcome)}
    assert set(sent) == {"r2", "r3", "r4"}
    assert (sent["r2"].exit_code, sent["r2"].claimed_at) == (5, "2026-01-01T00:00:00.000Z")
    assert sent["r3"].reason == "claimed, but no process of it is known"
    assert script.one(fx.Claim).assignment.run == "r5"
    script.tell(ended("r1", 100, exit_code=6))
    assert (script.outcome().exit_code, script.outcome().claimed_at) == (
        6,
        "2026-01-01T00:00:00.000Z",
    )


def test_a_restart_after_the_lease_stops_what_still_runs() -> None:
    script = Script()
    script.tell(
        ev.SupervisorReady(
            incarnation="s1",
            running=(ev.ProcessStarted(attempt_id=attempt_id(), started_ms=START_MS),),
        )
    )
    script.tell(ev.SessionOpened(incarnation="i2", lease=LEASE, ttl_s=10, deadline_mono_s=1008.0))
    assert script.one(fx.KillProcess).cause is fx.KillCause.FENCED


def test_a_process_whose_run_was_moved_during_the_restart_is_stopped() -> None:
    script = Script()
    script.tell(
        ev.SupervisorReady(
            incarnation="s1",
            running=(ev.ProcessStarted(attempt_id=attempt_id(), started_ms=START_MS),),
        )
    )
    script.session(resumed=True)
    script.tell(ev.Listed(Kind.ASSIGNMENT, (), 300))
    assert script.one(fx.KillProcess).attempt_id == attempt_id()


def test_an_outcome_that_etcd_had_before_the_restart_is_only_acknowledged() -> None:
    script = Script()
    script.tell(ev.SupervisorReady(incarnation="s1", ended=(ended(),)))
    script.session(resumed=True, reports=(report(outcome=Outcome.COMPLETED),))
    assert script.of(fx.Acknowledge) == [fx.Acknowledge(attempt_id())]
    assert not script.of(fx.ReportOutcome)


def test_a_restart_waits_for_claims_and_outcomes_under_way_only() -> None:
    script = Script(slots=3).ready()
    script.run("r1", 100)
    script.assign("r2", 101)
    assert script.tell(ev.RestartRequested()) == []
    assert script.assign("r3", 102) == []
    script.commit_claim("r2", 101)
    assert not script.of(fx.Reexec)
    script.tell(ev.ProcessStarted(attempt_id=attempt_id("r2", 101), started_ms=START_MS))
    assert script.effects == [fx.Reexec()]
    assert script.tell(ev.StopRequested()) == []


def test_a_restart_doesnt_wait_for_ever() -> None:
    script = Script().ready()
    script.assign()
    script.tell(ev.RestartRequested())
    script.tell(ev.SessionRenewed(script.mono_s + 100))
    assert fx.Reexec() in script.passes(6.0)


# --- the spool -----------------------------------------------------------------------------


def test_an_outcome_that_etcd_doesnt_answer_goes_to_disk_then_leaves_the_supervisor() -> None:
    script = Script().ready()
    script.run()
    script.tell(ended())
    assert script.passes(0.5) == []
    script.passes(0.6)
    assert script.one(fx.SpoolOutcome).report.outcome is Outcome.COMPLETED
    assert script.passes(0.1) == []
    assert script.tell(ev.OutcomeSpooled(attempt_id())) == [fx.Acknowledge(attempt_id())]
    assert script.tell(ev.OutcomeStored(attempt_id(), late=False)) == [
        fx.ForgetSpooled(attempt_id())
    ]


def test_while_etcd_answers_anything_nothing_is_spooled() -> None:
    script = Script(slots=3).ready()
    script.run("r1", 100)
    script.tell(ended("r1", 100))
    script.assign("r2", 101)
    script.mono_s += 0.9
    script.commit_claim("r2", 101)
    assert script.passes(0.9) == []
    script.passes(0.2)
    script.one(fx.SpoolOutcome)


def test_an_answer_while_the_disk_is_being_written_leaves_nothing_behind() -> None:
    script = Script().ready()
    script.run()
    script.tell(ended())
    script.passes(1.1)
    assert script.tell(ev.OutcomeStored(attempt_id(), late=True)) == [
        fx.Acknowledge(attempt_id()),
        fx.ForgetSpooled(attempt_id()),
    ]
    assert script.tell(ev.OutcomeSpooled(attempt_id())) == []


def test_a_full_disk_is_tried_again_and_the_supervisor_keeps_the_outcome() -> None:
    script = Script().ready()
    script.run()
    script.tell(ended())
    script.passes(1.1)
    assert script.tell(ev.SpoolFailed(attempt_id())) == []
    assert not [e for e in script.passes(2.0) if isinstance(e, fx.SpoolOutcome)]
    script.passes(3.1)
    script.one(fx.SpoolOutcome)
    assert not script.of(fx.Acknowledge)


def test_a_lost_session_spools_at_once() -> None:
    script = Script().ready()
    script.run()
    script.tell(ended())
    script.tell(ev.SessionLost())
    script.one(fx.SpoolOutcome)


def test_spooled_outcomes_are_reported_in_order_by_the_next_process() -> None:
    script = Script()
    first = report("r1", 100, outcome=Outcome.FAILED, incarnation="i0")
    second = report("r2", 101, outcome=Outcome.COMPLETED, incarnation="i0")
    script.tell(ev.SpoolRead((first, second)))
    script.ready()
    assert [e.report for e in script.of(fx.ReportOutcome)] == [first, second]
    script.tell(ev.OutcomeStored(attempt_id("r1", 100), late=True))
    assert script.effects == [fx.ForgetSpooled(attempt_id("r1", 100))]


# --- a stop --------------------------------------------------------------------------------


def test_a_stop_says_so_waits_reports_and_leaves() -> None:
    script = Script().ready()
    script.run()
    script.tell(ev.StopRequested())
    assert script.one(fx.UpdatePresence).presence.draining
    assert script.assign("r2", 101) == []
    script.tell(ended())
    assert not script.of(fx.LeavePresence)
    script.tell(ev.OutcomeStored(attempt_id(), late=False))
    assert not script.of(fx.LeavePresence)
    script.tell(live(Stage.DISMISSED))
    assert script.one(fx.LeavePresence) == fx.LeavePresence("a1", JOINED)
    assert script.tell(ev.StopRequested()) == []
    assert script.tell(ev.PresenceLeft()) == [fx.Quit()]


@pytest.mark.parametrize(
    "seen",
    [
        gone(Kind.PRESENCE, "a1", revision=60),
        ev.Listed(Kind.PRESENCE, (), 60),
        ev.PresenceGone(JOINED),
    ],
)
def test_what_it_deletes_itself_it_doesnt_put_again(seen: ev.Event) -> None:
    """Its watch can be faster than the answer, and the leader would take it for one that comes."""
    script = Script().ready()
    script.tell(ev.StopRequested())
    script.tell(live(Stage.DISMISSED))
    script.one(fx.LeavePresence)
    assert script.tell(seen) == []
    assert script.tell(ev.PresenceLeft()) == [fx.Quit()]


@pytest.mark.parametrize("lease_gone", [True, False])
def test_a_farewell_whose_session_is_lost_is_over(lease_gone: bool) -> None:
    """Its delete may hang on a frozen member, and would be pointless once a new session joins."""
    script = Script().ready()
    script.tell(ev.StopRequested(), live(Stage.DISMISSED))
    script.one(fx.LeavePresence)
    assert script.tell(ev.SessionLost(lease_gone)) == [fx.Quit()]


def test_a_stop_kills_what_takes_too_long() -> None:
    script = Script(stop_timeout_s=5.0).ready()
    script.run(kill_grace_s=2.0)
    script.tell(ev.StopRequested())
    script.tell(ev.SessionRenewed(script.mono_s + 100))
    assert script.passes(4.0) == []
    script.passes(1.1)
    assert script.one(fx.KillProcess).grace_s == 2.0
    assert script.passes(1.0) == []
    script.tell(ended(cause=ev.EndCause.FENCED))
    sent = script.outcome()
    assert (sent.outcome, sent.reason) == (Outcome.DIED, "the agent was stopped")


def test_a_stop_that_kills_starts_nothing_that_is_being_claimed() -> None:
    script = Script(stop_timeout_s=5.0).ready()
    script.assign()
    script.one(fx.Claim)
    script.tell(ev.StopRequested(), ev.SessionRenewed(script.mono_s + 100))
    script.passes(5.1)
    assert not script.of(fx.KillProcess)
    script.commit_claim()
    assert not script.of(fx.StartProcess)
    sent = script.outcome()
    assert (sent.outcome, sent.reason) == (Outcome.DIED, "the agent was stopped")


@pytest.mark.parametrize("kill", [True, False], ids=["asked to kill", "asked twice"])
def test_a_second_request_kills_at_once(kill: bool) -> None:
    script = Script().ready()
    script.run()
    script.tell(*([] if kill else [ev.StopRequested()]), ev.StopRequested(kill))
    assert script.one(fx.KillProcess).grace_s == 0.0


def test_a_stop_without_etcd_leaves_with_its_outcomes_on_disk() -> None:
    script = Script().ready()
    script.run()
    script.tell(ev.StopRequested(), ended())
    script.passes(1.1)
    script.one(fx.SpoolOutcome)
    script.tell(ev.OutcomeSpooled(attempt_id()))
    assert not script.of(fx.LeavePresence)
    script.tell(ev.SessionLost())
    script.one(fx.Quit)


def test_a_stop_before_there_is_a_session_is_immediate() -> None:
    script = Script()
    script.tell(ev.SupervisorReady(incarnation="s1"))
    assert script.tell(ev.StopRequested()) == [fx.Quit()]


def joining() -> Script:
    """Its presence is sent, and unanswered yet: a leader may have seen it."""
    script = Script(stop_timeout_s=5.0)
    session = ev.SessionOpened(
        incarnation="i1", lease=LEASE, ttl_s=10, deadline_mono_s=script.mono_s + 100, resumed=False
    )
    script.tell(ev.SupervisorReady(incarnation="s1"), session)
    script.one(fx.JoinPresence)
    return script


def test_a_stop_while_its_presence_is_on_its_way_waits_for_the_answer() -> None:
    script = joining()
    assert script.tell(ev.StopRequested()) == []
    script.tell(ev.PresenceJoined(JOINED))
    assert script.one(fx.UpdatePresence).presence.draining
    assert not script.of(fx.LeavePresence)
    script.tell(live(Stage.DISMISSED))
    script.one(fx.LeavePresence)


def test_a_presence_whose_answer_doesnt_come_holds_a_stop_no_longer_than_its_time() -> None:
    script = joining()
    script.tell(ev.StopRequested())
    assert script.passes(4.9) == []
    script.passes(0.2)
    script.one(fx.Quit)


def test_a_process_that_cant_be_killed_doesnt_hold_the_agent_for_ever() -> None:
    script = Script(stop_timeout_s=5.0).ready()
    script.run(kill_grace_s=2.0)
    script.tell(ev.StopRequested(), ev.SessionRenewed(script.mono_s + 100))
    script.passes(5.1)
    script.passes(7.1)
    script.one(fx.LeavePresence)


# --- what is to be done before it goes -------------------------------------------------------


def dismissing(**settings: float) -> Script:
    """Idle, and asked to stop."""
    script = Script(leader_wait_s=5.0, shutdown_timeout_s=20.0, stop_timeout_s=3.0, **settings)
    script.ready().tell(ev.StopRequested())
    assert not script.of(fx.LeavePresence)
    script.tell(ev.SessionRenewed(script.mono_s + 1000))
    return script


def test_without_a_word_from_any_leader_it_goes_in_time() -> None:
    script = dismissing()
    assert script.passes(4.9) == []
    script.passes(0.2)
    script.one(fx.LeavePresence)


@pytest.mark.parametrize(
    "told",
    [
        live(Stage.HERE),
        live(Stage.DISMISSED, incarnation="i0"),
        gone(Kind.LIVE, "a1"),
        ev.Listed(Kind.LIVE, (), 70),
    ],
    ids=["still here", "of another session", "no record", "none in a listing"],
)
def test_what_is_no_word_on_its_going(told: ev.Event) -> None:
    script = dismissing()
    assert script.tell(told) == []
    script.passes(5.1)
    script.one(fx.LeavePresence)


def test_a_listing_tells_it_too() -> None:
    script = dismissing()
    script.tell(ev.Listed(Kind.LIVE, (live(Stage.DISMISSED).change,), 70))
    script.one(fx.LeavePresence)


@pytest.mark.parametrize("occasion", [Occasion.HOST_SHUTDOWN, Occasion.CLUSTER_SHUTDOWN])
def test_it_takes_shutdown_jobs_before_it_goes(occasion: Occasion) -> None:
    script = dismissing()
    script.tell(live(Stage.LEAVING))
    script.run(occasion=occasion)
    script.tell(ended())
    script.tell(ev.OutcomeStored(attempt_id(), late=False))
    assert not script.of(fx.LeavePresence)
    script.tell(live(Stage.DISMISSED))
    script.one(fx.LeavePresence)


@pytest.mark.parametrize("occasion", [None, Occasion.HOST_STARTUP, Occasion.CLUSTER_STARTUP])
def test_it_takes_nothing_else(occasion: Occasion | None) -> None:
    script = dismissing()
    script.tell(live(Stage.LEAVING))
    assert script.assign(occasion=occasion) == []


@pytest.mark.parametrize("incarnation", ["i0", "i1"])
def test_a_shutdown_job_is_taken_past_what_waits_in_vain(incarnation: str) -> None:
    """It came first, and is another session's, or nothing that an agent takes that leaves."""
    script = dismissing()
    script.tell(live(Stage.LEAVING))
    assert script.assign(incarnation=incarnation) == []
    script.assign("r2", 101, occasion=Occasion.HOST_SHUTDOWN)
    assert script.one(fx.Claim).report.run == "r2"


def test_one_that_stays_takes_no_shutdown_job() -> None:
    """It died while it stopped, and has come back within its lease."""
    script = Script().ready()
    assert script.assign(occasion=Occasion.HOST_SHUTDOWN) == []


def test_what_came_while_its_work_went_on_is_taken_then() -> None:
    script = Script().ready()
    script.run()
    script.tell(ev.StopRequested())
    assert script.assign("r2", 101, occasion=Occasion.HOST_SHUTDOWN) == []
    script.tell(ended())
    script.tell(ev.OutcomeStored(attempt_id(), late=False))
    assert script.one(fx.Claim).report.run == "r2"


def test_no_shutdown_job_is_taken_once_it_goes() -> None:
    """A leader that comes as its presence is being deleted still sees it."""
    script = dismissing()
    script.passes(5.1)
    script.one(fx.LeavePresence)
    script.tell(live(Stage.LAST))
    assert script.assign(occasion=Occasion.CLUSTER_SHUTDOWN) == []
    assert script.tell(ev.PresenceLeft()) == [fx.Quit()]


def test_no_shutdown_job_is_taken_while_it_is_drained() -> None:
    script = dismissing()
    script.tell(drain(), live(Stage.LEAVING))
    assert script.assign(occasion=Occasion.HOST_SHUTDOWN) == []


def test_shutdown_jobs_have_their_own_time_and_the_last_ones_again() -> None:
    script = dismissing()
    script.tell(live(Stage.LEAVING))
    script.passes(19.9)
    script.tell(live(Stage.LAST))
    script.run(occasion=Occasion.CLUSTER_SHUTDOWN, kill_grace_s=2.0)
    assert script.passes(19.8) == []
    script.passes(0.3)
    assert script.one(fx.KillProcess).grace_s == 2.0
    script.tell(ended(cause=ev.EndCause.FENCED))
    assert script.outcome().outcome is Outcome.DIED
    assert script.assign("r1", 102, attempt=2, occasion=Occasion.CLUSTER_SHUTDOWN) == []
    script.tell(ev.OutcomeStored(attempt_id(), late=False))
    script.one(fx.LeavePresence)


def test_work_that_had_to_be_killed_is_no_reason_to_skip_the_shutdown_jobs() -> None:
    script = Script(stop_timeout_s=5.0).ready()
    script.run(kill_grace_s=2.0)
    script.tell(ev.StopRequested(), ev.SessionRenewed(script.mono_s + 100))
    script.passes(5.1)
    script.one(fx.KillProcess)
    script.tell(ended(cause=ev.EndCause.FENCED))
    script.tell(ev.OutcomeStored(attempt_id(), late=False))
    assert not script.of(fx.LeavePresence)
    script.tell(live(Stage.LEAVING))
    script.run("r2", 101, occasion=Occasion.HOST_SHUTDOWN)


def test_a_second_request_waits_for_nothing() -> None:
    script = dismissing()
    script.tell(live(Stage.LEAVING))
    script.run(occasion=Occasion.HOST_SHUTDOWN)
    script.tell(ev.StopRequested())
    assert script.one(fx.KillProcess).grace_s == 0.0
    script.tell(ended(cause=ev.EndCause.FENCED))
    script.tell(ev.OutcomeStored(attempt_id(), late=False))
    script.one(fx.LeavePresence)


def test_a_second_request_before_there_is_any_work_goes_at_once() -> None:
    script = dismissing()
    script.tell(ev.StopRequested())
    script.one(fx.LeavePresence)


def test_one_whose_session_is_lost_goes_at_once() -> None:
    script = dismissing()
    script.tell(live(Stage.LEAVING))
    script.tell(ev.SessionLost())
    script.one(fx.Quit)


def test_a_restart_says_nothing_of_going() -> None:
    script = Script().ready()
    script.run()
    script.assign("r2", 101)
    script.tell(ev.RestartRequested(), ev.SupervisorReady(incarnation="s1"))
    assert not script.one(fx.UpdatePresence).presence.draining


def test_noops_dont_hold_a_slot_while_their_outcome_is_under_way() -> None:
    script = Script(slots=1).ready()
    script.assign("r1", 100, Noop())
    script.assign("r2", 101, Noop())
    script.commit_claim("r1", 100)
    assert script.one(fx.Claim).token == 101
    assert script.machine.phase_of(attempt_id("r1", 100)) is Phase.REPORTING


def test_a_claim_of_anothers_session_is_left_to_the_leader() -> None:
    """Its process may live on the host that had this id before, whose lease just went."""
    foreign = report("r1", 100, incarnation="i0")
    own = report("r2", 101)
    script = Script().ready(reports=(foreign, own))
    assert [effect.report.run for effect in script.of(fx.ReportOutcome)] == ["r2"]


def test_a_claim_of_anothers_session_is_left_also_where_its_assignment_is_seen() -> None:
    script = Script()
    foreign = report("r1", 100, incarnation="i0")
    script.assign("r1", 100, incarnation="i0")
    script.ready(reports=(foreign,))
    assert script.of(fx.ReportOutcome) == []
