"""Writes against races and lost answers: done once, or not at all, and told apart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.core.errors import (
    ClusterRefused,
    ClusterUnreachable,
    EtcschedError,
    NoSpace,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    Refused,
)
from etcsched.core.records import (
    CLUSTER,
    Calendar,
    CalendarVersion,
    Candidate,
    FanOut,
    Gap,
    Job,
    Kind,
    Link,
    Noop,
    Pause,
    Presence,
    RequestKind,
    Run,
    ScheduleVersion,
    Watermark,
)
from etcsched.core.schedule import At, Every
from etcsched.core.states import JobState, Origin, RunState
from etcsched.core.times import Utc
from etcsched.keyspace.codec import decode, encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Delete, Put, Range, Txn, TxnResult
from etcsched.operator.apply import ChangeKind, apply, delete, prune
from etcsched.operator.bulk import Asker, ask_all
from etcsched.operator.calendars import apply_calendars
from etcsched.operator.drains import drain, undrain
from etcsched.operator.ids import request_id
from etcsched.operator.pauses import pause
from etcsched.operator.store import commit, listed, read
from etcsched.testing.model_etcd import ModelEtcd
from etcsched.testing.model_store import ModelStore

KEYS = Keys()
NOW = Utc("2026-11-22T19:00:00.000Z")
TIMEOUT_S = 5.0


class Faulty(ModelEtcd):
    """Before and after each write, something may happen."""

    def __init__(self, store: ModelStore) -> None:
        super().__init__(store)
        self.before: list[Callable[[], None]] = []
        self.after: list[Exception] = []

    async def txn(self, txn: Txn, *, timeout_s: float = 5.0) -> TxnResult:
        if not any(isinstance(operation, Put | Delete) for operation in txn.then):
            return await super().txn(txn, timeout_s=timeout_s)
        if self.before:
            self.before.pop(0)()
        result = await super().txn(txn, timeout_s=timeout_s)
        if self.after:
            raise self.after.pop(0)
        return result


@pytest.fixture
def etcd() -> Faulty:
    return Faulty(ModelStore())


def job(interval_s: int = 60, name: str = "a", **fields: Any) -> Job:
    version = ScheduleVersion(since=NOW, patterns=(Every(interval_s, NOW),))
    return Job(name=name, run=Noop(), versions=(version,), **fields)


def put(etcd: ModelEtcd, key: str, value: bytes) -> None:
    etcd.store.txn(Txn((), (Put(key, value),)))


def fail(error: Exception) -> None:
    raise error


def do(etcd: ModelEtcd, *operations: Put | Delete) -> None:
    assert etcd.store.txn(Txn((), operations)).succeeded


def stored(etcd: ModelEtcd, name: str = "a") -> Job:
    (kv,) = etcd.store.range(Range(KEYS.of(Kind.JOB, name))).kvs
    return decode(Job, kv.value)


async def applied(etcd: ModelEtcd, *jobs: Job) -> list[ChangeKind]:
    changes = await apply(etcd, KEYS, jobs, NOW, "anna", timeout_s=TIMEOUT_S)
    return [change.kind for change in changes]


async def test_a_lost_answer_is_asked_for_again(etcd: Faulty) -> None:
    etcd.after = [OutcomeUnknown("lost"), OutcomeUnknown("lost")]
    assert await applied(etcd, job()) == [ChangeKind.CREATE]
    assert stored(etcd).changed_by == "anna"


async def drained(etcd: ModelEtcd) -> bool:
    return await drain(etcd, KEYS, "a1", NOW, "anna", timeout_s=TIMEOUT_S, absent_too=True)


async def test_a_drain_whose_answer_is_lost(etcd: Faulty) -> None:
    etcd.after = [OutcomeUnknown("lost")]
    assert await drained(etcd)
    assert not await drain(etcd, KEYS, "a1", NOW, "bob", timeout_s=TIMEOUT_S, absent_too=True)


async def test_the_end_of_a_drain_whose_answer_is_lost(etcd: Faulty) -> None:
    """It was drained, and isn't any more: no matter that the agent isn't here."""
    await drained(etcd)
    etcd.after = [OutcomeUnknown("lost")]
    assert await undrain(etcd, KEYS, "a1", timeout_s=TIMEOUT_S)
    with pytest.raises(NotFound, match="no drain awaits it"):
        await undrain(etcd, KEYS, "a1", timeout_s=TIMEOUT_S)


async def test_a_drain_beside_somebodys_edit(etcd: Faulty) -> None:
    etcd.before = [lambda: put(etcd, KEYS.of(Kind.EDITED), b"{}")]
    assert await drained(etcd)


async def test_a_drain_beside_endless_edits(etcd: Faulty) -> None:
    etcd.before = [lambda: put(etcd, KEYS.of(Kind.EDITED), b"{}")] * 100
    with pytest.raises(Refused, match="try again"):
        await drained(etcd)


async def test_an_outcome_that_stays_unknown_is_said_to_be(etcd: Faulty) -> None:
    def cut() -> None:
        etcd.cut()

    etcd.before = [lambda: None, cut]
    etcd.after = [OutcomeUnknown("lost")]
    txn = Txn((), (Put("/x", b""),))
    with pytest.raises(OutcomeUnknown):
        await commit(etcd, txn, timeout_s=0.05)


@pytest.mark.parametrize(
    "then",
    [ClusterUnreachable("gone"), NoSpace("full"), PermissionDenied("no"), ClusterRefused("token")],
    ids=lambda error: type(error).__name__,
)
async def test_what_is_said_of_a_second_copy_says_nothing_of_the_first(
    etcd: Faulty, then: EtcschedError
) -> None:
    etcd.after = [OutcomeUnknown("lost"), then]
    with pytest.raises(OutcomeUnknown, match=str(then)):
        await commit(etcd, Txn((), (Put("/x", b""),)), timeout_s=TIMEOUT_S)


async def test_the_write_that_fills_etcd_may_be_committed(etcd: Faulty) -> None:
    etcd.after = [NoSpace("database space exceeded")]
    with pytest.raises(OutcomeUnknown, match="space exceeded; this write may have been the last"):
        await commit(etcd, Txn((), (Put("/x", b""),)), timeout_s=TIMEOUT_S)
    assert etcd.store.range(Range("/x")).kvs


async def test_a_write_that_certainly_did_not_happen_is_no_unknown_one(etcd: Faulty) -> None:
    etcd.after = [ClusterUnreachable("gone")]
    with pytest.raises(ClusterUnreachable) as caught:
        await commit(etcd, Txn((), (Put("/x", b""),)), timeout_s=TIMEOUT_S)
    assert not isinstance(caught.value, OutcomeUnknown)


async def test_who_loses_a_race_looks_again(etcd: Faulty) -> None:
    """Another operator's change, and the leader's watermark, come in between."""
    other = encode(job(30, description="by another"))
    through = Utc("2026-11-22T19:00:07.000Z")
    etcd.before = [
        lambda: put(etcd, KEYS.of(Kind.JOB, "a"), other),
        lambda: put(etcd, KEYS.watermark, encode(Watermark(through=through, term=1))),
    ]
    assert await applied(etcd, job()) == [ChangeKind.CREATE]
    versions = stored(etcd).versions
    # The other's version ended with the watermark, so it decides nothing any more.
    assert [version.since for version in versions] == ["2026-11-22T19:00:07.001Z"]
    assert stored(etcd).description == ""


async def test_a_colleagues_change_isnt_undone_unsaid(etcd: Faulty) -> None:
    """It comes after the first look, at which this job was as it should be."""
    a, b = job(), job(name="b")
    await applied(etcd, a, b)

    def by_another() -> None:
        for name in "ab":
            put(etcd, KEYS.of(Kind.JOB, name), encode(replace(stored(etcd, name), timeout_s=5.0)))

    etcd.before = [by_another]
    assert await applied(etcd, a, replace(b, priority=3)) == [ChangeKind.UPDATE] * 2
    assert (stored(etcd).timeout_s, stored(etcd, "b").priority) == (None, 3)


async def test_a_prune_that_is_refused_says_how_far_it_came(etcd: Faulty) -> None:
    names = [f"j{number:02}" for number in range(30)]
    await applied(etcd, *(job(name=name) for name in names))
    seen = [stored(etcd, name) for name in names]
    by_bert = replace(seen[29], timeout_s=5.0, changed_by="bert")
    put(etcd, KEYS.of(Kind.JOB, "j29"), encode(by_bert))
    with pytest.raises(Refused, match=r"by bert .* removed; 25 jobs are removed already;"):
        await prune(etcd, KEYS, seen, NOW, "anna", timeout_s=TIMEOUT_S)
    with pytest.raises(Refused, match="what else was to be removed; look again"):
        await prune(etcd, KEYS, seen[25:], NOW, "anna", timeout_s=TIMEOUT_S)


async def test_endless_races_end_with_a_refusal(etcd: Faulty) -> None:
    etcd.before = [lambda: put(etcd, KEYS.watermark, encode(Watermark(through=NOW, term=1)))] * 1000
    with pytest.raises(Refused, match="nothing of them was, try again"):
        await applied(etcd, job())
    with pytest.raises(Refused, match="try again"):
        await pause(etcd, KEYS, None, NOW, "anna", timeout_s=TIMEOUT_S)


async def test_no_job_comes_before_those_that_it_chains_to(etcd: Faulty) -> None:
    """Of many, which don't fit into one transaction; what was done is told in their own order."""
    names = [f"j{number:02}" for number in range(70)]
    jobs = [job(name=name, chain=(Link(to=to),)) for name, to in pairwise(names)]
    jobs.append(job(name=names[-1]))
    written: list[int] = []

    def see() -> None:
        there = {kv.key for kv in etcd.store.range(Range(*KEYS.all_of(Kind.JOB))).kvs}
        for name in names:
            if KEYS.of(Kind.JOB, name) in there:
                assert {KEYS.of(Kind.JOB, to.to) for to in stored(etcd, name).chain} <= there

    etcd.before = [see] * 3
    changes = await apply(
        etcd, KEYS, jobs, NOW, "anna", timeout_s=TIMEOUT_S, progress=written.append
    )
    assert [change.job for change in changes] == names
    assert written == [25, 50, 70]


async def test_a_batch_is_deleted_whole_or_not_at_all(etcd: Faulty) -> None:
    await applied(etcd, job())
    with pytest.raises(NotFound):
        await delete(etcd, KEYS, ["a", "b"], NOW, "anna", timeout_s=TIMEOUT_S)
    assert len(stored(etcd).versions) == 1


async def test_a_delete_whose_answer_is_lost(etcd: Faulty) -> None:
    """More than fit into one transaction: those of later ones are deleted, too."""
    names = [f"j{number:02}" for number in range(40)]
    await applied(etcd, *(job(name=name) for name in names))
    etcd.after = [OutcomeUnknown("lost")]
    changes = await delete(etcd, KEYS, names, NOW, "anna", timeout_s=TIMEOUT_S)
    assert [change.kind for change in changes] == [ChangeKind.DELETE] * 40
    assert {stored(etcd, name).current.state for name in names} == {JobState.DELETED}
    with pytest.raises(NotFound):
        await delete(etcd, KEYS, names[:1], NOW, "anna", timeout_s=TIMEOUT_S)


async def test_a_job_that_is_made_anew_says_since_when_the_other_was_deleted(etcd: Faulty) -> None:
    await applied(etcd, job())
    await delete(etcd, KEYS, ["a"], NOW, "anna", timeout_s=TIMEOUT_S)
    deleted = etcd.store.revision
    etcd.after = [OutcomeUnknown("lost")]
    assert await applied(etcd, job()) == [ChangeKind.CREATE]
    assert stored(etcd).made_anew_after == deleted


async def test_a_malformed_job_is_replaced(etcd: Faulty) -> None:
    put(etcd, KEYS.of(Kind.JOB, "a"), b"junk")
    assert await applied(etcd, job()) == [ChangeKind.CREATE]


async def test_pages_are_of_one_revision(etcd: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcsched.operator.store.PAGE", 3)
    for number in range(10):
        put(etcd, f"/p/{number}", b"")
    assert [kv.key[-1] for kv in await listed(etcd, ("/p/", "/p0"))] == list("0123456789")
    assert len(await listed(etcd, ("/p/", "/p0"), limit=6)) == 6
    assert len(await listed(etcd, ("/p/", "/p0"), limit=7)) == 7
    assert await listed(etcd, ("/q/", "/q0")) == []


async def test_many_keys_are_read_at_one_revision(etcd: Faulty) -> None:
    for number in range(250):
        put(etcd, f"/p/{number}", b"")
    wanted = [f"/p/{number}" for number in range(260)]
    kvs, revision = await read(etcd, wanted)
    assert [kv.key if kv else None for kv in kvs] == [*wanted[:250], *[None] * 10]
    assert revision == etcd.store.revision


def test_request_ids_sort_by_time() -> None:
    base_ms = 1_795_000_000_000
    ids = [request_id(base_ms + step, b"\xff\x00\x01\x02\x03\x04") for step in (0, 1, 1000, 60_000)]
    assert ids == sorted(ids)
    assert ids[0] == "20261118T110640.000Z-ff0001020304"


async def ask_for_thirty(etcd: ModelEtcd) -> None:
    asker = Asker(request_id="r", now=lambda: NOW, by="x", timeout_s=0.05)
    requests = [asker.request(RequestKind.CANCEL, "a", str(n)) for n in range(30)]
    await ask_all(etcd, KEYS, asker, requests)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ClusterUnreachable("gone"),
            "gone: of 30 runs 0 are known to be done, 10 more are",
        ),
        (
            ClusterRefused("token"),
            "token: of 30 runs 0 are known to be done, 10 more are",
        ),
        (
            OutcomeUnknown("lost"),
            "lost: of 30 runs 0 are known to be done, 10 or 11 more are asked for",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_bulk_that_ends_in_between_says_how_far_it_came(
    etcd: Faulty, error: EtcschedError, said: str
) -> None:
    etcd.before = [*[lambda: None] * 10, *[lambda: fail(error)] * 30]
    with pytest.raises(EtcschedError) as caught:
        await ask_for_thirty(etcd)
    assert str(caught.value).startswith(said)
    assert caught.value.exit_code == error.exit_code


async def test_a_bulk_that_doesnt_begin_has_asked_for_nothing(etcd: Faulty) -> None:
    etcd.before = [lambda: fail(ClusterUnreachable("gone"))]
    with pytest.raises(ClusterUnreachable, match=r"^gone$") as caught:
        await ask_for_thirty(etcd)
    assert not isinstance(caught.value, OutcomeUnknown)


TICK = Utc("2026-11-22T19:00:01.000Z")
AFTER_TICK = Utc("2026-11-22T19:00:01.001Z")
WHERE_TICKS_RUN = [
    KEYS.of(Kind.RUN, "a", "20261122T190001Z"),
    KEYS.archive("a", "20261122T190001Z"),
]
WHERE_TICKS_ARE_DECIDED = [*WHERE_TICKS_RUN, KEYS.of(Kind.FAN_OUT, "a", "20261122T190001Z")]


def run_of_tick(**fields: Any) -> bytes:
    values = {"origin": Origin.SCHEDULE, "scheduled_at": TICK, **fields}
    state = RunState.READY
    return encode(Run(job="a", id="20261122T190001Z", state=state, created_at=NOW, **values))


def decision_at(key: str) -> bytes:
    """Of a job that runs on each agent it isn't a run yet."""
    if key in WHERE_TICKS_RUN:
        return run_of_tick()
    fan_out = FanOut(
        job="a", run="20261122T190001Z", scheduled_at=TICK, agents=("a1",),
        origin=Origin.SCHEDULE, cause="due", at=TICK, term=1,
    )  # fmt: skip
    return encode(fan_out)


@pytest.mark.parametrize("key", WHERE_TICKS_ARE_DECIDED)
async def test_an_edit_begins_after_ticks_that_ran(etcd: Faulty, key: str) -> None:
    """The leader's clock, or the time that an edit takes, lets a later tick run first."""
    await applied(etcd, job())
    put(etcd, key, decision_at(key))
    await applied(etcd, job(interval_s=30))
    assert stored(etcd).current.since == AFTER_TICK


@pytest.mark.parametrize("key", WHERE_TICKS_ARE_DECIDED)
async def test_a_tick_that_runs_while_its_job_is_edited(etcd: Faulty, key: str) -> None:
    await applied(etcd, job())
    etcd.before = [lambda: put(etcd, key, decision_at(key))]
    await applied(etcd, job(interval_s=30))
    assert stored(etcd).current.since == AFTER_TICK
    assert [version.since for version in stored(etcd).versions] == [NOW, AFTER_TICK]


@pytest.mark.parametrize("key", WHERE_TICKS_ARE_DECIDED)
async def test_a_tick_that_runs_while_its_job_is_paused(etcd: Faulty, key: str) -> None:
    await applied(etcd, job())
    etcd.before = [lambda: put(etcd, key, decision_at(key))]
    assert await pause(etcd, KEYS, "a", NOW, "anna", timeout_s=TIMEOUT_S)
    (kv,) = etcd.store.range(Range(KEYS.of(Kind.PAUSE, "a"))).kvs
    assert [interval.since for interval in decode(Pause, kv.value).intervals] == [AFTER_TICK]


async def test_many_jobs_at_once_fit_transactions(etcd: Faulty) -> None:
    """Of each edit, what was seen of a job is compared."""
    names = [f"a{number}" for number in range(130)]
    await applied(etcd, *(job(name=name) for name in names))
    await applied(etcd, *(job(interval_s=30, name=name) for name in names))
    assert {stored(etcd, name).current.patterns for name in names} == {(Every(30, NOW),)}


def with_calendars(job: Job, *calendars: str) -> Job:
    return replace(job, versions=(replace(job.current, calendars=calendars),))


async def put_calendars(etcd: ModelEtcd, *names: str) -> None:
    version = CalendarVersion(since=NOW, exclude=("2026-12-25",))
    calendars = [Calendar(name=name, versions=(version,)) for name in names]
    await apply_calendars(etcd, KEYS, calendars, NOW, "anna", timeout_s=TIMEOUT_S)


async def test_a_calendar_that_goes_while_its_job_comes(etcd: Faulty) -> None:
    """The job would be due on all days."""
    await put_calendars(etcd, "holidays")
    at_calendar = KEYS.of(Kind.CALENDAR, "holidays")
    etcd.before = [lambda: do(etcd, Delete(at_calendar))]
    with pytest.raises(Refused, match="calendar holidays: others have deleted it just now"):
        await applied(etcd, with_calendars(job(), "holidays"))
    assert not etcd.store.range(Range(KEYS.of(Kind.JOB, "a"))).kvs


async def test_many_jobs_with_calendars_of_their_own_fit_transactions(etcd: Faulty) -> None:
    names = [f"a{number}" for number in range(60)]
    await put_calendars(etcd, *(f"{name}.{letter}" for name in names for letter in "abcdefgh"))
    jobs = [with_calendars(job(name=n), *(f"{n}.{letter}" for letter in "abcdefgh")) for n in names]
    assert set(await applied(etcd, *jobs)) == {ChangeKind.CREATE}
    assert set(await applied(etcd, *jobs)) == {ChangeKind.UNCHANGED}
    again = [replace(one, priority=3) for one in jobs]
    assert set(await applied(etcd, *again)) == {ChangeKind.UPDATE}


async def test_what_isnt_of_a_tick_holds_no_edit_back(etcd: Faulty) -> None:
    await applied(etcd, job())
    put(etcd, WHERE_TICKS_RUN[0], run_of_tick(origin=Origin.REQUEST))
    await applied(etcd, job(interval_s=30))
    assert stored(etcd).current.since == NOW


async def test_a_record_of_missed_ticks_counts_to_its_end(etcd: Faulty) -> None:
    await applied(etcd, job())
    put(etcd, WHERE_TICKS_RUN[1], run_of_tick(missed_through=Utc("2026-11-22T19:00:09.000Z")))
    await applied(etcd, job(interval_s=30))
    assert stored(etcd).current.since == Utc("2026-11-22T19:00:09.001Z")


ACCOUNT = KEYS.of(Kind.GAP, "a")
DECIDED_THROUGH = Utc("2026-11-22T19:00:01.000Z")


def account() -> bytes:
    """Of an outage's ticks, which is ahead of the watermark."""
    return encode(Gap(job="a", since=NOW, decided_through=DECIDED_THROUGH, reason="none led"))


def shows_its_clock(etcd: ModelEtcd, agent: str, clock: str) -> None:
    presence = Presence(
        agent=agent, incarnation="1", supervisor="s", slots=1, host="h", pid=1,
        since=NOW, clock=Utc(clock), version="0",
    )  # fmt: skip
    put(etcd, KEYS.of(Kind.PRESENCE, agent), encode(presence))


@pytest.mark.parametrize("name", ["a", None])
async def test_who_is_ahead_of_every_agent_edits_nothing(etcd: Faulty, name: str | None) -> None:
    """It would begin by the operator's clock, and until then start what it forbids."""
    await applied(etcd, job())
    shows_its_clock(etcd, "a1", "2026-11-22T18:57:59.000Z")
    with pytest.raises(Refused, match="121 s ahead of what any agent has shown"):
        await pause(etcd, KEYS, name, NOW, "anna", timeout_s=TIMEOUT_S)
    with pytest.raises(Refused, match="121 s ahead"):
        await applied(etcd, job(interval_s=30))
    shows_its_clock(etcd, "a2", "2026-11-22T18:58:00.000Z")
    assert await pause(etcd, KEYS, name, NOW, "anna", timeout_s=TIMEOUT_S)
    assert await applied(etcd, job(interval_s=30)) == [ChangeKind.UPDATE]


async def edit(etcd: ModelEtcd) -> None:
    await applied(etcd, job(interval_s=30))
    assert stored(etcd).current.since == AFTER_TICK


async def pause_job(etcd: ModelEtcd) -> None:
    await paused(etcd, "a")


async def pause_cluster(etcd: ModelEtcd) -> None:
    await paused(etcd, None)


async def paused(etcd: ModelEtcd, name: str | None) -> None:
    assert await pause(etcd, KEYS, name, NOW, "anna", timeout_s=TIMEOUT_S)
    (kv,) = etcd.store.range(Range(KEYS.of(Kind.PAUSE, name or CLUSTER))).kvs
    assert [interval.since for interval in decode(Pause, kv.value).intervals] == [AFTER_TICK]


EDITS = [edit, pause_job, pause_cluster]


@pytest.mark.parametrize("change", EDITS)
async def test_an_edit_begins_after_an_outages_account(
    etcd: Faulty, change: Callable[[ModelEtcd], Awaitable[None]]
) -> None:
    """A tick that it made due before would count as decided, and be lost."""
    await applied(etcd, job())
    put(etcd, ACCOUNT, account())
    await change(etcd)


@pytest.mark.parametrize("change", EDITS)
async def test_an_account_that_comes_during_the_edit(
    etcd: Faulty, change: Callable[[ModelEtcd], Awaitable[None]]
) -> None:
    await applied(etcd, job())
    etcd.before = [lambda: put(etcd, ACCOUNT, account())]
    await change(etcd)


async def test_agents_that_show_their_clock_only_as_they_join_hold_up_no_edit(
    etcd: Faulty,
) -> None:
    """Of an older version; schedulers of any show theirs."""
    await applied(etcd, job())
    shows_its_clock(etcd, "a1", "2026-11-22T18:00:00.000Z")
    candidate = Candidate(node="s", host="h", pid=1, since=NOW, clock=NOW, version="0")
    put(etcd, KEYS.of(Kind.ELECTION, "1"), encode(candidate))
    assert await pause(etcd, KEYS, "a", NOW, "anna", timeout_s=TIMEOUT_S)


async def test_a_time_that_the_schedulers_have_passed_is_refused(etcd: Faulty) -> None:
    """Their clocks are ahead of the operator's: the job would never be due, and say nothing."""
    ahead = Watermark(through=Utc("2026-11-22T19:00:03.000Z"), term=1)
    put(etcd, KEYS.watermark, encode(ahead))
    version = ScheduleVersion(since=NOW, patterns=(At(Utc("2026-11-22T19:00:01.000Z")),))
    with pytest.raises(Refused, match="has passed meanwhile"):
        await applied(etcd, Job(name="a", run=Noop(), versions=(version,)))
    assert not etcd.store.range(Range(KEYS.of(Kind.JOB, "a"))).kvs
