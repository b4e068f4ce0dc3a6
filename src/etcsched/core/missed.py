"""The ticks that one record of missed ticks stands for, purely.

A stretch of an outage is one record, which says how far apart its ticks are: what a job was due at
by the definition of that time, nobody can tell any more once that has been edited. Each tick of it
can be resubmitted, as if it had a record of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from etcsched.core.records import Run
from etcsched.core.times import ms_of, ms_of_tick_id, tick_id, utc_of

MAX_STEPS = 256
"""Of one record: a schedule whose ticks are all differently far apart has shorter ones."""

Steps = tuple[tuple[int, int], ...]
"""How many ms apart, and how often in a row."""


def extended(steps: Steps, apart_ms: int) -> Steps:
    if steps and steps[-1][0] == apart_ms:
        return (*steps[:-1], (apart_ms, steps[-1][1] + 1))
    return (*steps, (apart_ms, 1))


def is_summary(run: Run) -> bool:
    return run.missed_count > 1


def ticks_of(record: Run) -> Iterator[int]:
    """In their order. Of a record that an older version made, the first and the last are known."""
    if record.scheduled_at is None:
        return
    tick_ms = ms_of(record.scheduled_at)
    yield tick_ms
    for apart_ms, count in record.missed_steps:
        for _ in range(count):
            tick_ms += apart_ms
            yield tick_ms
    if not record.missed_steps and record.missed_through is not None:
        yield ms_of(record.missed_through)


def place_of(record: Run, run_id: str) -> int | None:
    """The place in the record of the tick that has this id; None: it stands for none of it."""
    try:
        wanted_ms = ms_of_tick_id(run_id)
    except ValueError:
        return None
    for place, tick_ms in enumerate(ticks_of(record)):
        if tick_ms >= wanted_ms:
            return place if tick_ms == wanted_ms else None
    return None


def tick_in(record: Run, tick_ms: int) -> Run:
    """This tick as if it had been recorded by itself: its resubmissions go back to its own id, and
    it is a chain's beginning of its own."""
    return replace(
        record,
        id=tick_id(tick_ms),
        scheduled_at=utc_of(tick_ms),
        missed_count=1,
        missed_through=None,
        missed_steps=(),
        resubmitted_ticks=(),
        resubmitted_as=(),
        followed_by=(),
    )


def resubmitted_places(record: Run) -> set[int]:
    return {place for first, last in record.resubmitted_ticks for place in range(first, last + 1)}


def with_resubmitted(record: Run, place: int, run_id: str, most_links: int) -> Run:
    """The record with the link to what the tick of this place is resubmitted as."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted({*record.resubmitted_ticks, (place, place)}):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    links = (*record.resubmitted_as, run_id)[-most_links:]
    return replace(record, resubmitted_ticks=tuple(merged), resubmitted_as=links)


def count_resubmitted(record: Run) -> int:
    return len(resubmitted_places(record))
