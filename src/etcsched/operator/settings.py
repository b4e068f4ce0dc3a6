"""The cluster's settings: one record, of which a file changes the fields that it names."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from etcsched.core.errors import Refused
from etcsched.core.records import ClusterSettings, Kind
from etcsched.jobfile.writing import settings_of
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.transactions import write_settings
from etcsched.operator.changes import ChangeKind, FieldChange
from etcsched.operator.store import committed, found, mod_of, read
from etcsched.ports import Etcd

__all__ = ["SettingsChange", "apply_settings", "plan_settings", "read_settings"]

_TRIES: Final = 30


class SettingsChange(msgspec.Struct, frozen=True):
    kind: ChangeKind
    fields: tuple[FieldChange, ...] = ()
    what: str = "settings"


async def read_settings(etcd: Etcd, keys: Keys) -> ClusterSettings:
    return (await _look(etcd, keys))[0]


async def plan_settings(etcd: Etcd, keys: Keys, wanted: dict[str, Any]) -> SettingsChange:
    """What ``apply_settings`` would do."""
    before, _ = await _look(etcd, keys)
    return _change(before, msgspec.structs.replace(before, **wanted))


async def apply_settings(
    etcd: Etcd, keys: Keys, wanted: dict[str, Any], by: str, *, timeout_s: float
) -> SettingsChange:
    """Set these fields; the others stay as they are. Nothing is written where nothing changes, so
    whoever may not change settings can still apply files that name them as they are."""
    first: SettingsChange | None = None
    for _ in range(_TRIES):
        before, seen = await _look(etcd, keys)
        after = msgspec.structs.replace(before, **wanted)
        # A lost answer makes the next look find our own work; what it was is in the first plan.
        first = first or _change(before, after)
        if after == before:
            return first
        txn = write_settings(keys, msgspec.structs.replace(after, changed_by=by), seen)
        if await committed(etcd, txn, timeout_s=timeout_s):
            return first
    raise Refused(f"the settings were changed by others {_TRIES} times in a row; try again")


async def _look(etcd: Etcd, keys: Keys) -> tuple[ClusterSettings, int]:
    (kv,), _ = await read(etcd, [keys.of(Kind.SETTINGS)])
    seen = mod_of(kv)
    return found(ClusterSettings, kv) or ClusterSettings(), seen


def _change(before: ClusterSettings, after: ClusterSettings) -> SettingsChange:
    old, new = settings_of(before), settings_of(after)
    changed = tuple(
        FieldChange(name, old[name], new[name]) for name in new if old[name] != new[name]
    )
    return SettingsChange(ChangeKind.UPDATE if changed else ChangeKind.UNCHANGED, changed)
