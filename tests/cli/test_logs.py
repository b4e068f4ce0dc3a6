"""``runs logs`` against an agent's real output service and a model of etcd."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.agent.output_service import OutputService
from etcsched.core.errors import ClusterUnreachable
from etcsched.core.records import Attempt, Kind, Presence, Report, Run
from etcsched.core.states import Origin, Outcome, RunState
from etcsched.core.times import Utc
from etcsched.keyspace.codec import encode
from etcsched.keyspace.ops import Delete, Txn, TxnResult
from etcsched.operator import logs as operator_logs
from etcsched.operator import patience as operator_patience
from etcsched.testing.model_etcd import ModelEtcd
from tests.cli.console import NOW, Console, _assign
from tests.support.output_server import serve_in_thread, write

RUN = "job/r1"
SINCE = Utc("2026-11-22T18:00:00.000Z")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def agent(console: Console, root: Path) -> Iterator[OutputService]:
    """host-b, which is here, and serves output."""
    with serve_in_thread(root, "host-b") as service:
        present(console, service)
        yield service


def present(console: Console, service: OutputService) -> None:
    presence = Presence(
        agent="host-b",
        incarnation="1f",
        supervisor="s",
        slots=4,
        host="host-b",
        pid=1,
        since=SINCE,
        clock=SINCE,
        version="0.1.0",
        output_address=service.address,
    )
    console.put(presence, Kind.PRESENCE, "host-b")
    console.put_raw(console.keys.access("host-b"), encode(service.access))


def attempt(number: int = 1, agent: str = "host-b", **fields: Any) -> Attempt:
    return Attempt(
        **{
            "number": number,
            "agent": agent,
            "token": 10 * number,
            "assigned_at": SINCE,
            "outcome": Outcome.COMPLETED,
            "started_at": SINCE,
            "ended_at": NOW,
            **fields,
        }
    )


def over(console: Console, *attempts: Attempt, state: RunState = RunState.COMPLETED) -> None:
    run = Run(
        job="job",
        id="r1",
        state=state,
        origin=Origin.REQUEST,
        created_at=SINCE,
        agent=attempts[-1].agent if attempts else "",
        attempt=len(attempts),
        attempts=attempts,
    )
    console.archive(run)


def says(console: Console, *args: str) -> tuple[str, str]:
    """Standard output, and the notes beside it."""
    result = console.run("runs", "logs", *args)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_from_the_agent(console: Console, agent: OutputService, root: Path) -> None:
    write(root, "job", "r1", 1, b"one\ntwo \xff\n")
    over(console, attempt(output_bytes=10, tail="two\n"))
    result = console.run("runs", "logs", RUN)
    assert result.stdout_bytes == b"one\ntwo \xff\n"
    assert result.stderr == ""


def test_the_last_of_several_attempts_or_one(
    console: Console, agent: OutputService, root: Path
) -> None:
    write(root, "job", "r1", 1, b"first\n")
    write(root, "job", "r1", 2, b"second\n")
    over(console, attempt(1, output_bytes=6, outcome=Outcome.FAILED), attempt(2, output_bytes=7))
    assert says(console, RUN) == ("second\n", "-- attempt 2 of 2, on host-b\n")
    assert says(console, RUN, "--attempt", "1") == ("first\n", "")
    line = console.fails(4, "runs", "logs", RUN, "--attempt", "3")
    assert line == "etcsched: job/r1 has no attempt 3; it has 1, 2"


def test_another_attempt_may_come(console: Console, agent: OutputService, root: Path) -> None:
    write(root, "job", "r1", 2, b"second\n")
    tries = tuple(attempt(n, output_bytes=7, outcome=Outcome.FAILED) for n in (1, 2))
    run = Run(
        job="job",
        id="r1",
        state=RunState.RETRYING,
        origin=Origin.REQUEST,
        created_at=SINCE,
        attempt=2,
        attempts=tries,
        retries=2,
        retry_at=Utc("2026-11-22T19:10:00.000Z"),
    )
    console.put(run, Kind.RUN, "job", "r1")
    note = "-- attempt 2 (the last so far), on host-b\n"
    assert says(console, RUN) == ("second\n", note)


def test_of_a_lost_agent_there_is_the_tail(console: Console) -> None:
    over(console, attempt(output_bytes=9000, tail="the end\n"))
    assert says(console, RUN) == (
        "the end\n",
        "-- agent host-b isn't here; this is the tail that it reported, "
        "the last 8 of 9000 bytes:\n",
    )


def test_a_tail_that_is_all(console: Console) -> None:
    over(console, attempt(output_bytes=8, tail="the end\n"))
    assert says(console, RUN) == ("the end\n", "")


def test_of_an_agent_that_died_nothing_is_known(console: Console) -> None:
    over(console, attempt(outcome=Outcome.DIED, ended_at=None), state=RunState.DIED)
    assert says(console, RUN) == ("", "-- agent host-b isn't here; what it wrote isn't known\n")


def test_of_an_agent_that_was_lost_nothing_is_known(console: Console) -> None:
    """Though it is known when that was believed."""
    over(console, attempt(outcome=Outcome.DIED), state=RunState.DIED)
    assert says(console, RUN) == ("", "-- agent host-b isn't here; what it wrote isn't known\n")


def test_what_is_pruned(console: Console, agent: OutputService) -> None:
    over(console, attempt(output_bytes=9000, tail="the end\n"))
    text, note = says(console, RUN)
    assert text == "the end\n"
    assert note.startswith("-- agent host-b has no output of attempt 1 (any more); this is the ta")


def test_an_agent_that_serves_none(console: Console, agent: OutputService) -> None:
    service = OutputService(Path("/"), "", agent.access)
    present(console, service)
    over(console, attempt(output_bytes=9000, tail="the end\n"))
    assert "agent host-b serves no output (--output-listen)" in says(console, RUN)[1]


def test_a_wrong_token_is_refused(console: Console, agent: OutputService, root: Path) -> None:
    write(root, "job", "r1", 1, b"not for you")
    stranger = replace(agent.access, token="another-token-of-that-length")
    console.put_raw(console.keys.access("host-b"), encode(stranger))
    over(console, attempt(output_bytes=9000, tail="the end\n"))
    text, note = says(console, RUN)
    assert text == "the end\n"
    assert "agent host-b doesn't give it: 401" in note


def test_another_one_at_its_address(console: Console, agent: OutputService, root: Path) -> None:
    write(root, "job", "r1", 1, b"not its own")
    other = replace(agent.access, certificate_sha256="0" * 64)
    console.put_raw(console.keys.access("host-b"), encode(other))
    over(console, attempt(output_bytes=9000, tail="the end\n"))
    text, note = says(console, RUN)
    assert text == "the end\n"
    assert "another answers there than etcd knows of" in note


def test_an_attempt_that_never_started(console: Console) -> None:
    """Why is all that there is of it, wherever its agent is now."""
    unstarted: dict[str, Any] = {"started_at": None, "outcome": Outcome.FAILED}
    first = attempt(1, reason="command not found: /x", **unstarted)
    last = attempt(2, reason="working directory doesn't exist: /y", **unstarted)
    over(console, first, last, state=RunState.FAILED)
    why_first = "-- attempt 1 on host-b never started: command not found: /x\n"
    why_last = "-- attempt 2 on host-b never started: working directory doesn't exist: /y\n"
    assert says(console, RUN) == ("", f"-- attempt 2 of 2, on host-b\n{why_last}")
    assert says(console, RUN, "--attempt", "1") == ("", why_first)
    followed = says(console, "-f", RUN, "--attempt", "1")
    assert followed == ("", f"-- attempt 1, on host-b\n{why_first}")
    end = "-- job/r1 is over: failed (working directory doesn't exist: /y)\n"
    assert says(console, "-f", RUN) == ("", f"-- attempt 2, on host-b\n{why_last}{end}")


def test_of_an_attempt_that_died_nobody_knows_whether_it_started(console: Console) -> None:
    over(console, attempt(outcome=Outcome.DIED, started_at=None, reason="lost"))
    assert says(console, RUN) == ("", "-- agent host-b isn't here; what it wrote isn't known\n")


def test_a_run_that_hasnt_begun(console: Console) -> None:
    over(console, state=RunState.MISSED)
    assert says(console, RUN) == ("", "-- job/r1 has written nothing: it is missed\n")
    assert says(console, "-f", RUN) == ("", "-- job/r1 has written nothing: it is missed\n")
    assert console.fails(4, "runs", "logs", "job/none").startswith("etcsched: run job/none: there")


def test_of_a_run_in_progress_whose_agent_is_away(console: Console) -> None:
    _assign(console, "20261122T185500Z", "host-b", claimed=True)
    line = console.fails(3, "runs", "logs", "rotate_logs/20261122T185500Z")
    assert line == "etcsched: agent host-b isn't here; what attempt 1 wrote is there alone"


def test_of_an_outcome_that_no_leader_has_taken_in(
    console: Console, agent: OutputService, root: Path
) -> None:
    """It runs no more, and what it wrote is there."""
    write(root, "rotate_logs", "20261122T185500Z", 1, b"all of it\n")
    _assign(console, "20261122T185500Z", "host-b", claimed=True)
    place = ("host-b", "rotate_logs", "20261122T185500Z")
    claim = console.get(Report, Kind.REPORT, *place)
    console.put(replace(claim, outcome=Outcome.COMPLETED, ended_at=NOW), Kind.REPORT, *place)
    assert says(console, "rotate_logs/20261122T185500Z") == ("all of it\n", "")


def test_an_agent_that_doesnt_answer(console: Console, agent: OutputService) -> None:
    _assign(console, "20261122T185500Z", "host-b", claimed=True)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        agent.address = f"127.0.0.1:{silent.getsockname()[1]}"
        present(console, agent)
        line = console.fails(3, "--timeout=200ms", "runs", "logs", "rotate_logs/20261122T185500Z")
    assert f"agent host-b at {agent.address}: no answer within 0.2 s" in line


def test_following_until_it_is_over(console: Console, agent: OutputService, root: Path) -> None:
    """Live, over a retry, with what was beyond the cap of the agent."""
    writing, is_asked = {1}, threading.Event()

    def is_writing(job: str, run: str, number: int) -> bool:
        is_asked.set()
        return number in writing

    agent.is_writing = is_writing
    run = Run(
        job="job",
        id="r1",
        state=RunState.ASSIGNED,
        origin=Origin.REQUEST,
        created_at=SINCE,
        agent="host-b",
        attempt=1,
    )
    console.put(run, Kind.RUN, "job", "r1")
    _claim(console, 1)
    write(root, "job", "r1", 1, b"begun\n")
    steps = threading.Thread(target=_happens, args=(console, root, writing, is_asked, run))
    steps.start()
    text, notes = says(console, "-f", RUN)
    steps.join()
    assert text == "begun\nended\nagain\nthe end\n"
    assert notes.splitlines() == [
        "-- attempt 1, on host-b",
        "-- attempt 2, on host-b",
        "-- the agent has kept 6 of 9000 bytes; this is the end:",
        "-- job/r1 is over: failed (exit code 3)",
    ]


def test_following_outlasts_an_absence_of_etcd(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once; what happened meanwhile comes after it."""
    run = Run(job="job", id="r1", state=RunState.READY, origin=Origin.REQUEST, created_at=SINCE)
    console.put(run, Kind.RUN, "job", "r1")
    for module, name in ((operator_patience, "_LOOK_EVERY_S"), (operator_logs, "_LOOK_AGAIN_S")):
        monkeypatch.setattr(module, name, 0.001)
    txn, reads = ModelEtcd.txn, 0

    async def away_at_times(etcd: ModelEtcd, asked: Txn, **limits: float) -> TxnResult:
        nonlocal reads
        reads += 1
        if reads in (3, 4):
            raise ClusterUnreachable("etcd can't be reached: a: gone")
        if reads == 5:
            over(console, state=RunState.MISSED)
            console.store.txn(Txn((), (Delete(console.keys.of(Kind.RUN, "job", "r1")),)))
        return await txn(etcd, asked)

    monkeypatch.setattr(ModelEtcd, "txn", away_at_times)
    text, notes = says(console, "-f", RUN)
    assert text == ""
    assert notes.splitlines() == [
        "-- job/r1 has written nothing yet: it is ready; etcsched explain job/r1 says why",
        "-- etcd can't be reached: a: gone; still waiting",
        "-- etcd can be reached again; still waiting",
        "-- job/r1 is over: missed",
    ]


def test_following_says_what_a_run_waits_for(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(job="job", id="r1", state=RunState.QUEUED, origin=Origin.REQUEST, created_at=SINCE)
    failed = attempt(1, output_bytes=4, tail="oh!\n", outcome=Outcome.FAILED)
    console.put(run, Kind.RUN, "job", "r1")
    monkeypatch.setattr(operator_logs, "_LOOK_AGAIN_S", 0.001)
    txn, reads = ModelEtcd.txn, 0

    async def moves(etcd: ModelEtcd, asked: Txn, **limits: float) -> TxnResult:
        nonlocal reads
        reads += 1
        if reads == 4:
            retry = replace(
                run,
                state=RunState.RETRYING,
                attempt=1,
                attempts=(failed,),
                retries=1,
                retry_at=NOW,
            )
            console.put(retry, Kind.RUN, "job", "r1")
        if reads == 12:
            over(console, failed, state=RunState.CANCELLED)
            console.store.txn(Txn((), (Delete(console.keys.of(Kind.RUN, "job", "r1")),)))
        return await txn(etcd, asked)

    monkeypatch.setattr(ModelEtcd, "txn", moves)
    text, notes = says(console, "-f", RUN)
    assert text == "oh!\n"
    assert notes.splitlines() == [
        "-- job/r1 has written nothing yet: it is queued; etcsched explain job/r1 says why",
        "-- attempt 1, on host-b",
        "-- job/r1 is retrying (number 1, due at 2026-11-22T19:00:00.500Z); etcsched explain "
        "job/r1 says why",
        "-- job/r1 is over: cancelled",
    ]


def _claim(console: Console, number: int) -> int:
    report = Report(
        job="job",
        run="r1",
        attempt=number,
        token=10 * number,
        incarnation="1f",
        supervisor="s",
        claimed_at=SINCE,
        started_at=SINCE,
    )
    return console.put(report, Kind.REPORT, "host-b", "job", "r1")


def _happens(
    console: Console, root: Path, writing: set[int], is_asked: threading.Event, run: Run
) -> None:
    assert is_asked.wait(30)
    write(root, "job", "r1", 1, b"ended\n")
    first = attempt(1, output_bytes=12, outcome=Outcome.FAILED)
    writing.add(2)
    writing.remove(1)
    console.put(replace(run, attempt=2, attempts=(first,)), Kind.RUN, "job", "r1")
    _claim(console, 2)
    write(root, "job", "r1", 2, b"again\n")
    writing.remove(2)
    failed = attempt(
        2, output_bytes=9000, tail="the end\n", outcome=Outcome.FAILED, reason="exit code 3"
    )
    over(console, first, failed, state=RunState.FAILED)
    console.store.txn(Txn((), (Delete(console.keys.of(Kind.RUN, "job", "r1")),)))
