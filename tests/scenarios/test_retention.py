"""What of the archive stays, told in virtual time."""

from __future__ import annotations

from collections.abc import Iterator

from etcsched.core.records import ClusterSettings, Keep, Kind, Run
from etcsched.core.schedule import At
from etcsched.core.states import JobState, Origin, Overlap, RunState
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.keyspace.codec import encode
from etcsched.keyspace.ops import Put, Range, Txn
from etcsched.testing.world import World
from tests.support.jobs import NOON, job, trigger

ONCE = At(Utc("2026-11-22T12:00:05.000Z"))
NEVER = "0 0 29 2 *"
PUT_AT_ONCE = 100


def past(name: str, count: int) -> Iterator[Run]:
    """One a second, the last one a minute before noon."""
    for number in range(count):
        at = utc_of(ms_of(NOON) - 60_000 - 1000 * (count - number))
        digits = "".join(sign for sign in at[:19] if sign not in "-:")
        yield Run(
            job=name, id=f"{digits}Z-{number:04}", state=RunState.COMPLETED,
            origin=Origin.REQUEST, created_at=at,
        )  # fmt: skip


def archive(world: World, name: str, count: int) -> list[str]:
    """Their ids, oldest first."""
    runs = list(past(name, count))
    for start in range(0, count, PUT_AT_ONCE):
        batch = runs[start : start + PUT_AT_ONCE]
        puts = [Put(world.keys.archive(name, run.id), encode(run)) for run in batch]
        world.store.txn(Txn((), tuple(puts)))
    return [run.id for run in runs]


def archived_bytes(world: World) -> int:
    kvs = world.store.range(Range(*world.keys.archive_of())).kvs
    return sum(len(kv.key) + len(kv.value) for kv in kvs)


# --- by each job's keep


def test_by_number(world: World) -> None:
    world.agents["a1"].takes_s = 0.1
    world.apply(job("backup", every_s=2, keep=Keep(runs=5)))
    world.advance(120)
    assert 5 <= len(world.runs("backup")) <= 10
    assert list(world.states("backup"))[-1] == "120200"


def test_by_number_counts_records_of_ticks_that_never_ran(world: World) -> None:
    world.agents["a1"].takes_s = 1000.0
    world.apply(job("backup", every_s=1, keep=Keep(runs=5)))
    world.advance(120)
    assert len(world.runs("backup")) <= 12


def test_by_age(world: World) -> None:
    world.agents["a1"].takes_s = 0.1
    world.apply(job("backup", ONCE, keep=Keep(age_s=60.0)))
    world.advance(50)
    assert len(world.runs("backup")) == 1
    world.advance(40)
    assert world.runs("backup") == {}


def test_of_jobs_that_dont_run_any_more_too(world: World) -> None:
    """Whose keep was lowered since, say."""
    ids = {name: archive(world, name, 40) for name in (f"idle{n:02}" for n in range(30))}
    for name in ids:
        world.apply(job(name, cron=NEVER, keep=Keep(runs=10)))
    world.advance(60)
    assert {name: list(world.runs(name)) for name in ids} == {
        name: mine[-10:] for name, mine in ids.items()
    }


def test_of_a_job_that_fills_more_than_one_page(world: World) -> None:
    ids = archive(world, "backup", 1300)
    other = archive(world, "other", 3)
    world.apply(job(cron=NEVER, keep=Keep(runs=600)))
    world.apply(job("other", cron=NEVER))
    world.advance(60)
    assert list(world.runs("backup")) == ids[-600:]
    assert list(world.runs("other")) == other


def test_of_a_job_that_keeps_more_than_one_listing_holds(world: World) -> None:
    ids = archive(world, "backup", 5_400)
    world.apply(job(cron=NEVER, keep=Keep(runs=5_200)))
    world.advance(30)
    assert list(world.runs("backup")) == ids[-5_200:]


def test_a_deleted_job_leaves_its_history(world: World) -> None:
    ids = archive(world, "backup", 150)
    world.apply(job(cron=NEVER, keep=Keep(runs=1000)))
    world.delete("backup")
    world.advance(120)
    assert world.records(Kind.JOB) == {}
    assert list(world.runs("backup")) == ids
    limit = archived_bytes(world) // 2
    world.put(Kind.SETTINGS, ClusterSettings(max_history_bytes=limit))
    world.advance(60)
    assert 0 < archived_bytes(world) <= limit


# --- all jobs' together


def test_each_job_gives_the_same_share(world: World) -> None:
    """Whose keep names little keeps all of it: it has no more than its share."""
    archive(world, "often", 800)
    archive(world, "seldom", 4)
    limit = archived_bytes(world) // 4
    world.apply(job("often", cron=NEVER, keep=Keep(runs=1000)))
    world.apply(job("seldom", cron=NEVER, keep=Keep(runs=100)))
    world.put(Kind.SETTINGS, ClusterSettings(max_history_bytes=limit))
    world.advance(60)
    assert 0.5 * limit < archived_bytes(world) <= limit
    assert len(world.runs("seldom")) == 4
    assert any("(settings: max_history)" in note.text for note in world.leader().notes)


def test_the_newest_of_each_job_stays_whatever_the_limit_is(world: World) -> None:
    ids = {name: archive(world, name, 5) for name in (f"idle{n:02}" for n in range(20))}
    for name in ids:
        world.apply(job(name, cron=NEVER))
    world.put(Kind.SETTINGS, ClusterSettings(max_history_bytes=1024))
    world.advance(60)
    assert {name: list(world.runs(name)) for name in ids} == {
        name: mine[-1:] for name, mine in ids.items()
    }


def test_where_there_is_room_again_keep_counts_again(world: World) -> None:
    archive(world, "backup", 100)
    limit = archived_bytes(world) // 3
    world.apply(job(every_s=1, overlap=Overlap.ALLOW))
    world.put(Kind.SETTINGS, ClusterSettings(max_history_bytes=limit))
    world.agents["a1"].takes_s = 0.1
    world.advance(120)
    assert archived_bytes(world) <= 1.2 * limit
    world.put(Kind.SETTINGS, ClusterSettings())
    world.advance(100)
    assert 100 <= len(world.runs("backup")) <= 130


def test_a_raised_limit_holds_at_once(world: World) -> None:
    ids = archive(world, "backup", 400)
    world.apply(job(cron=NEVER, keep=Keep(runs=400)))
    world.put(Kind.SETTINGS, ClusterSettings(max_history_bytes=archived_bytes(world) // 4))
    while len(kept := world.runs("backup")) == 400:
        world.advance(0.25)
    world.put(Kind.SETTINGS, ClusterSettings())
    world.advance(0.25)
    others = archive(world, "other", 300)
    world.apply(job("other", cron=NEVER, keep=Keep(runs=300)))
    world.advance(60)
    assert list(world.runs("other")) == others
    assert set(kept) <= set(ids)


def test_an_id_that_only_looks_like_a_time_stops_nobody() -> None:
    """Of a request by hand."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=1.0)
    world.advance(0.5)
    world.apply(job("backup", state=JobState.AD_HOC_ACTIVE, keep=Keep(age_s=3600.0)))
    world.request(trigger("20261399T120000-x"))
    world.advance(30)
    assert set(world.states("backup").values()) == {"completed"}
    world.advance(60)
    assert world.term().number == 1
