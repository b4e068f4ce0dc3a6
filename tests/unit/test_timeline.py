"""Which definition decides a tick, and how changes of it are written down."""

from __future__ import annotations

from itertools import islice

import pytest
from msgspec.structs import replace

from etcsched.core import timeline
from etcsched.core.limits import NO_LIMITS, Limits
from etcsched.core.records import Job, Noop, Pause, PauseInterval, ScheduleVersion
from etcsched.core.schedule import At, Cron, Every, Pattern
from etcsched.core.states import JobState
from etcsched.core.times import Utc, ms_of, utc_of

EVERY_MINUTE = Cron("* * * * *")
EVERY_HOUR = Cron("0 * * * *")
DISABLED = JobState.DISABLED


def at(clock: str) -> Utc:
    """``12:00`` or ``12:00:30`` or ``12:00:30.500`` of one day."""
    return Utc(f"2026-11-22T{clock}{'00:00:00.000'[len(clock) :]}Z")


def clocks(ticks_ms: list[int]) -> list[str]:
    return [utc_of(tick_ms)[11:19].removesuffix(":00") for tick_ms in ticks_ms]


def version(
    since: str,
    *patterns: Pattern,
    state: JobState = JobState.ENABLED,
    timezone: str = "UTC",
) -> ScheduleVersion:
    return ScheduleVersion(since=at(since), state=state, patterns=patterns, timezone=timezone)


def job(*versions: ScheduleVersion) -> Job:
    return Job(name="close_books", run=Noop(), versions=versions)


def pause(*intervals: tuple[str, str | None]) -> Pause:
    return Pause(
        intervals=tuple(
            PauseInterval(since=at(since), until=None if until is None else at(until))
            for since, until in intervals
        )
    )


def spans(of: Pause) -> list[tuple[str, str | None]]:
    return [(i.since[11:16], None if i.until is None else i.until[11:16]) for i in of.intervals]


def starts(of: Job) -> list[str]:
    return [v.since[11:16] for v in of.versions]


# --- ticks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("versions", "job_pause", "cluster_pause", "expected"),
    [
        pytest.param(
            [version("11:00", EVERY_MINUTE)],
            None,
            None,
            ["12:01", "12:02", "12:03", "12:04", "12:05"],
            id="after is excluded, through is included",
        ),
        pytest.param(
            [version("12:03", EVERY_MINUTE)],
            None,
            None,
            ["12:03", "12:04", "12:05"],
            id="a version begins with its since, and nothing before is due",
        ),
        pytest.param(
            [version("11:00", EVERY_MINUTE), version("12:03", EVERY_HOUR)],
            None,
            None,
            ["12:01", "12:02"],
            id="and ends before the next one's",
        ),
        pytest.param(
            [
                version("11:00", EVERY_MINUTE),
                version("12:02", EVERY_MINUTE, state=DISABLED),
                version("12:04", EVERY_MINUTE),
            ],
            None,
            None,
            ["12:01", "12:04", "12:05"],
            id="disabled in between",
        ),
        pytest.param(
            [version("11:00", EVERY_MINUTE, state=JobState.AD_HOC_ACTIVE)],
            None,
            None,
            [],
            id="ad hoc only",
        ),
        pytest.param(
            [version("11:00", EVERY_MINUTE), version("12:02", state=JobState.DELETED)],
            None,
            None,
            ["12:01"],
            id="deleted",
        ),
        pytest.param(
            [version("11:00", EVERY_MINUTE)],
            pause(("12:02", "12:04")),
            None,
            ["12:01", "12:04", "12:05"],
            id="a pause includes its beginning and excludes its end",
        ),
        pytest.param(
            [version("11:00", EVERY_MINUTE)],
            pause(("12:02", "12:03")),
            pause(("12:03", "12:05")),
            ["12:01", "12:05"],
            id="pauses of the job and of the cluster, one after the other",
        ),
        pytest.param(
            [version("11:00", EVERY_MINUTE)],
            None,
            pause(("12:01", "12:02"), ("12:04", None)),
            ["12:02", "12:03"],
            id="a pause that lasts",
        ),
        pytest.param(
            [version("11:00", EVERY_MINUTE, At(at("12:02")), At(at("12:02:30")))],
            None,
            None,
            ["12:01", "12:02", "12:02:30", "12:03", "12:04", "12:05"],
            id="two patterns due at one instant make one tick",
        ),
        pytest.param(
            [version("11:59:30", Every(90, at("11:59:30")))],
            None,
            None,
            ["12:01", "12:02:30", "12:04"],
            id="an interval counts from its anchor",
        ),
    ],
)
def test_due_ticks(
    versions: list[ScheduleVersion],
    job_pause: Pause | None,
    cluster_pause: Pause | None,
    expected: list[str],
) -> None:
    subject = job(*versions)
    after_ms, through_ms = ms_of(at("12:00")), ms_of(at("12:05"))

    limits = Limits((job_pause, cluster_pause))
    due = list(timeline.ticks(subject, limits, after_ms, through_ms))
    assert clocks(due) == expected

    # The same ticks one at a time, from the front and from the back.
    found, position_ms = [], after_ms
    while (tick_ms := timeline.next_tick(subject, limits, position_ms)) is not None:
        if tick_ms > through_ms:
            break
        found.append(tick_ms)
        position_ms = tick_ms
    assert found == due

    found, position_ms = [], through_ms
    while (tick_ms := timeline.last_tick(subject, limits, after_ms, position_ms)) is not None:
        found.append(tick_ms)
        position_ms = tick_ms - 1
    assert found[::-1] == due


def test_ticks_are_found_as_they_are_asked_for() -> None:
    forever = timeline.ticks(job(version("00:00", Every(1, at("00:00")))), NO_LIMITS, 0, 1 << 47)
    assert clocks(list(islice(forever, 2))) == ["00:00:01", "00:00:02"]


def test_a_schedule_in_a_zone_goes_by_that_zone() -> None:
    subject = job(version("00:00", Cron("30 13 * * *"), timezone="Europe/Berlin"))
    assert timeline.next_tick(subject, NO_LIMITS, ms_of(at("01:00"))) == ms_of(at("12:30"))


def test_no_next_tick_while_paused_without_end() -> None:
    subject = job(version("00:00", EVERY_MINUTE))
    limits = Limits((None, pause(("01:00", None))))
    assert timeline.next_tick(subject, limits, ms_of(at("02:00"))) is None


# --- changing definitions -----------------------------------------------------------------


def test_a_new_job_is_in_force_from_now() -> None:
    applied = timeline.revise(None, job(version("00:00", EVERY_HOUR)), at("12:00"), at("11:00"))
    assert starts(applied) == ["12:00"]


def test_what_is_decided_already_is_not_decided_anew() -> None:
    """The scheduler's clock may be ahead of the operator's."""
    applied = timeline.revise(None, job(version("00:00", EVERY_HOUR)), at("12:00"), at("12:03"))
    assert starts(applied) == ["12:03"]


def test_the_same_content_changes_nothing() -> None:
    old = replace(job(version("09:00", EVERY_HOUR, Every(60, at("09:00")))), changed_by="anna")
    again = replace(job(version("12:00", EVERY_HOUR, Every(60, at("12:00")))), changed_by="ben")
    assert timeline.revise(old, again, at("12:00"), at("11:59")) is old


def test_a_change_beside_the_schedule_makes_no_version() -> None:
    old = job(version("09:00", EVERY_HOUR))
    new = replace(job(version("12:00", EVERY_HOUR)), description="at night", changed_by="ben")
    revised = timeline.revise(old, new, at("12:00"), at("11:00"))
    assert (revised.versions, revised.description) == (old.versions, "at night")


def test_what_a_newer_schema_wrote_survives() -> None:
    old = replace(job(version("09:00", EVERY_HOUR)), unknown={"splay": 3})
    new = replace(job(version("12:00", EVERY_HOUR)), description="at night")
    assert timeline.revise(old, new, at("12:00"), None).unknown == {"splay": 3}


def test_an_interval_keeps_its_anchor_until_it_changes() -> None:
    old = job(version("09:00", Every(60, at("09:00"))))
    new = job(version("12:00", EVERY_HOUR, Every(60, at("12:00")), Every(90, at("12:00"))))
    patterns = timeline.revise(old, new, at("12:00"), None).current.patterns
    assert patterns == (EVERY_HOUR, Every(60, at("09:00")), Every(90, at("12:00")))


@pytest.mark.parametrize(
    ("watermark", "open_from", "kept"),
    [
        pytest.param(None, None, ["08:00", "09:00", "10:00", "12:00"], id="never any leader"),
        pytest.param("08:59", None, ["08:00", "09:00", "10:00", "12:00"], id="all still open"),
        pytest.param("09:00", None, ["09:00", "10:00", "12:00"], id="ended at the watermark"),
        pytest.param("11:00", None, ["10:00", "12:00"], id="two ended before it"),
        pytest.param("11:00", "09:30", ["09:00", "10:00", "12:00"], id="but a gap needs one"),
    ],
)
def test_versions_that_decide_nothing_any_more_are_pruned(
    watermark: str | None, open_from: str | None, kept: list[str]
) -> None:
    old = job(
        version("08:00", EVERY_HOUR),
        version("09:00", EVERY_MINUTE),
        version("10:00", EVERY_HOUR),
    )
    revised = timeline.revise(
        old,
        job(version("12:00", EVERY_MINUTE)),
        at("12:00"),
        at(watermark) if watermark else None,
        at(open_from) if open_from else None,
    )
    assert starts(revised) == kept


def test_an_edit_within_an_outage_loses_no_tick() -> None:
    """Decided through 10:00; edited at 10:02:30; a leader is back at 10:05."""
    old = job(version("08:00", EVERY_MINUTE))
    edited = timeline.revise(
        old, job(version("10:02:30", At(at("10:04")))), at("10:02:30"), at("10:00")
    )
    due = timeline.ticks(edited, NO_LIMITS, ms_of(at("10:00")), ms_of(at("10:05")))
    assert clocks(list(due)) == ["10:01", "10:02", "10:04"]


def test_a_clock_that_ran_backwards_keeps_the_timeline_in_order() -> None:
    old = job(version("12:00", EVERY_HOUR))
    revised = timeline.revise(old, job(version("11:00", EVERY_MINUTE)), at("11:00"), None)
    assert revised.versions == (version("12:00", EVERY_MINUTE),)


def test_delete_and_create_again() -> None:
    old = job(version("09:00", Every(60, at("09:00"))))
    gone = timeline.delete(old, at("12:00"), at("11:00"), by="anna")
    assert (gone.current.state, gone.changed_by) == (JobState.DELETED, "anna")
    assert timeline.delete(gone, at("12:30"), at("11:00")) is gone

    anew = timeline.revise(gone, job(version("13:00", Every(60, at("13:00")))), at("13:00"), None)
    assert starts(anew) == ["09:00", "12:00", "13:00"]
    assert anew.current.patterns == (Every(60, at("13:00")),)


def test_a_job_that_is_made_anew_knows_since_when_the_other_was_deleted() -> None:
    new, now = job(version("13:00", EVERY_HOUR)), at("13:00")
    gone = timeline.delete(job(version("09:00", EVERY_HOUR)), at("12:00"), None)
    assert gone.made_anew_after == 0
    anew = timeline.revise(gone, new, now, None, seen=7)
    assert anew.made_anew_after == 7
    assert timeline.revise(anew, new, now, None, seen=9) is anew
    edited = timeline.revise(anew, replace(new, priority=1), now, None, seen=9)
    assert edited.made_anew_after == 7
    gone = timeline.delete(edited, at("14:00"), None)
    assert timeline.revise(gone, new, at("14:01"), None, seen=12).made_anew_after == 12


# --- pauses -------------------------------------------------------------------------------


def test_pause_and_resume() -> None:
    begun = timeline.begin_pause(None, at("12:00"), at("11:00"), by="anna")
    assert (spans(begun), begun.active, begun.intervals[0].by) == ([("12:00", None)], True, "anna")
    assert timeline.begin_pause(begun, at("12:01"), at("11:00"), by="ben") is begun

    ended = timeline.end_pause(begun, at("12:05"), at("11:00"))
    assert (spans(ended), ended.active) == ([("12:00", "12:05")], False)
    assert timeline.end_pause(ended, at("12:06"), at("11:00")) is ended


def test_a_pause_begins_and_ends_after_what_is_decided() -> None:
    begun = timeline.begin_pause(None, at("12:00"), at("12:03"))
    assert spans(begun) == [("12:03", None)]
    ended = timeline.end_pause(begun, at("12:04"), at("12:06"), open_from=at("12:00"))
    assert spans(ended) == [("12:03", "12:06")]


def test_a_pause_of_no_time_is_none() -> None:
    begun = timeline.begin_pause(None, at("12:00"), None)
    assert spans(timeline.end_pause(begun, at("12:00"), None)) == []


@pytest.mark.parametrize(
    ("watermark", "open_from", "kept"),
    [
        ("09:29", None, [("09:00", "09:30"), ("10:00", "10:30"), ("12:00", None)]),
        ("09:30", None, [("10:00", "10:30"), ("12:00", None)]),
        ("11:00", None, [("12:00", None)]),
        ("11:00", "10:00", [("10:00", "10:30"), ("12:00", None)]),
    ],
)
def test_pauses_that_concern_no_open_tick_are_pruned(
    watermark: str, open_from: str | None, kept: list[tuple[str, str | None]]
) -> None:
    old = pause(("09:00", "09:30"), ("10:00", "10:30"))
    gap = at(open_from) if open_from else None
    begun = timeline.begin_pause(old, at("12:00"), at(watermark), gap)
    assert spans(begun) == kept


def test_nothing_begins_at_the_watermark_itself() -> None:
    """The tick at that instant is decided by what was in force before."""
    watermark = Utc("2026-11-22T12:00:30.000Z")
    right_after = "2026-11-22T12:00:30.001Z"
    early = Utc("2026-11-22T12:00:29.990Z")
    anchor = Utc("2026-11-22T12:00:00.000Z")
    old, new = (
        Job(
            name="backup",
            run=Noop(),
            versions=(ScheduleVersion(since=anchor, patterns=(Every(interval_s, anchor),)),),
        )
        for interval_s in (30, 10)
    )
    revised = timeline.revise(old, new, early, watermark)
    assert revised.current.since == right_after
    begun = timeline.begin_pause(None, early, watermark)
    assert begun.intervals[0].since == right_after
    paused = Pause(intervals=(PauseInterval(since=Utc("2026-11-22T12:00:00.000Z")),))
    resumed = timeline.end_pause(paused, early, watermark)
    assert resumed.intervals == ()  # Until right after it: it says nothing of what is open.
    held_up = timeline.end_pause(paused, early, watermark, Utc("2026-11-22T11:00:00.000Z"))
    assert held_up.intervals[0].until == right_after
