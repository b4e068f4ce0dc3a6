"""Which ticks one record of missed ticks stands for."""

from __future__ import annotations

import random

from msgspec.structs import replace

from etcsched.core import missed
from etcsched.core.leader import recovery
from etcsched.core.leader.runs import Author, new_run
from etcsched.core.limits import Limits
from etcsched.core.records import Run
from etcsched.core.schedule import At, Cron
from etcsched.core.states import Origin, RunState
from etcsched.core.timeline import ticks
from etcsched.core.times import ms_of, tick_id, utc_of
from tests.support.jobs import NOON, job

NOON_MS = ms_of(NOON)
LIMITS = Limits()


def record_of(stretch: recovery.Stretch) -> Run:
    return new_run(
        Author(1, NOON), job(every_s=1), tick_id(stretch.first_ms), RunState.MISSED, "missed",
        origin=Origin.SCHEDULE, scheduled_at=utc_of(stretch.first_ms),
        missed_count=stretch.count, missed_through=utc_of(stretch.last_ms),
        missed_steps=stretch.steps,
    )  # fmt: skip


def stretches(*patterns: At | Cron, days: int) -> tuple[list[int], list[Run]]:
    """What is due, and the records of all of it, step by step."""
    defined, through_ms = job("backup", *patterns), NOON_MS + days * 86_400_000
    whole = recovery.Plan(frozenset(), through_ms + 1, through_ms, through_ms)
    after_ms, found = NOON_MS, list[Run]()
    while after_ms < through_ms:
        step = recovery.next_step(defined, LIMITS, whole, after_ms)
        found += map(record_of, step.missed)
        after_ms = step.through_ms
    return list(ticks(defined, LIMITS, NOON_MS, through_ms)), found


def test_a_record_says_when_its_ticks_were_due() -> None:
    due, (record,) = stretches(Cron("0,30 9-17 * * 1-5"), days=60)
    assert list(missed.ticks_of(record)) == due
    assert (record.missed_count, len(record.missed_steps) < 150) == (len(due), True)
    for place, tick_ms in enumerate(due):
        assert missed.place_of(record, tick_id(tick_ms)) == place
        assert missed.place_of(record, tick_id(tick_ms + 60_000)) is None


def test_one_of_no_regular_schedule_is_full_in_time() -> None:
    chance, at_s = random.Random(1), 0
    patterns = []
    for _ in range(700):
        at_s += chance.randint(1, 5000)
        patterns.append(At(utc_of(NOON_MS + at_s * 1000)))
    due, records = stretches(*patterns, days=30)
    assert [tick_ms for record in records for tick_ms in missed.ticks_of(record)] == due
    assert max(len(record.missed_steps) for record in records) == missed.MAX_STEPS
    assert len(records) == 3


def test_places_are_kept_as_ranges() -> None:
    _, (record,) = stretches(Cron("* * * * *"), days=1)
    places = list(range(600))
    random.Random(2).shuffle(places)
    for place in places:
        assert place not in missed.resubmitted_places(record)
        record = missed.with_resubmitted(record, place, f"r{place}", 16)
        assert place in missed.resubmitted_places(record)
    assert record.resubmitted_ticks == ((0, 599),)
    assert record.resubmitted_as == tuple(f"r{place}" for place in places[-16:])
    assert missed.count_resubmitted(record) == 600


def test_an_older_record_knows_its_ends() -> None:
    _, (record,) = stretches(Cron("* * * * *"), days=1)
    older = replace(record, missed_steps=())
    whole = list(missed.ticks_of(record))
    assert list(missed.ticks_of(older)) == [whole[0], whole[-1]]
