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
from etcsched.etcd.admin import Access, EtcdAdmin
from etcsched.etcd.binaries import EtcdBinary
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Compare, Put, Range, Target, Txn, range_end_of
from tests.e2e.scene import Scene
from tests.e2e.spoken import measured, said
from tests.support.etcd_cluster import EtcdCluster
from tests.support.local_world import Finished

pytestmark = pytest.mark.asyncio(loop_scope="session")
KEYS = Keys()
USERS = ("scheduler", "agent-a1", "operator", "admin", "viewer", "watcher")

Grants = list[tuple[Access, str, str | None]]


def prefix(key: str, access: Access = Access.READ) -> tuple[Access, str, str | None]:
    return access, key, range_end_of(key)


def grants_of_agent(agent: str) -> Grants:
    return [
        (Access.READ, KEYS.prefix, None),
        prefix(KEYS.of(Kind.JOB)),
        prefix(KEYS.of(Kind.PAUSE)),
        (Access.READ, KEYS.of(Kind.DRAIN, agent), None),
        (Access.READ, KEYS.of(Kind.SEAT, agent), None),
        (Access.READ, KEYS.of(Kind.LIVE, agent), None),
        prefix(KEYS.of(Kind.ASSIGNMENT, agent) + "/"),
        prefix(KEYS.of(Kind.ORDER, agent) + "/"),
        (Access.READ_WRITE, KEYS.of(Kind.PRESENCE, agent), None),
        (Access.READ_WRITE, KEYS.access(agent), None),
        prefix(KEYS.of(Kind.REPORT, agent) + "/", Access.READ_WRITE),
    ]


GRANTS: dict[str, Grants] = {
    "scheduler": [prefix(KEYS.prefix, Access.READ_WRITE)],
    "agent-a1": grants_of_agent("a1"),
    "operator": [
        prefix(KEYS.prefix),
        prefix(KEYS.of(Kind.JOB), Access.READ_WRITE),
        prefix(KEYS.of(Kind.CALENDAR), Access.READ_WRITE),
        prefix(KEYS.of(Kind.CONFLICT), Access.READ_WRITE),
        prefix(KEYS.of(Kind.PAUSE), Access.READ_WRITE),
        prefix(KEYS.of(Kind.DRAIN), Access.READ_WRITE),
        (Access.READ_WRITE, KEYS.of(Kind.EDITED), None),
        prefix(KEYS.prefix + "requests/", Access.READ_WRITE),
    ],
    "admin": [
        prefix(KEYS.prefix),
        prefix(KEYS.prefix + "spec/", Access.READ_WRITE),
        prefix(KEYS.prefix + "requests/", Access.READ_WRITE),
    ],
    "viewer": [prefix(KEYS.prefix)],
    # Everything but the access to output, which comes first.
    "watcher": [(Access.READ, KEYS.archive_prefix, range_end_of(KEYS.prefix))],
}


def password_of(user: str) -> str:
    return f"{user}-password"


def login(user: str) -> tuple[str, ...]:
    return (f"--user={user}:{password_of(user)}",)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(
    etcd_with_roles: EtcdBinary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    directory = tmp_path_factory.mktemp("roles")
    etcd = EtcdCluster(etcd_with_roles, directory, authentication=True)
    await etcd.start()
    async with EtcdClient(EtcdConfig(**etcd.config_kwargs)) as client:
        admin = EtcdAdmin(client)
        for user in USERS:
            await admin.role_add(user)
            for access, key, end in GRANTS[user]:
                await admin.role_grant_permission(user, access, key, end)
            await admin.user_add(user, password_of(user))
            await admin.user_grant_role(user, user)
    scene = Scene(directory, etcd)
    scene.world.add_scheduler("s1", "--listen=127.0.0.1:0", login=login("scheduler"))
    scene.world.add_agent("a1", login=login("agent-a1"))
    await scene.open()
    yield scene
    await scene.close()


async def cli(scene: Scene, user: str, *arguments: str) -> Finished:
    return await scene.cli(*login(user), *arguments)


async def test_the_full_path_with_users_of_their_own(guarded: Scene, tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    beats = guarded.beats("beats=2")["exec"]
    file.write_text(f"jobs:\n  one:\n    run: {{exec: {beats}}}\n    state: ad_hoc_active\n")
    with file.open("a") as more:
        more.write("  two: {run: {exec: [/bin/true]}, state: ad_hoc_active, calendars: [days]}\n")
        more.write("calendars: {days: {exclude: [2026-12-25]}}\nconflicts: {pair: [one, two]}\n")
    applied = await cli(guarded, "operator", "apply", str(file))
    assert applied.code == 0, applied
    triggered = await cli(guarded, "operator", "jobs", "trigger", "one", "--wait")
    assert triggered.code == 0, triggered
    (run,) = guarded.ended("one")
    assert run.state is RunState.COMPLETED
    for steering in (["agents", "drain", "a1"], ["agents", "undrain", "a1"], ["pause"], ["resume"]):
        done = await cli(guarded, "operator", *steering)
        assert done.code == 0, done
    for looking in (["status"], ["jobs", "list"], ["runs", "show", f"one/{run.id}"]):
        seen = await cli(guarded, "viewer", *looking)
        assert seen.code == 0, seen
    refused = await cli(guarded, "viewer", "jobs", "trigger", "one")
    assert refused.code == 5
    assert refused.err.startswith("etcsched: ")
    assert "permission" in refused.err
    assert not any("permission" in line for _, line in guarded.world.log)
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
    refused = await guarded.cli("status")
    assert refused.code == 5
    assert refused.err.count("\n") == 1


async def test_only_an_admin_changes_settings(guarded: Scene, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("settings: {resubmit_states: [failed]}\n")
    refused = await cli(guarded, "operator", "apply", str(file))
    assert refused.code == 5
    assert "permission" in refused.err
    changed = await cli(guarded, "admin", "apply", str(file))
    assert changed.code == 0, changed
    # As they are, anybody who applies may name them.
    same = await cli(guarded, "operator", "apply", str(file))
    assert (same.code, same.out) == (0, "1 unchanged\n"), same
    seen = await cli(guarded, "viewer", "settings", "show", "--json")
    assert '"failed"' in seen.out


async def test_who_may_see_the_cluster_needn_t_see_output(guarded: Scene) -> None:
    await guarded.apply(words={"run": {"exec": ["echo", "for", "some"]}})
    triggered = await cli(guarded, "operator", "jobs", "trigger", "words", "--wait")
    assert triggered.code == 0, triggered
    run = await guarded.run_ended("words")
    for user in ("viewer", "operator"):
        seen = await cli(guarded, user, "runs", "logs", f"words/{run.id}")
        assert (seen.code, seen.out) == (0, "for some\n"), seen
    for looking in (["status"], ["agents", "list"], ["runs", "list", "words"]):
        seen = await cli(guarded, "watcher", *looking)
        assert seen.code == 0, seen
    refused = await cli(guarded, "watcher", "runs", "logs", f"words/{run.id}")
    assert (refused.code, refused.out) == (5, ""), refused
    assert "permission" in refused.err
    await guarded.settle()


UNTOLD = "not told to this user"


async def findings(scene: Scene, user: str, code: int = 0) -> dict[str, dict[str, str]]:
    """The doctor's, by topic."""
    seen = await cli(scene, user, "doctor", "--json")
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
    seen = await cli(guarded, user, "status", "--json")
    (member,) = json.loads(seen.out)["members"]
    assert 0 < member["revision"] <= guarded.history.revision
    assert (member["db_size_bytes"], member["leader_id"], member["alarms"]) == (None, None, [])
    seen = await cli(guarded, user, "status")
    (line,) = [line for line in seen.out.splitlines() if line.startswith("etcd ")]
    assert f"{endpoint}: {etcd.binary.version}, size {UNTOLD}, revision " in line


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
        seen = await cli(guarded, "viewer", "status")
        assert ", NOSPACE" in seen.out
        await said(guarded.world, "s1", f"etcd {endpoint} raises the alarm NOSPACE")
        await measured(guarded.world, "s1", f"etcsched_etcd_alarms{of_endpoint}")
