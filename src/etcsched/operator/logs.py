"""What a run wrote: read from the agents that have it, followed over retries and reassignments.

The output is on the agent's disk, and only there; etcd has the last 4 KiB of an attempt that is
over. So of an attempt whose agent is lost there is that, and it is said to be that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Final

import msgspec

from etcsched.core.errors import EtcschedError, NotFound
from etcsched.core.records import Attempt, Kind, OutputAccess, Presence, Run
from etcsched.core.states import FINAL, WAITING, Outcome, RunState
from etcsched.keyspace.keys import Keys
from etcsched.operator.patience import Patience
from etcsched.operator.runs import RunView, read_run
from etcsched.operator.store import found, read
from etcsched.operator.waiting import WaitsTold
from etcsched.ports import Etcd
from etcsched.serving.address import Address
from etcsched.serving.client import Answer, NotThatDaemon, Unanswered, ask
from etcsched.serving.outputs import OVER_HEADER, target_of

__all__ = ["Note", "OutputUnavailable", "Text", "follow_output", "read_output"]

_WAIT_S: Final = 15
"""How long an agent may wait for more before it says that there is none."""
_LOOK_AGAIN_S: Final = 0.5


class Text(msgspec.Struct, frozen=True):
    """Bytes of output, as they were written."""

    data: bytes


class Note(msgspec.Struct, frozen=True):
    """A line about the output, for people."""

    text: str


class OutputUnavailable(EtcschedError):
    """The output is on an agent that doesn't answer."""

    exit_code = 3


class _Try(msgspec.Struct, frozen=True):
    """One attempt, where it is or was; ``over``: how it ended."""

    number: int
    agent: str
    over: Attempt | None


async def read_output(
    etcd: Etcd, keys: Keys, job: str, run: str, number: int | None, timeout_s: float
) -> AsyncGenerator[Text | Note, None]:
    """Of one attempt (None: the last), as far as it has come."""
    view = await read_run(etcd, keys, job, run)
    tries = _tries(view)
    if number is None and not tries:
        yield Note(f"{view.name} has written nothing: it is {view.state.value}")
        return
    chosen = _chosen(view, tries, number)
    if number is None and len(tries) > 1:
        # More may come, and more were allowed.
        whole = f"of {len(tries)}" if view.state in FINAL else "(the last so far)"
        yield Note(f"attempt {chosen.number} {whole}, on {chosen.agent}")
    if unstarted := _unstarted(chosen):
        yield unstarted
        return
    reader = _Reader(etcd, keys, view, chosen, timeout_s)
    try:
        while not reader.is_over:
            data = await reader.next(wait_s=0)
            if not data:
                return
            yield Text(data)
    except _NotServed as error:
        for part in _instead(chosen, reader.offset, error):
            yield part


async def follow_output(
    etcd: Etcd,
    keys: Keys,
    job: str,
    run: str,
    number: int | None,
    timeout_s: float,
    patience: Patience,
) -> AsyncGenerator[Text | Note, None]:
    """From the last attempt (or one) on, live, until the run is over (or that attempt is), however
    often etcd is away meanwhile."""
    view = await read_run(etcd, keys, job, run)
    tries = _tries(view)
    if number is not None or tries:
        following = _chosen(view, tries, number)
    elif view.state in FINAL:
        yield Note(f"{view.name} has written nothing: it is {view.state.value}")
        return
    else:
        hint = f"; etcsched explain {view.name} says why" if view.state in WAITING else ""
        yield Note(f"{view.name} has written nothing yet: it is {view.state.value}{hint}")
        view, first = await _next_try(etcd, keys, view, 0, patience, known=view.run)
        if first is None:
            yield _end(view)
            return
        following = first
    while True:
        yield Note(f"attempt {following.number}, on {following.agent}")
        reader = _Reader(etcd, keys, view, following, timeout_s)
        async for part in _follow(etcd, keys, reader, patience):
            yield part
        if number is not None:
            if unstarted := _unstarted(following):
                yield unstarted
            return
        view, after = await _next_try(etcd, keys, view, following.number, patience)
        for remark in _once_over(view, following, reader):
            yield remark
        if after is None:
            yield _end(view)
            return
        following = after


async def _next_try(
    etcd: Etcd,
    keys: Keys,
    view: RunView,
    number: int,
    patience: Patience,
    known: Run | None = None,
) -> tuple[RunView, _Try | None]:
    """The attempt after this one, once there is one; None: the run is over without. The leader is
    told of an attempt's end by its agent, and may know it later than who asks the agent.

    What it waits for meanwhile is told, unless that is ``known``."""
    job, run = view.run.job, view.run.id
    told = WaitsTold(patience.say, WAITING - {RunState.READY}, known)
    while True:
        view = await patience.read(lambda: read_run(etcd, keys, job, run))
        later = [one for one in _tries(view) if one.number > number]
        if later or view.state in FINAL:
            return view, later[0] if later else None
        told.see(view.run)
        await asyncio.sleep(_LOOK_AGAIN_S)


async def _follow(
    etcd: Etcd, keys: Keys, reader: _Reader, patience: Patience
) -> AsyncGenerator[Text | Note, None]:
    """One attempt, until it is over, by its agent's word or the leader's."""
    has_complained = False
    while not reader.is_over:
        try:
            data = await patience.read(lambda: reader.next(wait_s=_WAIT_S))
        except _NotServed as error:
            view = await patience.read(lambda: read_run(etcd, keys, *reader.place))
            now = next((one for one in _tries(view) if one.number == reader.number), None)
            if now is None or now.over is not None:
                if now is not None:
                    for part in _instead(now, reader.offset, error):
                        yield part
                return
            if not has_complained:
                yield Note(f"{error}: waiting for it, or for the run to move")
                has_complained = True
            await asyncio.sleep(_LOOK_AGAIN_S)
            continue
        has_complained = False
        if data:
            yield Text(data)


def _tries(view: RunView) -> list[_Try]:
    """In their order; that which goes on is the last."""
    run = view.run
    tries = [_Try(over.number, over.agent, over) for over in run.attempts]
    is_here = view.state in (RunState.RUNNING, RunState.HELD) or view.reported is not None
    if run.agent and is_here and run.attempt not in [one.number for one in tries]:
        tries.append(_Try(run.attempt, run.agent, None))
    return tries


def _chosen(view: RunView, tries: list[_Try], number: int | None) -> _Try:
    if number is None:
        return tries[-1]
    chosen = next((one for one in tries if one.number == number), None)
    if chosen is None:
        known = ", ".join(str(one.number) for one in tries) or "none"
        raise NotFound(f"{view.name} has no attempt {number}; it has {known}")
    return chosen


def _instead(chosen: _Try, offset: int, error: EtcschedError) -> list[Text | Note]:
    """What there is of an attempt whose agent doesn't give its output (any more)."""
    over = chosen.over
    if over is None:
        raise OutputUnavailable(f"{error}; what attempt {chosen.number} wrote is there alone")
    tail = over.tail.encode()
    missing = over.output_bytes - offset
    if missing <= 0 and (over.output_bytes or _is_known(over)):
        return []
    if not tail:
        what = "what followed isn't known" if offset else "what it wrote isn't known"
        return [Note(f"{error}; {what}")]
    if len(tail) >= missing:
        return [Text(tail[-missing:])]
    shown = f"the last {len(tail)} of {over.output_bytes} bytes"
    return [Note(f"{error}; this is the tail that it reported, {shown}:"), Text(tail)]


def _is_known(over: Attempt) -> bool:
    """Whether its agent has told its end: of one that was lost nobody knows how much it wrote."""
    return over.outcome is not Outcome.DIED or (over.exit_code, over.signal) != (None, None)


def _unstarted(one: _Try) -> Note | None:
    """Why it never had a process. Of one that died nobody knows."""
    over = one.over
    if over is None or over.started_at is not None or over.outcome is Outcome.DIED:
        return None
    why = f": {over.reason}" if over.reason else ""
    return Note(f"attempt {one.number} on {one.agent} never started{why}")


def _once_over(view: RunView, followed: _Try, reader: _Reader) -> list[Text | Note]:
    """What is known of it only now: that it never started, or the end of what was more than the
    agent keeps. Who reads the file later finds that there."""
    now = next((one for one in _tries(view) if one.number == followed.number), followed)
    over, unstarted = now.over, _unstarted(now)
    if unstarted is not None:
        return [unstarted]
    if over is None or not reader.is_over or over.output_bytes <= reader.offset:
        return []
    kept = f"the agent has kept {reader.offset} of {over.output_bytes} bytes"
    if not over.tail:
        return [Note(kept)]  # Of early attempts a run's record has no tail.
    return [Note(f"{kept}; this is the end:"), Text(over.tail.encode())]


def _end(view: RunView) -> Note:
    last = view.run.last_attempt
    reason = last.reason if last is not None else ""
    why = f" ({reason})" if reason and reason != view.state.value else ""
    return Note(f"{view.name} is over: {view.state.value}{why}")


class _NotServed(EtcschedError):
    """The agent doesn't give this output, or not now."""


class _Reader:
    """Asks an attempt's agent, where etcd says that it is; looked up anew after each failure, since
    an agent that was started again has another address, token and certificate."""

    def __init__(
        self, etcd: Etcd, keys: Keys, view: RunView, chosen: _Try, timeout_s: float
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._agent = chosen.agent
        self._timeout_s = timeout_s
        self._at: tuple[Address, OutputAccess] | None = None
        self.place = (view.run.job, view.run.id)
        self.number = chosen.number
        self.offset = 0
        """How much is read."""
        self.is_over = False
        """Everything is read that there will ever be."""

    async def next(self, *, wait_s: int) -> bytes:
        """What follows; nothing: nothing has come for ``wait_s``."""
        address, access = self._at = self._at or await self._look_up()
        try:
            answer = await ask(
                address,
                target_of(*self.place, self.number, self.offset, wait_s),
                token=access.token,
                certificate_sha256=access.certificate_sha256,
                timeout_s=self._timeout_s + wait_s,
            )
        except (Unanswered, NotThatDaemon) as error:
            self._at = None
            raise _NotServed(f"agent {self._agent} at {error}") from None
        if answer.status != HTTPStatus.OK:
            self._at = None
            raise _NotServed(self._refusal(answer))
        self.offset += len(answer.body)
        self.is_over = answer.headers.get(OVER_HEADER.lower()) == "1"
        return answer.body

    def _refusal(self, answer: Answer) -> str:
        if answer.status == HTTPStatus.NOT_FOUND:
            return f"agent {self._agent} has no output of attempt {self.number} (any more)"
        said = answer.body.decode(errors="replace").strip()
        return f"agent {self._agent} doesn't give it: {answer.status} {said}"

    async def _look_up(self) -> tuple[Address, OutputAccess]:
        wanted = [self._keys.of(Kind.PRESENCE, self._agent), self._keys.access(self._agent)]
        (at_presence, at_access), _ = await read(self._etcd, wanted)
        presence, access = found(Presence, at_presence), found(OutputAccess, at_access)
        if presence is None:
            raise _NotServed(f"agent {self._agent} isn't here")
        if not presence.output_address or access is None:
            raise _NotServed(f"agent {self._agent} serves no output (--output-listen)")
        what = f"the output address of agent {self._agent}"
        return Address.parse(presence.output_address, what), access
