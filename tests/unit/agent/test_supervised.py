"""The agent's hold on its supervisor, where one dies as the agent goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from etcsched.agent.state_dir import StateDir
from etcsched.agent.supervised import Supervised
from etcsched.agent.supervisor.messages import Inventory
from etcsched.agent.supervisor_client import SupervisorClient, SupervisorDied, SupervisorEvent
from etcsched.core.agent import events as ev


class Client:
    """Of a supervisor that dies at once."""

    def __init__(self, *, processes_left: bool = False, is_closing: bool = False) -> None:
        self.inventory = Inventory(supervisor_incarnation="s", is_closing=is_closing)
        self.is_told_to_go = False
        self._died = SupervisorDied(attempts=(), processes_left=processes_left)

    async def events(self) -> AsyncIterator[SupervisorEvent]:
        yield self._died

    def shutdown(self, *, kill: bool) -> None:
        self.is_told_to_go = kill

    async def close(self) -> bool:
        return True


class Scene:
    """``starts`` are made by the test; what they return, or raise, is what comes of them."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.starts: asyncio.Queue[asyncio.Future[Client]] = asyncio.Queue()
        self.supervised = Supervised(
            StateDir(directory), "a1", self._hear, slots=1, output_cap_bytes=1, isolate=False,
            use_cgroup=False,
        )  # fmt: skip

        async def connect_or_start(*_: Any, **__: Any) -> Client:
            begun: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
            self.starts.put_nowait(begun)
            return await begun

        monkeypatch.setattr(SupervisorClient, "connect_or_start", connect_or_start)

    def _hear(self, event: ev.Event) -> None:
        if isinstance(event, ev.SupervisorGone):
            self.supervised.restart()

    async def goes_as_it_starts_another(self, died: Client) -> asyncio.Future[Client]:
        """The start that is under way then."""
        connecting = asyncio.ensure_future(self.supervised.connect())
        (await self.starts.get()).set_result(died)
        await connecting
        running = asyncio.ensure_future(self.supervised.run())
        begun = await self.starts.get()
        running.cancel()
        await asyncio.wait((running,))
        self.supervised.shutdown()
        return begun


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path / "state", monkeypatch)


@pytest.mark.parametrize("processes_left", [False, True])
async def test_what_the_one_before_left_is_not_forgotten_for_one_that_comes_too_late(
    scene: Scene, processes_left: bool
) -> None:
    """Else the lease would be revoked, and what still runs there begin elsewhere at once."""
    begun = await scene.goes_as_it_starts_another(Client(processes_left=processes_left))
    successor = Client()
    begun.set_result(successor)
    assert await scene.supervised.close() is not processes_left
    assert successor.is_told_to_go


async def test_a_start_that_fails_as_the_agent_goes_is_nothing_to_it(scene: Scene) -> None:
    begun = await scene.goes_as_it_starts_another(Client())
    begun.set_exception(RuntimeError("can't start new thread"))
    assert await scene.supervised.close()


@pytest.mark.parametrize("is_closing", [False, True])
async def test_one_that_is_found_stopping_is_told_of(
    scene: Scene, is_closing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As by a stop of the agent before, with a process that can't be killed."""
    connecting = asyncio.ensure_future(scene.supervised.connect())
    (await scene.starts.get()).set_result(Client(is_closing=is_closing))
    await connecting
    assert ("nothing is claimed until then" in caplog.text) is is_closing
