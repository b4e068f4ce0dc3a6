from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcsched.agent.supervisor.messages import (
    FRAME_MAX_BYTES,
    Acknowledge,
    BrokenFrame,
    DeadlineMoved,
    Ended,
    EndReason,
    FrameReader,
    Hello,
    Inventory,
    Kill,
    MoveDeadline,
    Report,
    Request,
    Running,
    Shutdown,
    Start,
    Started,
    StartFailed,
    encode_frame,
    report_reader,
    request_reader,
)

START = Start(
    attempt_id="job/run/7",
    argv=("echo", "ü"),
    env={"A": "b"},
    cwd="/",
    output_path="/o",
    output_cap_bytes=9,
    kill_grace_s=1.5,
    deadline_mono_s=2.5,
)
REQUESTS: list[Request] = [
    Hello(agent_incarnation="i"),
    START,
    Kill(attempt_id="a", reason=EndReason.CANCELLED, grace_s=1.0),
    MoveDeadline(deadline_mono_s=None, single={"a": 3.0}, sequence=4),
    Acknowledge(attempt_id="a"),
    Shutdown(kill=True),
]
ENDED = Ended(attempt_id="a", reason=EndReason.FENCED, started_ms=1, ended_ms=2, signal=9)
FAILED = StartFailed(attempt_id="b", reason="r", failed_ms=3)
REPORTS: list[Report] = [
    Inventory(
        supervisor_incarnation="s",
        running=(Running(attempt_id="c", pid=5, started_ms=1, deadline_mono_s=float("inf")),),
        outcomes=(ENDED, FAILED),
    ),
    Started(attempt_id="a", pid=1, started_ms=2),
    FAILED,
    ENDED,
    DeadlineMoved(sequence=3),
]


@given(st.lists(st.integers(1, 40), min_size=1))
def test_frames_survive_any_cut(cuts: list[int]) -> None:
    for reader, messages in ((request_reader(), REQUESTS), (report_reader(), REPORTS)):
        data = b"".join(encode_frame(message) for message in messages)
        seen: list[object] = []
        for turn in range(len(data)):
            size = cuts[turn % len(cuts)]
            seen += reader.feed(data[:size])
            data = data[size:]
        assert seen == messages


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", FRAME_MAX_BYTES + 1),
        struct.pack(">I", 3) + b"\xc1\xc1\xc1",
        encode_frame(REPORTS[1]),
    ],
)
def test_what_makes_no_sense_breaks_the_connection(data: bytes) -> None:
    with pytest.raises(BrokenFrame):
        list(request_reader().feed(data))


def test_what_stood_before_the_nonsense_is_kept() -> None:
    messages = request_reader().feed(encode_frame(START) + struct.pack(">I", 1) + b"\xc1")
    assert next(messages) == START
    with pytest.raises(BrokenFrame):
        next(messages)


def test_fields_of_a_later_version_are_ignored() -> None:
    class Newer(msgspec.Struct, tag="shutdown"):
        kill: bool
        gently: int

    reader: FrameReader[Request] = request_reader()
    assert list(reader.feed(encode_frame(Newer(True, 3)))) == [Shutdown(kill=True)]
