"""The only place where etcd's errors are told apart.

The texts are those of etcd's api/v3rpc/rpctypes/error.go; they have been part of its API since 3.0,
and etcd's own Go client compares them too. A gRPC code alone doesn't do: INVALID_ARGUMENT covers a
duplicate key as well as a wrong password.
"""

from __future__ import annotations

import enum
from typing import Literal, assert_never

import grpc

from etcsched.core.errors import (
    ClusterRefused,
    Compacted,
    EtcschedError,
    InvalidTransaction,
    LeaseGone,
    NoSpace,
    PermissionDenied,
    Refused,
    UnsupportedEtcd,
)

__all__ = ["Definite", "Verdict", "error_of", "judge"]


class Verdict(enum.Enum):
    """What an answer other than success says about the call."""

    # The call was refused and changed nothing; the same call may be sent again.
    TOKEN_STALE = enum.auto()  # after authenticating anew
    NO_USER = enum.auto()  # after authenticating; etcd wants a user, and the call had none
    NOT_NOW = enum.auto()  # elsewhere or later: this member has no leader, or is overloaded
    # Later, after authenticating: users or roles were changed while etcd looked at who calls. It
    # says so before it applies a write, also of one that went through its log.
    AUTH_CHANGED = enum.auto()
    # The call was refused; asking again won't help.
    LEASE_GONE = enum.auto()
    LEASE_EXISTS = enum.auto()
    COMPACTED = enum.auto()
    INVALID_TRANSACTION = enum.auto()
    PERMISSION_DENIED = enum.auto()
    WRONG_PASSWORD = enum.auto()
    AUTH_OFF = enum.auto()
    ALREADY_SO = enum.auto()
    REFUSED = enum.auto()
    UNSUPPORTED = enum.auto()
    CORRUPT = enum.auto()
    # The write that fills the quota is committed *and* answered with this; later ones aren't.
    NO_SPACE = enum.auto()
    # Nothing is known: it may have been done, or may yet be.
    UNCERTAIN = enum.auto()


Definite = Literal[
    Verdict.LEASE_GONE,
    Verdict.LEASE_EXISTS,
    Verdict.COMPACTED,
    Verdict.INVALID_TRANSACTION,
    Verdict.PERMISSION_DENIED,
    Verdict.WRONG_PASSWORD,
    Verdict.AUTH_OFF,
    Verdict.ALREADY_SO,
    Verdict.REFUSED,
    Verdict.UNSUPPORTED,
    Verdict.CORRUPT,
    Verdict.NO_SPACE,
    Verdict.NO_USER,
    Verdict.TOKEN_STALE,
]
"""Those that end a call, at least where authenticating anew doesn't help."""

_ETCD_SAYS = {
    "invalid auth token": Verdict.TOKEN_STALE,
    "revision of auth store is old": Verdict.AUTH_CHANGED,
    "user name is empty": Verdict.NO_USER,
    "no leader": Verdict.NOT_NOW,
    # Of etcd 3.6 a failed precondition; others serve it.
    "not capable": Verdict.NOT_NOW,
    "rpc not supported for learner": Verdict.NOT_NOW,
    "too many requests": Verdict.NOT_NOW,
    "requested lease not found": Verdict.LEASE_GONE,
    "lease already exists": Verdict.LEASE_EXISTS,
    "mvcc: required revision has been compacted": Verdict.COMPACTED,
    "too many operations in txn request": Verdict.INVALID_TRANSACTION,
    "duplicate key given in txn request": Verdict.INVALID_TRANSACTION,
    "request is too large": Verdict.INVALID_TRANSACTION,
    "key is not provided": Verdict.INVALID_TRANSACTION,
    "permission denied": Verdict.PERMISSION_DENIED,
    "authentication failed, invalid user ID or password": Verdict.WRONG_PASSWORD,
    "authentication is not enabled": Verdict.AUTH_OFF,
    "user name already exists": Verdict.ALREADY_SO,
    "role name already exists": Verdict.ALREADY_SO,
    "mvcc: database space exceeded": Verdict.NO_SPACE,
    "corrupt cluster": Verdict.CORRUPT,
}
# Codes that say, whatever the text, that the server turned the call down before doing anything.
_BY_CODE = {
    grpc.StatusCode.PERMISSION_DENIED: Verdict.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED: Verdict.TOKEN_STALE,
    grpc.StatusCode.UNIMPLEMENTED: Verdict.UNSUPPORTED,
    grpc.StatusCode.FAILED_PRECONDITION: Verdict.REFUSED,
    grpc.StatusCode.INVALID_ARGUMENT: Verdict.REFUSED,
    grpc.StatusCode.NOT_FOUND: Verdict.REFUSED,
    grpc.StatusCode.OUT_OF_RANGE: Verdict.REFUSED,
    grpc.StatusCode.DATA_LOSS: Verdict.CORRUPT,
}
# grpc-go's words for a request over its receive limit; etcd then hasn't seen it.
_OVER_RECEIVE_LIMIT = "received message larger than max"


def judge(code: grpc.StatusCode, details: str | None) -> Verdict:
    details = details or ""
    _, of_etcd, text = details.rpartition("etcdserver: ")
    if of_etcd and (verdict := _ETCD_SAYS.get(text)) is not None:
        return verdict
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _OVER_RECEIVE_LIMIT in details:
        return Verdict.INVALID_TRANSACTION
    return _BY_CODE.get(code, Verdict.UNCERTAIN)


def error_of(verdict: Definite, endpoint: str, details: str | None) -> EtcschedError:
    """The error for a person to read; ``endpoint`` is who said so."""
    said = f"etcd at {endpoint}: {(details or verdict.name).removeprefix('etcdserver: ')}"
    match verdict:
        case Verdict.LEASE_GONE:
            return LeaseGone(f"{said}; it expired or was revoked")
        case Verdict.COMPACTED:
            return Compacted(f"{said}; list the range again", 0)
        case Verdict.INVALID_TRANSACTION:
            return InvalidTransaction(f"{said}; nothing was applied")
        case Verdict.NO_SPACE:
            return NoSpace(f"{said}; compact, defragment, then disarm the alarm (etcdctl alarm)")
        case Verdict.PERMISSION_DENIED:
            return PermissionDenied(f"{said}; grant this user's role the range it needs")
        case Verdict.WRONG_PASSWORD:
            return ClusterRefused(f"{said}; check the user and the password")
        case Verdict.NO_USER:
            return ClusterRefused(
                f"{said}; authentication is on: give a user and password, or a client certificate"
            )
        case Verdict.TOKEN_STALE:
            return ClusterRefused(f"{said}; a token just issued isn't taken: check etcd's log")
        case Verdict.AUTH_OFF:
            return Refused(said)
        case Verdict.CORRUPT:
            return ClusterRefused(f"{said}; take this member out of service and check its data")
        case Verdict.UNSUPPORTED:
            return UnsupportedEtcd(f"{said}; etcd 3.4 or later is needed")
        case Verdict.LEASE_EXISTS | Verdict.ALREADY_SO | Verdict.REFUSED:
            return Refused(said)
        case _:
            assert_never(verdict)
