"""What a check of the doctor finds."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

import msgspec

__all__ = ["Finding", "Level", "some"]

_NAMED: Final = 3


class Level(enum.Enum):
    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


class Finding(msgspec.Struct, frozen=True):
    """``advice`` says what to do, where there is something to do."""

    topic: str
    level: Level
    text: str
    advice: str = ""


def some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
