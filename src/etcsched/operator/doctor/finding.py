"""What a check of the doctor finds."""

from __future__ import annotations

import enum

import msgspec

__all__ = ["Finding", "Level"]


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
