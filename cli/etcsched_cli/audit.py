"""``etcsched audit``: what a cluster did, against what it promises."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from etcsched.audit.auditor import Auditor
from etcsched.audit.history import Ended, Entry
from etcsched.audit.recorder import Recorder, now_ms
from etcsched.audit.recording import RecordingWriter, lines_of, read_recording
from etcsched.audit.verdict import Bounds, Outcome, Result, Verdict, plain
from etcsched.core.durations import parse_duration_s
from etcsched.core.errors import ClusterUnreachable, NotFound, UsageError
from etcsched.core.times import utc_of
from etcsched.files import opened
from etcsched.keyspace.ops import Range
from etcsched.operator.patience import Patience
from etcsched_cli.connect import run
from etcsched_cli.output import (
    Cell,
    Column,
    facts,
    moment,
    print_all,
    print_json,
    redrawn,
    say,
    styled,
    table,
)
from etcsched_cli.settings import Settings
from etcsched_cli.signals import on_signals

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd

CANT_TELL = 5
SHOWN_VIOLATIONS = 50
LOOK_EVERY_S = 0.5


@click.command(short_help="Judge what a cluster did, live or from a recording.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--live", is_flag=True, help="Follow the cluster, and judge it while it runs.")
@click.option("--for", "for_", metavar="TIME", help="How long to follow it; else until Ctrl-C.")
@click.option(
    "--record", metavar="FILE", type=click.Path(path_type=Path), help="Keep what is followed."
)
@click.option(
    "--lateness", default="1s", show_default=True, metavar="TIME",
    help="What starts later after its tick, without a fault, is a violation.",
)  # fmt: skip
@click.option(
    "--recovery", default="30s", show_default=True, metavar="TIME",
    help="How long after a fault things may still be late.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def audit(
    ctx: click.Context,
    file: Path | None,
    live: bool,
    for_: str | None,
    record: Path | None,
    lateness: str,
    recovery: str,
    as_json: bool,
) -> None:
    """Judge what a cluster did by what it promises: each tick one run, no two attempts at once,
    no write of a deposed leader, nothing acknowledged lost (docs/testing.md has the whole list).

    It reads etcd's events, and shares no decision with the scheduler. What a recording doesn't
    hold isn't judged, and said to be so: live, that is what the jobs' processes did.

    Exit code 0 if all is as promised, 1 if not, 5 if the recording has holes and can't tell.

    \b
    etcsched audit --live --for 60s
    etcsched audit --live --record today.jsonl
    etcsched audit today.jsonl
    """
    if live == (file is not None):
        raise UsageError("audit: name a recording, or say --live")
    if not live and (for_ is not None or record is not None):
        raise UsageError("audit: --for and --record go with --live")
    bounds = Bounds(
        lateness_ms=_ms("--lateness", lateness), recovery_ms=_ms("--recovery", recovery)
    )
    if file is not None:
        verdict = _judge_file(file, bounds)
    else:
        for_s = None if for_ is None else _ms("--for", for_) / 1000
        verdict = _judge_live(ctx.obj, bounds, for_s, record, is_quiet=as_json)
    if as_json:
        print_json(plain(verdict))
    else:
        print_all(verdict_shown(verdict))
    ctx.exit({Outcome.CLEAN: 0, Outcome.VIOLATED: 1, Outcome.INVALID: CANT_TELL}[verdict.outcome])


def _ms(option: str, text: str) -> int:
    try:
        return round(parse_duration_s(text) * 1000)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


# --- a recording


def _judge_file(file: Path, bounds: Bounds) -> Verdict:
    auditor = Auditor(bounds)
    try:
        with opened(file) as opened_file:
            for entry in read_recording(lines_of(opened_file), str(file)):
                auditor.take(entry)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}") from None
    return auditor.finish()


# --- a live cluster


def _judge_live(
    settings: Settings,
    bounds: Bounds,
    for_s: float | None,
    record: Path | None,
    *,
    is_quiet: bool,
) -> Verdict:
    async def work(etcd: Etcd, keys: Keys) -> Verdict:
        # One that isn't there at all ends this; one that goes away later is waited for.
        await etcd.range(Range(keys.term, keys_only=True))
        is_drawn = sys.stdout.isatty() and not is_quiet
        patience = Patience(_unsaid if is_drawn else say)
        with _opened(record) as file, _redrawing(is_drawn) as draw:
            auditor = Auditor(bounds)
            writer = RecordingWriter(file) if file is not None else None

            def tell(entry: Entry) -> None:
                auditor.take(entry)
                if writer is not None:
                    writer.take(entry)

            recorder = Recorder(etcd, keys, tell)
            following = asyncio.create_task(recorder.follow())
            end_s = None if for_s is None else time.monotonic() + for_s
            try:
                async with patience.beside_a_watch(etcd, keys.term):
                    with _stopped_by_hand() as stopped:
                        while not (stopped.is_set() or following.done()):
                            if end_s is not None and time.monotonic() >= end_s:
                                break
                            if recorder.began.is_set() or patience.trouble:
                                draw(_progress(auditor), patience.trouble)
                            await _pause(stopped, end_s)
                    through, trouble = await _told_last(recorder, following)
            finally:
                following.cancel()
                await asyncio.wait([following])
            if not recorder.began.is_set():
                raise NotFound(f"nothing is kept below {keys.prefix}; is --prefix right?")
            tell(Ended(at_ms=now_ms(), revision=through, reason="told to stop"))
        if trouble:
            say(trouble)
        return auditor.finish()

    return run(settings, work)


async def _told_last(recorder: Recorder, following: asyncio.Task[None]) -> tuple[int, str]:
    """The revision through which all is told, also where etcd is away as this ends; then that is
    to be said."""
    try:
        return await recorder.catch_up(), ""
    except ClusterUnreachable as error:
        if not recorder.began.is_set() or following.done():
            raise
        return recorder.revision, f"{error}; judged is what was told before"


@contextlib.contextmanager
def _opened(record: Path | None) -> Iterator[BinaryIO | None]:
    if record is None:
        yield None
        return
    with open_new(record) as file:
        yield file


def open_new(record: Path) -> BinaryIO:
    """Nothing that is there is overwritten."""
    try:
        return record.open("xb")
    except FileExistsError:
        raise UsageError(f"--record {record}: is there already; name a new file") from None
    except OSError as error:
        raise UsageError(f"--record {record}: {error.strerror or error}") from None


@contextlib.contextmanager
def _redrawing(is_drawn: bool) -> Iterator[Callable[[Iterable[RenderableType], str], None]]:
    if not is_drawn:
        # Where nothing can be drawn over, the verdict is all.
        yield lambda _progress, _trouble: None
        return
    with redrawn("Ctrl-C ends this") as draw:
        yield draw


def _unsaid(_trouble: str) -> None:
    """It stands above what is drawn."""


@contextlib.contextmanager
def _stopped_by_hand() -> Iterator[asyncio.Event]:
    """The first Ctrl-C ends the following, and the verdict comes all the same."""
    stopped = asyncio.Event()
    with on_signals((signal.SIGINT, signal.SIGTERM), lambda _: stopped.set()):
        yield stopped


async def _pause(stopped: asyncio.Event, end_s: float | None) -> None:
    left_s = LOOK_EVERY_S if end_s is None else min(LOOK_EVERY_S, end_s - time.monotonic())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(left_s, 0.0)):
            await stopped.wait()


def _progress(auditor: Auditor) -> Iterable[RenderableType]:
    state = auditor.state
    yield facts([("judged through", f"revision {state.revision}")])
    yield results_shown(auditor.results())
    yield from _violations_shown([str(v) for v in auditor.violations])


# --- shown


def verdict_shown(verdict: Verdict) -> Iterable[RenderableType]:
    span = f"revision {verdict.from_revision} through {verdict.through_revision}"
    times = f"{moment(utc_of(verdict.from_ms))} to {moment(utc_of(verdict.through_ms))}"
    late, slack_ms = verdict.lateness, verdict.least_fence_slack_ms
    word = {
        Outcome.CLEAN: ("as promised", "bold green"),
        Outcome.VIOLATED: ("NOT as promised", "bold red"),
        Outcome.INVALID: ("can't tell: something is missing", "bold yellow"),
    }[verdict.outcome]
    yield results_shown(verdict.results)
    yield facts(
        [
            ("judged", f"{span}, told {times}"),
            ("lateness", _lateness(verdict) if late.worst_ms is not None else ""),
            ("least fence slack", f"{slack_ms} ms" if slack_ms is not None else ""),
            ("verdict", word),
        ]
    )
    yield from _violations_shown(verdict.invalid_because)
    if verdict.invalid_because and verdict.violations:
        yield "perhaps only since that is missing:"
    yield from _violations_shown([*map(str, verdict.violations)])


def _lateness(verdict: Verdict) -> str:
    late = verdict.lateness
    total, so_far = sum(late.counts), 0
    parts = [f"{total} start" + ("" if total == 1 else "s")]
    for bound_ms, count in zip(late.up_to_ms, late.counts, strict=False):
        so_far += count
        if count:
            parts.append(f"{100 * so_far / total:.0f} % within {bound_ms} ms")
    return f"{', '.join(parts)}; worst {late.worst_ms} ms ({late.worst_run})"


def results_shown(results: Sequence[Result]) -> RenderableType:
    def row(result: Result) -> tuple[Cell, ...]:
        if result.violated:
            word: Cell = styled("bad")
        elif result.checked:
            word = styled("ok")
        else:
            word = ("-", "bright_black")
        violated = str(result.violated) if result.violated else ""
        return (
            result.invariant.name, result.invariant.value, word, str(result.checked), violated,
            "; ".join(result.not_judged),
        )  # fmt: skip

    columns = [
        Column("", whole=True), Column("promise", whole=True), Column("is"),
        Column("checked", right=True), Column("violated", right=True),
        Column("not judged", whole=True, optional=True),
    ]  # fmt: skip
    return table(columns, [row(result) for result in results])


def _violations_shown(lines: Sequence[str]) -> Iterable[RenderableType]:
    from rich.text import Text

    for line in lines[:SHOWN_VIOLATIONS]:
        yield Text(line, style="red")
    if len(lines) > SHOWN_VIOLATIONS:
        yield Text(f"... and {len(lines) - SHOWN_VIOLATIONS} more; --json has all", style="red")
