from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcsched.etcd.stubs import kv_pb2, rpc_pb2
from etcsched.etcd.wire import key_bytes, range_result, txn_request, txn_result, watch_events
from etcsched.keyspace.ops import (
    Compare,
    Delete,
    DeleteResult,
    EventType,
    KeyValue,
    Put,
    PutResult,
    Range,
    Relation,
    Target,
    Txn,
    TxnResult,
)


@given(st.binary())
def test_any_key_survives(raw: bytes) -> None:
    response = rpc_pb2.RangeResponse(kvs=[kv_pb2.KeyValue(key=raw)])
    assert key_bytes(range_result(response, 1, 1).kvs[0].key) == raw


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize("relation", Relation)
def test_compares(target: Target, relation: Relation) -> None:
    operand = b"7" if target is Target.VALUE else 7
    compare = txn_request(Txn((Compare("k", target, operand, relation),), ())).compare[0]
    field = {Target.CREATE: "create_revision", Target.MOD: "mod_revision"}.get(target, target.value)
    assert compare.WhichOneof("target_union") == field
    assert getattr(compare, field) == operand
    assert rpc_pb2.Compare.CompareTarget.Name(compare.target) == target.name
    assert rpc_pb2.Compare.CompareResult.Name(compare.result) == relation.name


def test_a_zero_operand_is_still_of_its_target() -> None:
    compare = txn_request(Txn((Compare("k", Target.MOD, 0),), ())).compare[0]
    assert compare.WhichOneof("target_union") == "mod_revision"


def test_operations_keep_their_order_and_branch() -> None:
    nested = Txn((), (Delete("d", "e"),))
    request = txn_request(Txn((), (Put("a", b"1", 9), nested), (Range("r", keys_only=True),)))
    put, inner = request.success
    assert (put.request_put.key, put.request_put.value, put.request_put.lease) == (b"a", b"1", 9)
    assert inner.request_txn.success[0].request_delete_range.range_end == b"e"
    assert request.failure[0].request_range.keys_only


def test_results() -> None:
    response = rpc_pb2.TxnResponse(
        succeeded=True,
        responses=[
            rpc_pb2.ResponseOp(response_put=rpc_pb2.PutResponse()),
            rpc_pb2.ResponseOp(response_delete_range=rpc_pb2.DeleteRangeResponse(deleted=2)),
            rpc_pb2.ResponseOp(response_txn=rpc_pb2.TxnResponse(succeeded=False)),
        ],
    )
    assert txn_result(response, 8, 3) == TxnResult(
        True, (PutResult(8), DeleteResult(2, 8), TxnResult(False, (), 8, 3)), 8, 3
    )


def test_events() -> None:
    put, delete = watch_events(
        [
            kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"a", value=b"1", mod_revision=2)),
            kv_pb2.Event(
                type=kv_pb2.Event.DELETE,
                kv=kv_pb2.KeyValue(key=b"a", mod_revision=3),
                prev_kv=kv_pb2.KeyValue(key=b"a", value=b"1"),
            ),
        ]
    )
    assert put.type is EventType.PUT
    assert put.prev is None
    assert delete.type is EventType.DELETE
    assert delete.prev == KeyValue("a", b"1", 0, 0, 0, 0)
