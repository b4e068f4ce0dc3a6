"""etcsched explain: why a run waits or runs where it does, or why a job doesn't run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from etcsched.core.times import Utc, ms_of
from etcsched.operator.runs import parse_run_name
from etcsched_cli.completion import complete_jobs_and_runs
from etcsched_cli.connect import run
from etcsched_cli.output import (
    Cell,
    Column,
    age,
    facts,
    moment,
    output_options,
    show,
    styled,
    table,
)
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.core.leader.explaining import AgentWord
    from etcsched.core.leader.reasons import Reason
    from etcsched.keyspace.keys import Keys
    from etcsched.operator.explain import JobExplanation, RunExplanation, RunReason
    from etcsched.ports import Etcd


@click.command(short_help="Say why a run waits or runs there, or why a job doesn't run.")
@click.argument("name", metavar="RUN|JOB", shell_complete=complete_jobs_and_runs)
@output_options(watch=True)
@click.pass_obj
def explain(settings: Settings, name: str, as_json: bool, watch: bool) -> None:
    """Say why RUN (JOB/ID) waits, or runs where it does; or why JOB doesn't run now.

    These are the leader's own decisions on what etcd holds now: what holds it up, for how long
    still, and each agent with why it may have it or not.

    \b
    etcsched explain close_books
    etcsched explain close_books/20261122T190000Z
    """
    from etcsched.operator.explain import explain_job, explain_run

    now_ms = settings.environment.now_ms

    async def work(etcd: Etcd, keys: Keys) -> Any:
        if "/" in name:
            job, id_ = parse_run_name(name)
            return await show(
                lambda: explain_run(etcd, keys, job, id_, now_ms()),
                _render_run,
                as_json=as_json,
                watch=watch,
            )
        return await show(
            lambda: explain_job(etcd, keys, name, now_ms()),
            _render_job,
            as_json=as_json,
            watch=watch,
        )

    run(settings, work)


def _render_run(told: RunExplanation) -> Iterable[RenderableType]:
    reason, now_ms = told.reason, ms_of(told.at)
    yield facts(
        [
            ("run", reason.run),
            ("state", styled(reason.state.value)),
            ("why", reason.text),
            ("until", _left(reason.until, now_ms)),
            ("buffer", _left(reason.buffer_ends, now_ms)),
            ("turn", _turn(reason)),
            ("outage", told.outage),
            ("asked", "; ".join(told.requests)),
        ]
    )
    yield from _agents(told.agents, told.agent)


def _render_job(told: JobExplanation) -> Iterable[RenderableType]:
    from etcsched.core.leader.reasons import Why

    now_ms = ms_of(told.at)
    first = True
    is_paused = any(reason.why is Why.PAUSED for reason in told.reasons)
    state = styled("paused") if is_paused else styled(told.state.value)
    rows: list[tuple[str, Cell]] = [("job", told.job), ("state", state)]
    for reason in told.reasons:
        until = f" ({_left_of(reason, now_ms)})" if reason.until else ""
        rows.append(("why" if first else "", reason.text + until))
        first = False
    yield facts(rows)
    if told.runs:
        yield ""
        yield table(
            [
                Column("run", whole=True),
                Column("state"),
                Column("buffer"),
                Column("why", whole=True, below=True),
            ],
            [
                (r.run, styled(r.state.value), _left(r.buffer_ends, now_ms) or "-", r.text)
                for r in told.runs
            ],
        )
        if told.more:
            yield f"... and {told.more} more"
    yield from _agents(told.agents, "")


def _left_of(reason: Reason, now_ms: int) -> str:
    """A time that the reason names itself isn't said again."""
    is_said = reason.until is not None and reason.until in reason.text
    if reason.until is not None and is_said and ms_of(reason.until) > now_ms:
        return f"in {age(reason.until, now_ms)}"
    return _left(reason.until, now_ms)


def _left(until: Utc | None, now_ms: int) -> str:
    if until is None:
        return ""
    if ms_of(until) <= now_ms:
        return f"over since {moment(until)}"
    return f"{age(until, now_ms)} left, until {moment(until)}"


def _turn(reason: RunReason) -> str:
    return f"number {reason.place} of all that wait for an agent" if reason.place else ""


def _agents(words: Sequence[AgentWord], has_it: str) -> Iterable[RenderableType]:
    if not words:
        return
    yield ""
    yield table(
        [
            Column("agent", whole=True),
            Column("may run it"),
            Column("used", right=True),
            Column("slots", right=True),
            Column("why", whole=True, below=True),
        ],
        [
            (
                word.agent,
                ("yes", "green") if word.may_run else ("no", "yellow"),
                str(word.used),
                str(word.slots),
                ", ".join(filter(None, ("has it" if word.agent == has_it else "", word.why))),
            )
            for word in words
        ],
    )
