"""The archive of a real cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcsched.core.records import ClusterSettings, Keep
from etcsched.jobfile.writing import settings_of
from tests.e2e.past import put_past_runs
from tests.e2e.scene import Scene

pytestmark = pytest.mark.asyncio(loop_scope="session")
MANY = 800
LIMIT = 100 << 10
WITHIN_S = 60.0


async def test_a_full_archive_shrinks_to_its_limit(cluster: Scene, tmp_path: Path) -> None:
    """... whoever leads; the newest stay. The job itself doesn't run any more."""
    await cluster.apply(filled={"run": cluster.beats("beats=1"), "keep": {"runs": 100_000}})
    runs = await put_past_runs(cluster, "filled", MANY)
    prefix, _ = cluster.keys.archive_of()
    of_job, _ = cluster.keys.archive_of("filled")

    def archived() -> dict[str, int]:
        now = cluster.history.now
        return {key: len(key) + len(kv.value) for key, kv in now.items() if key.startswith(prefix)}

    assert sum(archived().values()) > 2 * LIMIT
    await _set_limit(cluster, tmp_path, "100KiB")
    await cluster.history.until(lambda: len(archived()) < MANY, "the first to go", WITHIN_S)
    leader = await cluster.leads()
    await cluster.world.kill(leader)
    await cluster.leads(unlike=leader)
    await cluster.history.until(
        lambda: sum(archived().values()) <= LIMIT, "the limit to be kept", WITHIN_S
    )
    kept = [key for key in archived() if key.startswith(of_job)]
    assert kept == [cluster.keys.archive("filled", run.id) for run in runs[-len(kept) :]]
    assert len(kept) > Keep().runs
    usual = settings_of(ClusterSettings())["max_history"]
    await _set_limit(cluster, tmp_path, usual)
    await cluster.world.start(leader)
    await cluster.settle()


async def _set_limit(cluster: Scene, directory: Path, limit: str) -> None:
    file = directory / "settings.yaml"
    file.write_text(f"settings: {{max_history: {limit}}}\n")
    done = await cluster.cli("apply", str(file), user="admin")
    assert (done.code, done.err) == (0, ""), done
