"""One session after another, and the memory that outlives them: lease and highest revision."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from etcsched.agent.config import AgentConfig
from etcsched.agent.state_dir import SavedSession, StateDir
from etcsched.core.agent import events as ev
from etcsched.core.errors import (
    ClusterUnreachable,
    EtcschedError,
    LeaseGone,
    NoSpace,
)
from etcsched.core.session import SessionEnd
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.high_water import HighWater
from etcsched.etcd.outage_watch import OutageWatch
from etcsched.etcd.session import Session, SessionLoss
from etcsched.etcd.versions import check_server
from etcsched.keyspace.ops import Range

log = logging.getLogger(__name__)

_BACKOFF_FIRST_S = 0.1
_BACKOFF_MOST_S = 5.0
_REVOKE_S = 3.0
_PAST_KEPT = 8
"""So many starts in a row may end before they have reported what was claimed before them."""
_SUSPICIOUS_OF_TTL = 0.4
"""Keepalives come every quarter of the TTL."""


class SessionKeeper:
    def __init__(
        self,
        config: AgentConfig,
        etcd: EtcdClient,
        state: StateDir,
        report: Callable[[ev.Event], None],
    ) -> None:
        self._config = config
        self._etcd = etcd
        self._state = state
        self._place = state.place
        self._agent = f"{config.prefix}{config.agent_id}"
        self._report = report
        self._past = state.read_session()
        self._saved = self._past if self._is_of_here(self._past) else None
        self._known = self.past_incarnations
        self._unsaved: SavedSession | None = None
        self._session: Session | None = None
        self._wanted = asyncio.Event()
        self._is_first = True
        self._is_resumed = False
        self.high_water = HighWater(state.revision)

    @property
    def past_incarnations(self) -> tuple[str, ...]:
        """The latest first."""
        return () if self._past is None else (self._past.incarnation, *self._past.before)

    def _is_of_here(self, saved: SavedSession | None) -> bool:
        """A lease that may be another live agent's is neither renewed nor revoked. Nor is that of
        an id which this agent had before: its presence would stay, and be given runs."""
        if saved is None:
            return True
        if saved.agent not in ("", self._agent):
            log.info("session %x was opened as %s: not resumed", saved.lease, saved.agent)
            return False
        if saved.place in ("", self._place):
            return True
        log.info(
            "session %x was opened before a reboot or in another directory: not resumed",
            saved.lease,
        )
        return False

    async def watch_for_outages(self) -> None:
        """While it is proven that etcd is out, the session goes on."""
        watch = OutageWatch(
            self._etcd,
            silent_s=lambda: 0.0 if self._session is None else self._session.silent_s(),
            suspicious_s=lambda: _SUSPICIOUS_OF_TTL * self._ttl_s,
            on_proved=self._outage_proved,
        )
        await watch.run()

    @property
    def _ttl_s(self) -> float:
        return self._config.session_ttl_s if self._session is None else self._session.ttl_s

    def _outage_proved(self, sent_mono_s: float) -> None:
        if self._session is not None:
            self._session.outage_proved(sent_mono_s)

    def open(self) -> None:
        """Answered by ``SessionOpened``."""
        self._wanted.set()

    def progress(self) -> None:
        if self._session is not None:
            self._session.progress()

    async def run(self) -> None:
        """Raises what no waiting can mend: ``ClusterRefused``, ``ClusterRestored``."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._session is not None:
                await self._session.stop()
                self._session = None
            backoff_s = _BACKOFF_FIRST_S
            while self._session is None:
                try:
                    await self._try()
                except (ClusterUnreachable, NoSpace) as error:
                    log.warning("no session yet: %s", error)
                except LeaseGone:
                    # The session of the process before this one is over.
                    self._saved = None
                    continue
                if self._session is None:
                    await asyncio.sleep(random.uniform(0.5, 1.0) * backoff_s)
                    backoff_s = min(2 * backoff_s, _BACKOFF_MOST_S)

    async def _try(self) -> None:
        await check_server(
            self._etcd,
            embedded=self._config.is_demo,
            allow_unfenced_auth=self._config.allow_unfenced_auth,
        )
        await self.check_not_restored()
        saved = self._saved
        session = Session(
            self._etcd.config,
            ttl_s=self._config.session_ttl_s,
            lease=0 if saved is None else saved.lease,
            on_renewed=lambda deadline_s: self._renewed(session, deadline_s),
            on_lost=lambda loss: self._lost(session, loss),
        )
        await session.start()
        incarnation = f"{session.lease:x}" if saved is None else saved.incarnation
        before = tuple(past for past in self._known if past != incarnation)[:_PAST_KEPT]
        self._known = (incarnation, *before)
        self._unsaved = SavedSession(
            lease=session.lease,
            incarnation=incarnation,
            ttl_s=round(session.ttl_s),
            place=self._place,
            agent=self._agent,
            before=before,
        )
        try:
            self.save()
        except OSError as error:
            log.error(  # noqa: TRY400
                "session %x can't be written to %s: %s; it is tried again, and no restart before "
                "that can resume it", session.lease, self._state.path, error.strerror,
            )  # fmt: skip
        self._saved = None
        self._is_first = False
        self._session = session
        self._is_resumed = saved is not None
        log.info(
            "session %x %s, TTL %g s",
            session.lease, "opened" if saved is None else "resumed", session.ttl_s,
        )  # fmt: skip
        self._report(
            ev.SessionOpened(
                incarnation=incarnation,
                lease=session.lease,
                ttl_s=round(session.ttl_s),
                deadline_mono_s=session.deadline_mono_s,
                resumed=saved is not None,
            )
        )

    def save(self) -> None:
        """Blocks for a moment; does nothing where the disk has the session. ``OSError`` is the
        caller's."""
        if self._unsaved is not None:
            self._state.write_session(self._unsaved)
            self._unsaved = None

    async def check_not_restored(self) -> None:
        """A cluster's revision never falls, unless its data is an older backup's. A session can
        outlive a quick restore, so this is asked again now and then; what this process has
        watched is never accepted as wrong, it has to start anew."""
        seen, is_first = self.high_water.revision, self._is_first
        result = await self._etcd.range(Range(self._config.prefix, count_only=True))
        self.high_water.check(
            result.revision,
            seen=seen,
            who=f"agent {self._config.agent_id}",
            accept_restored=self._config.accept_restored_cluster and is_first,
        )

    def _renewed(self, session: Session, deadline_s: float) -> None:
        if session is self._session:
            self._report(ev.SessionRenewed(deadline_s))

    def _lost(self, session: Session, loss: SessionLoss) -> None:
        if session is self._session:
            log.error("%s", loss.text)
            self._report(ev.SessionLost(lease_gone=loss.end is SessionEnd.LEASE_GONE))

    async def leave(self, *, revoke: bool, is_id_in_use: bool = False) -> None:
        """No agent resumes the session. ``revoke``: it is over at once, else when its lease, which
        ``stop`` leaves alone, has run out. Where its id is in use, a lease that was found on disk
        may be that other agent's. One that the disk has, and that nothing runs under any more, is
        left to the next start where this one had none: that one reports what was claimed in it."""
        if self._session is not None or not revoke:
            self._state.forget_session()
        if revoke and self._session is not None and not (is_id_in_use and self._is_resumed):
            try:
                await self._session.revoke(timeout_s=_REVOKE_S)
            except EtcschedError as error:
                log.warning("the lease lasts for its time: %s", error)

    async def stop(self) -> None:
        """Leave the lease, for what remains of its time, to the agent that comes next."""
        if self._session is not None:
            await self._session.stop()
