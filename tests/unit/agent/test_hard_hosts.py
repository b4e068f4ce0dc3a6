"""Hosts that lack something for a while: threads, descriptors, a disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.agent.config import AgentConfig
from etcsched.agent.presence import PresenceKeeper
from etcsched.agent.sessions import SessionKeeper
from etcsched.agent.spool import Spool
from etcsched.agent.state_dir import StateDir
from etcsched.agent.supervisor.output import Output, end_of_file
from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.core.agent.attempt import Phase
from etcsched.core.errors import Compacted
from etcsched.core.records import Exec
from etcsched.core.states import Outcome
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.session import Session
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import RangeResult
from tests.unit.agent.script import START_MS, Script, attempt_id, ended, report

PATIENCE_S = 20.0


async def until(holds: Callable[[], bool], running: asyncio.Task[None]) -> None:
    """Or until the task is over, which then raises what it ended with."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            if running.done():
                running.result()
            await asyncio.sleep(0.01)


# --- etcd


class CompactedOnce:
    """Somebody compacts between two pages of the reports."""

    def __init__(self) -> None:
        self.is_first = True

    async def range(self, _request: Any, **_: Any) -> RangeResult:
        if self.is_first:
            self.is_first = False
            raise Compacted("required revision has been compacted", 0)
        return RangeResult(kvs=(), revision=9, count=0, more=False, raft_term=1)


async def test_a_compaction_between_two_pages_of_reports() -> None:
    told: list[ev.Event] = []
    keeper = PresenceKeeper(CompactedOnce(), Keys(), "a1", told.append)  # type: ignore[arg-type]
    keeper.submit(fx.ReadReports(7))
    running = asyncio.create_task(keeper.run())
    await until(lambda: bool(told), running)
    running.cancel()
    assert told == [ev.ReportsRead(7, ())]


# --- threads


def no_thread(_self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_the_spool_has_its_thread_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    answers: dict[str, bool] = {}
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        spool.store(attempt_id(), report(outcome=Outcome.FAILED), answers.__setitem__)
    spool.close()
    assert answers == {attempt_id(): True}


@asynccontextmanager
async def sessions_of(
    state: StateDir, told: list[ev.Event], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[asyncio.Task[None]]:
    """Of an agent whose etcd is taken to be as it should be."""

    async def as_it_should_be(*_: Any, **__: Any) -> None:
        return None

    etcd = EtcdClient(EtcdConfig(endpoints=("localhost:1",)))
    keeper = SessionKeeper(AgentConfig(id="a1"), etcd, state, told.append)
    monkeypatch.setattr("etcsched.agent.sessions.check_server", as_it_should_be)
    monkeypatch.setattr(keeper, "check_not_restored", as_it_should_be)
    keeper.open()
    running = asyncio.create_task(keeper.run())
    yield running
    running.cancel()
    await etcd.close()


async def test_a_session_that_finds_no_thread_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with sessions_of(StateDir(tmp_path / "a1"), [], monkeypatch) as running:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            await until(lambda: caplog.text.count("no thread for the session") >= 2, running)
        assert not running.done()


# --- disks


async def test_a_state_directory_that_is_gone_costs_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def starts(_self: Session, **_: Any) -> None:
        return None

    monkeypatch.setattr(Session, "start", starts)
    monkeypatch.setattr(Session, "ttl_s", 10.0)
    monkeypatch.setattr(Session, "deadline_mono_s", 10.0)
    state, told = StateDir(tmp_path / "a1"), list[ev.Event]()
    async with sessions_of(state, told, monkeypatch) as running:
        shutil.rmtree(state.path)
        await until(lambda: bool(told), running)
    assert isinstance(told[0], ev.SessionOpened)


def test_an_outcome_that_cant_be_read_now_is_kept_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(_self: Path) -> bytes:
        raise OSError(24, "Too many open files")

    completed = report(outcome=Outcome.COMPLETED)
    spool = Spool(tmp_path)
    spool.store(attempt_id(), completed, lambda *_: None)
    spool.close()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", no_descriptor)
        unlucky = Spool(tmp_path)
        assert unlucky.read() == ()
        unlucky.close()
    later = Spool(tmp_path)
    assert later.read() == (completed,)
    later.close()


def test_an_outcome_of_long_names_goes_to_disk_and_is_forgotten(tmp_path: Path) -> None:
    name, run = "j" * 128, f"20261130T150000Z@{'a' * 128}"
    id_ = f"{name}/{run}/1/100"
    spool, answers = Spool(tmp_path), dict[str, bool]()
    failed = replace(report(run, outcome=Outcome.FAILED), job=name)
    spool.store(id_, failed, answers.__setitem__)
    spool.close()
    assert answers == {id_: True}
    later = Spool(tmp_path)
    assert later.read() == (failed,)
    later.forget(id_)
    later.close()
    assert not list(tmp_path.iterdir())


def test_a_named_pipe_in_an_outputs_place_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    os.mkfifo(path)
    is_over = threading.Event()

    def look() -> None:
        output = Output(str(path), 1000)
        os.write(output.write_fd, b"hi")
        output.pump()
        output.finish()
        end_of_file(str(path))
        is_over.set()

    threading.Thread(target=look, daemon=True).start()
    assert is_over.wait(PATIENCE_S)


# --- what isn't the command's fault


def test_what_came_to_the_supervisor_after_its_deadline_died() -> None:
    """The host was suspended after the claim: elsewhere it would have run."""
    script = Script().ready()
    script.assign()
    script.commit_claim()
    script.one(fx.StartProcess)
    script.passes(9.0)
    assert script.one(fx.KillProcess).cause is fx.KillCause.FENCED
    script.tell(
        ev.StartFailed(
            attempt_id=attempt_id(),
            reason="its deadline had passed before it could start",
            failed_ms=START_MS + 9000,
            died=True,
        )
    )
    script.session("i2", reports=(report(),))
    script.tell(ev.TimePassed())
    found = script.machine._attempts.by_id[attempt_id()].report
    assert found is not None
    assert found.outcome is Outcome.DIED


@pytest.mark.parametrize("argv", [("echo", "{p}" * 20_000), ("echo", *["{p}"] * 10_000)])
def test_a_command_that_its_parameters_make_too_long_fails(argv: tuple[str, ...]) -> None:
    """A job takes 64 KiB, and a run's parameters 16 KiB: their product is hundreds of MiB."""
    script = Script().ready()
    script.assign(action=Exec(argv), params={"p": "x" * 16_000})
    claimed = script.one(fx.Claim).report
    assert claimed.outcome is Outcome.FAILED
    assert "with its parameters it is beyond" in claimed.reason


# --- what etcd takes in no form (``--max-request-bytes``, say)


def test_a_claim_that_is_rejected_keeps_no_slot_and_is_sent_again_in_a_minute() -> None:
    script = Script(slots=1).ready()
    script.assign("r1", 100)
    script.tell(ev.ClaimRejected(attempt_id("r1", 100)))
    assert script.machine.occupied_slots == 0
    script.run("r2", 101)
    script.tell(ended("r2", 101))
    assert not [effect for effect in script.passes(5.0) if isinstance(effect, fx.Claim)]
    script.session()  # Renewed, and joined still.
    script.mono_s += 55.0
    script.session()
    assert script.one(fx.Claim).report.run == "r1"


def test_a_claim_that_is_rejected_after_its_run_was_moved_is_forgotten() -> None:
    script = Script().ready()
    script.assign()
    script.unassign()
    script.tell(ev.ClaimRejected(attempt_id()))
    assert script.machine.phase_of(attempt_id()) is None
    assert script.machine.occupied_slots == 0


def test_an_outcome_that_is_rejected_is_told_without_what_may_be_large() -> None:
    script = Script().ready()
    script.run()
    script.tell(ended(exit_code=3, tail="x" * 4096, results=b"rows=5\n"))
    whole = script.outcome()
    script.tell(ev.OutcomeRejected(attempt_id(), "request is too large"))
    assert script.outcome() == replace(
        whole,
        tail="",
        results={},
        results_problem="left out, as the tail of the output is: request is too large",
    )
    script.tell(ev.OutcomeStored(attempt_id(), late=False))
    assert script.machine.phase_of(attempt_id()) is Phase.DONE
    assert script.one(fx.Acknowledge).attempt_id == attempt_id()


def test_an_outcome_that_is_rejected_however_small_waits_on_disk_and_is_tried_again() -> None:
    script = Script().ready()
    script.run()
    script.tell(ended())
    script.tell(ev.OutcomeRejected(attempt_id(), "too many operations"))
    assert script.of(fx.ReportOutcome) == []
    assert script.one(fx.SpoolOutcome).attempt_id == attempt_id()
    script.tell(ev.OutcomeSpooled(attempt_id()))
    assert not script.machine.is_unsettled
    for _ in range(11):
        script.passes(5.0)
        script.tell(ev.SessionRenewed(script.mono_s + 8.0))
        assert script.of(fx.ReportOutcome) == []
    script.passes(5.0)
    assert script.one(fx.ReportOutcome)
    script.passes(1.0)
    assert script.of(fx.ReportOutcome) == []


def test_an_outcome_that_was_rejected_is_sent_once_by_the_session_that_comes() -> None:
    """Sent twice, the second would find its run moved on by the first, and tell of it as late."""
    script = Script().ready()
    script.run()
    script.tell(ended())
    script.tell(ev.OutcomeRejected(attempt_id(), "too many operations"))
    script.tell(ev.OutcomeSpooled(attempt_id()), ev.SessionLost())
    script.mono_s += 70.0
    script.session("i2")
    script.one(fx.ReportOutcome)
    script.passes(0.2)
    assert script.of(fx.ReportOutcome) == []


def test_a_reason_that_quotes_a_long_command_is_cut() -> None:
    script = Script().ready()
    script.assign(action=Exec(("echo", "{nothing}" + "x" * 60_000)))
    assert len(script.one(fx.Claim).report.reason) < 600
