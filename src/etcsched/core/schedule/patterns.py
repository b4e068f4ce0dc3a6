"""What a job record says about when the job is due, and how people write it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from etcsched.core.durations import parse_duration_s
from etcsched.core.schedule.zone import check_timezone, instant_of_wall_s
from etcsched.core.times import Time, utc_of

__all__ = ["At", "Cron", "Every", "Pattern", "parse_at", "parse_every"]


class Cron(msgspec.Struct, frozen=True, tag_field="kind", tag="cron"):
    """Due whenever the job's zone's clock matches; see ``cron.CronExpression``."""

    expression: str


class Every(msgspec.Struct, frozen=True, tag_field="kind", tag="every"):
    """Due at ``anchor`` + n × ``interval_s``, n ≥ 1, whatever clocks of zones do.

    An anchor within a second counts from that second's start: ticks are whole seconds.
    """

    interval_s: int
    anchor: Time


class At(msgspec.Struct, frozen=True, tag_field="kind", tag="at"):
    """Due once, at a whole second."""

    time: Time


Pattern = Cron | Every | At

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - wall time of no zone in particular


def parse_every(text: str, anchor_ms: int) -> Every:
    """``text`` is a duration like ``30s`` or ``1h30m``: whole seconds, at least one."""
    interval_s = parse_duration_s(text)
    if interval_s < 1 or interval_s != int(interval_s):
        raise ValueError(f"every {text}: the interval must be whole seconds, at least 1s")
    return Every(int(interval_s), utc_of(anchor_ms - anchor_ms % 1000))


def parse_at(text: str, timezone: str) -> At:
    """``text`` is ISO 8601. Without an offset it is ``timezone``'s wall clock: a time that a DST
    change skips is the instant right after it, one that comes twice is the first."""
    check_timezone(timezone)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"at {text!r}: not a time; write it like 2026-11-22T19:00:00 or 2026-11-22T19:00:00Z"
        ) from None
    if moment.microsecond:
        raise ValueError(f"at {text!r}: must be a whole second")
    if not 1970 <= moment.year <= 9000:
        raise ValueError(f"at {text!r}: must lie in the years 1970 to 9000")
    offset = moment.utcoffset()
    since = moment.replace(tzinfo=None) - _EPOCH
    wall_s = since.days * 86_400 + since.seconds
    if offset is None:
        at_s = instant_of_wall_s(timezone, wall_s)
    elif offset.microseconds:
        raise ValueError(f"at {text!r}: the offset must be whole seconds")
    else:
        at_s = wall_s - (offset.days * 86_400 + offset.seconds)
    return At(utc_of(at_s * 1000))
