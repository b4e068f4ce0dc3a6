"""Ids of requests: they sort by time, and two of one millisecond still differ."""

from __future__ import annotations

from etcsched.core.times import utc_of

__all__ = ["request_id"]


def request_id(now_ms: int, entropy: bytes) -> str:
    """``20261122T190000.512Z-1f3a``; two bytes of entropy make the end. A triggered run's id is
    its request's, so it sorts among the job's ticks."""
    text = utc_of(now_ms).replace("-", "").replace(":", "")
    return f"{text}-{entropy[:2].hex()}"
