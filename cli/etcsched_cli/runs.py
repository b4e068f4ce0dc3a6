"""etcsched runs: what ran, runs and waits; ending one, and waiting for one's end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from etcsched.core.durations import format_duration, parse_duration_s
from etcsched.core.errors import EtcschedError, UsageError
from etcsched.core.missed import count_resubmitted
from etcsched.core.records import Release
from etcsched.core.states import FINAL, RunState
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.operator import requests, waiting
from etcsched.operator import runs as operator
from etcsched.operator.choosing import Wanted
from etcsched.operator.ids import request_id
from etcsched.operator.patience import Patience
from etcsched.operator.runs import RunView, parse_run_name
from etcsched_cli.cancel import cancel
from etcsched_cli.choosing import read_time, tags_of_jobs, times
from etcsched_cli.completion import (
    complete_agents,
    complete_held_runs,
    complete_jobs,
    complete_runs,
)
from etcsched_cli.connect import run as run_connected
from etcsched_cli.logs import show_logs
from etcsched_cli.output import (
    Cell,
    Column,
    clean,
    facts,
    moment,
    output_options,
    print_all,
    print_json,
    say,
    show,
    styled,
    table,
)
from etcsched_cli.resubmit import resubmit
from etcsched_cli.settings import Settings
from etcsched_cli.trees import show_tree

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.core.records import Answer, Attempt, Follow, Run
    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd

_STATES = click.Choice([state.value for state in RunState])


@click.group(short_help="List, show, read, cancel, release, resubmit, wait for runs.")
def runs() -> None:
    """List, show, cancel, release, resubmit, wait for runs, and read what they wrote.

    A run is named JOB/ID.
    """


runs.add_command(cancel)


runs.add_command(resubmit)


runs.add_command(show_tree)


runs.add_command(show_logs)


@runs.command("list")
@click.argument("job", required=False, shell_complete=complete_jobs)
@click.option("--state", "states", type=_STATES, multiple=True, help="Only in these states.")
@tags_of_jobs
@click.option(
    "--agent", help="Of the last attempt, or the one that runs.", shell_complete=complete_agents
)
@times
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True)
@output_options(watch=True)
@click.pass_obj
def list_runs(
    settings: Settings,
    job: str | None,
    states: tuple[str, ...],
    tags: tuple[str, ...],
    agent: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
    watch: bool,
) -> None:
    """Show runs, newest first: of JOB, or of all jobs. Times without an offset are UTC.

    What is resubmitted counts for the time of its original, and stands beside it.

    \b
    etcsched runs list close_books --state failed --state died
    etcsched runs list --tag finance --agent host-a --since 12h
    """
    now_ms = settings.environment.now_ms()
    wanted = Wanted(
        job=job,
        tags=tags,
        states=tuple(RunState(state) for state in states),
        agent=agent,
        since=read_time("--since", since, now_ms),
        until=read_time("--until", until, now_ms),
    )

    async def work(etcd: Etcd, keys: Keys) -> Any:
        async def read() -> list[RunView]:
            found = await operator.list_runs(etcd, keys, wanted, limit=limit)
            if job is not None and not found:
                await requests.check_known(etcd, keys, job)
            return found

        return await show(
            read,
            lambda views: [_table(views, settings.environment.now_ms())],
            as_json=as_json,
            watch=watch,
        )

    run_connected(settings, work)


@runs.command("show")
@click.argument("run", shell_complete=complete_runs)
@output_options(watch=True)
@click.pass_obj
def show_run(settings: Settings, run: str, as_json: bool, watch: bool) -> None:
    """Show RUN (JOB/ID): its attempts, every change of its state, the end of its output.

    \b
    etcsched runs show close_books/20261122T190000Z
    """
    job, id_ = parse_run_name(run)

    async def work(etcd: Etcd, keys: Keys) -> Any:
        return await show(
            lambda: operator.read_run(etcd, keys, job, id_),
            render_run,
            as_json=as_json,
            watch=watch,
        )

    run_connected(settings, work)


@runs.command()
@click.argument("run", shell_complete=complete_held_runs)
@click.option("--reassign", is_flag=True, help="Run it again on another agent.")
@click.option("--died", is_flag=True, help="End it as died.")
@click.pass_obj
def release(settings: Settings, run: str, reassign: bool, died: bool) -> None:
    """Say what becomes of RUN (JOB/ID), held since its agent was lost or its process died.

    Look first at what it had done: --reassign starts it anew.

    \b
    etcsched runs release close_books/20261122T190000Z --reassign
    """
    if reassign is died:
        both = ", not both" if died else ""
        raise UsageError(f"say what becomes of {run}: --reassign or --died{both}")
    job, id_ = parse_run_name(run)
    environment = settings.environment
    as_ = Release.REASSIGN if reassign else Release.DIED

    async def work(etcd: Etcd, keys: Keys) -> Answer:
        now_ms = environment.now_ms()
        return await requests.release(
            etcd,
            keys,
            job,
            id_,
            as_,
            request_id=request_id(now_ms, environment.entropy()),
            now=utc_of(now_ms),
            by=settings.operator,
            timeout_s=settings.timeout_s,
        )

    click.echo(f"{run}: {run_connected(settings, work).message}")


@runs.command()
@click.argument("run", shell_complete=complete_runs)
@click.option("--for", "for_", metavar="DURATION", help="At most so long.  [default: for ever]")
@output_options()
@click.pass_context
def wait(ctx: click.Context, run: str, for_: str | None, as_json: bool) -> None:
    """Wait until RUN (JOB/ID) is over, also while etcd is away. Exit code 0 only if it completed.

    \b
    etcsched runs wait close_books/20261122T190000Z --for 2h
    """
    settings: Settings = ctx.obj
    job, id_ = parse_run_name(run)
    limit_s = _limit(for_)

    async def work(etcd: Etcd, keys: Keys) -> RunView:
        # Waiting begins only where there is something to wait for.
        view = await operator.read_run(etcd, keys, job, id_)
        if view.state in FINAL:
            return view
        return await wait_for_end(etcd, keys, job, id_, limit_s)

    ctx.exit(report_end(run_connected(settings, work), as_json))


async def wait_for_end(
    etcd: Etcd, keys: Keys, job: str, run: str, limit_s: float | None
) -> RunView:
    try:
        async with asyncio.timeout(limit_s):
            return await waiting.wait_for_end(etcd, keys, job, run, Patience(say))
    except (asyncio.CancelledError, KeyboardInterrupt):
        click.echo(f"note: {job}/{run} goes on", err=True)
        raise
    except TimeoutError:
        text = format_duration(limit_s or 0.0)
        raise EtcschedError(f"run {job}/{run}: isn't over after {text}; it goes on") from None


def report_end(view: RunView, as_json: bool) -> int:
    """How it ended, and the exit code that says so."""
    if as_json:
        print_json(view)
    elif view.state is RunState.COMPLETED:
        click.echo(f"{view.name}: completed")
    else:
        print_all(render_run(view))
    return 0 if view.state is RunState.COMPLETED else 1


def _limit(text: str | None) -> float | None:
    try:
        return parse_duration_s(text) if text is not None else None
    except ValueError as error:
        raise UsageError(f"--for: {error}") from None


def _table(views: Sequence[RunView], now_ms: int) -> RenderableType:
    return table(
        [
            Column("run", whole=True),
            Column("state"),
            Column("why", optional=True),
            Column("late", right=True, optional=True),
            Column("took", right=True),
            Column("agent"),
            Column("try", right=True, optional=True),
        ],
        [
            (
                view.name,
                styled(view.state.value),
                _why(view.run),
                f"{view.lateness_ms} ms" if view.lateness_ms is not None else "-",
                _took(view.started_at, view.ended_at, now_ms),
                view.agent or "-",
                str(view.run.attempt or "-"),
            )
            for view in views
        ],
        empty="no runs",
    )


def _why(run: Run) -> str:
    if run.missed_count > 1:
        return f"{run.missed_count} ticks"
    return run.occasion.value if run.occasion is not None else run.origin.value


def _took(started_at: Utc | None, ended_at: Utc | None, now_ms: int) -> str:
    if started_at is None:
        return "-"
    end_ms = ms_of(ended_at) if ended_at is not None else now_ms
    taken_ms = max(end_ms - ms_of(started_at), 0)
    if taken_ms < 1000:
        return f"{taken_ms} ms"
    if taken_ms < 60_000:
        return f"{taken_ms / 1000:.1f} s"
    return format_duration(taken_ms // 1000)


def render_run(view: RunView) -> Iterable[RenderableType]:
    run = view.run
    yield facts(
        [
            ("run", view.name),
            ("state", styled(view.state.value)),
            ("reported", _reported(view)),
            ("scheduled", moment(run.scheduled_at) if run.scheduled_at else ""),
            ("missed", _missed(run)),
            ("made by", _origin(run)),
            ("resubmits", f"{run.job}/{run.resubmits}" if run.resubmits else ""),
            ("resubmitted as", " ".join(f"{run.job}/{id_}" for id_ in run.resubmitted_as)),
            ("parameters", " ".join(f"{name}={value}" for name, value in run.params.items())),
            ("retry", _retry(run)),
            ("chained from", " ".join(f"{s.job}/{s.run}" for s in run.chained_from)),
            ("results", _results(run)),
            ("results file", run.results_problem),
            ("followed by", "; ".join(_follow(follow) for follow in run.followed_by)),
            ("agent", view.agent),
            ("started", moment(view.started_at) if view.started_at else ""),
            ("ended", moment(view.ended_at) if view.ended_at else ""),
            ("late", f"{view.lateness_ms} ms" if view.lateness_ms is not None else ""),
        ]
    )
    rows = [_attempt_row(attempt) for attempt in run.attempts]
    if run.agent and run.attempt not in [attempt.number for attempt in run.attempts]:
        rows.append((str(run.attempt), run.agent, styled(view.state.value), *["-"] * 5))
    if rows:
        yield ""
        yield table(_ATTEMPT_COLUMNS, rows)
    if run.history:
        yield ""
        yield table(
            _HISTORY_COLUMNS,
            [
                (moment(step.at), styled(step.state.value), step.cause, str(step.term))
                for step in run.history
            ],
        )
    for late in run.late_reports:
        yield ""
        yield (
            f"reported too late: attempt {late.number} on {late.agent} ended "
            f"{late.outcome.value} at {moment(late.ended_at)}; it changes nothing"
        )
    tail = last.tail if (last := run.last_attempt) is not None else ""
    if tail:
        from rich.text import Text

        yield ""
        yield "end of its output:"
        yield Text(clean(tail.rstrip("\n")))


_HISTORY_COLUMNS = [
    Column("at", whole=True),
    Column("state"),
    Column("cause", whole=True, below=True),
    Column("term", right=True),
]
_ATTEMPT_COLUMNS = [
    Column("try", right=True),
    Column("agent", whole=True),
    Column("outcome"),
    Column("exit", right=True),
    Column("took", right=True),
    Column("cpu", right=True, optional=True),
    Column("memory", right=True, optional=True),
    Column("reason", whole=True, below=True),
]


def _attempt_row(attempt: Attempt) -> Sequence[Cell]:
    exit_text = "-"
    if attempt.signal is not None:
        exit_text = f"signal {attempt.signal}"
    elif attempt.exit_code is not None:
        exit_text = str(attempt.exit_code)
    memory = attempt.peak_memory_bytes
    return (
        str(attempt.number),
        attempt.agent,
        styled(attempt.outcome.value),
        exit_text,
        _took(attempt.started_at, attempt.ended_at, 0) if attempt.ended_at else "-",
        f"{attempt.cpu_s:.2f} s" if attempt.cpu_s is not None else "-",
        f"{memory / (1 << 20):.1f} MiB" if memory is not None else "-",
        attempt.reason or "-",
    )


def _follow(follow: Follow) -> str:
    name = "/".join(filter(None, (follow.job, follow.run)))
    return f"{name} ({follow.note})" if follow.note else name


def _reported(view: RunView) -> str:
    return f"{view.reported.value}; no leader has taken it in" if view.reported else ""


def _results(run: Run) -> str:
    return " ".join(f"{name}={value}" for name, values in run.results.items() for value in values)


def _missed(run: Run) -> str:
    if run.missed_count <= 1:
        return ""
    text = f"{run.missed_count} ticks through {moment(run.missed_through)}"
    if done := count_resubmitted(run):
        text += f", {done} of them resubmitted"
    return f"{text}; etcsched runs resubmit takes each by its time, {run.job}/{run.id} is the first"


def _retry(run: Run) -> str:
    if run.state is not RunState.RETRYING:
        return f"{run.retries} so far" if run.retries else ""
    return f"number {run.retries}, due at {moment(run.retry_at)}"


def _origin(run: Run) -> str:
    if run.occasion is not None:
        cause = run.history[0].cause if run.history else ""
        return (
            f"{run.occasion.value}: {cause} (session {run.incarnation}), {moment(run.created_at)}"
        )
    by = f" of {run.requested_by}" if run.requested_by else ""
    of = f" for a {run.stands_for.value}" if run.stands_for is not None else ""
    return f"{run.origin.value}{by}{of}, {moment(run.created_at)}"
