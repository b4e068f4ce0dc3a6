"""Histories as files: what is written is read again, and what is missing is noticed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from etcsched.audit.auditor import Auditor
from etcsched.audit.history import FORMAT_VERSION, Entry, FaultKind, Hole, WordKind
from etcsched.audit.recording import RecordingWriter, lines_of, read_recording
from etcsched.audit.verdict import Outcome
from etcsched.audit.words import Ledger, read_word
from etcsched.core.errors import UsageError
from tests.unit.audit.story import KEYS, Story


def written(entries: list[Entry]) -> list[bytes]:
    file = io.BytesIO()
    writer = RecordingWriter(file)
    for entry in entries:
        writer.take(entry)
    return file.getvalue().splitlines(keepends=True)


def whole() -> list[Entry]:
    story = Story().opened()
    story.done(60)
    story.fault(FaultKind.KILLED, 1, 2)
    story.commit((KEYS.prefix + "odd", b"\xff\xfe"))
    story.quiet(processes=(), leases=2, nodes=2, views=())
    story.verdict()
    return story.entries


def outcome(lines: list[bytes]) -> Outcome:
    auditor = Auditor()
    for entry in read_recording(lines, "file"):
        auditor.take(entry)
    return auditor.finish().outcome


def test_what_is_written_is_read() -> None:
    assert list(read_recording(written(whole()), "file")) == whole()


def test_values_can_be_read_by_people() -> None:
    assert any(b'"value":"{\\"v\\":1,' in line for line in written(whole()))


def test_every_line_that_is_missing_is_noticed() -> None:
    """Even where what is left makes sense."""
    lines = written(whole())
    for number in range(1, len(lines)):
        assert outcome(lines[:number] + lines[number + 1 :]) is Outcome.INVALID, lines[number]


def test_a_torn_end_is_noticed() -> None:
    lines = written(whole())
    *_, last = read_recording([*lines[:-1], lines[-1][:-5]], "file")
    assert isinstance(last, Hole)


def test_what_is_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = written(whole())
    assert list(lines_of(io.BytesIO(b"".join(lines)))) == lines
    with Path("/dev/zero").open("rb") as zeros, pytest.raises(UsageError, match="not an entry"):
        list(read_recording(lines_of(zeros), "file"))
    monkeypatch.setattr("etcsched.audit.recording.MAX_LINE_BYTES", 1 << 20)
    endless = io.BytesIO(b"{" + b" " * (2 << 20))
    with pytest.raises(UsageError, match="file:1: has more than"):
        list(read_recording(lines_of(endless), "file"))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "file: is empty"),
        ([b"nonsense\n"], "file:1: not an entry"),
        ([b'{"entry":"oddity"}\n'], "file:1: not an entry"),
        ([b'{"entry":"hole","at_ms":1,"reason":"x"}\n'], "file:1: a recording begins"),
        (
            [b'{"entry":"begun","at_ms":1,"prefix":"/x/","format":%d}\n' % (FORMAT_VERSION + 1)],
            "file: has format 2",
        ),
    ],
)
def test_what_is_no_recording_is_refused(lines: list[bytes], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(read_recording(lines, "file"))


def test_words_of_processes(tmp_path: Path) -> None:
    word = read_word("start job r 7 12.345678 2 a1")
    assert word is not None
    assert (word.kind, word.token, word.at_ms, word.attempt, word.agent) == (
        WordKind.START, 7, 12345, 2, "a1",
    )  # fmt: skip
    assert read_word("end job r 7 12.3") is not None
    for line in ("", "start", "start job r x 1", "nonsense job r 7 1"):
        assert read_word(line) is None
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    assert ledger.news() == []
    path.write_text("start job r 7 1\nbeat job r")
    assert [word.kind for word in ledger.news()] == [WordKind.START]
    with path.open("a") as file:
        file.write(" 7 2\n")
    assert [word.kind for word in ledger.news()] == [WordKind.BEAT]
