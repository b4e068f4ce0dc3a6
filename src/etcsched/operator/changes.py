"""What applying files changes, in the words of the files."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

__all__ = ["ChangeKind", "FieldChange"]


class ChangeKind(enum.Enum):
    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    DELETE = "delete"


class FieldChange(msgspec.Struct, frozen=True):
    """None: not there."""

    field: str
    before: Any
    after: Any
