"""What files hold is bounded, and nothing is waited for."""

from __future__ import annotations

import io
import os
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from etcsched.files import read_bytes, read_text
from etcsched.scheduler.config import SchedulerConfig


def why_not(name: str | Path, most_bytes: int = 8) -> str:
    with pytest.raises(OSError) as refusal:
        read_text(name, most_bytes)
    return refusal.value.strerror or ""


def test_up_to_the_bound(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\xef\xbb\xbfabcde")
    assert read_text(file, 8) == "abcde"
    assert why_not(file, 7) == "it has more than 7B"
    assert why_not("/dev/zero", 1 << 20) == "it has more than 1MiB"
    assert read_bytes("/dev/null", 8) == b""


def test_what_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a\nb\xff")
    assert why_not(file) == "it isn't text in UTF-8 (line 2)"
    assert why_not(tmp_path) == "Is a directory"
    assert why_not(tmp_path / "none") == "No such file or directory"


def test_standard_input_is_bounded_and_text_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, why in ((b"\xff", "it isn't text in UTF-8 (line 1)"), (b"9" * 9, "it has more")):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(given)))
        assert why_not("-").startswith(why)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert why_not(pipe) == "it is a pipe, and nobody writes to it"


def test_a_pipe_is_read_to_its_end() -> None:
    """As a shell's ``<(...)`` gives it: what its writer hasn't written yet is waited for."""
    reader, writer = os.pipe()
    size = 4 << 20  # More than a pipe holds.

    def write() -> None:
        with open(writer, "wb") as file:
            file.write(b"x" * size)

    thread = Thread(target=write)
    thread.start()
    try:
        assert len(read_bytes(f"/dev/fd/{reader}", size)) == size
    finally:
        os.close(reader)
        thread.join()


@pytest.mark.parametrize(
    ("uid", "expected"),
    [(0, "/var/lib/etcsched/scheduler/s1"), (1000, "/home/eva/state/etcsched/scheduler/s1")],
)
def test_where_a_node_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch, uid: int, expected: str
) -> None:
    """Also a scheduler that wasn't told: else a restored etcd would go unnoticed."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/eva/state")
    assert str(SchedulerConfig(node="s1").directory) == expected
    assert str(SchedulerConfig(node="s1", state_dir=Path("x")).directory) == "x"
