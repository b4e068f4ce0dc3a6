"""An agent's output over the wire: what is given to whom, and when a wait ends."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path
from threading import Event

import pytest
import uvloop

from etcsched.agent import output_service
from etcsched.agent.output_service import OutputService
from etcsched.serving import outputs
from etcsched.serving.address import Address
from etcsched.serving.certificate import make_server_context
from etcsched.serving.client import Answer, NotThatDaemon, Unanswered, ask
from etcsched.serving.http import Request, Response, serve_http
from etcsched.serving.outputs import target_of
from tests.support.output_server import TOKEN, serve, write


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[OutputService]:
    async with serve(tmp_path / "output") as service:
        yield service


async def get(service: OutputService, target: str, *, token: str = TOKEN) -> Answer:
    return await ask(
        Address.parse(service.address, "address"),
        target,
        token=token,
        certificate_sha256=service.access.certificate_sha256,
        timeout_s=10,
    )


def over(answer: Answer) -> bool:
    return answer.headers[outputs.OVER_HEADER.lower()] == "1"


async def test_from_an_offset_on(service: OutputService, tmp_path: Path) -> None:
    write(tmp_path / "output", "job", "run@a1", 2, b"\x00\xffone two")
    whole = await get(service, target_of("job", "run@a1", 2, 0, 0))
    assert (whole.status, whole.body, over(whole)) == (200, b"\x00\xffone two", True)
    rest = await get(service, target_of("job", "run@a1", 2, 6, 0))
    assert (rest.body, over(rest)) == (b"two", True)
    beyond = await get(service, target_of("job", "run@a1", 2, 99, 0))
    assert (beyond.body, over(beyond)) == (b"", True)


async def test_in_pieces(
    service: OutputService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_service, "MOST_BYTES", 4)
    write(tmp_path / "output", "job", "run", 1, b"123456")
    first = await get(service, target_of("job", "run", 1, 0, 0))
    assert (first.body, over(first)) == (b"1234", False)
    second = await get(service, target_of("job", "run", 1, 4, 0))
    assert (second.body, over(second)) == (b"56", True)


async def test_what_isnt_here(service: OutputService) -> None:
    answer = await get(service, target_of("job", "run", 1, 0, 0))
    assert answer.status == 404
    assert answer.body == b"no output of attempt 1 of job/run is here\n"


async def test_a_wait_ends_with_what_is_written(service: OutputService, tmp_path: Path) -> None:
    asked: list[None] = []
    # The first is asked without a wait; then one waits while nothing is there, and one for more.
    moments = {number: asyncio.Event() for number in (3, 6)}
    writing = True

    def is_writing(job: str, run: str, number: int) -> bool:
        assert (job, run, number) == ("job", "run", 1)
        asked.append(None)
        if len(asked) in moments:
            moments[len(asked)].set()
        return writing

    service.is_writing = is_writing
    nothing = await get(service, target_of("job", "run", 1, 0, 0))
    assert (nothing.status, nothing.body, over(nothing)) == (200, b"", False)
    waiting = asyncio.create_task(get(service, target_of("job", "run", 1, 0, 20)))
    async with asyncio.timeout(10):
        await moments[3].wait()
    write(tmp_path / "output", "job", "run", 1, b"first")
    answer = await waiting
    assert (answer.body, over(answer)) == (b"first", False)
    waiting = asyncio.create_task(get(service, target_of("job", "run", 1, 5, 20)))
    async with asyncio.timeout(10):
        await moments[6].wait()
    writing = False
    answer = await waiting
    assert (answer.body, over(answer)) == (b"", True)


@pytest.mark.parametrize(
    "target",
    [
        "/output/job",
        "/output/job/",
        "/output//run",
        "/output/../state",
        "/output/job/..",
        "/output/%2e%2e/session",
        "/output/job/..%2f..%2fsession",
        "/output/job/run/1.log",
        "/output/job/a%00b",
        "/output/job/run?attempt=-1",
        "/output/job/run?attempt=1x",
        "/output/job/run?attempt=%C2%B2",
        "/output/job/run?from=1e9",
        f"/output/job/run?from={10**30}",
        "/output/job/run?wait=21",
    ],
)
async def test_what_is_no_run(service: OutputService, target: str) -> None:
    answer = await get(service, target)
    assert answer.status == 400, answer


async def test_no_link_leads_out(service: OutputService, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    (tmp_path / "output/job/run").mkdir(parents=True)
    os.symlink(secret, tmp_path / "output/job/run/1.log")
    answer = await get(service, target_of("job", "run", 1, 0, 0))
    assert answer.status == 500
    assert b"not yours" not in answer.body


@pytest.mark.parametrize("token", ["x", TOKEN + "x"])
async def test_a_wrong_token(service: OutputService, tmp_path: Path, token: str) -> None:
    write(tmp_path / "output", "job", "run", 1, b"text")
    answer = await get(service, target_of("job", "run", 1, 0, 0), token=token)
    assert answer.status == 401
    assert b"text" not in answer.body


async def test_another_certificate_isnt_told_the_token(tmp_path: Path) -> None:
    """Each start of an agent has a new one."""
    async with serve(tmp_path / "one") as expected, serve(tmp_path / "two") as other:
        assert expected.access.certificate_sha256 != other.access.certificate_sha256
        with pytest.raises(NotThatDaemon, match="another answers there"):
            await ask(
                Address.parse(other.address, "address"),
                target_of("job", "run", 1, 0, 0),
                token=TOKEN,
                certificate_sha256=expected.access.certificate_sha256,
                timeout_s=10,
            )


async def test_one_that_speaks_no_tls() -> None:
    async def answer(_: object) -> Response:
        return Response.line(200, "plain")

    async with serve_http(Address("127.0.0.1", 0), {"/output": answer}) as address:
        with pytest.raises((NotThatDaemon, Unanswered), match=str(address)):
            await ask(address, "/output/j/r", token=TOKEN, certificate_sha256="", timeout_s=10)


async def test_nobody_there_and_one_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address("127.0.0.1", silent.getsockname()[1])
        with pytest.raises(Unanswered, match=r"no answer within 0\.2 s"):
            await ask(address, "/output/j/r", token=TOKEN, certificate_sha256="", timeout_s=0.2)
    with pytest.raises(Unanswered, match="nobody listens there"):
        await ask(address, "/output/j/r", token=TOKEN, certificate_sha256="", timeout_s=5)


async def test_a_busy_agent_hears_what_a_client_says_first() -> None:
    """On the agent's own kind of event loop, which reads from a connection at once."""
    context, fingerprint = make_server_context("a1")
    listens: Future[Address] = Future()
    is_over = Event()

    async def answer(_request: Request) -> Response:
        return Response.line(200, "well")

    async def be_busy() -> None:
        async with serve_http(Address("127.0.0.1", 0), {"/o": answer}, tls=context) as address:
            listens.set_result(address)
            while not is_over.is_set():
                time.sleep(0.003)  # noqa: ASYNC251 - so clients have spoken before it looks
                await asyncio.sleep(0)

    agent = asyncio.create_task(asyncio.to_thread(uvloop.run, be_busy()))
    try:
        address = await asyncio.wrap_future(listens)
        for _ in range(5):
            told = await ask(
                address, "/o", token=TOKEN, certificate_sha256=fingerprint, timeout_s=10
            )
            assert told.status == 200
    finally:
        is_over.set()
        await agent
