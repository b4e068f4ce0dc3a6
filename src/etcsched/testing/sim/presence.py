"""What an agent does about its presence key, as ``agent.presence`` does it: the steps are the
product's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.core.errors import EtcschedError
from etcsched.core.records import Kind, Report
from etcsched.core.times import utc_of
from etcsched.keyspace.codec import decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range, RangeResult, TxnResult
from etcsched.keyspace.presence_steps import PresenceWrite, Step
from etcsched.testing.sim.network import Link
from etcsched.testing.sim.parts import Parts

LEAVE_S = 3.0


class SimPresence:
    def __init__(
        self, link: Link, parts: Parts, keys: Keys, agent: str, post: Callable[[ev.Event], None]
    ) -> None:
        self._link = link
        self._keys = keys
        self._agent = agent
        self._post = post
        self._steps = parts.presence_steps(keys)
        self._is_stepping = False

    def submit(self, step: Step) -> None:
        self._steps.submit(step)
        self._next_step()

    def _next_step(self) -> None:
        if self._is_stepping or not self._steps:
            return
        self._is_stepping = True
        step, store = self._steps.next(), self._link.etcd.store
        match step:
            case fx.JoinPresence():
                self._link.process.after(step.after_s, self._write, step)
            case fx.UpdatePresence() | fx.LeavePresence():
                self._write(step)
            case fx.RevokeLease():
                self._definite(lambda: lambda: store.lease_revoke(step.lease), lambda _: None)
            case fx.ReadReports():
                start, end = self._keys.all_of(Kind.REPORT, self._agent)
                self._definite(
                    lambda: lambda: store.range(Range(start, end)),
                    lambda found: self._post(
                        ev.ReportsRead(step.create_revision, self._reports_in(found))
                    ),
                )

    def _reports_in(self, found: RangeResult) -> tuple[tuple[Report, int], ...]:
        places = ((kv, self._keys.parse(kv.key)) for kv in found.kvs)
        return tuple(
            (decode(Report, kv.value), kv.mod_revision)
            for kv, place in places
            if place and place[0] is Kind.REPORT
        )

    def _write(self, step: PresenceWrite) -> None:
        store = self._link.etcd.store

        def sent() -> Callable[[], TxnResult]:
            txn = self._steps.txn_of(step, utc_of(self._link.process.clock.now().wall_ms))
            return lambda: store.txn(txn)

        def answered(result: TxnResult) -> None:
            event = self._steps.answered(step, result)
            if event is not None:
                self._post(event)

        self._definite(sent, answered)
        if isinstance(step, fx.LeavePresence):
            self._link.process.after(LEAVE_S, self._post, ev.PresenceLeft())

    def _definite(self, sent: Callable[[], Callable[[], Any]], then: Callable[[Any], None]) -> None:
        """One step, until its answer is definite or a later step made it pointless."""

        def answered(result: object) -> None:
            self._is_stepping = False
            if not isinstance(result, EtcschedError):  # LeaseGone: the session hears of it.
                then(result)
            self._next_step()

        def give_up() -> bool:
            if not self._steps.superseded:
                return False
            if self._is_stepping:
                self._is_stepping = False
                self._link.process.after(0.0, self._next_step)
            return True

        self._link.until_definite(
            sent,
            answered,
            timeout_s=5.0,
            is_write=True,
            first_s=0.1,
            most_s=3.0,
            give_up=give_up,
        )
