from __future__ import annotations

import os
from pathlib import Path

import pytest

from etcsched.agent.supervisor.messages import TAIL_MAX_BYTES
from etcsched.agent.supervisor.output import Output, end_of_file


def captured(path: Path, cap_bytes: int, data: bytes) -> Output:
    subject = Output(str(path), cap_bytes)
    for start in range(0, len(data), 10_000):
        os.write(subject.write_fd, data[start : start + 10_000])
        assert subject.pump()
    subject.finish()
    return subject


@pytest.mark.parametrize("size", [0, 1, 99_999, 100_000])
def test_up_to_the_cap_all_is_kept(tmp_path: Path, size: int) -> None:
    subject = captured(tmp_path / "o", 100_000, b"x" * size)
    assert (subject.total_bytes, subject.truncated) == (size, False)
    assert (tmp_path / "o").exists() == (size > 0)
    assert size == 0 or (tmp_path / "o").read_bytes() == b"x" * size
    assert subject.tail() == "x" * min(size, TAIL_MAX_BYTES)


@pytest.mark.parametrize("cap_bytes", [0, 1, 100, 5000, 50_000, 100_000])
def test_beyond_the_cap_the_file_has_exactly_the_cap(tmp_path: Path, cap_bytes: int) -> None:
    data = b"".join(b"%07d\n" % number for number in range(12_501))
    subject = captured(tmp_path / "o", cap_bytes, data)
    assert subject.truncated
    assert subject.tail().encode() == data[-TAIL_MAX_BYTES:]
    kept = (tmp_path / "o").read_bytes() if cap_bytes else b""
    assert len(kept) == cap_bytes
    if cap_bytes >= 50_000:
        head, _, end = kept.partition(b"\n[etcsched: output cut here")
        assert data.startswith(head)
        assert end.endswith(data[-TAIL_MAX_BYTES:])
    else:
        assert data.startswith(kept)


def test_what_is_left_in_the_pipe_is_taken_at_the_end(tmp_path: Path) -> None:
    subject = Output(str(tmp_path / "o"), 1000)
    os.write(subject.write_fd, b"late")
    subject.finish()
    assert (tmp_path / "o").read_bytes() == b"late"


def test_the_end_of_a_file_nobody_saw_end(tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(b"x" * 5000 + b"end")
    assert end_of_file(str(tmp_path / "o")) == "x" * (TAIL_MAX_BYTES - 3) + "end"
    assert end_of_file(str(tmp_path / "none")) == ""
