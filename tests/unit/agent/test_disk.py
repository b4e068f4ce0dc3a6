"""What the agent keeps on disk."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from etcsched.agent import state_dir
from etcsched.agent.config import AgentConfig
from etcsched.agent.output_files import prune_output
from etcsched.agent.sessions import SessionKeeper
from etcsched.agent.spool import Spool
from etcsched.agent.state_dir import SavedSession, StateDir
from etcsched.core.errors import AgentIdInUse, UsageError
from etcsched.core.states import Outcome
from etcsched.core.times import utc_of
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from tests.unit.agent.script import attempt_id, report

DEADLINE_S = 10.0


class Answers:
    def __init__(self) -> None:
        self.on_disk: dict[str, bool] = {}
        self.heard = threading.Event()

    def __call__(self, attempt: str, on_disk: bool) -> None:
        self.on_disk[attempt] = on_disk
        self.heard.set()


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "a1")


def test_the_spool_gives_back_what_it_was_given_in_the_order_of_the_ends(state: StateDir) -> None:
    spool, answers = Spool(state.spool), Answers()
    later = report("r1", 100, outcome=Outcome.FAILED, ended_at=utc_of(2_000))
    earlier = report("r2", 101, outcome=Outcome.COMPLETED, ended_at=utc_of(1_000))
    dropped = report("r3", 102, outcome=Outcome.COMPLETED, ended_at=utc_of(1_000))
    for run, token, one in (("r1", 100, later), ("r2", 101, earlier), ("r3", 102, dropped)):
        spool.store(attempt_id(run, token), one, answers)
    spool.forget(attempt_id("r3", 102))
    spool.forget(attempt_id("never", 1))
    spool.close()
    assert set(answers.on_disk.values()) == {True}
    (state.spool / "broken.json").write_bytes(b"{")
    again = Spool(state.spool)
    assert again.read() == (earlier, later)
    assert {path.name for path in state.spool.iterdir()} == {
        "broken.bad",
        "job~r1~1~100.json",
        "job~r2~1~101.json",
    }
    again.close()


def test_a_disk_that_takes_nothing_is_said_to_and_leaves_no_half_file(state: StateDir) -> None:
    spool, answers = Spool(state.spool), Answers()
    (state.spool / "job~r1~1~100.json.new").mkdir()  # The name that the file is written under.
    spool.store(attempt_id(), report(outcome=Outcome.FAILED), answers)
    assert answers.heard.wait(DEADLINE_S)
    assert answers.on_disk == {attempt_id(): False}
    (state.spool / "job~r1~1~100.json.new").rmdir()
    spool.store(attempt_id(), report(outcome=Outcome.FAILED), answers)
    spool.close()
    assert answers.on_disk == {attempt_id(): True}


def test_a_state_directory_has_one_agent(state: StateDir) -> None:
    state.lock()
    with pytest.raises(AgentIdInUse, match=f"as process {os.getpid()}"):
        StateDir(state.path).lock()
    state.unlock()
    other = StateDir(state.path)
    other.lock()
    other.unlock()


def test_a_full_disk_costs_the_lock_only_the_process_id(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    state.lock()
    with pytest.raises(AgentIdInUse, match="on this host; stop it"):
        StateDir(state.path).lock()
    state.unlock()


def test_the_session_is_remembered(state: StateDir) -> None:
    assert state.read_session() is None
    saved = SavedSession(lease=7, incarnation="i1", ttl_s=10)
    state.write_session(saved)
    assert state.read_session() == saved
    state.forget_session()
    state.forget_session()
    assert state.read_session() is None


@pytest.mark.parametrize("lease", ["0", "-7", str(1 << 63), str(1 << 80), "7.5", '"7"'])
def test_a_session_whose_lease_can_be_none_counts_as_unreadable(
    state: StateDir, lease: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = state.path / "session"
    path.write_text(f'{{"lease":{lease},"incarnation":"i1","ttl_s":10}}')
    assert state.read_session() is None
    assert f"{path} can't be read, a new session is opened" in caplog.text


def test_a_place_is_one_directory_since_one_boot(
    state: StateDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = state.place
    assert StateDir(state.path).place == here
    copied = tmp_path / "copied"
    shutil.copytree(state.path, copied)
    assert StateDir(copied).place != here
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(state_dir, "_BOOT_ID", tmp_path / "boot_id")
    assert state.place != here


async def test_sessions_before_the_last_are_remembered(state: StateDir) -> None:
    """Starts in a row may each end before they have reported what was claimed before them."""
    state.write_session(SavedSession(lease=9, incarnation="i3", ttl_s=10, before=("i2", "i1")))
    etcd = EtcdClient(EtcdConfig(endpoints=("localhost:1",)))
    sessions = SessionKeeper(AgentConfig(id="a1"), etcd, state, lambda event: None)
    await etcd.close()
    assert sessions.past_incarnations == ("i3", "i2", "i1")


@pytest.mark.parametrize("nothing_runs", [True, False])
async def test_a_stop_before_etcd_answers_leaves_the_session_to_the_next_start(
    state: StateDir, nothing_runs: bool
) -> None:
    saved = SavedSession(lease=7, incarnation="i1", ttl_s=10)
    state.write_session(saved)
    etcd = EtcdClient(EtcdConfig(endpoints=("localhost:1",)))
    sessions = SessionKeeper(AgentConfig(id="a1"), etcd, state, lambda event: None)
    await sessions.leave(revoke=nothing_runs)
    await etcd.close()
    assert state.read_session() == (saved if nothing_runs else None)


def test_a_session_saved_without_its_place_is_read(state: StateDir) -> None:
    """By a version before this one."""
    (state.path / "session").write_text('{"lease":7,"incarnation":"i1","ttl_s":10}')
    assert state.read_session() == SavedSession(lease=7, incarnation="i1", ttl_s=10)


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"):
        StateDir(tmp_path / ("x" * 100))


class TestPruning:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Runs r0 (oldest) to r4, 4096 bytes each, written at 100 s, 200 s, ..."""
        for number in range(5):
            path = tmp_path / "job" / f"r{number}" / "1.log"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"x" * 4096)
            os.utime(path, (0, 100.0 * (number + 1)))
        return tmp_path

    @staticmethod
    def left(root: Path) -> list[str]:
        return sorted(path.name for path in (root / "job").iterdir()) if root.exists() else []

    def test_what_is_too_old_goes_with_its_directory(self, root: Path) -> None:
        pruned = prune_output(root, frozenset(), keep_s=250.0, keep_bytes=1 << 30, now_s=500.0)
        assert (pruned.files, pruned.size_bytes) == (2, 8192)
        assert self.left(root) == ["r2", "r3", "r4"]

    def test_the_oldest_go_until_the_rest_is_small_enough(self, root: Path) -> None:
        prune_output(root, frozenset(), keep_s=1e9, keep_bytes=2 * 4096, now_s=500.0)
        assert self.left(root) == ["r3", "r4"]

    def test_active_runs_are_left_alone(self, root: Path) -> None:
        prune_output(root, frozenset({"job/r0"}), keep_s=1.0, keep_bytes=0, now_s=1e9)
        assert self.left(root) == ["r0"]

    def test_the_root_stays(self, root: Path) -> None:
        prune_output(root, frozenset(), keep_s=1.0, keep_bytes=0, now_s=1e9)
        assert root.is_dir()
        assert not (root / "job").exists()


@pytest.mark.parametrize(("mode", "is_named"), [(0o750, False), (0o777, True)])
def test_a_directory_that_was_there_keeps_its_mode(
    tmp_path: Path, mode: int, is_named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "there"
    path.mkdir()
    path.chmod(mode)
    state = StateDir(path)
    assert path.stat().st_mode & 0o777 == mode
    assert state.supervisor.stat().st_mode & 0o777 == 0o700
    assert (str(path) in caplog.text) is is_named
