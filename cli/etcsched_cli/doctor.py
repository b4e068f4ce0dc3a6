"""etcsched doctor: every check, and what to do about what it found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from etcsched.operator.doctor import Finding, Level, examine
from etcsched_cli.connect import run
from etcsched_cli.output import Column, output_options, show, styled, table
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd


@click.command(short_help="Look for what is wrong, or soon will be.")
@output_options()
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Look for what is wrong, or soon will be: etcd, leader, ticks, agents, clocks, records.

    Exit code 1 if anything is bad; warnings alone are no failure.

    \b
    etcsched doctor
    """
    settings: Settings = ctx.obj

    async def work(etcd: Etcd, keys: Keys) -> list[Finding]:
        now_ms = settings.environment.now_ms
        return await show(lambda: examine(etcd, keys, now_ms), _render, as_json=as_json)

    findings = run(settings, work)
    if any(finding.level is Level.BAD for finding in findings):
        ctx.exit(1)


def _render(findings: Sequence[Finding]) -> Iterable[RenderableType]:
    yield table(
        [Column("check", whole=True), Column("is"), Column("found", whole=True, below=True)],
        [
            (
                finding.topic,
                styled(finding.level.value),
                finding.text + (f" -> {finding.advice}" if finding.advice else ""),
            )
            for finding in findings
        ],
    )
