"""Between a process and etcd: calls that may be lost on either way, or held by a frozen member."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from etcsched.core.errors import ClusterUnreachable, EtcschedError, NoSpace, OutcomeUnknown
from etcsched.testing.sim.process import Process

if TYPE_CHECKING:
    from etcsched.testing.sim.etcd import SimEtcd
    from etcsched.testing.sim.watch import Watch

T = TypeVar("T")

LATENCY_S = (0.0005, 0.003)


class Link:
    """One process's connections. ``cut_out``: what it sends is lost; ``cut_in``: what is sent to
    it. ``rejects``: it learns of the former at once. ``loses``: this share of answers is lost."""

    def __init__(self, process: Process, etcd: SimEtcd, chance: random.Random) -> None:
        self.process = process
        self.etcd = etcd
        self.chance = chance
        self.cut_out = False
        self.cut_in = False
        self.rejects = False
        self.loses = 0.0
        self.more_s = 0.0
        self.member = chance.randrange(etcd.members)
        self.watches: list[Watch] = []
        self.on_raft_term: Callable[[int], None] | None = None
        self._raft_term = 0

    def latency_s(self) -> float:
        low_s, high_s = LATENCY_S
        most_s = high_s + self.more_s
        return low_s + (most_s - low_s) * self.chance.random()

    def cut(self, *, outward: bool, inward: bool, rejects: bool) -> None:
        self.cut_out, self.cut_in, self.rejects = outward, inward, rejects
        if inward and rejects:
            for watch in self.watches:
                watch.break_off()

    def heal(self) -> None:
        self.cut_out = self.cut_in = self.rejects = False
        self.loses = self.more_s = 0.0
        for watch in self.watches:
            watch.kick()

    @property
    def hears(self) -> bool:
        """Whether anything comes through from the member that it listens to."""
        return not self.cut_in and self.etcd.serves(self.member)

    def call(
        self,
        do: Callable[[], T],
        answer: Callable[[T | EtcschedError], None],
        timeout_s: float,
        *,
        is_write: bool,
    ) -> None:
        """``do`` happens at etcd, once or never, perhaps after ``answer`` was told of a timeout.
        ``answer`` is told once."""
        loop = self.process.loop
        deadline_s = loop.now_s + self.process.clock.true_s(timeout_s)
        if self.cut_out:
            loop.at(
                loop.now_s + 0.001 if self.rejects else deadline_s, self._fail, answer, is_write
            )
            return
        loop.after(self.latency_s(), self._arrive, do, answer, deadline_s, is_write, self.member)

    def _arrive(
        self,
        do: Callable[[], Any],
        answer: Callable[[Any], None],
        deadline_s: float,
        is_write: bool,
        member: int,
    ) -> None:
        loop, etcd = self.process.loop, self.etcd
        if etcd.is_down:
            loop.at(loop.now_s if etcd.refuses else deadline_s, self._fail, answer, is_write)
            return
        if member in etcd.frozen:
            if is_write:
                etcd.hold(member, do)
            loop.at(deadline_s, self._fail, answer, is_write)
            return
        if loop.now_s > deadline_s:
            loop.at(loop.now_s, self._fail, answer, is_write)
            return
        try:
            result = do()
        except EtcschedError as error:
            result = error
        back_s = loop.now_s + self.latency_s()
        lost = self.cut_in or (self.loses and self.chance.random() < self.loses)
        if lost or back_s > deadline_s:
            etcd.count("reply lost")
            loop.at(max(deadline_s, loop.now_s), self._fail, answer, is_write)
        else:
            loop.at(back_s, self.process.hear, self._answered, answer, result, etcd.raft_term)

    def _answered(self, answer: Callable[[Any], None], result: Any, raft_term: int) -> None:
        self.saw_raft_term(raft_term)
        answer(result)

    def saw_raft_term(self, raft_term: int) -> None:
        if raft_term > self._raft_term:
            self._raft_term = raft_term
            if self.on_raft_term is not None:
                self.on_raft_term(raft_term)

    def _fail(self, answer: Callable[[Any], None], is_write: bool) -> None:
        self.member = (self.member + 1) % self.etcd.members
        kind = OutcomeUnknown if is_write else ClusterUnreachable
        self.process.hear(answer, kind("no answer in time"))

    def until_definite(
        self,
        sent: Callable[[], Callable[[], T]],
        answer: Callable[[T | EtcschedError], None],
        *,
        timeout_s: float,
        is_write: bool,
        first_s: float = 0.05,
        most_s: float = 2.0,
        give_up: Callable[[], bool] | None = None,
    ) -> None:
        """Again, with backoff, until something is known of it (or ``give_up`` says so: then there
        is no answer). ``sent`` says what is sent each time."""

        def answered(result: T | EtcschedError, backoff_s: float) -> None:
            if not isinstance(result, ClusterUnreachable | NoSpace):
                answer(result)
                return
            if give_up is not None and give_up():
                return
            pause_s = backoff_s * self.chance.uniform(0.5, 1.0)
            self.process.after(pause_s, attempt, min(2 * backoff_s, most_s))

        def attempt(backoff_s: float) -> None:
            if give_up is not None and give_up():
                return
            self.call(sent(), lambda r: answered(r, backoff_s), timeout_s, is_write=is_write)

        attempt(first_s)
