from __future__ import annotations

import grpc
import pytest

from etcsched.core.errors import (
    ClusterRefused,
    Compacted,
    InvalidTransaction,
    LeaseGone,
    NoSpace,
    PermissionDenied,
    UnsupportedEtcd,
)
from etcsched.etcd.refusals import Verdict, error_of, judge

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "text", "error"),
    [
        (Code.NOT_FOUND, "etcdserver: requested lease not found", LeaseGone),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", NoSpace),
        (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", Compacted),
        (
            Code.INVALID_ARGUMENT,
            "etcdserver: duplicate key given in txn request",
            InvalidTransaction,
        ),
        (
            Code.INVALID_ARGUMENT,
            "etcdserver: too many operations in txn request",
            InvalidTransaction,
        ),
        (Code.INVALID_ARGUMENT, "etcdserver: request is too large", InvalidTransaction),
        (
            Code.RESOURCE_EXHAUSTED,
            "grpc: received message larger than max (2097163 vs. 2097152)",
            InvalidTransaction,
        ),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", PermissionDenied),
        (
            Code.INVALID_ARGUMENT,
            "etcdserver: authentication failed, invalid user ID or password",
            ClusterRefused,
        ),
        (Code.UNIMPLEMENTED, "unknown method AuthStatus", UnsupportedEtcd),
        # How a watch of etcd 3.4 words its refusal.
        (
            Code.UNKNOWN,
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
            ClusterRefused,
        ),
    ],
)
def test_definite_refusals(code: grpc.StatusCode, text: str, error: type[Exception]) -> None:
    verdict = judge(code, text)
    assert verdict is not Verdict.UNCERTAIN
    assert verdict is not Verdict.NOT_NOW
    assert verdict is not Verdict.AUTH_CHANGED
    made = error_of(verdict, "127.0.0.1:2379", text)
    assert isinstance(made, error)
    assert str(made).startswith("etcd at 127.0.0.1:2379: ")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        (Code.UNAVAILABLE, "Socket closed"),
        (Code.UNAVAILABLE, "etcdserver: request timed out"),
        (
            Code.UNAVAILABLE,
            "etcdserver: request timed out, possibly due to previous leader failure",
        ),
        (Code.UNAVAILABLE, "etcdserver: server stopped"),
        (Code.UNAVAILABLE, "etcdserver: leader changed"),
        (Code.UNKNOWN, None),
        (Code.CANCELLED, ""),
        (Code.INTERNAL, "anything"),
        (Code.RESOURCE_EXHAUSTED, "anything"),
    ],
)
def test_what_may_have_been_done_is_never_a_refusal(code: grpc.StatusCode, text: str) -> None:
    assert judge(code, text) is Verdict.UNCERTAIN


def test_what_was_turned_down_at_the_door_may_be_sent_elsewhere() -> None:
    assert judge(Code.UNAVAILABLE, "etcdserver: no leader") is Verdict.NOT_NOW
    assert judge(Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests") is Verdict.NOT_NOW
    assert judge(Code.UNAUTHENTICATED, "etcdserver: invalid auth token") is Verdict.TOKEN_STALE
    for text in ("not capable", "rpc not supported for learner"):  # By etcd 3.6, and before.
        for code in (Code.FAILED_PRECONDITION, Code.UNAVAILABLE):
            assert judge(code, f"etcdserver: {text}") is Verdict.NOT_NOW
    old = "etcdserver: revision of auth store is old"
    assert judge(Code.INVALID_ARGUMENT, old) is Verdict.AUTH_CHANGED
