"""Keeps an eye on every voting member of etcd, so that its outage can be proven when it comes.

Nothing is sent as long as all is well. Only what was held before can be proven down, so an agent
that starts in the middle of an outage proves nothing; neither does one whose list of members is
old, since it might miss a member that came in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from etcsched.core.errors import EtcschedError
from etcsched.core.outage import (
    POLLS_PER_ELECTION_TIMEOUT,
    OutageProof,
    Poll,
    Sight,
    election_timeout_of,
)
from etcsched.etcd.client import Effect, EtcdClient
from etcsched.etcd.connection import Rpc
from etcsched.etcd.member_line import MemberLine, close_all
from etcsched.etcd.session import boottime_s
from etcsched.etcd.stubs import rpc_pb2

log = logging.getLogger(__name__)

REFRESH_S = 20.0
RETRY_S = 3.0
LOOK_S = 0.5
CALM_AFTER = 3
"""Election timeouts after the end of a connection: an old leader that has lost its followers takes
up to two to find out."""
STALE_S = 90.0
"""A list of members that is older when an outage begins proves nothing."""
_LIST_TIMEOUT_S = 5.0


async def measure_election_timeout(client: EtcdClient) -> float:
    """An upper bound of etcd's election timeout, by the least TTL that it grants."""
    lease = await client.lease_grant(1)
    await client.lease_revoke(lease.lease)
    return election_timeout_of(lease.ttl_s)


class OutageWatch:
    """``silent_s()``: for how long no keepalive was acknowledged (0: there is no session);
    from ``suspicious_s()`` on that calls for a look at the members.
    ``on_proved`` gets what counts like the sending of an acknowledged keepalive."""

    def __init__(
        self,
        client: EtcdClient,
        *,
        silent_s: Callable[[], float],
        suspicious_s: Callable[[], float],
        on_proved: Callable[[float], None],
    ) -> None:
        self._client = client
        self._silent_s = silent_s
        self._suspicious_s = suspicious_s
        self._on_proved = on_proved
        self._lines: dict[int, MemberLine] = {}
        self._ended = asyncio.Event()
        self._listed_s: float | None = None
        self._election_timeout_s: float | None = None
        self._complaint = ""
        self._told_held = 0
        self._is_out = False
        self._is_polling = False
        self._has_leader = False
        """By the last look, while there are looks."""
        self._leader_is_back = asyncio.Event()
        self.last_sights: tuple[Sight, ...] = ()

    @property
    def held(self) -> int:
        """Members that could be proven down now."""
        return sum(line.is_held and not line.is_ended for line in self._lines.values())

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._hold_lines())
                tasks.create_task(self._watch())
        finally:
            await close_all(list(self._lines.values()))

    # --- who is there

    async def _hold_lines(self) -> None:
        """The pause is cut short once a leader is seen again: after a long outage the list is old,
        and the next outage may follow soon."""
        while True:
            self._leader_is_back.clear()
            is_listed = self._may_answer() and await self._refresh()
            all_held = self._lines and self.held == len(self._lines)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S if is_listed and all_held else RETRY_S):
                    await self._leader_is_back.wait()

    def _may_answer(self) -> bool:
        return not self._is_polling or self._has_leader or not self._is_silent()

    async def _refresh(self) -> bool:
        """Whether etcd has said who its members are."""
        try:
            if self._election_timeout_s is None:
                self._election_timeout_s = await measure_election_timeout(self._client)
            answer = await self._client.call(
                Rpc.MEMBER_LIST,
                rpc_pb2.MemberListRequest(),
                effect=Effect.NONE,
                timeout_s=_LIST_TIMEOUT_S,
            )
        except EtcschedError as error:
            self._complain(f"etcd's members can't be listed: {error}")
            return False
        voting = {m.ID: tuple(m.clientURLs) for m in answer.members if not _is_learner(m)}
        for member in [m for m, line in self._lines.items() if voting.get(m) != line.urls]:
            await self._lines.pop(member).close()
        for member, urls in voting.items():
            if member not in self._lines:
                self._lines[member] = MemberLine(member, urls, self._client.config, self._ended)
        self._listed_s = boottime_s()
        whys = await asyncio.gather(*(line.hold() for line in self._lines.values()))
        self._complain("; ".join(why for why in whys if why))
        if self.held == len(self._lines) != self._told_held:
            log.info("connected to %d members of etcd: an outage of it can be proven", self.held)
        self._told_held = self.held
        return True

    def _complain(self, text: str) -> None:
        if text and text != self._complaint:
            log.warning("an outage of etcd couldn't be proven from here: %s", text)
        self._complaint = text

    # --- whether it is down

    async def _watch(self) -> None:
        while True:
            await self._until_suspicious()
            timeout_s = self._election_timeout_s
            if timeout_s is None or self._is_stale():
                await asyncio.sleep(RETRY_S)
                continue
            self._is_polling, self._has_leader = True, False
            try:
                await self._poll_while_out(timeout_s)
            finally:
                self._is_polling = False

    async def _until_suspicious(self) -> None:
        """Returns at the end of any connection, and when keepalives stay unanswered."""
        while not self._ended.is_set() and not self._is_silent():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._ended.wait()

    def _is_silent(self) -> bool:
        return self._silent_s() > self._suspicious_s()

    async def _poll_while_out(self, timeout_s: float) -> None:
        """Until some member has a leader, and has had time to lose it."""
        proof, step_s = OutageProof(timeout_s), timeout_s / POLLS_PER_ELECTION_TIMEOUT
        calm_after_s = CALM_AFTER * timeout_s
        calm_s = boottime_s() + calm_after_s
        while True:
            if self._ended.is_set():
                self._ended.clear()
                calm_s = boottime_s() + calm_after_s
            poll = await self._poll(step_s)
            self._saw(tuple(poll.sights.values()))
            if not self._has_leader:
                # Whoever says so next may be an old leader that has just woken up.
                calm_s = poll.done_s + calm_after_s
            proved_s = proof.polled(poll)
            if self._is_silent() and not self._has_leader:
                self._complain(self._why_unknown() or proof.why_broken)
            if proved_s is not None:
                self._tell(poll)
                self._on_proved(proved_s)
            elif self._has_leader or not self.last_sights:
                if self._is_out:
                    log.warning("etcd has a leader again")
                self._is_out = False
                if poll.done_s > calm_s and not self._is_silent() and not self._ended.is_set():
                    return
            await asyncio.sleep(max(poll.sent_s + step_s - boottime_s(), 0))

    def _saw(self, sights: tuple[Sight, ...]) -> None:
        had_leader, self._has_leader = self._has_leader, Sight.HAS_LEADER in sights
        self.last_sights = sights
        if self._has_leader and not had_leader:
            self._leader_is_back.set()

    def _why_unknown(self) -> str:
        whys = {m: line.why_unknown for m, line in self._lines.items() if line.why_unknown}
        return "; ".join(f"{m:x} {why}" for m, why in sorted(whys.items()))

    def _is_stale(self) -> bool:
        return self._listed_s is None or boottime_s() > self._listed_s + STALE_S

    async def _poll(self, limit_s: float) -> Poll:
        sent_s = boottime_s()
        lines = list(self._lines.values())
        sights = await asyncio.gather(*(line.look(limit_s) for line in lines))
        return Poll(
            sent_s=sent_s,
            done_s=boottime_s(),
            sights={line.member: sight for line, sight in zip(lines, sights, strict=True)},
        )

    def _tell(self, poll: Poll) -> None:
        if not self._is_out:
            self._is_out = True
            text = ", ".join(f"{m:x} is {s.value}" for m, s in sorted(poll.sights.items()))
            log.error("etcd is out (%s): nobody can move jobs, so they go on", text)


def _is_learner(member: Any) -> bool:
    return bool(getattr(member, "isLearner", False))
