"""A lease that a thread of its own keeps alive, so that a busy main loop isn't taken for death.

What the owner may rely on: while ``valid_at(now)`` is true the lease stands in etcd; it turns false
at ``deadline_mono_s`` at the latest, whatever thread, network or etcd do, and never true again.
The owner's part: to call ``progress`` from its main loop. A loop that stops doing so for
``stall_limit_s`` loses its session, since a lease that outlives the work it stands for is a lie.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec

from etcsched.core.errors import (
    ClusterUnreachable,
    EtcschedError,
    LeaseGone,
    OutcomeUnknown,
    UsageError,
)
from etcsched.core.session import LEAST_TTL_S, SessionEnd, SessionValidity, first_validity
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.lease_line import LeaseLine
from etcsched.ports import LeaseInfo

__all__ = ["Session", "SessionLoss", "boottime_s"]

log = logging.getLogger(__name__)

_RENEWALS_PER_TTL = 4
_ATTEMPTS_PER_RENEWAL = 2
_START_PAUSE_S = 0.1
_STOP_WITHIN_OF_TTL = 0.5
"""Four times what a call may take: a thread that is longer about it hangs inside gRPC, which a
host that has no thread left for gRPC makes it do."""


def boottime_s() -> float:
    """Monotonic, and running on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SessionLoss(msgspec.Struct, frozen=True):
    """``text`` is a line for a person."""

    end: SessionEnd
    text: str


class Session:
    """One lease, from grant (or takeover of a lease that an earlier process left) to its end.

    Callbacks run in the event loop that called ``start``. ``on_lost`` is called once, unless the
    owner ends the session by itself (``stop``, ``revoke``).
    """

    def __init__(
        self,
        config: EtcdConfig,
        *,
        ttl_s: int = 10,
        lease: int = 0,
        stall_limit_s: float | None = None,
        on_renewed: Callable[[float], None] | None = None,
        on_lost: Callable[[SessionLoss], None] | None = None,
    ) -> None:
        if ttl_s < LEAST_TTL_S:
            raise UsageError(f"a session's TTL of {ttl_s} s is below {LEAST_TTL_S} s")
        self._config = config
        self._wanted_ttl_s = ttl_s
        self._lease = lease
        self._stall_limit_s = stall_limit_s
        self._on_renewed = on_renewed
        self._on_lost = on_lost
        self._lock = threading.Lock()  # around every change of _validity
        self._validity: SessionValidity | None = None
        self._progress_s = boottime_s()
        self._wake = threading.Event()
        self._stopping = False
        self._revoke_timeout_s = 0.0
        self._revoke_error: EtcschedError | None = None
        self._last_fault = "none was sent"
        self._acknowledged_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None

    # The owner's side

    async def start(self, *, timeout_s: float = 5.0) -> None:
        """Returns once the session is valid. Raises ``LeaseGone`` where the given lease is gone,
        else as a write does; the thread has then ended."""
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._progress_s = boottime_s()
        thread = threading.Thread(
            target=self._run, args=(timeout_s,), name="etcd-session", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # The host's limit of processes is reached.
            self._ended.set_result(None)
            raise ClusterUnreachable(f"no thread for the session: {error}") from error
        try:
            async with asyncio.timeout(timeout_s + self._wanted_ttl_s * _STOP_WITHIN_OF_TTL):
                await self._started
        except TimeoutError:
            self._give_up()
            raise ClusterUnreachable("the session's thread doesn't answer") from None
        except asyncio.CancelledError:
            self._give_up()
            raise

    def _give_up(self) -> None:
        self._stopping = True
        self._wake.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop renewing; the lease lives on in etcd for what remains of its TTL. A thread that
        hangs is left alone."""
        if self._ended is not None:
            self._end(SessionEnd.GIVEN_UP)
            self._give_up()
            within_s = self._wanted_ttl_s * _STOP_WITHIN_OF_TTL + self._revoke_timeout_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await asyncio.shield(self._ended)

    async def revoke(self, *, timeout_s: float = 5.0) -> None:
        """Stop renewing and end the lease at once. ``OutcomeUnknown``: it may last its TTL out."""
        self._revoke_timeout_s = timeout_s
        await self.stop()
        if self._ended is not None and not self._ended.done():
            raise OutcomeUnknown("the session's thread doesn't end")
        if self._revoke_error is not None:
            raise self._revoke_error

    def progress(self) -> None:
        """The main loop is alive. Any thread; as often as you like."""
        self._progress_s = boottime_s()

    @property
    def lease(self) -> int:
        return self._lease

    @property
    def ttl_s(self) -> float:
        """As granted."""
        return self._current.ttl_s

    @property
    def deadline_mono_s(self) -> float:
        """CLOCK_BOOTTIME. Any thread."""
        return self._current.deadline_s

    def silent_s(self) -> float:
        """Since the last keepalive was acknowledged, or the session began."""
        return boottime_s() - self._acknowledged_s

    @property
    def raft_term(self) -> int:
        return self._current.raft_term

    def valid_at(self, now_mono_s: float) -> bool:
        """Any thread."""
        return self._validity is not None and self._validity.valid_at(now_mono_s)

    def outage_proved(self, sent_mono_s: float) -> bool:
        """Count what was sent then as an acknowledged keepalive; false if the session has ended.
        In the event loop: a deadline that moves is told to ``on_renewed`` at once."""
        with self._lock:
            before = self._current
            after = before.outage_proved(sent_s=sent_mono_s, now_s=boottime_s())
            self._validity = after
        if after.end is None and after.deadline_s > before.deadline_s and self._on_renewed:
            self._on_renewed(after.deadline_s)
        return after.end is None

    @property
    def _current(self) -> SessionValidity:
        if self._validity is None:
            raise RuntimeError("the session hasn't started")
        return self._validity

    def _end(self, end: SessionEnd) -> None:
        with self._lock:
            if self._validity is not None:
                self._validity = self._validity.ended(end)

    # The thread's side

    def _run(self, timeout_s: float) -> None:
        assert self._started is not None
        assert self._ended is not None
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(self._call_in_loop, _finish, self._ended)
            # Whatever goes wrong here, somebody waits for word of it.
            try:
                line = LeaseLine(self._config)
                cleanup.callback(line.close)
                self._begin(line, timeout_s)
            except Exception as error:
                self._call_in_loop(_fail, self._started, error)
                return
            self._call_in_loop(_finish, self._started)
            try:
                self._keep(line)
                if self._revoke_timeout_s:
                    self._revoke(line)
            except Exception as error:
                log.exception("the thread of session %x failed", self._lease)
                if not self._stopping:
                    self._tell_lost(SessionEnd.FAILED, f"its thread failed: {error!r}")

    def _begin(self, line: LeaseLine, timeout_s: float) -> None:
        give_up_s = boottime_s() + timeout_s
        while True:
            sent_s = boottime_s()
            try:
                share_s = (give_up_s - sent_s) / line.endpoint_count
                info = self._first_call(line, max(share_s, 0.001))
            except ClusterUnreachable:
                if boottime_s() + _START_PAUSE_S >= give_up_s or self._stopping:
                    raise
                self._wake.wait(_START_PAUSE_S)
                continue
            if info.ttl_s <= 0:
                raise LeaseGone(f"lease {self._lease:x} is gone; start a new session")
            self._lease = info.lease
            validity = first_validity(sent_s=sent_s, ttl_s=info.ttl_s, raft_term=info.raft_term).at(
                boottime_s()
            )
            if validity.end is not None:
                raise OutcomeUnknown("etcd's answer came after the session's deadline; try again")
            with self._lock:
                self._validity = validity
            self._acknowledged_s = sent_s
            return

    def _first_call(self, line: LeaseLine, timeout_s: float) -> LeaseInfo:
        if self._lease:
            return line.keep_alive(self._lease, timeout_s=timeout_s)
        return line.grant(self._wanted_ttl_s, timeout_s=timeout_s)

    def _keep(self, line: LeaseLine) -> None:
        """Returns when the session has ended."""
        while not self._stopping:
            interval_s = self._current.ttl_s / _RENEWALS_PER_TTL
            acknowledged = self._renew(line, interval_s / _ATTEMPTS_PER_RENEWAL)
            if self._lost():
                return
            pause_s = interval_s if acknowledged else interval_s / 4
            until_deadline_s = self._current.deadline_s - boottime_s()
            self._wake.wait(max(min(pause_s, until_deadline_s), 0))
            if self._lost():
                return

    def _renew(self, line: LeaseLine, attempt_s: float) -> bool:
        """Try each endpoint once, until one acknowledges."""
        for _ in range(line.endpoint_count):
            sent_s = boottime_s()
            left_s = self._current.deadline_s - sent_s
            if left_s <= 0 or self._stopping:
                return False
            try:
                info = line.keep_alive(self._lease, timeout_s=min(attempt_s, left_s))
            except EtcschedError as error:
                self._last_fault = str(error)
                continue
            before = self._current
            with self._lock:
                self._validity = after = self._current.acknowledged(
                    sent_s=sent_s,
                    now_s=boottime_s(),
                    ttl_s=info.ttl_s,
                    raft_term=info.raft_term,
                )
            if after.end is not None:
                return False
            if after.deadline_s > before.deadline_s:
                self._acknowledged_s = sent_s
                if self._on_renewed is not None:
                    self._call_in_loop(self._on_renewed, after.deadline_s)
                return True
            self._last_fault = f"an answer of the outdated term {info.raft_term}"
        return False

    def _lost(self) -> bool:
        """Whether the session has ended; tells the owner unless the owner ended it."""
        now_s = boottime_s()
        stall_limit_s = self._stall_limit_s or self._current.ttl_s
        stalled_s = now_s - self._progress_s
        with self._lock:
            validity = self._current.at(now_s)
            if stalled_s > stall_limit_s:
                validity = validity.ended(SessionEnd.STALLED)
            self._validity = validity
        if validity.end is None:
            return False
        if validity.end is not SessionEnd.GIVEN_UP:
            texts = {
                SessionEnd.EXPIRED: f"no keepalive acknowledged in time; last: {self._last_fault}",
                SessionEnd.LEASE_GONE: "etcd says that the lease expired or was revoked",
                SessionEnd.STALLED: f"the main loop made no progress for {stalled_s:.1f} s",
            }
            self._tell_lost(validity.end, texts[validity.end])
        return True

    def _tell_lost(self, end: SessionEnd, why: str) -> None:
        self._end(end)
        if self._on_lost is not None:
            loss = SessionLoss(end, f"session {self._lease:x} lost: {why}")
            self._call_in_loop(self._on_lost, loss)

    def _revoke(self, line: LeaseLine) -> None:
        give_up_s = boottime_s() + self._revoke_timeout_s
        for left in range(line.endpoint_count, 0, -1):
            share_s = (give_up_s - boottime_s()) / left
            try:
                line.revoke(self._lease, timeout_s=max(share_s, 0.001))
            except LeaseGone:
                self._revoke_error = None
            except EtcschedError as error:
                self._revoke_error = error
                continue
            else:
                self._revoke_error = None
            return

    def _call_in_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        """A loop that is closed has no owner to tell."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            self._stopping = True


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
