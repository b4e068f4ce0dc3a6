"""From assignment to outcome, against a real etcd and real processes."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from etcsched.core.records import Exec, Kind, Noop, Order
from etcsched.core.states import Outcome
from etcsched.core.times import Utc, utc_of
from etcsched.serving.address import Address, Listen
from tests.conftest import StartEtcd
from tests.integration.agent.fleet import Fleet, beating, first_beat, until

TICK = Utc("2026-11-22T23:30:00.000Z")


async def test_a_command_is_claimed_run_and_reported(fleet: Fleet) -> None:
    agent = fleet.agent()
    agent.start()
    presence = await fleet.joined()
    token = await fleet.assign(
        "r1",
        'echo "$ETCSCHED_JOB $ETCSCHED_RUN $ETCSCHED_ATTEMPT $ETCSCHED_TOKEN $ETCSCHED_AGENT";'
        'echo "$ETCSCHED_SCHEDULED_TIME $ETCSCHED_PARAM_COLOUR $OWN" >&2; exit 3',
        scheduled_at=TICK,
        params={"colour": "blue"},
        env={"OWN": "x"},
    )
    report = await fleet.outcome("r1")
    assert (report.outcome, report.exit_code, report.reason) == (Outcome.FAILED, 3, "exit code 3")
    assert (report.token, report.incarnation) == (token, presence.incarnation)
    assert report.supervisor == presence.supervisor
    assert report.tail == f"job r1 1 {token} a1\n{TICK} blue x\n"
    assert report.started_at is not None
    assert report.ended_at is not None
    assert report.claimed_at <= report.started_at <= report.ended_at
    output = agent.config.directory / "output/job/r1/1.log"
    assert output.read_text() == report.tail
    assert f"claimed job/r1 attempt 1 (token {token})" in agent.log()


async def test_results_are_reported_with_the_outcome(fleet: Fleet) -> None:
    fleet.agent().start()
    lines = r"printf 'rows=5\nfile=a\nfile=b c\noops\n' > $ETCSCHED_RESULTS"
    await fleet.assign("shell", lines)
    await fleet.assign("exec", Exec(("/bin/sh", "-c", f"{lines}; exit 3")))
    for run in ("shell", "exec"):
        report = await fleet.outcome(run)
        assert report.results == {"rows": ("5",), "file": ("a", "b c")}
        assert report.results_problem == "line 4, 'oops', is no NAME=VALUE"


async def test_the_way_to_results_is_open_whatever_the_umask(fleet: Fleet) -> None:
    """systemd's ``UMask=0077``, say: else no job of another user could write its results."""
    agent = fleet.agent()
    agent.umask = 0o077
    agent.start()
    await fleet.joined()
    await fleet.assign("r1", "true")
    await fleet.outcome("r1")
    run = agent.config.directory / "output" / "job" / "r1"
    ways = [run, *run.parents[:3]]
    assert [stat.filemode(way.stat().st_mode) for way in ways] == ["drwx--x--x"] * 4


async def test_parameters_stand_in_argv_in_the_zone_of_the_job(fleet: Fleet) -> None:
    fleet.agent().start()
    await fleet.assign(
        "r1",
        Exec(("printf", "%s|", "{scheduled_date}", "{who}", "{{x}}", "{job}/{run}")),
        scheduled_at=TICK,
        timezone="Europe/Berlin",
        params={"who": "a b; rm"},
    )
    report = await fleet.outcome("r1")
    assert report.outcome is Outcome.COMPLETED
    assert report.tail == "2026-11-23|a b; rm|{x}|job/r1|"


async def test_what_cant_be_executed_fails_with_one_reason(fleet: Fleet) -> None:
    fleet.agent().start()
    await fleet.assign("unknown", Exec(("echo", "{nothing}")))
    await fleet.assign("missing", Exec(("/no/such/program",)))
    unknown = await fleet.outcome("unknown")
    assert unknown.outcome is Outcome.FAILED
    assert unknown.reason.startswith("{nothing} in '{nothing}' is no parameter of this run")
    missing = await fleet.outcome("missing")
    assert missing.outcome is Outcome.FAILED
    assert "/no/such/program" in missing.reason
    assert "\n" not in missing.reason


async def test_a_user_that_isnt_allowed_is_declined_without_a_process(fleet: Fleet) -> None:
    fleet.agent().start()
    await fleet.assign("r1", "touch /never", user="nobody-here")
    report = await fleet.outcome("r1")
    assert report.outcome is Outcome.DECLINED
    assert report.reason == "agent a1 runs no jobs as nobody-here"
    assert report.started_at is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's agents take jobs of any user")
async def test_a_user_that_the_host_has_not_is_declined(fleet: Fleet) -> None:
    fleet.agent(users=()).start()
    await fleet.assign("r1", "touch /never", user="no-such-user")
    report = await fleet.outcome("r1")
    assert report.outcome is Outcome.DECLINED
    assert report.reason.startswith("no such user on this host: 'no-such-user'; make that user")
    assert report.started_at is None


async def test_noops_complete_without_a_process(fleet: Fleet) -> None:
    fleet.agent(slots=2).start()
    for number in range(10):
        await fleet.assign(f"r{number}", Noop())
    for number in range(10):
        assert (await fleet.outcome(f"r{number}")).outcome is Outcome.COMPLETED


async def test_a_timeout_is_said_to_be_one(fleet: Fleet) -> None:
    fleet.agent().start()
    await fleet.assign("r1", "sleep 600", timeout_s=0.3, kill_grace_s=1.0)
    assert (await fleet.outcome("r1")).outcome is Outcome.TIMED_OUT


async def test_an_order_ends_the_attempt_of_its_token_only(fleet: Fleet, tmp_path: Path) -> None:
    fleet.agent().start()
    token = await fleet.assign("r1", beating(tmp_path / "beats"))
    await first_beat(tmp_path / "beats")
    await fleet.cancel("r1", token - 1)
    other = await fleet.assign("r2", "exit 0")
    assert (await fleet.outcome("r2")).token == other
    assert (await fleet.report("r1")).outcome is None
    await fleet.cancel("r1", token)
    report = await fleet.outcome("r1")
    assert (report.outcome, report.signal) == (Outcome.CANCELLED, signal.SIGTERM)


async def test_an_order_that_comes_before_its_assignment_is_obeyed(
    start_etcd: StartEtcd, tmp_path: Path
) -> None:
    """An order for the token that the assignment gets, in an etcd where nobody else writes."""
    fleet = Fleet(tmp_path, (await start_etcd()).endpoints, "/etcsched/v1/")
    try:
        fleet.agent().start()
        await fleet.joined()
        key = fleet.keys.of(Kind.ORDER, "a1", "job", "r1")
        now = await fleet.put(key, Order(job="job", run="r1", token=0, at=utc_of(0)))
        await fleet.put(key, Order(job="job", run="r1", token=now + 2, at=utc_of(0)))
        assert await fleet.assign("r1", "sleep 600") == now + 2
        assert (await fleet.outcome("r1")).outcome is Outcome.CANCELLED
    finally:
        await fleet.close()


async def test_nothing_is_claimed_beyond_slots_nor_while_drained(
    fleet: Fleet, tmp_path: Path
) -> None:
    agent = fleet.agent(slots=1, listen=Listen(address=Address("127.0.0.1", 0)))
    agent.start()
    go = tmp_path / "go"
    await fleet.assign("r1", f"until test -e {go}; do sleep 0.02; done")
    await fleet.report("r1")
    await fleet.assign("r2", Noop())
    await fleet.drain()
    await agent.says("is drained")
    await fleet.assign("r3", Noop())
    go.touch()
    await fleet.outcome("r1")
    assert await fleet.count(Kind.REPORT) == 1
    await fleet.delete(fleet.keys.of(Kind.DRAIN, "a1"))
    await fleet.outcome("r2")
    await fleet.outcome("r3")


async def test_assignments_of_another_incarnation_are_left_alone(fleet: Fleet) -> None:
    fleet.agent().start()
    await fleet.joined()
    await fleet.assign("old", Noop(), incarnation="another")
    await fleet.assign("new", Noop())
    await fleet.outcome("new")
    assert await fleet.count(Kind.REPORT) == 1


async def test_a_run_that_was_taken_away_is_stopped(fleet: Fleet, tmp_path: Path) -> None:
    fleet.agent().start()
    token = await fleet.assign("r1", beating(tmp_path / "beats"))
    await first_beat(tmp_path / "beats")
    await fleet.take_away("r1")
    late = await fleet.late("r1", token)
    assert late.outcome is Outcome.DIED
    assert late.reason == "stopped, since its run was moved or ended without it"


async def test_a_stop_waits_for_what_runs_and_leaves_nothing(fleet: Fleet, tmp_path: Path) -> None:
    agent = fleet.agent()
    agent.start()
    go = tmp_path / "go"
    await fleet.assign("r1", f"until test -e {go}; do sleep 0.02; done")
    await fleet.report("r1")
    agent.signal(signal.SIGTERM)

    async def draining() -> bool | None:
        found = await fleet.presence()
        return True if found is not None and found[0].draining else None

    await until(draining, "its presence to say that it leaves")
    await fleet.assign("r2", Noop())
    go.touch()
    assert (await fleet.outcome("r1")).outcome is Outcome.COMPLETED
    await fleet.let_go()
    assert await agent.exit_code() == 0
    assert await fleet.presence() is None
    assert await fleet.count(Kind.REPORT) == 1


async def test_a_stop_kills_what_takes_too_long(fleet: Fleet, tmp_path: Path) -> None:
    agent = fleet.agent(stop_timeout_s=0.3)
    agent.start()
    await fleet.assign("r1", beating(tmp_path / "beats"), kill_grace_s=1.0)
    await first_beat(tmp_path / "beats")
    agent.signal(signal.SIGTERM)
    report = await fleet.outcome("r1")
    assert (report.outcome, report.reason) == (Outcome.DIED, "the agent was stopped")
    await fleet.let_go()
    assert await agent.exit_code() == 0


async def test_a_second_signal_kills_at_once(fleet: Fleet, tmp_path: Path) -> None:
    agent = fleet.agent()
    agent.start()
    await fleet.assign("r1", f"trap '' TERM; {beating(tmp_path / 'beats')}", kill_grace_s=60.0)
    await first_beat(tmp_path / "beats")
    agent.signal(signal.SIGTERM)
    agent.signal(signal.SIGINT)
    assert await agent.exit_code(within_s=10.0) == 0
    assert (await fleet.outcome("r1")).outcome is Outcome.DIED
