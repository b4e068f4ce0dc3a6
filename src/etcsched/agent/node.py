"""The agent's process: everything that happens goes through one inbox into the machine, and what
the machine wants goes out to etcd, the supervisor and the disk.

Imported only once the supervisor runs (``run``), since it makes gRPC objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import signal
import socket
import time
from collections import deque
from functools import partial
from typing import assert_never, cast

from etcsched import __version__
from etcsched.agent.condition import condition_of, is_writing
from etcsched.agent.config import AgentConfig, base_environment, own_user
from etcsched.agent.metrics import AgentMetrics
from etcsched.agent.output_files import prune_output
from etcsched.agent.output_service import OutputService
from etcsched.agent.presence import PresenceKeeper
from etcsched.agent.sessions import SessionKeeper
from etcsched.agent.spool import Spool
from etcsched.agent.state_dir import StateDir
from etcsched.agent.supervised import Supervised
from etcsched.agent.wording import about_attempt, name_of, summary_of
from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.core.agent.machine import AgentMachine
from etcsched.core.agent.standing import Settings
from etcsched.core.clock import Instant
from etcsched.core.errors import AgentIdInUse, ClusterUnreachable
from etcsched.core.records import Change, Kind
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.session import boottime_s
from etcsched.etcd.writer import Committed, Refused, Rejected, Writer, WriteResult
from etcsched.keyspace.answers import AgentWriteId, agent_event, write_id_of
from etcsched.keyspace.codec import MalformedRecord, change_of, change_of_event
from etcsched.keyspace.feed import read_all
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import WatchEvent
from etcsched.keyspace.transactions import AgentGuard, AgentTransactions
from etcsched.ports import Snapshot
from etcsched.serving.health import serve_health

log = logging.getLogger(__name__)

_TICK_S = 0.2
_REVISION_EVERY_S = 5.0
_COMPARE_EVERY_S = 10.0
_PRUNE_EVERY_S = 600.0
_FOLLOWED = (Kind.ASSIGNMENT, Kind.ORDER, Kind.DRAIN, Kind.PRESENCE, Kind.LIVE)


JOINS_WITHIN_S = 3.0
"""Where etcd answers. A stop that comes before waits for it so long."""


_REJECTED = {
    fx.Claim: "etcd takes no claim of it; it is tried again in a minute, and waits until then",
    fx.Adopt: "etcd doesn't take that it goes on in a new session; it ends, if it goes by sessions",
    fx.ReportOutcome: (
        "etcd doesn't take its outcome; it is sent without results and tail of the output, or once "
        "a minute if it has none"
    ),
}


class Ending(enum.Enum):
    QUIT = "quit"
    REEXEC = "reexec"


class AgentNode:
    """Made and run in one event loop; only lease renewal and the spool have threads."""

    def __init__(
        self,
        config: AgentConfig,
        etcd_config: EtcdConfig,
        state: StateDir,
        output: OutputService | None,
    ) -> None:
        self._config = config
        self._state = state
        self._keys = Keys(config.prefix)
        self._transactions = AgentTransactions(self._keys)
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[tuple[Ending, str]] = self._loop.create_future()
        self._is_restarting = False
        self._has_begun = False
        self._is_to_stop = False
        self.is_stopped_as_it_restarts = False
        """Too late for this program: the next one has to be told."""
        self._inbox: deque[ev.Event] = deque()
        self._is_handling = False
        self._tasks: asyncio.TaskGroup | None = None
        self._writer: Writer | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._spool = Spool(state.spool)
        self._supervised = Supervised(
            state,
            config.agent_id,
            self._post,
            slots=config.slot_count,
            output_cap_bytes=config.output_cap_bytes,
            isolate=config.isolate,
            use_cgroup=config.use_cgroup,
        )
        self._etcd = EtcdClient(etcd_config, on_call=self._called)
        self._sessions = SessionKeeper(config, self._etcd, state, self._post)
        self._presence = PresenceKeeper(
            self._etcd,
            self._keys,
            config.agent_id,
            self._post,
            output.access if output is not None else None,
        )
        self._machine = AgentMachine(
            Settings(
                agent=config.agent_id,
                slots=config.slot_count,
                host=socket.gethostname(),
                pid=os.getpid(),
                version=__version__,
                own_user=own_user(),
                output_dir=str(state.output),
                labels=config.labels,
                users=config.allowed_users,
                default_user=config.effective_default_user,
                base_env=base_environment(),
                past_incarnations=self._sessions.past_incarnations,
                stop_timeout_s=config.stop_timeout_s,
                leader_wait_s=config.leader_wait_s,
                shutdown_timeout_s=config.shutdown_timeout_s,
                output_address=output.address if output is not None else "",
            )
        )
        if output is not None:
            output.is_writing = partial(is_writing, self._machine)
        self._metrics = AgentMetrics(config.agent_id, config.slot_count, self._machine, _now)

    async def run(self) -> Ending:
        """Until a signal ends it. Raises what no waiting can mend (``EtcschedError``)."""
        log.info("agent %s started (pid %d)", self._config.agent_id, os.getpid())
        begins = self._loop.call_later(JOINS_WITHIN_S, self._begun)
        try:
            who = f"agent {self._config.agent_id}"
            condition = partial(condition_of, self._machine, self._config.slot_count, _now)
            async with serve_health(self._config.listen, who, condition, self._metrics.text):
                self._read_spool()
                await self._supervised.connect()
                ending = await self._serve()
        finally:
            begins.cancel()
            await self._sessions.stop()
            await self._supervised.close()
            await asyncio.to_thread(self._spool.close)
            await self._etcd.close()
            with contextlib.suppress(OSError):
                self._sessions.high_water.write()
        log.info("agent %s stopped", self._config.agent_id)
        return ending

    def signalled(self, number: int) -> None:
        """SIGHUP: it is to be executed anew; any other: to stop. In the event loop only.

        Before ``run`` too, and after it. Until it knows what runs, and has its session back, a stop
        would leave both behind."""
        if number == signal.SIGHUP:
            self._post(ev.RestartRequested())
        elif self._is_restarting:
            self.is_stopped_as_it_restarts = True
        elif self._has_begun:
            self._post(ev.StopRequested())
        else:
            self._is_to_stop = True

    def _begun(self) -> None:
        self._has_begun = True
        if self._is_to_stop:
            self._is_to_stop = False
            self._post(ev.StopRequested())

    def _called(self, call: str, took_s: float, has_failed: bool) -> None:
        self._metrics.called(call, took_s, has_failed)

    def _read_spool(self) -> None:
        reports = self._spool.read()
        if reports:
            log.info("%d outcomes wait in the spool", len(reports))
            self._post(ev.SpoolRead(reports))

    async def _serve(self) -> Ending:
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                workers = [
                    tasks.create_task(self._supervised.run()),
                    tasks.create_task(self._sessions.run()),
                    tasks.create_task(self._sessions.watch_for_outages()),
                    tasks.create_task(self._presence.run()),
                    tasks.create_task(self._beat()),
                    tasks.create_task(self._keep_house()),
                    *(tasks.create_task(self._follow(kind)) for kind in _FOLLOWED),
                ]
                self._sessions.open()
                ending, id_in_use = await self._over
                for task in (*workers, *self._writing):
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        if ending is Ending.QUIT:
            self._supervised.shutdown()
            # The leader may give away what ran here as soon as the lease is gone.
            nothing_runs = await self._supervised.close()
            await self._sessions.leave(revoke=nothing_runs, is_id_in_use=bool(id_in_use))
        if id_in_use:
            raise AgentIdInUse(id_in_use)
        return ending

    # --- the inbox

    def _post(self, event: ev.Event) -> None:
        """Into the machine, behind what it is handling now. In the event loop only."""
        self._inbox.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        try:
            while self._inbox:
                event = self._inbox.popleft()
                self._metrics.happened(event)
                for effect in self._machine.handle(event, _now()):
                    self._do(effect)
        except Exception as error:
            # Callbacks of the loop come here too, and have nobody to raise to.
            if not self._over.done():
                self._over.set_exception(error)
        finally:
            self._is_handling = False

    def _do(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Claim() | fx.Adopt() | fx.ReportOutcome():
                self._write(effect)
            case fx.StartProcess():
                self._start(effect)
            case fx.KillProcess():
                log.info("stopping %s (%s)", name_of(effect.attempt_id), effect.cause.value)
                self._supervised.kill(effect)
            case fx.MoveDeadlines():
                self._supervised.move_deadlines(effect)
            case fx.Acknowledge(attempt_id):
                self._supervised.acknowledge(attempt_id)
            case fx.SpoolOutcome():
                self._spool.store(effect.attempt_id, effect.report, self._spooled)
            case fx.ForgetSpooled(attempt_id):
                self._spool.forget(attempt_id)
            case fx.StartSupervisor():
                self._supervised.restart()
            case fx.OpenSession():
                # Its deadline may have passed before the session's own thread could say so.
                self._metrics.session_lost()
                log.error("a new session is opened; what has no disconnect_grace is stopped")
                self._stop_writer()
                self._sessions.open()
            case fx.ReadReports(create_revision):
                self._begin_writer(create_revision)
                self._begun()
                self._presence.submit(effect)
            case fx.JoinPresence() | fx.UpdatePresence() | fx.LeavePresence() | fx.RevokeLease():
                self._presence.submit(effect)
            case fx.Quit(id_in_use):
                self._end(Ending.QUIT, id_in_use)
            case fx.Reexec():
                self._is_restarting = True
                self.is_stopped_as_it_restarts = self._is_to_stop
                self._end(Ending.REEXEC)
            case _:
                assert_never(effect)

    def _write(self, effect: fx.Claim | fx.Adopt | fx.ReportOutcome) -> None:
        if self._writer is None:
            return
        write_id = write_id_of(effect)
        if isinstance(effect, fx.ReportOutcome):
            about = about_attempt(write_id.attempt_id)
            log.info("%s %s", name_of(write_id.attempt_id), summary_of(effect.report), extra=about)
        self._writer.submit(write_id, self._transactions.build(effect))

    def _end(self, ending: Ending, id_in_use: str = "") -> None:
        if not self._over.done():
            self._over.set_result((ending, id_in_use))

    def _start(self, effect: fx.StartProcess) -> None:
        token = effect.attempt_id.rpartition("/")[2]
        about = about_attempt(effect.attempt_id)
        log.info("claimed %s (token %s)", name_of(effect.attempt_id), token, extra=about)
        try:
            _make_room(effect)
        except OSError as error:
            log.error("no place for the output of %s: %s", name_of(effect.attempt_id), error)  # noqa: TRY400
        self._metrics.starting(effect.attempt_id)
        self._supervised.start(effect)

    # --- the writer

    def _begin_writer(self, create_revision: int) -> None:
        """A new one for each presence. The one before only waits for answers to what it sent."""
        self._stop_writer()
        assert self._tasks is not None
        self._writer = Writer(
            self._etcd,
            AgentGuard(self._keys, self._config.agent_id, create_revision),
            self._on_results,
            lambda: self._post(ev.PresenceGone(create_revision)),
            on_sending=self._metrics.batch_sent,
        )
        task = self._tasks.create_task(self._writer.run())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def _stop_writer(self) -> None:
        if self._writer is not None:
            self._writer.stop()
            self._writer = None

    def _on_results(self, results: list[WriteResult]) -> None:
        for result in results:
            write_id = cast(AgentWriteId, result.id)
            match result:
                case Rejected():
                    # Its reason is in the log already. Nobody else's write suffers from it.
                    log.error("%s: %s", name_of(write_id.attempt_id), _REJECTED[write_id.effect])
                case Committed():
                    self._sessions.high_water.saw(result.revision)
                    if write_id.effect is fx.Adopt:
                        log.info("taken up again: %s", name_of(write_id.attempt_id))
                case Refused():
                    if write_id.effect is fx.ReportOutcome:
                        log.warning(
                            "%s: too late, its run has moved on", name_of(write_id.attempt_id)
                        )
                case _:
                    assert_never(result)
            self._post(agent_event(result, write_id))

    def _spooled(self, attempt_id: str, on_disk: bool) -> None:
        event = ev.OutcomeSpooled(attempt_id) if on_disk else ev.SpoolFailed(attempt_id)
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody asks any more.
            self._loop.call_soon_threadsafe(self._post, event)

    # --- what is watched, and time

    async def _follow(self, kind: Kind) -> None:
        if kind in (Kind.ASSIGNMENT, Kind.ORDER):
            start, end = self._keys.all_of(kind, self._config.agent_id)
        else:
            start = self._keys.of(kind, self._config.agent_id)
            end = start + "\0"
        async with self._etcd.watch(start, end) as updates:
            async for update in updates:
                self._sessions.high_water.saw(update.revision)
                if isinstance(update, Snapshot):
                    found = read_all(self._keys, change_of, update.kvs, _ignore)
                    self._post(ev.Listed(kind, found, update.revision))
                else:
                    for event in update.events:
                        change = self._change(event)
                        if change is not None:
                            self._post(ev.Changed(change))

    def _change(self, seen: WatchEvent) -> Change | None:
        try:
            return change_of_event(self._keys, seen)
        except MalformedRecord as error:
            _ignore(seen.kv.key, error)
            return None

    async def _beat(self) -> None:
        while True:
            self._sessions.progress()
            self._post(ev.TimePassed())
            await asyncio.sleep(_TICK_S)

    async def _keep_house(self) -> None:
        prune_at_s = compare_at_s = boottime_s()
        while True:
            try:
                self._sessions.save()
                await asyncio.to_thread(self._sessions.high_water.write)
                if boottime_s() >= compare_at_s:
                    compare_at_s = boottime_s() + _COMPARE_EVERY_S
                    with contextlib.suppress(ClusterUnreachable):
                        await self._sessions.check_not_restored()
                if boottime_s() >= prune_at_s:
                    prune_at_s = boottime_s() + _PRUNE_EVERY_S
                    await self._prune()
            except (OSError, RuntimeError) as error:  # (The host may have no thread left.)
                log.error("state directory %s: %s", self._state.path, error)  # noqa: TRY400
            await asyncio.sleep(_REVISION_EVERY_S)

    async def _prune(self) -> None:
        active = frozenset("/".join(i.split("/")[:2]) for i in self._machine.occupying)
        pruned = await asyncio.to_thread(
            prune_output,
            self._state.output,
            active,
            keep_s=self._config.output_keep_s,
            keep_bytes=self._config.output_keep_bytes,
            now_s=time.time(),
        )
        if pruned.files:
            log.info("deleted %d old output files, %d bytes", pruned.files, pruned.size_bytes)


def _ignore(key: str, error: MalformedRecord) -> None:
    log.error("ignored %s: %s", key, error)


def _now() -> Instant:
    return Instant(time.time_ns() // 1_000_000, boottime_s())


def _make_room(effect: fx.StartProcess) -> None:
    """The run's own directory, and no results of an attempt before. In most cases the directory
    is new and its parent is there."""
    directory = os.path.dirname(effect.output_path)
    try:
        _mkdir(directory)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(directory), 0o711, exist_ok=True)
        os.chmod(os.path.dirname(directory), 0o711)
        _mkdir(directory)
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(effect.results_path)


def _mkdir(directory: str) -> None:
    """The job's user goes through it to its results, whatever umask the agent was started with."""
    os.mkdir(directory, 0o711)
    os.chmod(directory, 0o711)
