"""etcsched pause, etcsched resume: the whole cluster (a job: etcsched jobs pause)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from etcsched.core.errors import NotFound
from etcsched.core.times import utc_of
from etcsched.operator.pauses import pause as begin
from etcsched.operator.pauses import resume as end
from etcsched.operator.requests import no_such_job
from etcsched_cli.connect import run
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd


@click.command(short_help="Pause the whole cluster: nothing starts.")
@click.pass_obj
def pause(settings: Settings) -> None:
    """Pause the whole cluster: from now on nothing starts. What runs goes on.

    \b
    etcsched pause
    """
    changed = pause_it(settings, None)
    click.echo("the cluster is paused" if changed else "the cluster was paused already")


@click.command(short_help="Resume the whole cluster.")
@click.pass_obj
def resume(settings: Settings) -> None:
    """Resume the whole cluster. What would have been due in between never was.

    \b
    etcsched resume
    """
    changed = resume_it(settings, None)
    click.echo("the cluster goes on" if changed else "the cluster wasn't paused")


def pause_it(settings: Settings, job: str | None) -> bool:
    async def work(etcd: Etcd, keys: Keys) -> bool:
        now = utc_of(settings.environment.now_ms())
        by = settings.operator
        async with _named_in_full(etcd, keys, job):
            return await begin(etcd, keys, job, now, by, timeout_s=settings.timeout_s)

    return run(settings, work)


def resume_it(settings: Settings, job: str | None) -> bool:
    async def work(etcd: Etcd, keys: Keys) -> bool:
        now = utc_of(settings.environment.now_ms())
        async with _named_in_full(etcd, keys, job):
            return await end(etcd, keys, job, now, timeout_s=settings.timeout_s)

    return run(settings, work)


@asynccontextmanager
async def _named_in_full(etcd: Etcd, keys: Keys, job: str | None) -> AsyncIterator[None]:
    """What isn't there is told with names that come near."""
    try:
        yield
    except NotFound:
        if job is None:
            raise
        raise await no_such_job(etcd, keys, job) from None
