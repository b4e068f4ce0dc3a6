"""etcsched runs logs: what a run wrote, from whichever machine."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable
from contextlib import aclosing

import click

from etcsched.keyspace.keys import Keys
from etcsched.operator.logs import Note, Text, follow_output, read_output
from etcsched.operator.patience import Patience
from etcsched.operator.runs import parse_run_name
from etcsched.ports import Etcd
from etcsched_cli.completion import complete_runs
from etcsched_cli.connect import run as run_connected
from etcsched_cli.output import clean
from etcsched_cli.settings import Settings


@click.command("logs")
@click.argument("run", shell_complete=complete_runs)
@click.option("-f", "--follow", is_flag=True, help="Go on until it is over, retries included.")
@click.option("--attempt", "number", type=click.IntRange(1), help="This one.  [default: the last]")
@click.option("--raw", is_flag=True, help="On a terminal, too, just as it was written.")
@click.pass_obj
def show_logs(settings: Settings, run: str, follow: bool, number: int | None, raw: bool) -> None:
    """Show what RUN (JOB/ID) wrote, to standard output; what is to be said of it goes to standard
    error.

    It comes from the agent that ran it, which keeps it for a while (--output-keep). Of one that is
    lost there is the tail that it had reported, at most 4 KiB.

    \b
    etcsched runs logs close_books/20261122T190000Z
    etcsched runs logs -f close_books/20261122T190000Z
    """
    job, id_ = parse_run_name(run)
    write = _writer(raw)

    async def work(etcd: Etcd, keys: Keys) -> None:
        asked = (etcd, keys, job, id_, number, settings.timeout_s)
        parts = follow_output(*asked, Patience(_note)) if follow else read_output(*asked)
        async with aclosing(parts):
            async for part in parts:
                match part:
                    case Text(data):
                        write(data)
                    case Note(text):
                        _note(text)

    run_connected(settings, work)


def _note(text: str) -> None:
    click.echo(click.style(f"-- {clean(text)}", dim=True), err=True)


def _writer(raw: bool) -> Callable[[bytes], None]:
    """A terminal isn't given orders by what some job wrote."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(data: bytes) -> None:
        if sys.stdout.isatty() and not raw:
            data = clean(decoder.decode(data)).encode()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    return write
