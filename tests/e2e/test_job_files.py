"""Job files into a cluster that runs, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcsched.core.records import Calendar, Job, Kind
from etcsched.core.states import JobState
from tests.conftest import StartEtcd
from tests.e2e.scene import Scene

pytestmark = pytest.mark.asyncio(loop_scope="function")

OFTEN = "run: {exec: [/bin/true]}, schedule: {cron: '* * * * * *'"


async def test_prune_and_export_while_jobs_run(start_etcd: StartEtcd, tmp_path: Path) -> None:
    """A calendar goes once the leader has decided all that went by it; what is exported then
    changes nothing."""
    scene = Scene(tmp_path, await start_etcd())
    scene.world.add_scheduler("s1")
    scene.world.add_agent("a1")
    file = tmp_path / "jobs.yaml"
    await scene.open()
    try:
        file.write_text(
            "calendars: {days: {exclude: [2020-01-01]}}\n"
            f"jobs: {{kept: {{{OFTEN}, calendars: [days]}}}}, gone: {{{OFTEN}}}}}}}\n"
        )
        done = await scene.cli("apply", str(file))
        assert (done.code, done.err) == (0, "")
        await scene.runs_ended("kept", 2)
        await scene.runs_ended("gone", 2)

        file.write_text(f"jobs: {{kept: {{{OFTEN}}}}}}}\n")
        done = await scene.cli("apply", str(file), "--prune", "--yes")
        assert (done.code, done.err) == (0, ""), done
        assert done.out.endswith("\n1 updated, 2 removed\n")
        await scene.history.check_complete()
        assert not scene.history.records(Kind.CALENDAR, Calendar)
        jobs = {job.name: job for job in scene.history.records(Kind.JOB, Job).values()}
        assert jobs["kept"].current.state is JobState.ENABLED
        assert "gone" not in jobs or jobs["gone"].current.state is JobState.DELETED

        exported = await scene.cli("export")
        assert (exported.code, exported.err) == (0, "")
        file.write_text(exported.out)
        done = await scene.cli("apply", str(file), "--prune")
        assert (done.code, done.out, done.err) == (0, "1 unchanged\n", "")
    finally:
        await scene.close()
