"""What the auditor holds for due is what the product decides by, though neither asks the other."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from etcsched.audit.definitions import Definitions
from etcsched.core import timeline
from etcsched.core.limits import Limits
from etcsched.core.records import (
    CLUSTER,
    Calendar,
    CalendarVersion,
    Pause,
    PauseInterval,
    ScheduleVersion,
    Window,
)
from etcsched.core.schedule import Cron, Every, Pattern
from etcsched.core.states import JobState
from etcsched.core.times import Utc, ms_of, utc_of
from tests.unit.audit.story import a_job

BEGIN_MS = ms_of(Utc("2026-10-24T00:00:00.000Z"))
HOURS = 72
END_MS = BEGIN_MS + HOURS * 3_600_000

moments_ms = st.builds(
    lambda hour, minute: BEGIN_MS + (hour * 60 + minute) * 60_000,
    st.integers(0, HOURS - 1),
    st.sampled_from([0, 1, 17, 30]),
)
SCHEDULES: list[tuple[Pattern, ...]] = [
    (Cron("17 * * * *"),),
    (Cron("30 2 * * *"), Cron("0 12 * * *")),
    (Every(5400, utc_of(BEGIN_MS)),),
    (),
]
schedules = st.sampled_from(SCHEDULES)
states = st.sampled_from([JobState.ENABLED, JobState.ENABLED, JobState.DISABLED])
days = st.sampled_from(["2026-10-24", "2026-10-25", "2026-10-25/2026-10-26", "2026-11-01"])


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, ...]:
    edges = sorted(draw(st.sets(moments_ms, max_size=4)))
    return tuple(
        Window(
            since=utc_of(begin),
            until=utc_of(end),
            state=draw(st.none() | states),
            patterns=draw(st.none() | schedules),
        )
        for begin, end in zip(edges[::2], edges[1::2], strict=False)
    )


@st.composite
def versions(draw: st.DrawFn) -> tuple[ScheduleVersion, ...]:
    begins_ms = sorted(draw(st.sets(moments_ms, min_size=1, max_size=3)))
    return tuple(
        ScheduleVersion(
            since=utc_of(since),
            state=draw(states),
            patterns=draw(schedules),
            timezone=draw(st.sampled_from(["UTC", "Europe/Berlin"])),
            windows=draw(windows()),
            calendars=draw(st.sampled_from([(), ("one",), ("one", "two"), ("gone",)])),
        )
        for since in begins_ms
    )


@st.composite
def calendars(draw: st.DrawFn, name: str) -> Calendar:
    begins_ms = sorted({0, *draw(st.sets(moments_ms, max_size=2))})
    return Calendar(
        name=name,
        versions=tuple(
            CalendarVersion(
                since=utc_of(since),
                exclude=tuple(draw(st.sets(days, max_size=2))),
                include=tuple(draw(st.sets(days, max_size=1))),
            )
            for since in begins_ms
        ),
    )


@st.composite
def pauses(draw: st.DrawFn) -> Pause:
    edges = sorted(draw(st.sets(moments_ms, min_size=1, max_size=4)))
    ends = [*edges[1::2], None][: len(edges[::2])]
    return Pause(
        intervals=tuple(
            PauseInterval(since=utc_of(begin), until=utc_of(end) if end is not None else None)
            for begin, end in zip(edges[::2], ends, strict=True)
        )
    )


@settings(deadline=None)
@given(versions(), calendars("one"), calendars("two"), st.none() | pauses(), st.none() | pauses())
def test_due_is_what_the_product_holds_for_due(
    given_versions: tuple[ScheduleVersion, ...],
    one: Calendar,
    two: Calendar,
    of_job: Pause | None,
    of_cluster: Pause | None,
) -> None:
    job = a_job(versions=given_versions)
    definitions = Definitions(BEGIN_MS - 1)
    for calendar in (one, two):
        definitions.calendar_put(calendar)
    definitions.job_put(job)
    for name, pause in ((job.name, of_job), (CLUSTER, of_cluster)):
        if pause is not None:
            definitions.pause_put(name, pause)
    limits = Limits(pauses=(of_job, of_cluster), calendars={"one": one, "two": two})
    by_product = list(timeline.ticks(job, limits, BEGIN_MS - 1, END_MS))
    assert list(definitions.due(job.name, BEGIN_MS - 1, END_MS)) == by_product
    # ... and as the watermark comes by them, step by step.
    stepped = [
        tick_ms
        for step in range(1, 20)
        for _, tick_ms in definitions.pass_to(BEGIN_MS - 1 + step * (END_MS - BEGIN_MS) // 20)
    ]
    stepped += [tick_ms for _, tick_ms in definitions.pass_to(END_MS)]
    assert stepped == by_product
