from __future__ import annotations

import os
from pathlib import Path

import pytest

from etcsched.agent.supervisor import journal
from etcsched.agent.supervisor.journal import Began, Forgotten, Journal, Opened, Record, read_past
from etcsched.agent.supervisor.messages import Ended, EndReason, StartFailed

OPENED = Opened(supervisor_incarnation="s1")


def began(attempt_id: str) -> Began:
    return Began(attempt_id=attempt_id, pid=1, started_ms=2, output_path="/o")


def ended(attempt_id: str) -> Ended:
    return Ended(attempt_id=attempt_id, reason=EndReason.EXITED, started_ms=2, ended_ms=3)


def written(directory: Path, *records: Record) -> Journal:
    subject = Journal(directory, OPENED, lambda: ())
    for record in records:
        subject.add(record)
    assert subject.flush() is None
    return subject


def test_the_next_supervisor_reads_what_is_not_acknowledged(tmp_path: Path) -> None:
    failed = StartFailed(attempt_id="d", reason="no", failed_ms=1)
    written(tmp_path, began("a"), began("b"), ended("b"), began("c"), ended("c"), failed)
    subject = read_past(tmp_path)
    assert subject.opened == (OPENED,)
    assert subject.unfinished == (began("a"),)
    assert subject.outcomes == (ended("b"), ended("c"), failed)


def test_what_is_acknowledged_is_forgotten(tmp_path: Path) -> None:
    written(tmp_path, began("a"), ended("a"), Forgotten(attempt_id="a"))
    assert read_past(tmp_path).outcomes == ()


def test_a_directory_without_past(tmp_path: Path) -> None:
    assert read_past(tmp_path) == journal.Past()


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_record_cut_short_costs_only_itself(tmp_path: Path, cut: int) -> None:
    written(tmp_path, began("a"), began("b"))
    path = tmp_path / journal.FILE_NAME
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_past(tmp_path).unfinished == (began("a"),)


def test_nonsense_costs_only_what_follows_it(tmp_path: Path) -> None:
    written(tmp_path, began("a"))
    with (tmp_path / journal.FILE_NAME).open("ab") as file:
        file.write(b"\0\0\0\1\xc1")
    assert read_past(tmp_path).unfinished == (began("a"),)


def test_a_long_journal_is_rewritten_to_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "REWRITE_ABOVE_BYTES", 1000)
    subject = Journal(tmp_path, OPENED, lambda: (began("running"), ended("waiting")))
    for number in range(200):
        subject.add(began(f"a{number}"))
        subject.add(Forgotten(attempt_id=f"a{number}"))
        assert subject.flush() is None
        assert (tmp_path / journal.FILE_NAME).stat().st_size < 2000
    past = read_past(tmp_path)
    assert past.opened == (OPENED,)
    assert past.unfinished == (began("running"),)
    assert past.outcomes == (ended("waiting"),)


def test_a_failing_disk_is_reported_and_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current: list[Record] = []
    subject = Journal(tmp_path, OPENED, lambda: current)
    real = os.write

    def full(fd: int, data: memoryview) -> int:
        if len(data) > 10:
            return real(fd, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    current.append(began("a"))
    subject.add(began("a"))
    assert subject.flush() == f"{tmp_path / journal.FILE_NAME}: No space left on device"
    assert subject.flush() is not None
    monkeypatch.setattr(os, "write", real)
    assert subject.flush() is None
    assert read_past(tmp_path).unfinished == (began("a"),)


def test_a_disk_that_was_full_at_the_start_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        subject = Journal(tmp_path, OPENED, lambda: (began("a"),))
        assert subject.flush() == f"{tmp_path / journal.FILE_NAME}: No space left on device"
    subject.add(began("a"))
    assert subject.flush() is None
    past = read_past(tmp_path)
    assert (past.opened, past.unfinished) == ((OPENED,), (began("a"),))
