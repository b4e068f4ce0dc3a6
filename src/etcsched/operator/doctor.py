"""Looking for what is wrong, or soon will be, and saying what to do about it."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from etcsched.core.durations import format_duration
from etcsched.core.errors import Compacted
from etcsched.core.limits import Limits
from etcsched.core.records import (
    CLUSTER,
    Calendar,
    ClusterSettings,
    Gap,
    Job,
    Kind,
    Pause,
    Run,
    Watermark,
)
from etcsched.core.sizes import size_text
from etcsched.core.states import RunState
from etcsched.core.timeline import next_tick
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.keyspace.codec import MalformedRecord, change_of
from etcsched.keyspace.feed import HOW_TO_MEND
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue, Range
from etcsched.operator.cluster import (
    AgentState,
    AgentView,
    LeaderView,
    read_agents,
    read_leader,
)
from etcsched.operator.store import found, listed, read
from etcsched.ports import Etcd, MemberStatus

__all__ = ["Finding", "Level", "examine"]

_DATA_LOSS: Final = ((3, 5, 0), (3, 5, 1), (3, 5, 2))
_DEFAULT_QUOTA_BYTES: Final = 2 << 30
_MUCH_HISTORY: Final = 1_000_000
_SLOW_MS: Final = 100.0
_READS: Final = 5
_SAMPLE: Final = 100
_CLOCK_MS: Final = 1000
_LATE_MS: Final = 15_000
_AHEAD_MS: Final = 5_000
_NAMED: Final = 3
_ANSWER_S: Final = 5.0


class Level(enum.Enum):
    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


class Finding(msgspec.Struct, frozen=True):
    """``advice`` says what to do, where there is something to do."""

    topic: str
    level: Level
    text: str
    advice: str = ""


async def examine(etcd: Etcd, keys: Keys, now_ms: Callable[[], int]) -> list[Finding]:
    """Every check's finding, in a fixed order. Raises only where etcd itself can't be reached."""
    members = await etcd.status()
    findings = [*_members(members), *_sizes(members)]
    findings += await _compaction(etcd, keys, members)
    findings += await _history(etcd, keys)
    findings += await _latency(etcd, keys)
    leader = await read_leader(etcd, keys, now_ms())
    agents = await read_agents(etcd, keys, now_ms())
    kvs = await listed(etcd, (keys.watched, keys.watched_end))
    findings += _malformed(keys, kvs)
    findings += _leaseless(keys, kvs)
    findings += [_leader(leader)]
    findings += await _ticks(etcd, keys, kvs, now_ms())
    held = _held(keys, kvs)
    findings += _agents(agents, held)
    findings += _waiting_for_operators(held)
    findings += _clocks(leader, agents)
    return findings


def _members(members: Sequence[MemberStatus]) -> list[Finding]:
    findings = []
    for member in members:
        topic = f"etcd {member.endpoint}"
        if member.error:
            findings.append(
                Finding(topic, Level.BAD, member.error, "start it, or take the endpoint out")
            )
        elif _version(member.version) in _DATA_LOSS:
            findings.append(
                Finding(
                    topic,
                    Level.BAD,
                    f"version {member.version} can lose acknowledged writes when it crashes",
                    "upgrade to 3.5.3 or later",
                )
            )
        elif not member.leader_id:
            findings.append(
                Finding(topic, Level.BAD, "has no leader", "bring back a majority of the members")
            )
        else:
            findings.append(Finding(topic, Level.OK, f"version {member.version}"))
    alarms = sorted({alarm for member in members for alarm in member.alarms})
    if alarms:
        findings.append(
            Finding(
                "etcd alarms",
                Level.BAD,
                "; ".join(alarms),
                "compact, defragment, then etcdctl alarm disarm",
            )
        )
    return findings


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("-")[0].split(".") if part.isdecimal())


def _sizes(members: Sequence[MemberStatus]) -> list[Finding]:
    """etcd before 3.6 doesn't tell its quota, so the default one is what sizes are held against."""
    largest = max((member.db_size_bytes for member in members), default=0)
    if not largest:
        return []
    text = f"{largest / (1 << 20):.1f} MiB; the default quota is {_DEFAULT_QUOTA_BYTES >> 20} MiB"
    if largest > _DEFAULT_QUOTA_BYTES * 3 // 4:
        advice = "compact and defragment, or raise --quota-backend-bytes; keep less history"
        return [Finding("etcd size", Level.WARNING, text, advice)]
    return [Finding("etcd size", Level.OK, text)]


async def _compaction(etcd: Etcd, keys: Keys, members: Sequence[MemberStatus]) -> list[Finding]:
    revision = max((member.revision for member in members), default=0)
    try:
        await etcd.range(Range(keys.term, revision=1, keys_only=True))
        oldest = 1
    except Compacted:
        oldest = await _oldest_revision(etcd, keys)
    kept = revision - oldest
    text = f"{kept:,} revisions of history are kept"
    if kept < _MUCH_HISTORY and oldest > 1:
        return [Finding("etcd compaction", Level.OK, text)]
    advice = "start etcd with --auto-compaction-retention, e.g. 5m"
    if kept < _MUCH_HISTORY:
        text += "; nothing was ever compacted"
        if kept < _MUCH_HISTORY // 100:
            return [Finding("etcd compaction", Level.OK, text)]
    return [Finding("etcd compaction", Level.WARNING, text, advice)]


async def _history(etcd: Etcd, keys: Keys) -> list[Finding]:
    """By the sizes of some of its runs."""
    (at_settings,), _ = await read(etcd, [keys.of(Kind.SETTINGS)])
    settings = found(ClusterSettings, at_settings) or ClusterSettings()
    begin, end = keys.archive_of()
    sample = await etcd.range(Range(begin, end, limit=_SAMPLE))
    if not sample.kvs:
        return [Finding("history", Level.OK, "no run is over yet")]
    mean_bytes = sum(len(kv.key) + len(kv.value) for kv in sample.kvs) / len(sample.kvs)
    most_bytes, size_bytes = settings.max_history_bytes, sample.count * mean_bytes
    text = (
        f"{sample.count:,} runs, about {size_bytes / (1 << 20):.1f} MiB; "
        f"at most {size_text(most_bytes)} are kept"
    )
    if size_bytes <= most_bytes:
        return [Finding("history", Level.OK, text)]
    text += ", and so less of each job's than its keep says"
    advice = "keep less (keep: {runs: 20}), or raise settings: max_history"
    return [Finding("history", Level.WARNING, text, advice)]


async def _oldest_revision(etcd: Etcd, keys: Keys) -> int:
    """Of a history whose beginning is compacted away. etcd tells it only as it ends a watch of
    what is older. 0: it didn't."""
    try:
        async with (
            asyncio.timeout(_ANSWER_S),
            etcd.watch(keys.term, keys.term + "\0", start_revision=1) as updates,
        ):
            await anext(aiter(updates))
    except Compacted as compacted:
        return compacted.compact_revision
    except TimeoutError:
        pass
    return 0


async def _latency(etcd: Etcd, keys: Keys) -> list[Finding]:
    loop = asyncio.get_running_loop()
    taken_ms = []
    for _ in range(_READS):
        begun_s = loop.time()
        await etcd.range(Range(keys.term, keys_only=True))
        taken_ms.append((loop.time() - begun_s) * 1000)
    median_ms = sorted(taken_ms)[_READS // 2]
    text = f"{median_ms:.1f} ms for a linearizable read (median of {_READS})"
    if median_ms > _SLOW_MS:
        advice = "look at etcd's disk (etcd_disk_wal_fsync_duration_seconds) and network"
        return [Finding("etcd latency", Level.WARNING, text, advice)]
    return [Finding("etcd latency", Level.OK, text)]


def _malformed(keys: Keys, kvs: Sequence[KeyValue]) -> list[Finding]:
    wrong, foreign = [], []
    for kv in kvs:
        place = keys.parse(kv.key)
        if place is None:
            foreign.append(kv.key)
            continue
        try:
            change_of(keys, kv)
        except MalformedRecord as error:
            wrong.append(f"{kv.key} ({error})")
    findings = []
    if wrong:
        text = f"{len(wrong)} can't be read; what depends on them waits: {_some(wrong)}"
        advice = "put them right, or delete them with etcdctl"
        if any(text.startswith((keys.watermark, keys.term)) for text in wrong):
            advice = f"put them right; {HOW_TO_MEND}"
        findings.append(Finding("records", Level.BAD, text, advice))
    if foreign:
        text = f"{len(foreign)} keys aren't of this program: {_some(foreign)}"
        findings.append(Finding("records", Level.WARNING, text, "give each program its own prefix"))
    return findings or [Finding("records", Level.OK, f"{len(kvs):,} looked at")]


def _leaseless(keys: Keys, kvs: Sequence[KeyValue]) -> list[Finding]:
    """Keys that are to go with their nodes, and never will: a hand put them."""
    names = []
    for kv in kvs:
        place = keys.parse(kv.key)
        if place is not None and place[0] in (Kind.ELECTION, Kind.PRESENCE) and not kv.lease:
            names.append(kv.key)
    if not names:
        return []
    text = f"without a lease, so that they never go: {_some(names)}"
    advice = "delete them with etcdctl; the first one in the election keeps all others from leading"
    return [Finding("leases", Level.BAD, text, advice)]


def _leader(leader: LeaderView) -> Finding:
    if leader.node and leader.term is not None:
        number = len(leader.schedulers) - 1
        text = f"{leader.node} leads in term {leader.term.number}, {number} standing by"
        if number == 0:
            advice = "start a second scheduler, so that one may fail"
            return Finding("leader", Level.WARNING, text, advice)
        return Finding("leader", Level.OK, text)
    if leader.schedulers:
        names = ", ".join(scheduler.node for scheduler in leader.schedulers)
        text = f"nobody leads, though {names} stand for election"
        return Finding("leader", Level.BAD, text, "look at their logs")
    return Finding("leader", Level.BAD, "no scheduler is running", "start etcsched scheduler")


async def _ticks(etcd: Etcd, keys: Keys, kvs: Sequence[KeyValue], now_ms: int) -> list[Finding]:
    """The proof that the leader decides: no tick is due that it hasn't, and the next one is
    known."""
    (at_watermark,), _ = await read(etcd, [keys.watermark])
    watermark = found(Watermark, at_watermark)
    jobs: list[Job] = []
    pauses: dict[str, Pause] = {}
    calendars: dict[str, Calendar] = {}
    gaps: list[Gap] = []
    for kv in kvs:
        place = keys.parse(kv.key)
        match place[0] if place is not None else None:
            case Kind.JOB:
                jobs += [job] if (job := found(Job, kv)) is not None else []
            case Kind.PAUSE if place is not None:
                pauses |= {place[1][0]: pause} if (pause := found(Pause, kv)) is not None else {}
            case Kind.CALENDAR:
                calendar = found(Calendar, kv)
                calendars |= {calendar.name: calendar} if calendar is not None else {}
            case Kind.GAP:
                gaps += [gap] if (gap := found(Gap, kv)) is not None else []
            case _:
                pass
    findings = [
        *_paused(pauses),
        _next_tick(jobs, pauses, calendars, watermark.through if watermark else None, now_ms),
    ]
    ahead_ms = ms_of(watermark.through) - now_ms if watermark is not None else 0
    if ahead_ms > _AHEAD_MS:
        text = f"all ticks count as decided for the next {format_duration(ahead_ms // 1000)}"
        advice = "nothing is due until then; see docs/operations.md, A wrong clock"
        findings.append(Finding("watermark", Level.BAD, text, advice))
    missing = [
        f"{name} (of {job.name})"
        for job in jobs
        for name in job.current.calendars
        if name not in calendars
    ]
    if missing:
        text = f"not there, so that they exclude nothing: {_some(missing)}"
        findings.append(Finding("calendars", Level.BAD, text, "apply the files that name them"))
    waiting = [f"{gap.job} ({gap.reason})" for gap in gaps if not gap.closed]
    if waiting:
        text = f"without an agent: {_some(waiting)}"
        advice = "start an agent that their hosts and labels allow"
        findings.append(Finding("outages", Level.BAD, text, advice))
    return findings


def _paused(pauses: dict[str, Pause]) -> list[Finding]:
    """A pause is somebody's wish, and easily forgotten."""
    active = {name: pause.intervals[-1] for name, pause in pauses.items() if pause.active}
    findings = []
    if (whole := active.pop(CLUSTER, None)) is not None:
        text = f"everything is, since {whole.since}" + (f", by {whole.by}" if whole.by else "")
        findings.append(Finding("paused", Level.WARNING, text, "once it is over: etcsched resume"))
    if active:
        text = f"{_some(sorted(active))}"
        advice = "once it is over: etcsched jobs resume JOB"
        findings.append(Finding("paused jobs", Level.WARNING, text, advice))
    return findings


def _next_tick(
    jobs: Sequence[Job],
    pauses: dict[str, Pause],
    calendars: dict[str, Calendar],
    watermark: Utc | None,
    now_ms: int,
) -> Finding:
    after_ms = ms_of(watermark) if watermark is not None else now_ms
    first: tuple[int, str] | None = None
    for job in jobs:
        limits = Limits((pauses.get(job.name), pauses.get(CLUSTER)), calendars)
        tick_ms = next_tick(job, limits, after_ms)
        if tick_ms is not None and (first is None or tick_ms < first[0]):
            first = (tick_ms, job.name)
    if first is None:
        return Finding("next tick", Level.OK, "nothing is due")
    late_ms = now_ms - first[0]
    if late_ms > _LATE_MS:
        text = f"{first[1]} was due {format_duration(late_ms // 1000)} ago, and isn't decided"
        return Finding("next tick", Level.BAD, text, "look at the leader's log, and its clock")
    when = "is being decided" if late_ms >= 0 else f"at {utc_of(first[0])}"
    return Finding("next tick", Level.OK, f"{first[1]} {when}")


def _held(keys: Keys, kvs: Sequence[KeyValue]) -> list[Run]:
    runs = (
        found(Run, kv)
        for kv in kvs
        if (place := keys.parse(kv.key)) is not None and place[0] is Kind.RUN
    )
    return [run for run in runs if run is not None and run.state is RunState.HELD]


def _waiting_for_operators(held: Sequence[Run]) -> list[Finding]:
    if not held:
        return []
    text = f"{len(held)} held, for an operator to decide: "
    text += _some([f"{run.job}/{run.id}" for run in held])
    advice = "see how far each had come, then etcsched runs release"
    return [Finding("held runs", Level.WARNING, text, advice)]


def _agents(agents: Sequence[AgentView], held: Sequence[Run]) -> list[Finding]:
    here = [agent for agent in agents if agent.state is not AgentState.ABSENT]
    idle = (AgentState.DRAINING, AgentState.STOPPING, AgentState.STANDBY)
    usable = [agent for agent in here if agent.state not in idle]
    standbys = sum(agent.state is AgentState.STANDBY for agent in here)
    if not usable and not standbys:
        text = "none is here" if not here else f"all {len(here)} are draining"
        return [Finding("agents", Level.BAD, text, "start etcsched agent, or undrain one")]
    if not usable:
        text = f"{standbys} stand by, and none of those that have a seat takes runs"
        advice = "undrain one, or raise settings: max_active_agents"
        return [Finding("agents", Level.BAD, text, advice)]
    slots = sum(agent.slots for agent in usable)
    used = sum(agent.used for agent in usable)
    text = f"{len(usable)} of {len(here)} take runs; {used} of {slots} slots are used"
    text += f"; {standbys} stand by" if standbys else ""
    findings = [
        Finding("agents", Level.WARNING, text, "start more agents, or give them more slots")
        if used >= slots
        else Finding("agents", Level.OK, text)
    ]
    # What is held keeps its assignment, and nobody moves it.
    holds = Counter(run.agent for run in held)
    lost = [
        agent.agent
        for agent in agents
        if agent.state is AgentState.ABSENT and agent.used > holds[agent.agent]
    ]
    if lost:
        text = f"gone, but still with runs: {_some(lost)}"
        advice = "the leader moves them; if this stays, look at its log"
        findings.append(Finding("agents", Level.WARNING, text, advice))
    return findings


def _clocks(leader: LeaderView, agents: Sequence[AgentView]) -> list[Finding]:
    """A record's clock is as old as the record, so only a clock that is ahead shows."""
    ahead = {scheduler.node: scheduler.clock_ahead_ms for scheduler in leader.schedulers}
    ahead |= {agent.agent: agent.clock_ahead_ms for agent in agents}
    wrong = [f"{name} (by {ms / 1000:.1f} s)" for name, ms in ahead.items() if ms > _CLOCK_MS]
    if not wrong:
        return [Finding("clocks", Level.OK, "no node's is ahead of this host's")]
    text = f"ahead of this host's: {_some(wrong)}"
    return [Finding("clocks", Level.WARNING, text, "look at NTP there, and here")]


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
