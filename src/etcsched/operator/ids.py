"""Ids of requests: they sort by time, and those of one millisecond still differ."""

from __future__ import annotations

from typing import Final

from etcsched.core.times import utc_of

__all__ = ["ENTROPY_BYTES", "request_id"]

ENTROPY_BYTES: Final = 6
"""With two, of three hundred ids of one millisecond two were the same every other time. Whoever
has an id that another has is told the answer to the other's request."""


def request_id(now_ms: int, entropy: bytes) -> str:
    """``20261122T190000.512Z-1f3a5c7e9b0d``; ``ENTROPY_BYTES`` of entropy make the end. A triggered
    run's id is its request's, so it sorts among the job's ticks."""
    text = utc_of(now_ms).replace("-", "").replace(":", "")
    return f"{text}-{entropy[:ENTROPY_BYTES].hex()}"
