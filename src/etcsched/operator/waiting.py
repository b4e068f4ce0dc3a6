"""Waiting with a run: until it is over, told meanwhile what it waits for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from etcsched.core.records import Kind, Run
from etcsched.core.states import FINAL, WAITING, RunState
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType
from etcsched.operator.patience import Patience
from etcsched.operator.runs import RunView, read_run
from etcsched.operator.store import found
from etcsched.ports import Etcd, Snapshot

__all__ = ["WaitsTold", "wait_for_end"]

_MAY_LAST: Final = (RunState.RETRYING, RunState.HELD)


class WaitsTold:
    """``say`` hears of each wait in one of the ``states`` once, when it is first seen. ``known``:
    the run as whoever listens knows it already."""

    def __init__(
        self, say: Callable[[str], None], states: Collection[RunState], known: Run | None = None
    ) -> None:
        self._say = say
        self._states = states
        self._told = _wait_of(known) if known is not None else None

    def see(self, run: Run) -> None:
        if run.state not in WAITING:
            self._told = None
        elif run.state in self._states and _wait_of(run) != self._told:
            self._told = _wait_of(run)
            self._say(_text(run))


def _wait_of(run: Run) -> tuple[RunState, int]:
    """The same for as long as it is the same wait."""
    return run.state, run.retries


def _text(run: Run) -> str:
    is_retry = run.state is RunState.RETRYING
    which = f" (number {run.retries}, due at {run.retry_at})" if is_retry else ""
    name = f"{run.job}/{run.id}"
    return f"{name} is {run.state.value}{which}; etcsched explain {name} says why"


async def wait_for_end(etcd: Etcd, keys: Keys, job: str, run: str, patience: Patience) -> RunView:
    """The run once it is over, however long that takes, and however often etcd is away meanwhile.
    ``NotFound`` if it never was."""
    key = keys.of(Kind.RUN, job, run)
    while True:
        async with patience.beside_a_watch(etcd, key):
            await _gone(etcd, key, WaitsTold(patience.say, _MAY_LAST))
        view = await patience.read(lambda: read_run(etcd, keys, job, run))
        if view.state in FINAL:
            return view


async def _gone(etcd: Etcd, key: str, told: WaitsTold) -> None:
    async with etcd.watch(key, key + "\0") as updates:
        async for update in updates:
            if isinstance(update, Snapshot):
                kvs, is_gone = update.kvs, not update.kvs
            else:
                kvs = tuple(e.kv for e in update.events if e.type is EventType.PUT)
                is_gone = any(event.type is EventType.DELETE for event in update.events)
            if is_gone:
                return
            for kv in kvs:
                run = found(Run, kv)
                if run is not None:
                    told.see(run)
