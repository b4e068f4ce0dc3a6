"""What a cron expression means, written as plainly as can be: look at every minute there is.

It shares nothing with ``etcsched.core.schedule``. Expressions are drawn together with their
meaning, so that nothing here reads their text. Offsets of zones are whole minutes in all times
tested.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import accumulate
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

MONTH_NAMES = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAY_NAMES = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

Dates = Callable[[date], bool]


@dataclass(frozen=True)
class Drawn:
    """An expression and what it means. ``elapsed``: its hour is ``*`` or ``*/n``."""

    text: str
    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    on: Dates
    elapsed: bool

    def matches(self, wall: datetime) -> bool:
        """Seconds aside."""
        return wall.minute in self.minutes and wall.hour in self.hours and self.on(wall.date())


def oracle_ticks_s(drawn: Drawn, zone: ZoneInfo, first: datetime, last: datetime) -> list[int]:
    """Ticks in [first, last), two UTC instants on whole minutes, in Unix seconds."""
    margin = timedelta(days=2)  # of wall time on both sides: what is shown only then can be due now
    instants = [
        first - margin + timedelta(minutes=n)
        for n in range(int((last - first + 2 * margin) / timedelta(minutes=1)))
    ]
    walls = [instant.astimezone(zone).replace(tzinfo=None) for instant in instants]
    due: set[int] = set()
    if drawn.elapsed:
        for instant, wall in zip(instants, walls, strict=True):
            if drawn.matches(wall):
                due |= {int(instant.timestamp()) + second for second in drawn.seconds}
    else:
        shown_first: dict[datetime, datetime] = {}
        for instant, wall in zip(instants, walls, strict=True):
            shown_first.setdefault(wall, instant)
        latest_shown = list(accumulate(walls, max))
        wall = walls[0]
        while wall < walls[-1]:
            if drawn.matches(wall):
                if wall in shown_first:
                    start = int(shown_first[wall].timestamp())
                    due |= {start + second for second in drawn.seconds}
                else:
                    gap_ends = instants[bisect_right(latest_shown, wall)]
                    due.add(int(gap_ends.timestamp()))
            wall += timedelta(minutes=1)
    return sorted(tick for tick in due if first.timestamp() <= tick < last.timestamp())


# Fields: text and the set of values it allows.

FieldDrawn = tuple[str, frozenset[int]]


def _spelled(value: int, names: tuple[str, ...], low: int, named: bool) -> str:
    return names[value - low] if named and names else str(value)


@st.composite
def items(
    draw: st.DrawFn, low: int, high: int, names: tuple[str, ...] = (), stars: bool = True
) -> FieldDrawn:
    kinds = ["one", "range", "range_step", "start_step", *(["star_step", "star"] if stars else [])]
    kind = draw(st.sampled_from(kinds))
    step = draw(st.integers(1, high - low + 1))
    first = draw(st.integers(low, high))
    # Not 5-5/2, which cronsim takes for 5/2, and cron for 5.
    last = draw(st.integers(min(first + (kind == "range_step"), high), high))
    named = draw(st.booleans())
    head = _spelled(first, names, low, named)
    tail = _spelled(last, names, low, named)
    match kind:
        case "one":
            return head, frozenset({first})
        case "range":
            return f"{head}-{tail}", frozenset(range(first, last + 1))
        case "range_step":
            return f"{head}-{tail}/{step}", frozenset(range(first, last + 1, step))
        case "start_step":
            return f"{head}/{step}", frozenset(range(first, high + 1, step))
        case "star_step":
            return f"*/{step}", frozenset(range(low, high + 1, step))
        case _:
            return "*", frozenset(range(low, high + 1))


@st.composite
def fields(
    draw: st.DrawFn, low: int, high: int, names: tuple[str, ...] = (), stars: bool = True
) -> FieldDrawn:
    chosen = draw(st.lists(items(low, high, names, stars), min_size=1, max_size=3))
    text = ",".join(text for text, _ in chosen)
    return text, frozenset().union(*(values for _, values in chosen))


# Days: text and a predicate on dates.


def _month_of(day: date) -> list[date]:
    return _days_of_month(day.replace(day=1))


@cache
def _days_of_month(first: date) -> list[date]:
    found = [first]
    while (following := found[-1] + timedelta(days=1)).month == first.month:
        found.append(following)
    return found


def _sunday_0(day: date) -> int:
    return day.isoweekday() % 7


def last_day(day: date) -> bool:
    return day == _month_of(day)[-1]


def last_workday(day: date) -> bool:
    return day == max(d for d in _month_of(day) if d.isoweekday() <= 5)


def nearest_workday(number: int) -> Dates:
    def on(day: date) -> bool:
        days = _month_of(day)
        workdays = [d for d in days if d.isoweekday() <= 5]
        return len(days) >= number and day == min(workdays, key=lambda d: abs(d.day - number))

    return on


def nth_weekday(weekday: int, nth: int) -> Dates:
    """``weekday`` from Sunday, 0; ``nth`` from 1, or -1 for the last."""

    def on(day: date) -> bool:
        those = [d for d in _month_of(day) if _sunday_0(d) == weekday]
        return day in (those[nth:] if nth < 0 else those[nth - 1 : nth])

    return on


SPECIAL_DATES: tuple[tuple[str, Dates], ...] = (
    ("L", last_day),
    ("LW", last_workday),
    *((f"{number}W", nearest_workday(number)) for number in range(1, 32)),
)
SPECIAL_WEEKDAYS: tuple[tuple[str, Dates], ...] = (
    *((f"{n}#{nth}", nth_weekday(n % 7, nth)) for n in range(8) for nth in range(1, 6)),
    *((f"{name}#2", nth_weekday(n, 2)) for n, name in enumerate(DAY_NAMES)),
    *((f"{n}L", nth_weekday(n % 7, -1)) for n in range(8)),
    *((f"{name}L", nth_weekday(n, -1)) for n, name in enumerate(DAY_NAMES)),
)


@st.composite
def dates_of_month(draw: st.DrawFn) -> tuple[str, Dates]:
    if draw(st.booleans()):
        return draw(st.sampled_from(SPECIAL_DATES))
    text, values = draw(items(1, 31, stars=False))
    return text, lambda day: day.day in values


@st.composite
def weekdays(draw: st.DrawFn) -> tuple[str, Dates]:
    match draw(st.sampled_from(["special", "to_sunday", "names", "numbers"])):
        case "special":
            return draw(st.sampled_from(SPECIAL_WEEKDAYS))
        case "to_sunday":
            start = draw(st.integers(1, 6))
            tail = draw(st.sampled_from(["7", "SUN"]))
            return f"{start}-{tail}", lambda day: day.isoweekday() >= start
        case "names":
            names = items(0, 6, DAY_NAMES, stars=False)
            text, values = draw(names.filter(lambda item: "-" in item[0] or "/" not in item[0]))
        case _:
            text, values = draw(items(0, 7, stars=False).filter(lambda item: "/8" not in item[0]))
    return text, lambda day: _sunday_0(day) in {value % 7 for value in values}


def _any_of(rules: list[Dates]) -> Dates:
    return lambda day: any(rule(day) for rule in rules)


@st.composite
def day_rules(draw: st.DrawFn) -> tuple[str, str, Dates]:
    """Day of month, day of week, and what both together allow."""
    by_date = draw(st.lists(dates_of_month(), min_size=1, max_size=2))
    by_weekday = draw(st.lists(weekdays(), min_size=1, max_size=2))
    date_text = ",".join(text for text, _ in by_date)
    weekday_text = ",".join(text for text, _ in by_weekday)
    on_date = _any_of([rule for _, rule in by_date])
    on_weekday = _any_of([rule for _, rule in by_weekday])
    free = draw(st.sampled_from(["*", "?"]))
    step = draw(st.integers(1, 6))
    match draw(st.integers(0, 6)):
        case 0:
            return free, free, lambda _: True
        case 1 | 2:
            return date_text, free, on_date
        case 3 | 4:
            return free, weekday_text, on_weekday
        case 5:
            return (
                f"*/{step}",
                weekday_text,
                lambda day: (day.day - 1) % step == 0 and on_weekday(day),
            )
        case _:
            return date_text, weekday_text, lambda day: on_date(day) or on_weekday(day)


hours_elapsed = st.integers(1, 24).map(
    lambda step: ("*" if step == 1 else f"*/{step}", frozenset(range(0, 24, step)))
)
few_seconds = st.one_of(
    items(0, 59, stars=False).filter(lambda item: len(item[1]) < 4),
    st.just(("*/20", frozenset({0, 20, 40}))),
)


@st.composite
def expressions(draw: st.DrawFn, every_day: bool = False) -> Drawn:
    """``every_day``: no restriction of days, so that many ticks fall into few days."""
    minute, minutes = draw(fields(0, 59))
    hour, hours = draw(st.one_of(hours_elapsed, fields(0, 23)))
    day, month, weekday = "*", "*", "*"
    on: Dates = lambda _: True  # noqa: E731
    if not every_day:
        day, weekday, on_day = draw(day_rules())
        month, months = draw(fields(1, 12, MONTH_NAMES))
        on = cache(lambda day: day.month in months and on_day(day))
    text = f"{minute} {hour} {day} {month} {weekday}"
    seconds = frozenset({0})
    if draw(st.booleans()):
        second, seconds = draw(few_seconds)
        text = f"{second} {text}"
    elapsed = hour == "*" or (hour.startswith("*/") and "," not in hour)
    return Drawn(draw(st.sampled_from([text, text.lower()])), seconds, minutes, hours, on, elapsed)


def every_twenty_minutes(hour: str, step: int = 1) -> Drawn:
    """In the hours that ``hour`` must mean, 0 to 23 by ``step``; fixed unless it has a star."""
    hours = frozenset(range(0, 24, step))
    minutes = frozenset({0, 20, 40})
    text = f"*/20 {hour} * * *"
    return Drawn(text, frozenset({0}), minutes, hours, lambda _: True, elapsed="*" in hour)


# A UTC day in which the zone's clock changes, with what it does.
CLOCK_CHANGES = (
    ("Europe/Berlin", date(2026, 3, 29)),  # 02:00 to 03:00
    ("Europe/Berlin", date(2026, 10, 25)),  # 03:00 to 02:00
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("Europe/Dublin", date(2026, 10, 25)),  # "negative" DST in winter
    ("Australia/Lord_Howe", date(2026, 4, 4)),  # back by half an hour
    ("Australia/Lord_Howe", date(2026, 10, 3)),  # forward by half an hour
    ("Asia/Beirut", date(2026, 3, 28)),  # gap at midnight
    ("Asia/Beirut", date(2026, 10, 24)),  # midnight to 23:00
    ("America/Sao_Paulo", date(2017, 10, 15)),  # gap at midnight
    ("America/Sao_Paulo", date(2018, 2, 18)),  # midnight to 23:00
    ("Africa/Cairo", date(2026, 4, 23)),
    ("Africa/Casablanca", date(2026, 2, 15)),
    ("Antarctica/Troll", date(2026, 3, 29)),  # two hours
    ("Antarctica/Casey", date(2018, 3, 10)),  # back by three hours
    ("Antarctica/Vostok", date(1994, 1, 31)),  # back by seven hours
    ("America/Caracas", date(2016, 5, 1)),  # half an hour, for good
    ("Pacific/Apia", date(2011, 12, 30)),  # a whole day skipped
    ("Pacific/Kwajalein", date(1993, 8, 21)),  # a whole day skipped
    ("UTC", date(2026, 3, 29)),
    ("Asia/Kathmandu", date(2026, 3, 29)),  # +05:45
)


def utc_midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
