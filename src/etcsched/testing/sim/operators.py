"""What operators do to a simulated cluster, by the product's own commands, and what was said to
them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from etcsched.audit.history import Operation, OperationKind, OperationOutcome
from etcsched.core.errors import EtcschedError, NotFound, OutcomeUnknown, Refused
from etcsched.core.records import (
    CLUSTER,
    SCHEMA_VERSION,
    Calendar,
    ClusterSettings,
    ConflictGroup,
    Job,
    Kind,
    Release,
    Request,
    RequestKind,
)
from etcsched.core.states import JobState, RunState
from etcsched.core.times import utc_of
from etcsched.keyspace.ops import Range, RangeResult, Txn, TxnResult
from etcsched.keyspace.transactions import submit_request
from etcsched.operator import apply as jobs
from etcsched.operator.calendars import apply_calendars, delete_calendar
from etcsched.operator.conflicts import apply_groups, delete_group
from etcsched.operator.drains import drain, undrain
from etcsched.operator.pauses import pause, resume
from etcsched.operator.settings import apply_settings
from etcsched.operator.store import commit
from etcsched.testing.sim.loop import Clock
from etcsched.testing.sim.network import Link
from etcsched.testing.sim.process import Process
from etcsched.testing.sim.virtual_asyncio import VirtualLoop

if TYPE_CHECKING:
    from etcsched.testing.sim.cluster import Cluster

TIMEOUT_S = 8.0
MOST_TICKS = 3
"""Asked for of one record."""


class OperatorClient:
    """``ports.Etcd``, as far as operators' commands use it here."""

    def __init__(self, link: Link, loop: VirtualLoop) -> None:
        self._link = link
        self._loop = loop

    async def txn(self, txn: Txn, *, timeout_s: float = 5.0) -> TxnResult:
        store = self._link.etcd.store
        result: TxnResult = await self._call(lambda: store.txn(txn), timeout_s, is_write=True)
        return result

    async def range(self, request: Range, *, timeout_s: float = 5.0) -> RangeResult:
        store = self._link.etcd.store
        found: RangeResult = await self._call(
            lambda: store.range(request), timeout_s, is_write=False
        )
        return found

    async def _call(self, do: Callable[[], Any], timeout_s: float, *, is_write: bool) -> Any:
        answered = self._loop.create_future()

        def answer(result: Any) -> None:
            if isinstance(result, EtcschedError):
                answered.set_exception(result)
            else:
                answered.set_result(result)

        self._link.call(do, answer, timeout_s, is_write=is_write)
        return await answered


class Operators:
    """A host of their own, whose clock is right but for what the scenario says. Each operation
    leaves its mark in what it writes."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self.cluster = cluster
        self.process = Process(cluster.loop, Clock(cluster.loop, 5000.0))
        self.process.clock.step_wall(cluster.scenario.operators_off_s)
        self.link = Link(self.process, cluster.etcd, chance)
        self.etcd: Any = OperatorClient(self.link, cluster.virtual_asyncio)
        self._keys = cluster.keys
        self._marks = 0
        self._under_way: dict[tuple[OperationKind, str], list[str]] = {}
        self._contested: set[str] = set()
        """Marks of operations that others of their kind and target came in between."""

    def apply(self, job: Job) -> None:
        mark, now = self._mark(), self._now()
        self._start(
            OperationKind.APPLY,
            job.name,
            mark,
            lambda: jobs.apply(self.etcd, self._keys, [job], now, mark, timeout_s=TIMEOUT_S),
            detail=job.current.state.value,
        )

    def set_state(self, name: str, state: JobState) -> None:
        """Apply the job as it stands with another state, if it is there."""
        change = self.cluster.record(Kind.JOB, name)
        if isinstance(change, Job) and change.current.state is not JobState.DELETED:
            version = msgspec.structs.replace(change.current, state=state)
            self.apply(msgspec.structs.replace(change, versions=(version,)))

    def delete(self, name: str) -> None:
        mark, now = self._mark(), self._now()
        self._start(
            OperationKind.DELETE,
            name,
            mark,
            lambda: jobs.delete(self.etcd, self._keys, [name], now, mark, timeout_s=TIMEOUT_S),
        )

    def pause(self, name: str) -> None:
        mark, now, job = self._mark(), self._now(), None if name == CLUSTER else name
        self._start(
            OperationKind.PAUSE,
            name,
            mark,
            lambda: pause(self.etcd, self._keys, job, now, mark, timeout_s=TIMEOUT_S),
        )

    def resume(self, name: str) -> None:
        now, job = self._now(), None if name == CLUSTER else name
        self._start(
            OperationKind.RESUME,
            name,
            "",
            lambda: resume(self.etcd, self._keys, job, now, timeout_s=TIMEOUT_S),
        )

    def drain(self, agent: str) -> None:
        mark, now = self._mark(), self._now()
        self._start(
            OperationKind.DRAIN,
            agent,
            mark,
            lambda: drain(self.etcd, self._keys, agent, now, mark, timeout_s=TIMEOUT_S),
        )

    def undrain(self, agent: str) -> None:
        self._start(
            OperationKind.UNDRAIN,
            agent,
            "",
            lambda: undrain(self.etcd, self._keys, agent, timeout_s=TIMEOUT_S),
        )

    # Whether these were told rightly, nobody judges; what they bring, everybody does.

    def set_settings(self, wanted: dict[str, Any]) -> None:
        known = convert(wanted)
        self._unjudged(
            lambda: apply_settings(self.etcd, self._keys, known, "sim", timeout_s=TIMEOUT_S)
        )

    def apply_calendar(self, calendar: Calendar) -> None:
        now = self._now()
        self._unjudged(
            lambda: apply_calendars(
                self.etcd, self._keys, [calendar], now, "sim", timeout_s=TIMEOUT_S
            )
        )

    def delete_calendar(self, name: str) -> None:
        self._unjudged(lambda: delete_calendar(self.etcd, self._keys, name, timeout_s=TIMEOUT_S))

    def apply_group(self, group: ConflictGroup) -> None:
        self._unjudged(
            lambda: apply_groups(self.etcd, self._keys, [group], "sim", timeout_s=TIMEOUT_S)
        )

    def delete_group(self, name: str) -> None:
        self._unjudged(lambda: delete_group(self.etcd, self._keys, name, timeout_s=TIMEOUT_S))

    def _unjudged(self, work: Callable[[], Awaitable[Any]]) -> None:
        async def do() -> None:
            with suppress(EtcschedError):
                await work()

        self.cluster.virtual_asyncio.start(do())

    # --- requests

    def trigger(self, name: str) -> None:
        self.request(RequestKind.TRIGGER, name)

    def resubmit(self, name: str, most: int) -> None:
        """The newest of the job's runs that are over (``operator.resubmit`` asks alike), and some
        of the missed ticks that shared a record last."""
        over = self.cluster.archived_runs(name)[-most:]
        is_forced = self.link.chance.random() < 0.3
        for run in over:
            self.request(RequestKind.RESUBMIT, name, run, force=is_forced)
        record, ticks = self.cluster.ticks_that_share(name)
        for tick in self.link.chance.sample(ticks, min(len(ticks), MOST_TICKS)):
            self.request(RequestKind.RESUBMIT, name, record, force=is_forced, tick=tick)

    def release(self, name: str) -> None:
        """Some run of the job that is held, if there is one; or another."""
        runs = self.cluster.active_runs(name, RunState.HELD) or self.cluster.active_runs(name)
        if runs:
            how = self.link.chance.choice(list(Release))
            self.request(RequestKind.RELEASE, name, self.link.chance.choice(runs), release=how)

    def cancel(self, name: str) -> None:
        """Some run of the job that is active, if there is one."""
        active = self.cluster.active_runs(name)
        if active:
            self.request(RequestKind.CANCEL, name, self.link.chance.choice(active))

    def request(self, kind: RequestKind, job: str, run: str = "", **more: Any) -> None:
        """``more``: fields of the request."""
        mark = self._mark()
        request = Request(
            id=f"{self._now().replace('-', '').replace(':', '')}-{mark}",
            kind=kind,
            job=job,
            at=self._now(),
            by=mark,
            run=run,
            **more,
        )

        async def submit() -> bool:
            txn = submit_request(self._keys, request)
            await commit(self.etcd, txn, timeout_s=TIMEOUT_S)
            return True

        self._start(OperationKind.REQUEST, request.id, mark, submit, detail=kind.value)

    def _mark(self) -> str:
        self._marks += 1
        return f"op{self._marks}"

    def _now(self) -> Any:
        return utc_of(self.process.clock.now().wall_ms)

    def _start(
        self,
        kind: OperationKind,
        target: str,
        mark: str,
        work: Callable[[], Awaitable[Any]],
        detail: str = "",
    ) -> None:
        self.cluster.virtual_asyncio.start(self._run(kind, target, mark, work, detail))

    async def _run(
        self,
        kind: OperationKind,
        target: str,
        mark: str,
        work: Callable[[], Awaitable[Any]],
        detail: str,
    ) -> None:
        sent_ms, changes = self.cluster.loop.now_ms, True
        under_way = self._under_way.setdefault((kind, target), [])
        under_way.append(mark)
        if len(under_way) > 1:
            self._contested.update(under_way)
        try:
            result = await work()
        except OutcomeUnknown:
            outcome = OperationOutcome.UNKNOWN
        except (NotFound, Refused):
            outcome = OperationOutcome.FAILED
        except EtcschedError:
            # Out of reach: a read failed, or no write was ever sent... or an earlier one was.
            outcome = OperationOutcome.UNKNOWN
        else:
            outcome = OperationOutcome.ACKNOWLEDGED
            # Of two that want the same at once, either may find the other's work, which serves it
            # as well.
            changes = _has_changed(result) and mark not in self._contested
        under_way.remove(mark)
        self.cluster.chronicle.record(
            Operation(
                kind=kind,
                target=target,
                sent_ms=sent_ms,
                done_ms=self.cluster.loop.now_ms,
                outcome=outcome,
                mark=mark,
                changes=changes,
                detail=detail,
            )
        )


def _has_changed(result: Any) -> bool:
    if isinstance(result, list):
        return any(change.kind is not jobs.ChangeKind.UNCHANGED for change in result)
    return bool(result)


def convert(wanted: dict[str, Any]) -> dict[str, Any]:
    """Settings as they are kept in a scenario's file, in the types that they have."""
    whole = msgspec.convert(msgspec.to_builtins(wanted) | {"v": SCHEMA_VERSION}, ClusterSettings)
    return {name: getattr(whole, name) for name in wanted}
