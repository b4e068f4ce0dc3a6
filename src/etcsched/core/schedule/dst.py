"""From what a clock on the wall shows to instants, across the changes of a zone's clock.

There are two rules, chosen by how the hour is written. Vixie cron draws the same line, between jobs
that run by the hour and jobs that someone wants at a certain time of the day.

*Elapsed* (hour ``*`` or ``*/n``): due at every instant at which the clock matches. An hour that
comes twice counts twice; what a gap skips is not made up for.

*Fixed* (any other hour, ``0-23`` too): a matching wall time is due at the first instant at which
the clock has come that far. In the repeated hour that is its first occurrence; in a gap it is the
gap's end, where several such ticks, or one that is due there anyway, are one.
"""

from __future__ import annotations

from typing import Final

from etcsched.core.schedule.cron import CronExpression
from etcsched.core.schedule.zone import period_at

__all__ = ["first_tick_s", "last_tick_s"]

# A hundred years: more than the 40 that the rarest day can take, so only an expression whose every
# match falls into a gap (by the hour, at midnight, where clocks change at midnight) ends here.
_SEARCH_S: Final = 100 * 366 * 86_400


def first_tick_s(cron: CronExpression, timezone: str, from_s: int, through_s: int) -> int | None:
    """The earliest tick in [from, through], in Unix seconds."""
    through_s = min(through_s, from_s + _SEARCH_S)
    # The last search and what it found: as good for any start between the two.
    searched_from_s, wall_s = 0, -1
    at_s = from_s
    while at_s <= through_s:
        period = period_at(timezone, at_s)
        if cron.elapsed:
            low_s = at_s + period.offset_s
        elif at_s == period.start_s:
            low_s = period.fresh_wall_s
        else:
            low_s = max(at_s + period.offset_s, period.fresh_wall_s)
        if not searched_from_s <= low_s <= wall_s:
            found_s = cron.first(low_s)
            if found_s is None:
                return None
            searched_from_s, wall_s = low_s, found_s
        if wall_s < period.end_s + period.offset_s:
            tick_s = max(wall_s - period.offset_s, period.start_s)
            return tick_s if tick_s <= through_s else None
        at_s = period.end_s
    return None


def last_tick_s(cron: CronExpression, timezone: str, after_s: int, through_s: int) -> int | None:
    """The latest tick in (after, through], in Unix seconds."""
    after_s = max(after_s, through_s - _SEARCH_S)
    wall_s, searched_to_s = 0, -1  # as above, backwards
    at_s = through_s
    while at_s > after_s:
        period = period_at(timezone, at_s)
        high_s = at_s + period.offset_s
        if not wall_s <= high_s <= searched_to_s:
            found_s = cron.last(high_s)
            if found_s is None:
                return None
            searched_to_s, wall_s = high_s, found_s
        start_wall_s = period.start_s + period.offset_s
        if wall_s >= (start_wall_s if cron.elapsed else period.fresh_wall_s):
            tick_s = max(wall_s - period.offset_s, period.start_s)
            return tick_s if tick_s > after_s else None
        at_s = period.start_s - 1
    return None
