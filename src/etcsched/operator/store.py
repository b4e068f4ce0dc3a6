"""Reading and writing records: pages of one revision, and writes whose outcome is known."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, TypeVar

import msgspec

from etcsched.core.checks import problem_with
from etcsched.core.errors import EtcschedError, NoSpace, OutcomeUnknown
from etcsched.core.records import Kind, Record
from etcsched.keyspace.codec import MalformedRecord, decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue, Range, RangeResult, Txn, TxnResult
from etcsched.ports import Etcd

__all__ = [
    "check_there",
    "commit",
    "committed",
    "found",
    "listed",
    "mod_of",
    "pages",
    "read",
    "read_all",
    "read_ranges",
]

R = TypeVar("R", bound=Record)

PAGE: Final = 5000
_RANGES_PER_READ: Final = 100
_GIVE_WAY_S: Final = 0.02
_RESEND_S: Final = 0.05
"""At most so long until a write is sent again, so that one which fails at once isn't hammered."""


async def commit(etcd: Etcd, txn: Txn, *, timeout_s: float) -> TxnResult:
    """Send until the answer is definite: identical again while the outcome is unknown.

    ``OutcomeUnknown`` when time is up and it was sent; whether it was committed shows later. So it
    is when etcd refuses a copy, since an earlier one may be committed, and when it is full.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    unknown: OutcomeUnknown | None = None
    while True:
        left_s = deadline_s - loop.time()
        if unknown is not None and left_s <= 0:
            raise unknown
        try:
            return await etcd.txn(txn, timeout_s=max(left_s, 0.1))
        except OutcomeUnknown as error:
            unknown = error
            await asyncio.sleep(random.uniform(0.5, 1.0) * _RESEND_S)
        except NoSpace as error:
            # The write that fills the quota is committed, and answered with this.
            raise OutcomeUnknown(
                f"{error}; this write may have been the last that was committed, so look before "
                "you do it again"
            ) from None
        except EtcschedError as error:
            if unknown is not None:
                raise OutcomeUnknown(f"{unknown}; sent again: {error}") from None
            raise


async def committed(etcd: Etcd, txn: Txn, *, timeout_s: float) -> bool:
    """Whether it was committed as it was decided; see ``commit``. False: it met somebody else's
    write, and they have had a moment, so it can be decided anew at once."""
    if (await commit(etcd, txn, timeout_s=timeout_s)).succeeded:
        return True
    await asyncio.sleep(random.uniform(0, _GIVE_WAY_S))
    return False


async def check_there(
    etcd: Etcd,
    keys: Keys,
    kind: Kind,
    names: Sequence[str],
    missing: Callable[[str], EtcschedError],
) -> None:
    """Raises what ``missing`` says of the first that isn't there; what can't be read is."""
    kvs, _ = await read(etcd, [keys.of(kind, name) for name in names], keys_only=True)
    for name, kv in zip(names, kvs, strict=True):
        if kv is None:
            raise missing(name)


async def pages(
    etcd: Etcd,
    key: str,
    range_end: str,
    *,
    keys_only: bool = False,
    limit: int = 0,
    page_size: int = 0,
    revision: int = 0,
) -> AsyncIterator[RangeResult]:
    """A range in pages, all of one revision (0: the newest); at most ``limit`` keys (0: all).
    Records that may be large go with a smaller ``page_size`` (0: ``PAGE``)."""
    page_size = page_size or PAGE
    while True:
        size = min(page_size, limit) if limit else page_size
        page = await etcd.range(
            Range(key, range_end, limit=size, revision=revision, keys_only=keys_only)
        )
        yield page
        if not page.more or (limit and limit <= size):
            return
        limit -= size if limit else 0
        revision = revision or page.revision
        key = page.kvs[-1].key + "\0"


async def listed(
    etcd: Etcd,
    span: tuple[str, str],
    *,
    keys_only: bool = False,
    limit: int = 0,
    revision: int = 0,
) -> list[KeyValue]:
    in_pages = pages(etcd, *span, keys_only=keys_only, limit=limit, revision=revision)
    return [kv async for page in in_pages for kv in page.kvs]


async def read_all(etcd: Etcd, span: tuple[str, str], type_: type[R], limit: int = 0) -> list[R]:
    """The readable records of a range; ``doctor`` names the others."""
    records = []
    for kv in await listed(etcd, span, limit=limit):
        record = found(type_, kv)
        if record is not None:
            records.append(record)
    return records


def found(type_: type[R], kv: KeyValue | None) -> R | None:
    """The record there; None for nothing, and for what can't be read or makes no sense there."""
    if kv is None:
        return None
    try:
        record = decode(type_, kv.value)
    except MalformedRecord:
        return None
    return record if problem_with(tuple(kv.key.split("/")), record) is None else None


def mod_of(kv: KeyValue | None) -> int:
    """The revision at which it was seen; 0: there is nothing."""
    return kv.mod_revision if kv is not None else 0


async def read(
    etcd: Etcd, keys: Sequence[str], *, revision: int = 0, keys_only: bool = False
) -> tuple[list[KeyValue | None], int]:
    """What stands at each of the keys, in their order, at one revision, which comes with it."""
    ranges = [Range(key, revision=revision, keys_only=keys_only) for key in keys]
    results, revision = await read_ranges(etcd, ranges)
    return [result.kvs[0] if result.kvs else None for result in results], revision


async def read_ranges(
    etcd: Etcd, ranges: Sequence[Range], revision: int = 0
) -> tuple[list[RangeResult], int]:
    """Any number of short ranges, each as a whole, all of one revision, which comes with them."""
    results: list[RangeResult] = []
    for start in range(0, len(ranges), _RANGES_PER_READ):
        chunk = [
            msgspec.structs.replace(one, revision=one.revision or revision)
            for one in ranges[start : start + _RANGES_PER_READ]
        ]
        result = await etcd.txn(Txn((), tuple(chunk)))
        revision = revision or result.revision
        for response in result.responses:
            assert isinstance(response, RangeResult), "ranges are answered with ranges"
            results.append(response)
    return results, revision
