"""etcsched jobs: what there is, what comes next, and steering single jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from etcsched.core.leader.reasons import Why
from etcsched.core.states import JobState
from etcsched.core.text import some
from etcsched.core.times import ms_of, utc_of
from etcsched.jobfile.writing import fields_of, schedule_text
from etcsched.operator import apply as operator
from etcsched.operator import requests
from etcsched.operator.coming import ComingTick, read_coming
from etcsched.operator.explain import explain_job
from etcsched.operator.ids import request_id
from etcsched.operator.jobs import JobView, Pausing, chaining_to, list_jobs, read_job
from etcsched_cli.choosing import named_or_tagged, tags_of_jobs
from etcsched_cli.completion import complete_jobs
from etcsched_cli.connect import run
from etcsched_cli.options import confirm_delete, read_params, yes_option
from etcsched_cli.output import (
    Cell,
    Column,
    age,
    facts,
    moment,
    output_options,
    print_json,
    show,
    styled,
    table,
)
from etcsched_cli.pauses import pause_it, resume_it
from etcsched_cli.runs import report_end, wait_for_end
from etcsched_cli.settings import Settings
from etcsched_cli.signals import signals_raised

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.core.records import Answer, Job
    from etcsched.keyspace.keys import Keys
    from etcsched.operator.runs import RunView
    from etcsched.ports import Etcd

_KEEPS_TICKS_FROM_COMING = (Why.STATE, Why.PAUSED, Why.SCHEDULE)
_STATES = click.Choice([s.value for s in JobState if s is not JobState.DELETED])


@click.group(short_help="List, trigger, pause, resume, delete jobs.")
def jobs() -> None:
    """List, show, trigger, pause, resume, delete jobs."""


@jobs.command("list")
@click.option("--tag", "tags", multiple=True, help="Only with this tag (with all of several).")
@click.option("--state", "states", type=_STATES, multiple=True, help="Only in these states.")
@click.option(
    "--limit", type=click.IntRange(0), default=200, show_default=True, help="At most; 0: all."
)
@output_options(watch=True)
@click.pass_obj
def list_(
    settings: Settings,
    tags: tuple[str, ...],
    states: tuple[str, ...],
    limit: int,
    as_json: bool,
    watch: bool,
) -> None:
    """Show jobs by name: schedule, next tick, how the last run ended, what runs now.

    \b
    etcsched jobs list --tag finance
    """
    now_ms = settings.environment.now_ms
    wanted = [JobState(state) for state in states]

    async def work(etcd: Etcd, keys: Keys) -> Any:
        has_more = False

        async def read() -> list[JobView]:
            nonlocal has_more
            views, has_more = await list_jobs(
                etcd, keys, now_ms(), tags=tags, states=wanted, limit=limit
            )
            return views

        def render(views: Sequence[JobView]) -> Iterable[RenderableType]:
            yield _table(views, now_ms())
            if has_more:
                yield f"... and more than these {limit}; see --limit, --tag"

        return await show(read, render, as_json=as_json, watch=watch)

    run(settings, work)


@jobs.command("show")
@click.argument("job", shell_complete=complete_jobs)
@output_options(watch=True)
@click.pass_obj
def show_(settings: Settings, job: str, as_json: bool, watch: bool) -> None:
    """Show JOB: its definition as a job file says it, and where it stands.

    \b
    etcsched jobs show close_books
    """
    now_ms = settings.environment.now_ms

    async def work(etcd: Etcd, keys: Keys) -> Any:
        return await show(
            lambda: read_job(etcd, keys, job, now_ms()),
            lambda view: _render(view, now_ms()),
            as_json=as_json,
            watch=watch,
        )

    run(settings, work)


@jobs.command("next")
@click.argument("job", shell_complete=complete_jobs)
@click.option("--count", "-n", type=click.IntRange(1, 1000), default=10, show_default=True)
@output_options(watch=True)
@click.pass_obj
def next_(settings: Settings, job: str, count: int, as_json: bool, watch: bool) -> None:
    """Show JOB's coming ticks, in its zone, with what changes of the clocks do to them, and when
    its runs start where a splay delays them.

    Why nothing is due is said below; with --json on standard error.

    \b
    etcsched jobs next close_books -n 20
    """

    now_ms = settings.environment.now_ms
    notes: list[str] = []

    async def work(etcd: Etcd, keys: Keys) -> list[ComingTick]:
        async def read() -> list[ComingTick]:
            at_job = await read_job(etcd, keys, job, now_ms())
            ticks = await read_coming(etcd, keys, at_job, now_ms(), count)
            if ticks:
                found = _what_changes_it(at_job.job, now_ms())
            else:
                told = await explain_job(etcd, keys, job, now_ms())
                found = [r.text for r in told.reasons if r.why in _KEEPS_TICKS_FROM_COMING]
            notes[:] = found
            return ticks

        def render(ticks: Sequence[ComingTick]) -> Iterable[RenderableType]:
            yield from _render_ticks(ticks)
            yield from notes

        return await show(read, render, as_json=as_json, watch=watch)

    ticks = run(settings, work)
    if as_json and not ticks:
        for note in notes:
            click.echo(f"note: {note}", err=True)


def _what_changes_it(job: Job, now_ms: int) -> list[str]:
    """What may keep some of its schedule's times from the list, or bring others."""
    found = []
    if job.current.calendars:
        found.append(f"without days that its calendars leave out: {some(job.current.calendars)}")
    windows = [
        f"{moment(window.since)} to {moment(window.until)}"
        for window in job.current.windows
        if ms_of(window.until) > now_ms
    ]
    if windows:
        found.append(f"another state or schedule, by its windows: {some(windows)}")
    return found


@jobs.command()
@click.argument("job", shell_complete=complete_jobs)
@click.option("--param", "params", metavar="NAME=VALUE", multiple=True, help="In its parameters.")
@click.option("--wait", is_flag=True, help="Until it is over; exit code 0 only if it completed.")
@output_options()
@click.pass_context
def trigger(
    ctx: click.Context, job: str, params: tuple[str, ...], wait: bool, as_json: bool
) -> None:
    """Run JOB now, whatever its schedule says.

    \b
    etcsched jobs trigger close_books --param month=2026-10 --wait
    """
    settings: Settings = ctx.obj
    environment = settings.environment
    given = read_params(params)

    async def work(etcd: Etcd, keys: Keys) -> tuple[Answer, RunView | None]:
        now_ms = environment.now_ms()
        answer = await requests.trigger(
            etcd,
            keys,
            job,
            given,
            request_id=request_id(now_ms, environment.entropy()),
            now=utc_of(now_ms),
            by=settings.operator,
            timeout_s=settings.timeout_s,
        )
        if not (wait and as_json):
            # Before waiting: whoever interrupts it knows what to look for.
            _say_triggered(answer, as_json)
        return answer, await wait_for_end(etcd, keys, job, answer.run, None) if wait else None

    _, view = run(settings, work)
    if view is not None:
        ctx.exit(report_end(view, as_json))


def _say_triggered(answer: Answer, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer.job}/{answer.run}: {answer.message}")


@jobs.command()
@click.argument("names", nargs=-1, metavar="[JOB]...", shell_complete=complete_jobs)
@tags_of_jobs
@click.pass_obj
def pause(settings: Settings, names: tuple[str, ...], tags: tuple[str, ...]) -> None:
    """Pause JOBs, or all with a tag: from now on nothing of them starts. What runs goes on.

    \b
    etcsched jobs pause close_books
    etcsched jobs pause --tag finance
    """
    for name in named_or_tagged(settings, names, tags):
        changed = pause_it(settings, name)
        click.echo(f"{name} is paused" if changed else f"{name} was paused already")


@jobs.command()
@click.argument("names", nargs=-1, metavar="[JOB]...", shell_complete=complete_jobs)
@tags_of_jobs
@click.pass_obj
def resume(settings: Settings, names: tuple[str, ...], tags: tuple[str, ...]) -> None:
    """Resume JOBs, or all with a tag. What would have been due in between never was.

    \b
    etcsched jobs resume close_books
    """
    for name in named_or_tagged(settings, names, tags):
        changed = resume_it(settings, name)
        click.echo(f"{name} goes on" if changed else f"{name} wasn't paused")


@jobs.command()
@click.argument("names", nargs=-1, metavar="[JOB]...", shell_complete=complete_jobs)
@tags_of_jobs
@yes_option
@click.pass_obj
def delete(settings: Settings, names: tuple[str, ...], tags: tuple[str, ...], yes: bool) -> None:
    """Delete JOBs, or all with a tag: nothing of them is due any more, waiting runs are cancelled,
    running ones end.

    Their history stays as long as it is kept anyway.

    \b
    etcsched jobs delete close_books
    """
    names = tuple(dict.fromkeys(named_or_tagged(settings, names, tags)))

    async def look(etcd: Etcd, keys: Keys) -> dict[str, list[str]]:
        for name in names if not tags else ():
            await requests.check_known(etcd, keys, name)
        return await chaining_to(etcd, keys, names)

    for target, sources in run(settings, look).items():
        click.echo(f"note: {some(sources)} won't go on with {target} any more", err=True)
    if not yes:
        confirm_delete(names)

    done = 0

    def progress(number: int) -> None:
        nonlocal done
        done = number

    async def work(etcd: Etcd, keys: Keys) -> list[operator.JobChange]:
        now = utc_of(settings.environment.now_ms())
        by, timeout_s = settings.operator, settings.timeout_s
        with signals_raised():
            return await operator.delete(
                etcd, keys, names, now, by, timeout_s=timeout_s, progress=progress
            )

    try:
        changes = run(settings, work)
    except BaseException:
        if done:
            click.echo(f"note: not all is done: {done} of {len(names)} jobs are deleted", err=True)
        raise
    for change in changes:
        click.echo(f"{change.job} is deleted")


def _table(views: Sequence[JobView], now_ms: int) -> RenderableType:
    """Why what waits does so stands there only if anything does."""
    has_why = any(view.why for view in views)
    return table(
        [
            Column("job", whole=True),
            Column("state"),
            Column("schedule"),
            Column("next"),
            Column("last"),
            Column("ended", optional=True),
            Column("running", right=True),
            Column("waiting", right=True, optional=True),
            *([Column("why", optional=True)] if has_why else []),
        ],
        [
            (
                view.name,
                _state(view),
                schedule_text(view.job) or "-",
                _next(view, now_ms),
                styled(view.last.state.value) if view.last else "-",
                _ago(view, now_ms),
                str(view.running),
                str(view.waiting),
                *([view.why or "-"] if has_why else []),
            )
            for view in views
        ],
        empty="no jobs; etcsched apply FILE brings them in",
    )


def _state(view: JobView) -> Cell:
    match view.pausing:
        case Pausing.NO:
            return styled(view.state.value)
        case Pausing.JOB:
            return styled("paused")
        case Pausing.CLUSTER:
            return ("all paused", "yellow")


def _next(view: JobView, now_ms: int) -> Cell:
    return f"in {age(view.next_tick, now_ms)}" if view.next_tick else "-"


def _ago(view: JobView, now_ms: int) -> str:
    if view.last is None:
        return "-"
    ended = view.last.ended_at or view.last.at
    return f"{age(ended, now_ms)} ago"


def _render(view: JobView, now_ms: int) -> Iterable[RenderableType]:
    job = view.job
    last = view.last
    yield facts(
        [
            ("job", job.name),
            ("state", _state(view)),
            ("next", _next_in_full(view, now_ms)),
            ("last", f"{last.name}: {last.state.value}" if last is not None else ""),
            ("now", f"{view.running} running, {view.waiting} waiting"),
            ("why", view.why),
            ("since", f"{moment(job.current.since)}, by {job.changed_by or 'unknown'}"),
        ]
    )
    yield ""
    yield _definition(job.name, fields_of(job))


def _next_in_full(view: JobView, now_ms: int) -> str:
    if view.next_tick is None:
        return "-"
    return f"{moment(view.next_tick)}, in {age(view.next_tick, now_ms)}"


def _definition(name: str, fields: dict[str, Any]) -> str:
    """As it would stand in a job file."""
    from etcsched.jobfile.exporting import to_yaml

    return to_yaml({"jobs": {name: fields}}).rstrip("\n")


def _render_ticks(ticks: Sequence[ComingTick]) -> Iterable[RenderableType]:
    is_splayed = any(tick.starts_at not in (None, tick.at) for tick in ticks)
    yield table(
        [
            Column("tick", whole=True),
            Column("in the job's zone", whole=True),
            *([Column("starts", whole=True)] if is_splayed else []),
            Column("remark"),
        ],
        [
            (
                moment(tick.at),
                tick.local,
                *([moment(tick.starts_at)] if is_splayed else []),
                tick.remark,
            )
            for tick in ticks
        ],
        empty="nothing is due",
    )
    if ticks and ticks[0].starts_at is None:
        yield ""
        yield _delays_table(ticks[0])


def _delays_table(tick: ComingTick) -> RenderableType:
    """An agent's delay is the same for every tick."""
    return table(
        [Column("agent", whole=True), Column("starts", whole=True)],
        [
            (agent, f"{age(at, ms_of(tick.at))} after each tick")
            for agent, at in tick.starts_on.items()
        ],
        empty="each agent starts at its own time; none may run it now, see etcsched explain",
    )
