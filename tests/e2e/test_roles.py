"""Each role of the system as a user of etcd that may do what it has to, and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from etcsched.core.errors import ClusterRefused
from etcsched.core.records import Kind
from etcsched.core.states import RunState
from etcsched.etcd.binaries import EtcdBinary
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.keyspace.ops import Compare, Put, Range, Target, Txn
from tests.e2e.scene import Scene
from tests.e2e.spoken import measured, said
from tests.support.etcd_cluster import EtcdCluster
from tests.support.local_world import run_cli
from tests.support.users import KEYS, password_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(
    etcd_with_roles: EtcdBinary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    directory = tmp_path_factory.mktemp("roles")
    etcd = EtcdCluster(etcd_with_roles, directory, authentication=True)
    await etcd.start()
    scene = Scene(directory, etcd)
    scene.world.add_scheduler("s1", "--listen=127.0.0.1:0")
    scene.world.add_agent("a1")
    await scene.open()
    yield scene
    await scene.close()


async def test_the_full_path_with_users_of_their_own(guarded: Scene, tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    beats = guarded.beats("beats=2")["exec"]
    file.write_text(f"jobs:\n  one:\n    run: {{exec: {beats}}}\n    state: ad_hoc_active\n")
    with file.open("a") as more:
        more.write("  two: {run: {exec: [/bin/true]}, state: ad_hoc_active, calendars: [days]}\n")
        more.write("calendars: {days: {exclude: [2026-12-25]}}\nconflicts: {pair: [one, two]}\n")
    applied = await guarded.cli("apply", str(file), user="operator")
    assert applied.code == 0, applied
    triggered = await guarded.cli("jobs", "trigger", "one", "--wait", user="operator")
    assert triggered.code == 0, triggered
    (run,) = guarded.ended("one")
    assert run.state is RunState.COMPLETED
    for steering in (["agents", "drain", "a1"], ["agents", "undrain", "a1"], ["pause"], ["resume"]):
        done = await guarded.cli(*steering, user="operator")
        assert done.code == 0, done
    for looking in (["status"], ["jobs", "list"], ["runs", "show", f"one/{run.id}"]):
        seen = await guarded.cli(*looking, user="viewer")
        assert seen.code == 0, seen
    refused = await guarded.cli("jobs", "trigger", "one", user="viewer")
    assert refused.code == 5
    assert refused.err.startswith("etcsched: ")
    assert "permission" in refused.err
    await guarded.settle()


@pytest.mark.parametrize(
    ("user", "key"),
    [
        ("agent-a1", KEYS.term),
        ("agent-a1", KEYS.of(Kind.ASSIGNMENT, "a1", "job", "run")),
        ("agent-a1", KEYS.of(Kind.RUN, "job", "run")),
        ("agent-a1", KEYS.archive("job", "run")),
        ("agent-a1", KEYS.of(Kind.REPORT, "a2", "job", "run")),
        ("agent-a1", KEYS.of(Kind.PRESENCE, "a2")),
        ("agent-a1", KEYS.of(Kind.JOB, "job")),
        ("operator", KEYS.term),
        ("operator", KEYS.of(Kind.PRESENCE, "a1")),
        ("agent-a1", KEYS.access("a2")),
        ("viewer", KEYS.of(Kind.REQUEST, "r")),
    ],
)
async def test_what_a_role_mustnt_write(guarded: Scene, user: str, key: str) -> None:
    """... neither outright nor in a nested transaction, in whichever branch."""
    put = Put(key, b"{}")
    own = Compare(KEYS.of(Kind.PRESENCE, "a1"), Target.VERSION, 0)
    config = EtcdConfig(
        endpoints=guarded.world.etcd.endpoints, user=user, password=password_of(user)
    )
    async with EtcdClient(config) as client:
        for txn in (
            Txn((), (put,)),
            Txn((), (Txn((), (put,)),)),
            Txn((own,), (), (Txn((), (Txn((), (put,)),)),)),
        ):
            with pytest.raises(ClusterRefused, match="permission denied"):
                await client.txn(txn)
        if user == "agent-a1":
            for key in (KEYS.of(Kind.ASSIGNMENT, "a2") + "/", KEYS.access("a2")):
                with pytest.raises(ClusterRefused, match="permission denied"):
                    await client.range(Range(key))


async def test_nobody_gets_in_as_nobody(guarded: Scene) -> None:
    refused = await run_cli(*guarded.world.cluster_options, "status")
    assert refused.code == 5
    assert refused.err.count("\n") == 1


async def test_only_an_admin_changes_settings(guarded: Scene, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("settings: {resubmit_states: [failed]}\n")
    refused = await guarded.cli("apply", str(file), user="operator")
    assert refused.code == 5
    assert "permission" in refused.err
    changed = await guarded.cli("apply", str(file), user="admin")
    assert changed.code == 0, changed
    # As they are, anybody who applies may name them.
    same = await guarded.cli("apply", str(file), user="operator")
    assert (same.code, same.out) == (0, "1 unchanged\n"), same
    seen = await guarded.cli("settings", "show", "--json", user="viewer")
    assert '"failed"' in seen.out


async def test_who_may_see_the_cluster_needn_t_see_output(guarded: Scene) -> None:
    await guarded.apply(words={"run": {"exec": ["echo", "for", "some"]}})
    triggered = await guarded.cli("jobs", "trigger", "words", "--wait", user="operator")
    assert triggered.code == 0, triggered
    run = await guarded.run_ended("words")
    for user in ("viewer", "operator"):
        seen = await guarded.cli("runs", "logs", f"words/{run.id}", user=user)
        assert (seen.code, seen.out) == (0, "for some\n"), seen
    looks = (["status"], ["agents", "list"], ["agents", "show", "a1"], ["runs", "list", "words"])
    for looking in looks:
        seen = await guarded.cli(*looking, user="watcher")
        assert seen.code == 0, seen
    refused = await guarded.cli("runs", "logs", f"words/{run.id}", user="watcher")
    assert (refused.code, refused.out) == (5, ""), refused
    assert "permission" in refused.err
    await guarded.settle()


UNTOLD = "not told to this user"


async def findings(scene: Scene, user: str, code: int = 0) -> dict[str, dict[str, str]]:
    """The doctor's, by topic."""
    seen = await scene.cli("doctor", "--json", user=user)
    assert (seen.code, seen.err) == (code, ""), seen
    return {finding["topic"]: finding for finding in json.loads(seen.out)}


@pytest.mark.parametrize("user", ["operator", "viewer"])
async def test_a_member_that_tells_its_status_to_root_alone_is_well(
    guarded: Scene, user: str
) -> None:
    etcd = guarded.world.etcd
    (endpoint,) = (urlsplit(url).netloc for url in etcd.endpoints)
    found = await findings(guarded, user)
    assert found[f"etcd {endpoint}"]["level"] == "ok"
    assert found[f"etcd {endpoint}"]["text"] == f"version {etcd.binary.version}"
    assert (found["etcd size"]["level"], found["etcd size"]["text"]) == ("ok", UNTOLD)
    kept = int(found["etcd compaction"]["text"].partition(" ")[0].replace(",", ""))
    assert 0 < kept <= guarded.history.revision
    assert "etcd alarms" not in found
    seen = await guarded.cli("status", "--json", user=user)
    (member,) = json.loads(seen.out)["members"]
    assert 0 < member["revision"] <= guarded.history.revision
    assert (member["db_size_bytes"], member["leader_id"], member["alarms"]) == (None, None, [])
    seen = await guarded.cli("status", user=user)
    shown = " ".join(seen.out.split())
    assert f"etcd {endpoint}: {etcd.binary.version}, size {UNTOLD}, revision " in shown


@asynccontextmanager
async def alarm(scene: Scene) -> AsyncIterator[None]:
    """NOSPACE, without filling anything."""
    etcd = scene.world.etcd
    status = await etcd.call("/v3/maintenance/status", {})
    about = {"memberID": status["header"]["member_id"], "alarm": "NOSPACE"}
    await etcd.call("/v3/maintenance/alarm", {"action": "ACTIVATE", **about})
    yield
    await etcd.call("/v3/maintenance/alarm", {"action": "DEACTIVATE", **about})


async def test_a_scheduler_s_user_sees_etcd_and_its_alarms(guarded: Scene) -> None:
    (endpoint,) = (urlsplit(url).netloc for url in guarded.world.etcd.endpoints)
    of_endpoint = f'{{endpoint="{endpoint}"}}'
    told = await measured(guarded.world, "s1", f"etcsched_etcd_up{of_endpoint}")
    assert told[f"etcsched_etcd_alarms{of_endpoint}"] == 0
    assert not any(name.startswith("etcsched_etcd_db_size_bytes") for name in told)
    async with alarm(guarded):
        found = await findings(guarded, "viewer", code=1)
        assert (found["etcd alarms"]["level"], found["etcd alarms"]["text"]) == ("bad", "NOSPACE")
        seen = await guarded.cli("status", user="viewer")
        assert ", NOSPACE " in " ".join(seen.out.split())
        await said(guarded.world, "s1", f"etcd {endpoint} raises the alarm NOSPACE")
        await measured(guarded.world, "s1", f"etcsched_etcd_alarms{of_endpoint}")
