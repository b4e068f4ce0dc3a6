"""Which releases of etcd this program trusts with its data.

Sources: etcd's advisory of 2022-03 on data inconsistency (3.5.0 to 3.5.2 can lose committed writes
after a crash); CVE-2026-33343 (role permissions weren't checked inside nested transactions: fixed
in 3.4.42, 3.5.28, 3.6.9), CVE-2026-33413 (lease calls of others: the same releases) and
CVE-2026-44283 (leases attached by a put inside a transaction: fixed in 3.4.44, 3.5.30, 3.6.11);
etcd's pull request 18274 (what was deleted in the very revision that is compacted to: kept from
3.4.34 and 3.5.16 on).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from etcsched.core.errors import UnsupportedEtcd

__all__ = ["LEAST_VERSION", "ReleaseFault", "check_version", "fault_of", "weakness_of"]

LEAST_VERSION: Final = (3, 4, 0)
_CORRUPTING: Final = ((3, 5, 0), (3, 5, 2))
# The first release of each line that enforces roles in everything this program does.
_FENCED_AUTH: Final = {(3, 4): (3, 4, 44), (3, 5): (3, 5, 30), (3, 6): (3, 6, 11)}
# The first release of each line whose compaction takes no deletion from a watch that lags behind.
_KEEPS_DELETIONS: Final = {(3, 4): (3, 4, 34), (3, 5): (3, 5, 16)}


class ReleaseFault(msgspec.Struct, frozen=True):
    """Why a release isn't to be trusted, as what follows "etcd is", and what to do about it.
    A demo, where lost data is no harm, may have one that only ``loses_data``."""

    text: str
    advice: str
    loses_data: bool = False


def fault_of(version: str) -> ReleaseFault | None:
    """With or without authentication."""
    number = _number_of(version)
    if number is None:
        return ReleaseFault(f"of a version nobody knows: {version!r}", "look at what runs there")
    if number < LEAST_VERSION:
        return ReleaseFault(f"{version}; etcsched needs 3.4 or later", "upgrade etcd")
    if _CORRUPTING[0] <= number <= _CORRUPTING[1]:
        return ReleaseFault(
            f"{version}, which can lose acknowledged writes when it crashes",
            "upgrade etcd to the newest 3.5",
            loses_data=True,
        )
    return None


def weakness_of(version: str) -> ReleaseFault | None:
    """What is to be known of a release that is to be trusted all the same."""
    number = _number_of(version)
    keeps = _KEEPS_DELETIONS.get(number[:2]) if number is not None else None
    if number is None or keeps is None or number >= keeps:
        return None
    return ReleaseFault(
        f"{version}, which can keep a deletion from a watch that lags behind, as it compacts",
        f"upgrade etcd to {'.'.join(map(str, keeps))} or later",
    )


def check_version(
    version: str, endpoint: str, *, embedded: bool, auth_enabled: bool, allow_unfenced_auth: bool
) -> None:
    """``embedded``: the server is a demo's own."""
    fault = fault_of(version)
    if fault is not None and not (embedded and fault.loses_data):
        raise UnsupportedEtcd(f"etcd at {endpoint} is {fault.text}: {fault.advice}")
    number = _number_of(version)
    assert number is not None
    fenced = _FENCED_AUTH.get(number[:2])
    if auth_enabled and not allow_unfenced_auth and fenced is not None and number < fenced:
        raise UnsupportedEtcd(
            f"etcd at {endpoint} is {version} with authentication on, but doesn't enforce roles "
            f"in transactions before {'.'.join(map(str, fenced))}: any user can write everything; "
            "upgrade etcd, or say that you accept it"
        )


def _number_of(version: str) -> tuple[int, int, int] | None:
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2]), int(match[3])) if match is not None else None
