"""Operations to etcd's messages and back. Keys are UTF-8; bytes that aren't survive unchanged."""

from __future__ import annotations

from typing import Any, assert_never

from etcsched.etcd.stubs import kv_pb2, rpc_pb2
from etcsched.keyspace.ops import (
    Delete,
    DeleteResult,
    EventType,
    KeyValue,
    Operation,
    OperationResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Target,
    Txn,
    TxnResult,
    WatchEvent,
)

__all__ = [
    "key_bytes",
    "range_end_bytes",
    "range_request",
    "range_result",
    "txn_request",
    "txn_result",
    "watch_events",
]

_RELATIONS = {
    Relation.EQUAL: rpc_pb2.Compare.EQUAL,
    Relation.NOT_EQUAL: rpc_pb2.Compare.NOT_EQUAL,
    Relation.GREATER: rpc_pb2.Compare.GREATER,
    Relation.LESS: rpc_pb2.Compare.LESS,
}
_TARGETS = {
    Target.CREATE: (rpc_pb2.Compare.CREATE, "create_revision"),
    Target.MOD: (rpc_pb2.Compare.MOD, "mod_revision"),
    Target.VERSION: (rpc_pb2.Compare.VERSION, "version"),
    Target.VALUE: (rpc_pb2.Compare.VALUE, "value"),
    Target.LEASE: (rpc_pb2.Compare.LEASE, "lease"),
}
_DELETE = kv_pb2.Event.DELETE


def key_bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def range_end_bytes(range_end: str | None) -> bytes:
    return b"" if range_end is None else key_bytes(range_end)


def range_request(request: Range) -> Any:
    message = rpc_pb2.RangeRequest(
        key=key_bytes(request.key),
        range_end=range_end_bytes(request.range_end),
        limit=request.limit,
        revision=request.revision,
        keys_only=request.keys_only,
        count_only=request.count_only,
    )
    if request.newest_first:
        message.sort_target = rpc_pb2.RangeRequest.MOD
        message.sort_order = rpc_pb2.RangeRequest.DESCEND
    return message


def txn_request(txn: Txn) -> Any:
    request = rpc_pb2.TxnRequest()
    _fill(request, txn)
    return request


def _fill(request: Any, txn: Txn) -> None:
    """In place: a message that is handed to another one's constructor is copied, with all in it."""
    for compare in txn.compares:
        target, field = _TARGETS[compare.target]
        message = request.compare.add()
        message.key = key_bytes(compare.key)
        if compare.range_end is not None:
            message.range_end = key_bytes(compare.range_end)
        message.target = target
        message.result = _RELATIONS[compare.relation]
        setattr(message, field, compare.operand)
    for operation in txn.then:
        _fill_op(request.success.add(), operation)
    for operation in txn.otherwise:
        _fill_op(request.failure.add(), operation)


def _fill_op(op: Any, operation: Operation) -> None:
    match operation:
        case Put():
            put = op.request_put
            put.key = key_bytes(operation.key)
            put.value = operation.value
            if operation.lease:
                put.lease = operation.lease
        case Delete():
            delete = op.request_delete_range
            delete.key = key_bytes(operation.key)
            delete.range_end = range_end_bytes(operation.range_end)
        case Txn():
            op.request_txn.SetInParent()  # Also where it is empty.
            _fill(op.request_txn, operation)
        case Range():
            op.request_range.MergeFrom(range_request(operation))
        case _:
            assert_never(operation)


def txn_result(response: Any, revision: int, raft_term: int) -> TxnResult:
    """Headers inside a transaction's response are empty but for the revision, and a nested
    transaction has none: the outer one's revision and term stand for all."""
    return TxnResult(
        succeeded=response.succeeded,
        responses=tuple(
            _operation_result(item, revision, raft_term) for item in response.responses
        ),
        revision=revision,
        raft_term=raft_term,
    )


def _operation_result(response: Any, revision: int, raft_term: int) -> OperationResult:
    kind = response.WhichOneof("response")
    match kind:
        case "response_put":
            return PutResult(revision)
        case "response_delete_range":
            return DeleteResult(response.response_delete_range.deleted, revision)
        case "response_txn":
            return txn_result(response.response_txn, revision, raft_term)
        case "response_range":
            return range_result(response.response_range, revision, raft_term)
        case _:
            raise AssertionError(f"etcd answered an operation with {kind!r}")


def range_result(response: Any, revision: int, raft_term: int) -> RangeResult:
    return RangeResult(
        kvs=tuple([_key_value(kv) for kv in response.kvs]),
        count=response.count,
        more=response.more,
        revision=revision,
        raft_term=raft_term,
    )


def watch_events(events: Any) -> tuple[WatchEvent, ...]:
    return tuple([_watch_event(event) for event in events])


def _watch_event(event: Any) -> WatchEvent:
    return WatchEvent(
        EventType.DELETE if event.type == _DELETE else EventType.PUT,
        _key_value(event.kv),
        _key_value(event.prev_kv) if event.HasField("prev_kv") else None,
    )


def _key_value(kv: Any) -> KeyValue:
    return KeyValue(
        kv.key.decode("utf-8", "surrogateescape"),
        kv.value,
        kv.create_revision,
        kv.mod_revision,
        kv.version,
        kv.lease,
    )
