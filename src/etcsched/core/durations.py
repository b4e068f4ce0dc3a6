"""Durations as people write them: ``500ms``, ``30s``, ``2m``, ``1h30m``, ``1d``."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["format_duration", "parse_duration_s"]

# Largest first, the order in which a duration names them; in milliseconds.
_UNITS_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_SHAPE: Final = re.compile(
    r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?(?:([0-9]{1,9})ms)?"
)
_HINT: Final = "write whole numbers with units, largest first, like 500ms, 30s, 2m, 1h30m or 1d"


def parse_duration_s(text: str) -> float:
    """Seconds; ``ValueError`` says what would be right. ``0s`` is a duration, ``30`` is none."""
    match = _SHAPE.fullmatch(text)
    if match is None or not text:
        if re.fullmatch(r"[0-9]+", text):
            raise ValueError(f"{text!r} has no unit; did you mean {text}s?")
        if re.search(r"[0-9]{10}", text):
            raise ValueError(f"{text!r} is too long; its numbers may have 9 digits")
        raise ValueError(f"{text!r} is not a duration; {_HINT}")
    total_ms = sum(
        int(count) * unit_ms
        for count, unit_ms in zip(match.groups(), _UNITS_MS.values(), strict=True)
        if count
    )
    return total_ms / 1000


def format_duration(seconds: float) -> str:
    """The shortest spelling, exact to the millisecond; ``parse_duration_s`` reads it back."""
    rest_ms = round(seconds * 1000)
    if rest_ms < 0:
        raise ValueError(f"a duration can't be negative ({seconds} s)")
    parts = []
    for unit, unit_ms in _UNITS_MS.items():
        count, rest_ms = divmod(rest_ms, unit_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
