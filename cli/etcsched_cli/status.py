"""etcsched status: the cluster on one screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from etcsched.core.times import ms_of
from etcsched.operator.cluster import UNTOLD, ClusterView, read_cluster
from etcsched.operator.runs import NewestRuns
from etcsched.operator.schedulers import LeaderView, SchedulerView
from etcsched_cli.agents import agents_table
from etcsched_cli.connect import run
from etcsched_cli.output import Cell, age, facts, moment, output_options, show
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.keyspace.keys import Keys
    from etcsched.operator.explain import RunReason
    from etcsched.ports import Etcd, MemberStatus

_SHOWN = 5


@click.command(short_help="Show the cluster on one screen.")
@output_options(watch=True)
@click.pass_obj
def status(settings: Settings, as_json: bool, watch: bool) -> None:
    """Show the cluster on one screen: who leads, who is here, what runs, how late, what is next.

    \b
    etcsched status --watch
    """

    async def work(etcd: Etcd, keys: Keys) -> Any:
        now_ms, newest_runs = settings.environment.now_ms, NewestRuns()

        async def look() -> ClusterView:
            newest = await newest_runs.read(etcd, keys)
            return await read_cluster(etcd, keys, now_ms(), newest)

        return await show(look, _render, as_json=as_json, watch=watch)

    run(settings, work)


def _render(view: ClusterView) -> Iterable[RenderableType]:
    yield facts(
        [
            ("leader", leader_cell(view)),
            ("schedulers", _schedulers(view)),
            *_some("barred", barred_cells(view.leader)),
            ("paused", paused_cell(view)),
            ("jobs", str(view.jobs)),
            ("runs", runs_text(view)),
            *_some("waiting", [(f"{waiting_name(r)}: {r.text}", "yellow") for r in view.waits]),
            ("" if view.waits else "waiting", not_why_text(view)),
            *_some("outages", [(f"{j}: {text}", "red") for j, text in view.outages.items()]),
            ("late", lateness_text(view)),
            ("next tick", _next_tick(view)),
            ("decided", _decided(view)),
            *_members(view),
        ]
    )
    yield ""
    yield agents_table(view.agents, ms_of(view.at))


def leader_cell(view: ClusterView) -> Cell:
    term = view.leader.term
    if not view.leader.node or term is None:
        what = "mend what bars them" if barred_cells(view.leader) else "start etcsched scheduler"
        return (f"nobody leads: nothing is decided; {what}", "red")
    text = f"{view.leader.node}, term {term.number}, for {age(term.since, ms_of(view.at))}"
    silence = view.leader.silence
    return (f"{text}; {silence}", "red") if silence else text


def _schedulers(view: ClusterView) -> str:
    return ", ".join(
        _scheduler(scheduler) for scheduler in view.leader.schedulers if not scheduler.barred
    )


def _scheduler(one: SchedulerView) -> str:
    process = f"process {one.pid} on {one.host}, shares its name" if one.shares_name else ""
    remarks = ", ".join(filter(None, ("leads" if one.leads else "", process)))
    return f"{one.node} ({remarks})" if remarks else one.node


def barred_cells(leader: LeaderView) -> list[Cell]:
    """Who is here and can't lead, and why."""
    return [(f"{s.node}: {s.barred}", "red") for s in leader.schedulers if s.barred]


def paused_cell(view: ClusterView) -> Cell:
    return ("everything is paused: nothing starts", "yellow") if view.paused else ""


def runs_text(view: ClusterView) -> str:
    text = f"{view.running} running, {view.assigned} assigned, {view.waiting} waiting"
    return text + (f"; {view.requests} requests unanswered" if view.requests else "")


def waiting_name(reason: RunReason) -> str:
    """One run stands for all of its job that wait."""
    return f"{reason.run} and {reason.others} more" if reason.others else reason.run


def _some(name: str, lines: list[Cell]) -> list[tuple[str, Cell]]:
    """The first few, and how many more there are."""
    rest = len(lines) - _SHOWN
    lines = lines[:_SHOWN] + ([f"and {rest} more jobs; see etcsched jobs list"] if rest > 0 else [])
    return [(name if number == 0 else "", line) for number, line in enumerate(lines)]


def not_why_text(view: ClusterView) -> str:
    """Said where there are too many jobs to find out why each run waits."""
    if "waits" not in view.not_looked_for:
        return ""
    what = "why others wait" if view.waits else "why"
    return f"{what} isn't looked for among so many jobs; etcsched explain JOB/ID does"


def lateness_text(view: ClusterView) -> str:
    late = view.lateness
    if late is None:
        return ""
    worst = f", worst {late.worst_ms} ms ({late.worst_run})"
    starts = "start" if late.starts == 1 else f"{late.starts} starts"
    return f"{late.median_ms} ms (median of the last {starts}{worst})"


def _next_tick(view: ClusterView) -> Cell:
    tick = view.next_tick
    if tick is None:
        if "next_tick" in view.not_looked_for:
            return "not looked for among so many jobs; etcsched doctor does"
        return "none: nothing is due" if view.jobs else "none: there are no jobs"
    away = age(tick.at, ms_of(view.at))
    if tick.at <= view.at:
        return (f"{tick.job} was due {away} ago, {moment(tick.at)}, and isn't decided", "red")
    return f"{tick.job} in {away}, {moment(tick.at)}"


def _decided(view: ClusterView) -> str:
    watermark = view.leader.watermark
    return f"through {moment(watermark)}" if watermark is not None else ""


def _members(view: ClusterView) -> list[tuple[str, Cell]]:
    lines: list[tuple[str, Cell]] = []
    for member in view.members:
        name = "" if lines else "etcd"
        if member.error:
            lines.append((name, (member.error, "red")))
            continue
        text = f"{member.endpoint}: {_words_of(member)}"
        is_bad = member.alarms or member.leader_id == 0
        lines.append((name, (text, "red") if is_bad else text))
    return lines


def _words_of(member: MemberStatus) -> str:
    size = member.db_size_bytes
    words = [
        member.version or "version unknown",
        f"{size / (1 << 20):.1f} MiB" if size is not None else f"size {UNTOLD}",
        f"revision {member.revision if member.revision is not None else UNTOLD}",
        *(member.alarms if member.alarms is not None else [f"alarms {UNTOLD}"]),
        *(["no leader"] if member.leader_id == 0 else []),
    ]
    return ", ".join(words)
