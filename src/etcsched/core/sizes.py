"""Sizes as people write them: ``512KiB``, ``16MiB``, ``1GiB``, ``10MB``, ``4096B``."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["parse_size_bytes", "size_text"]

_UNITS: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SHAPE: Final = re.compile(r"([0-9]{1,12})([A-Za-z]*)")


def parse_size_bytes(text: str) -> int:
    """``ValueError`` says what would be right."""
    match = _SHAPE.fullmatch(text)
    unit = _UNITS.get(match[2]) if match is not None else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not a size; write a whole number with a unit, like 16MiB")
    return int(match[1]) * unit


def size_text(size_bytes: int) -> str:
    """As ``parse_size_bytes`` reads it, in the largest binary unit of which it is a multiple."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _UNITS[unit] == 0:
            return f"{size_bytes // _UNITS[unit]}{unit}"
    return f"{size_bytes}B"
