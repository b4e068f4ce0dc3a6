"""``etcsched audit``: from a file, and live; what it shows and how it ends."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from etcsched.audit.history import Ended
from etcsched.audit.recorder import Recorder
from etcsched.audit.recording import RecordingWriter
from etcsched.core.errors import ClusterUnreachable
from etcsched.core.records import Drain, Kind
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Delete, Put, Range, RangeResult, Txn
from etcsched.operator import patience as operator_patience
from etcsched.testing.model_etcd import ModelEtcd
from etcsched_cli import audit
from tests.cli.console import NOW, Console
from tests.cli.test_real_etcd import etcsched
from tests.conftest import StartEtcd
from tests.unit.audit.story import Story, tick


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(tmp_path)


def recorded(directory: Path, story: Story, *, lacks: int | None = None) -> str:
    """``lacks``: the number of an entry that isn't there."""
    story.tell(Ended(at_ms=story.now_ms, revision=story.revision))
    entries = [entry for number, entry in enumerate(story.entries) if number != lacks]
    path = directory / "history.jsonl"
    with path.open("wb") as file:
        writer = RecordingWriter(file)
        for entry in entries:
            writer.take(entry)
    return str(path)


def orderly() -> Story:
    story = Story().opened()
    story.done(60)
    return story


def test_a_clean_recording(console: Console) -> None:
    shown = console.ok("audit", recorded(console.home, orderly()))
    assert "I1   each due tick became one run or one record            ok" in shown
    assert "1 start, 100 % within 10 ms; worst 10 ms (job/20261122T120100Z)" in shown
    assert shown.splitlines()[-1] == "verdict   as promised"
    narrow = console.ok("audit", recorded(console.home, orderly()), columns=80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.splitlines()[0].endswith("CHECKED  VIOLATED  NOT JUDGED")
    assert "not shown" not in narrow


def test_a_recording_with_violations(console: Console) -> None:
    story = orderly()
    story.through(150)
    path = recorded(console.home, story)
    result = console.run("audit", path)
    assert result.exit_code == 1
    *_, verdict, violation = result.stdout.splitlines()
    assert verdict == "verdict   NOT as promised"
    assert violation.startswith("I1 at revision 12: job, due 2026-11-22T12:02:00.000Z: lost")
    told = console.run_json(1, "audit", path)
    assert told["outcome"] == "violated"
    assert told["violations"][0]["invariant"] == "I1"
    assert told["violations"][0]["evidence"]
    assert [row["invariant"] for row in told["invariants"]] == [f"I{n}" for n in range(1, 17)]


def test_a_recording_with_a_hole(console: Console) -> None:
    result = console.run("audit", recorded(console.home, orderly(), lacks=7))
    assert result.exit_code == 5
    assert "can't tell: something is missing" in result.stdout
    _, _, told = result.stdout.partition("verdict")
    why, _, accused = told.partition("\nperhaps only since that is missing:\n")
    assert why.endswith(" and nothing was recorded")
    assert accused.startswith("I")


def test_bounds_are_options(console: Console) -> None:
    story = Story().opened()
    story.now_s = 61.5
    token = story.created(tick(60))
    story.claimed(tick(60), token)
    story.ran(tick(60), token)
    path = recorded(console.home, story)
    assert console.run("audit", path).exit_code == 1
    assert "worst 1500 ms" in console.ok("audit", path, "--lateness", "2s")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name a recording, or say --live"),
        (("x", "--live"), "name a recording, or say --live"),
        (("x", "--for", "1s"), "--for and --record go with --live"),
        (("--live", "--for", "soon"), "--for"),
        (("--live", "--lateness", "x"), "--lateness"),
        (("none.jsonl",), "none.jsonl: No such file"),
    ],
)
def test_what_makes_no_sense(console: Console, arguments: tuple[str, ...], words: str) -> None:
    assert words in console.fails(2, "audit", *arguments)


def test_nothing_is_there_to_follow(console: Console) -> None:
    assert "is --prefix right?" in console.fails(4, "audit", "--live", "--for", "0s")


def test_a_cluster_out_of_reach(console: Console) -> None:
    console.is_reachable = False
    console.fails(3, "audit", "--live", "--for", "0s")


def test_live_from_the_first_revision_and_recorded(console: Console) -> None:
    console.store.txn(Txn((), (Put(Keys().of(Kind.DRAIN, "a"), b"{}"),)))
    path = console.home / "kept.jsonl"
    shown = console.ok("audit", "--live", "--for", "0s", "--record", str(path))
    assert "judged   revision 1 through 2" in shown
    assert "no job's own word is recorded" in shown
    assert console.json("audit", str(path))["outcome"] == "clean"
    assert "is there already" in console.fails(
        2, "audit", "--live", "--for", "0s", "--record", str(path)
    )


def test_without_a_terminal_the_verdict_is_all(console: Console) -> None:
    console.store.txn(Txn((), (Put(Keys().of(Kind.DRAIN, "a"), b"{}"),)))
    shown = console.ok("audit", "--live", "--for", "1s")
    assert shown.count("PROMISE") == 1
    assert "judged through" not in shown


def test_an_absence_of_etcd_is_told_once_and_outlasted(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.store.txn(Txn((), (Put(Keys().of(Kind.DRAIN, "a"), b"{}"),)))
    monkeypatch.setattr(operator_patience, "_LOOK_EVERY_S", 0.001)
    ranges = ModelEtcd.range
    looks, is_away = 0, False
    followed, failed, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def range_(etcd: ModelEtcd, request: Range, **limits: float) -> RangeResult:
        if is_away:
            failed.set()
            raise ClusterUnreachable("etcd can't be reached: a: gone")
        if failed.is_set():
            answered.set()
        if request.count_only:  # The recorder begins by this.
            followed.set()
        return await ranges(etcd, request)

    async def pause(stopped: asyncio.Event, _end_s: float | None) -> None:
        nonlocal looks, is_away
        looks += 1
        is_away = looks == 2
        async with asyncio.timeout(30.0):
            await (followed, failed, answered)[looks - 1].wait()
        if looks == 3:
            stopped.set()

    monkeypatch.setattr(ModelEtcd, "range", range_)
    monkeypatch.setattr(audit, "_pause", pause)
    result = console.run("audit", "--live")
    assert (result.exit_code, result.stderr.splitlines()) == (
        0,
        [
            "etcsched: etcd can't be reached: a: gone; still waiting",
            "etcsched: etcd can be reached again; still waiting",
        ],
    )


def test_the_verdict_comes_though_etcd_is_away_at_the_end(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.store.txn(Txn((), (Put(Keys().of(Kind.DRAIN, "a"), b"{}"),)))
    catch_up = Recorder.catch_up

    async def goes_away(recorder: Recorder) -> int:
        async with asyncio.timeout(30.0):
            await recorder.began.wait()
        is_away.set()
        return await catch_up(recorder)

    ranges, is_away = ModelEtcd.range, asyncio.Event()

    async def range_(etcd: ModelEtcd, request: Range, **limits: float) -> RangeResult:
        if is_away.is_set():
            raise ClusterUnreachable("etcd can't be reached: a: gone")
        return await ranges(etcd, request)

    monkeypatch.setattr(Recorder, "catch_up", goes_away)
    monkeypatch.setattr(ModelEtcd, "range", range_)
    result = console.run("audit", "--live", "--for", "0s")
    assert (result.exit_code, result.stderr) == (
        0,
        "etcsched: etcd can't be reached: a: gone; judged is what was told before\n",
    )
    assert "revision 1 through 2" in result.stdout


@pytest.mark.etcd
async def test_live_on_a_real_etcd_whose_history_is_compacted(
    start_etcd: StartEtcd, tmp_path: Path
) -> None:
    """It judges from the oldest revision that is left, and goes on to what comes."""
    etcd, keys, drain = await start_etcd(), Keys(), encode(Drain(agent="a", since=NOW))
    client = EtcdClient(EtcdConfig(**etcd.config_kwargs))
    path = tmp_path / "kept.jsonl"
    live = (f"--endpoints={','.join(etcd.endpoints)}", "audit", "--live", "--json")
    try:
        for name in ("a", "b", "c"):
            await client.txn(Txn((), (Put(keys.of(Kind.DRAIN, name), drain),)))
        await client.txn(Txn((), (Delete(keys.of(Kind.DRAIN, "a")),)))
        await client.compact(3)
        following = asyncio.create_task(etcsched(tmp_path, *live, "--for=3s", f"--record={path}"))
        await asyncio.to_thread(wait_for, path)
        await client.txn(Txn((), (Delete(keys.of(Kind.DRAIN, "b")),)))
        code, output, errors = await following
        assert (code, errors) == (0, "")
        told = json.loads(output)
        assert (told["from_revision"], told["through_revision"]) == (4, 6)
        code, output, _ = await etcsched(tmp_path, "audit", str(path), "--json")
        assert (code, json.loads(output)["through_revision"]) == (0, 6)
    finally:
        await client.close()


def wait_for(path: Path) -> None:
    give_up_s = time.monotonic() + 30.0
    while not path.exists():
        assert time.monotonic() < give_up_s
        time.sleep(0.02)
