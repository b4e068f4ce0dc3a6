"""Of the cluster: its records, who leads and decides, agents, clocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from etcsched.core.durations import format_duration
from etcsched.core.leader.setbacks import ASIDE_REASON
from etcsched.core.limits import Limits
from etcsched.core.records import (
    CLUSTER,
    Calendar,
    Gap,
    Job,
    Kind,
    Pause,
    Run,
    Watermark,
)
from etcsched.core.states import JobState, RunState
from etcsched.core.text import some
from etcsched.core.timeline import next_tick
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.keyspace.codec import MalformedRecord, change_of
from etcsched.keyspace.feed import HOW_TO_MEND
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue
from etcsched.operator.agents import AgentState, AgentView
from etcsched.operator.doctor.finding import Finding, Level
from etcsched.operator.schedulers import LeaderView
from etcsched.operator.store import found, read
from etcsched.ports import Etcd

__all__ = [
    "check_agents",
    "check_clocks",
    "check_held",
    "check_leader",
    "check_leases",
    "check_namesakes",
    "check_records",
    "check_ticks",
    "held_runs",
]

_CLOCK_MS: Final = 1000
_LATE_MS: Final = 15_000
_AHEAD_MS: Final = 5_000


def check_records(keys: Keys, kvs: Sequence[KeyValue]) -> list[Finding]:
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
        text = f"{len(wrong)} can't be read; what depends on them waits: {some(wrong)}"
        advice = "put them right, or delete them with etcdctl"
        if any(text.startswith((keys.watermark, keys.term)) for text in wrong):
            advice = f"put them right; {HOW_TO_MEND}"
        findings.append(Finding("records", Level.BAD, text, advice))
    if foreign:
        text = f"{len(foreign)} keys aren't of this program: {some(foreign)}"
        findings.append(Finding("records", Level.WARNING, text, "give each program its own prefix"))
    return findings or [Finding("records", Level.OK, f"{len(kvs):,} looked at")]


def check_leases(keys: Keys, kvs: Sequence[KeyValue]) -> list[Finding]:
    """Keys that are to go with their nodes, and never will: a hand put them."""
    names = []
    for kv in kvs:
        place = keys.parse(kv.key)
        if place is not None and place[0] in (Kind.ELECTION, Kind.PRESENCE) and not kv.lease:
            names.append(kv.key)
    if not names:
        return []
    text = f"without a lease, so that they never go: {some(names)}"
    advice = "delete them with etcdctl; the first one in the election keeps all others from leading"
    return [Finding("leases", Level.BAD, text, advice)]


def check_leader(leader: LeaderView) -> Finding:
    barred = [f"{one.node} ({one.barred})" for one in leader.schedulers if one.barred]
    others = f"; barred: {some(barred)}" if barred else ""
    if leader.node and leader.term is not None:
        number = sum(not one.leads and not one.barred for one in leader.schedulers)
        text = f"{leader.node} leads in term {leader.term.number}, {number} standing by"
        if leader.silence:
            advice = "look at its process, and its way to etcd"
            return Finding("leader", Level.WARNING, f"{text}; it {leader.silence}", advice)
        if barred:
            advice = "mend what bars them, so that one may fail"
            return Finding("leader", Level.WARNING, text + others, advice)
        if number == 0:
            advice = "start a second scheduler, so that one may fail"
            return Finding("leader", Level.WARNING, text, advice)
        return Finding("leader", Level.OK, text)
    standing = [one.node for one in leader.schedulers if not one.barred]
    if standing:
        text = f"nobody leads, though {', '.join(standing)} stand for election{others}"
        return Finding("leader", Level.BAD, text, "look at their logs")
    if barred:
        text = f"nobody leads, and nobody stands for election{others}"
        return Finding("leader", Level.BAD, text, "mend what bars them")
    return Finding("leader", Level.BAD, "no scheduler is running", "start etcsched scheduler")


def check_namesakes(leader: LeaderView) -> list[Finding]:
    shared = [
        f"{one.node} (process {one.pid} on {one.host})"
        for one in leader.schedulers
        if one.shares_name
    ]
    if not shared:
        return []
    text = f"several of one name: {some(shared)}"
    advice = (
        "one that was killed is gone once its lease is over; else stop one, or give it another --id"
    )
    return [Finding("schedulers", Level.WARNING, text, advice)]


async def check_ticks(
    etcd: Etcd, keys: Keys, kvs: Sequence[KeyValue], now_ms: int
) -> list[Finding]:
    """The proof that the leader decides: no tick is due that it hasn't, and the next one is
    known."""
    (at_watermark,), _ = await read(etcd, [keys.watermark])
    watermark = found(Watermark, at_watermark)
    jobs: list[Job] = []
    pauses: dict[str, Pause] = {}
    calendars: dict[str, Calendar] = {}
    gaps: list[Gap] = []
    there = {CLUSTER}
    for kv in kvs:
        place = keys.parse(kv.key)
        match place[0] if place is not None else None:
            case Kind.JOB if place is not None:
                there.add(place[1][0])
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
    there -= {job.name for job in jobs if job.current.state is JobState.DELETED}
    findings = [
        *_paused({name: pause for name, pause in pauses.items() if name in there}),
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
        text = f"not there, so that they exclude nothing: {some(missing)}"
        findings.append(Finding("calendars", Level.BAD, text, "apply the files that name them"))
    return findings + _outages([gap for gap in gaps if not gap.closed])


def _outages(gaps: list[Gap]) -> list[Finding]:
    findings = []
    aside = [gap.job for gap in gaps if gap.reason == ASIDE_REASON]
    waiting = [f"{gap.job} ({gap.reason})" for gap in gaps if gap.reason != ASIDE_REASON]
    if waiting:
        text = f"without an agent: {some(waiting)}"
        advice = "start an agent that their hosts and labels allow"
        findings.append(Finding("outages", Level.BAD, text, advice))
    if aside:
        text = f"set aside, since something of them can't be written or decided: {some(aside)}"
        advice = "the leader's log says what; mend the job, or report it"
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
        text = f"{some(sorted(active))}"
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


def held_runs(keys: Keys, kvs: Sequence[KeyValue]) -> list[Run]:
    runs = (
        found(Run, kv)
        for kv in kvs
        if (place := keys.parse(kv.key)) is not None and place[0] is Kind.RUN
    )
    return [run for run in runs if run is not None and run.state is RunState.HELD]


def check_held(held: Sequence[Run]) -> list[Finding]:
    if not held:
        return []
    text = f"{len(held)} held, for an operator to decide: "
    text += some([f"{run.job}/{run.id}" for run in held])
    advice = "see how far each had come, then etcsched runs release"
    return [Finding("held runs", Level.WARNING, text, advice)]


def check_agents(agents: Sequence[AgentView], held: Sequence[Run]) -> list[Finding]:
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
    findings: list[Finding] = []
    drained = [agent.agent for agent in here if agent.state is AgentState.DRAINING]
    if drained:
        advice = "once it is over: etcsched agents undrain AGENT"
        findings.append(Finding("drained agents", Level.WARNING, some(drained), advice))
    slots = sum(agent.slots for agent in usable)
    used = sum(agent.used for agent in usable)
    text = f"{len(usable)} of {len(here)} take runs; {used} of {slots} slots are used"
    text += f"; {standbys} stand by" if standbys else ""
    findings.append(
        Finding("agents", Level.WARNING, text, "start more agents, or give them more slots")
        if used >= slots
        else Finding("agents", Level.OK, text)
    )
    # What is held keeps its assignment, and nobody moves it.
    holds = Counter(run.agent for run in held)
    lost = [
        agent.agent
        for agent in agents
        if agent.state is AgentState.ABSENT and agent.used > holds[agent.agent]
    ]
    if lost:
        text = f"gone, but still with runs: {some(lost)}"
        advice = "the leader moves them; if this stays, look at its log"
        findings.append(Finding("agents", Level.WARNING, text, advice))
    return findings


def check_clocks(leader: LeaderView, agents: Sequence[AgentView]) -> list[Finding]:
    """A record's clock is as old as the record, so only a clock that is ahead shows."""
    # One that has its host's name stands there as a scheduler and as an agent.
    ahead: dict[str, int] = {}
    for name, ms in (
        *((one.node, one.clock_ahead_ms) for one in leader.schedulers),
        *((agent.agent, agent.clock_ahead_ms) for agent in agents),
    ):
        ahead[name] = max(ms, ahead.get(name, 0))
    wrong = [f"{name} (by {ms / 1000:.1f} s)" for name, ms in ahead.items() if ms > _CLOCK_MS]
    if not wrong:
        return [Finding("clocks", Level.OK, "no node's is ahead of this host's")]
    text = f"ahead of this host's: {some(wrong)}"
    return [Finding("clocks", Level.WARNING, text, "look at NTP there, and here")]
