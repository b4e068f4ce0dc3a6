"""Following a range for ever: a snapshot, then every change of it, whatever happens to the stream.

What a consumer may rely on: each revision comes whole, once and in order; after a Snapshot the next
batch is the next change after it. A watch that died without a word is noticed within
``WatchTiming.quiet_s + answer_s`` of waiting: the server is asked for a sign of life, and left for
another endpoint if it gives none.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import msgspec

from etcsched.core.errors import ClusterUnreachable, Compacted
from etcsched.etcd.assembly import Assembler
from etcsched.etcd.connection import HAS_LEADER, Connection, is_given_up
from etcsched.etcd.refusals import Verdict, error_of, judge
from etcsched.etcd.stubs import rpc_pb2
from etcsched.etcd.wire import key_bytes, range_end_bytes, watch_events
from etcsched.keyspace.ops import KeyValue, Range, WatchBatch
from etcsched.ports import Snapshot, WatchUpdate

if TYPE_CHECKING:
    from etcsched.etcd.client import EtcdClient

__all__ = ["DEFAULT_TIMING", "PAGE_KEYS", "WatchTiming", "follow", "list_range"]

PAGE_KEYS = 5000
_PAGE_TIMEOUT_S = 10.0
_BACKOFF_FIRST_S = 0.05
_BACKOFF_MAX_S = 2.0
_END_OF_STREAM: Any = vars(grpc.aio)["EOF"]  # missing in grpc's type stubs
_PROGRESS_REQUEST = rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest())


class WatchTiming(msgspec.Struct, frozen=True, kw_only=True):
    """``open_s``: how long opening a watch may take. ``quiet_s``: how long a watch may be silent
    before the server is asked for a sign of life, ``answer_s``: and how long that may take."""

    open_s: float = 3.0
    quiet_s: float = 5.0
    answer_s: float = 3.0


DEFAULT_TIMING = WatchTiming()


class _StreamLostError(Exception):
    """Go on elsewhere."""


class _HistoryGoneError(Exception):
    def __init__(self, compact_revision: int) -> None:
        super().__init__(compact_revision)
        self.compact_revision = compact_revision


@asynccontextmanager
async def follow(
    client: EtcdClient,
    key: str,
    range_end: str,
    *,
    prev_kv: bool,
    start_revision: int,
    timing: WatchTiming,
    rng: random.Random,
) -> AsyncIterator[AsyncIterator[WatchUpdate]]:
    watch = _Watch(client, key, range_end, prev_kv, timing)
    updates = watch.updates(start_revision, rng)
    try:
        yield updates
    finally:
        await updates.aclose()


async def list_range(client: EtcdClient, key: str, range_end: str) -> Snapshot:
    """The range at one revision, read in pages. ``Compacted`` if that revision is compacted away
    between two pages."""
    kvs: list[KeyValue] = []
    revision = 0
    while True:
        page = await client.range(
            Range(key, range_end, limit=PAGE_KEYS, revision=revision), timeout_s=_PAGE_TIMEOUT_S
        )
        revision = revision or page.revision
        kvs.extend(page.kvs)
        if not page.more:
            return Snapshot(tuple(kvs), revision)
        key = page.kvs[-1].key + "\0"


class _Watch:
    def __init__(
        self, client: EtcdClient, key: str, range_end: str, prev_kv: bool, timing: WatchTiming
    ) -> None:
        self._client = client
        self._key = key
        self._range_end = range_end
        self._prev_kv = prev_kv
        self._timing = timing
        self._doubted = False
        """The last stream was refused in a way that a new token might mend."""

    async def updates(
        self, start_revision: int, rng: random.Random
    ) -> AsyncGenerator[WatchUpdate, None]:
        assembler = Assembler(start_revision - 1) if start_revision else None
        failures = 0
        while True:
            try:
                if assembler is None:
                    snapshot = await list_range(self._client, self._key, self._range_end)
                    assembler = Assembler(snapshot.revision)
                    yield snapshot
                async with contextlib.aclosing(self._stream(assembler)) as stream:
                    async for update in stream:
                        failures = 0
                        if update is not None:
                            yield update
            except _HistoryGoneError as gone:
                if start_revision:
                    raise Compacted(
                        f"etcd has compacted revision {start_revision} away; list the range again",
                        gone.compact_revision,
                    ) from gone
                assembler = None
                continue
            except Compacted:  # between two pages
                assembler = None
            except (ClusterUnreachable, _StreamLostError):
                pass
            failures += 1
            backoff_s = min(_BACKOFF_FIRST_S * 2 ** min(failures, 10), _BACKOFF_MAX_S)
            await asyncio.sleep(backoff_s * rng.uniform(0.5, 1.0))

    async def _stream(self, assembler: Assembler) -> AsyncGenerator[WatchUpdate | None, None]:
        """One stream from where the assembler stands; None says that it is open. Ends only by an
        exception."""
        assembler.restart()
        client = self._client
        connection = client.preferred()
        if not await connection.ready(client.config.dial_timeout_s):
            client.put_behind(connection)
            raise _StreamLostError
        token = await client.current_token(connection, timeout_s=self._timing.open_s)
        metadata = [HAS_LEADER] if token is None else [HAS_LEADER, ("token", token)]
        call = connection.watch_rpc(metadata=metadata)
        try:
            async with asyncio.timeout(self._timing.open_s):
                # From what is known already: it comes again, and is left out. Where history was
                # compacted to the revision after it, etcd before 3.4.34 and 3.5.16 has forgotten
                # what was deleted in that one, and yet lets a watch begin there.
                await call.write(self._create_request(max(assembler.position, 1)))
                response = await call.read()
            self._check(connection, token, response)
            self._doubted = False
            opened_at = response.header.revision
            yield None
            async with contextlib.aclosing(self._responses(call)) as responses:
                async for response in responses:
                    self._check(connection, token, response)
                    client.observe_raft_term(response.header.raft_term)
                    update = _update_of(response, assembler)
                    if isinstance(update, WatchBatch):
                        update = update.seen_late(opened_at)
                    if update is not None:
                        yield update
        except grpc.aio.AioRpcError as error:
            self._refused(connection, token, judge(error.code(), error.details()), error.details())
            client.put_behind(connection)
            raise _StreamLostError from error
        except asyncio.CancelledError as error:
            if connection.is_closed or not is_given_up():
                raise
            client.put_behind(connection)
            raise _StreamLostError from error
        except (TimeoutError, asyncio.InvalidStateError) as error:
            # InvalidStateError: gRPC's for writing to a stream that has just ended.
            client.put_behind(connection)
            raise _StreamLostError from error
        finally:
            call.cancel()

    async def _responses(self, call: Any) -> AsyncGenerator[Any, None]:
        """Raises TimeoutError when the server gives no sign of life."""
        while True:
            # A task, since cancelling a read would end the stream.
            reading = asyncio.create_task(call.read())
            try:
                done, _ = await asyncio.wait({reading}, timeout=self._timing.quiet_s)
                if not done:
                    async with asyncio.timeout(self._timing.answer_s):
                        await call.write(_PROGRESS_REQUEST)
                        await asyncio.wait({reading})
                response = reading.result()
            finally:
                if not reading.done():
                    reading.cancel()
                    await asyncio.wait({reading})
            yield response

    def _create_request(self, start_revision: int) -> Any:
        return rpc_pb2.WatchRequest(
            create_request=rpc_pb2.WatchCreateRequest(
                key=key_bytes(self._key),
                range_end=range_end_bytes(self._range_end),
                start_revision=start_revision,
                progress_notify=True,
                prev_kv=self._prev_kv,
                fragment=True,
            )
        )

    def _check(self, connection: Connection, token: str | None, response: Any) -> None:
        if response is _END_OF_STREAM:
            self._client.put_behind(connection)
            raise _StreamLostError
        if response.compact_revision:
            raise _HistoryGoneError(response.compact_revision)
        if response.canceled:
            reason = response.cancel_reason
            self._refused(connection, token, judge(grpc.StatusCode.UNKNOWN, reason), reason)
            self._client.put_behind(connection)
            raise _StreamLostError

    def _refused(
        self, connection: Connection, token: str | None, verdict: Verdict, details: str | None
    ) -> None:
        """Raises ``ClusterRefused`` if waiting is no use; returns if another endpoint may do.

        etcd 3.4 answers a watch with "permission denied" also where the token has expired, so that
        counts only when a new token is refused as well.
        """
        match verdict:
            case Verdict.TOKEN_STALE | Verdict.NO_USER | Verdict.PERMISSION_DENIED:
                if self._doubted or (verdict is Verdict.NO_USER and token is None):
                    raise error_of(verdict, connection.endpoint.address, details)
                self._doubted = True
                self._client.drop_token(token)
                raise _StreamLostError
            case Verdict.AUTH_CHANGED:
                self._client.drop_token(token)
            case Verdict.UNSUPPORTED | Verdict.CORRUPT:
                raise error_of(verdict, connection.endpoint.address, details)
            case _:
                return


def _update_of(response: Any, assembler: Assembler) -> WatchUpdate | None:
    if response.events:
        return assembler.events(watch_events(response.events), more_fragments=response.fragment)
    if response.created or response.watch_id < 0:
        # Answers to a progress request carry the server's revision, which before 3.4.25 and 3.5.8
        # can run ahead of events that are still to come: a sign of life, no more.
        return None
    return assembler.progress(response.header.revision)
