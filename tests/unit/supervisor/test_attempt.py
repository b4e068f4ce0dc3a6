"""When signals are due, over time that is only a number here."""

from __future__ import annotations

import itertools
import math
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcsched.agent.config import AgentConfig
from etcsched.agent.supervisor.attempt import Attempt, Stage, exit_and_signal
from etcsched.agent.supervisor.messages import EndReason, Start
from etcsched.core.outage import (
    POLLS_PER_ELECTION_TIMEOUT,
    OutageProof,
    Poll,
    Sight,
    election_timeout_of,
)
from etcsched.core.session import first_validity
from tests.support.jobs import job

KEEPALIVES_PER_TTL = 4
SIGTERM, SIGKILL = signal.SIGTERM, signal.SIGKILL


def attempt(
    *, deadline_s: float = 1000.0, grace_s: float = 10.0, timeout_s: float | None = None
) -> Attempt:
    start = Start(
        attempt_id="a",
        argv=("true",),
        env={},
        cwd="/",
        output_path="/dev/null",
        output_cap_bytes=0,
        kill_grace_s=grace_s,
        deadline_mono_s=deadline_s,
        timeout_s=timeout_s,
    )
    return Attempt(start, pid=1, started_ms=0, now_s=0.0)


def played(subject: Attempt) -> list[tuple[float, int]]:
    """Signals as they come due, up to the first SIGKILL."""
    seen: list[tuple[float, int]] = []
    while not seen or seen[-1][1] != SIGKILL:
        now_s = subject.next_due_s()
        assert now_s < math.inf
        number = subject.step(now_s)
        if number is not None:
            seen.append((now_s, number))
    return seen


@pytest.mark.parametrize(
    ("deadline_s", "grace_s", "expected"),
    [
        (100.0, 10.0, [(90.0, SIGTERM), (100.0, SIGKILL)]),
        (100.0, 80.0, [(75.0, SIGTERM), (100.0, SIGKILL)]),
        (100.0, 0.0, [(100.0, SIGKILL)]),
    ],
)
def test_fencing(deadline_s: float, grace_s: float, expected: list[tuple[float, int]]) -> None:
    subject = attempt(deadline_s=deadline_s, grace_s=grace_s)
    assert played(subject) == expected
    assert subject.ending is EndReason.FENCED


def test_a_quarter_of_what_remains_counts_from_the_last_move() -> None:
    subject = attempt(deadline_s=10.0, grace_s=60.0)
    subject.move_deadline(15.0, 3.0)
    assert played(subject) == [(12.0, SIGTERM), (15.0, SIGKILL)]


def test_an_outage_of_etcd_can_be_proven_before_a_job_is_told_to_stop() -> None:
    """With the default TTL and kill grace, and etcd's defaults: the last keepalive may be as old as
    the time between two, and the proof takes more than two election timeouts and two looks."""
    ttl_s = AgentConfig(id="a").session_ttl_s
    subject = attempt(grace_s=job().kill_grace_s)
    subject.move_deadline(first_validity(sent_s=0.0, ttl_s=ttl_s, raft_term=1).deadline_s, 0.1)
    timeout_s = election_timeout_of(2)
    proof = OutageProof(timeout_s)
    at_s = ttl_s / KEEPALIVES_PER_TTL
    while proof.polled(Poll(sent_s=at_s, done_s=at_s, sights={1: Sight.DOWN})) is None:
        at_s += timeout_s / POLLS_PER_ELECTION_TIMEOUT
    ((told_s, _), *_) = played(subject)
    assert told_s - at_s > 0.5


def test_a_deadline_may_be_moved_back() -> None:
    subject = attempt(deadline_s=100.0)
    subject.move_deadline(20.0, 10.0)
    assert played(subject) == [(17.5, SIGTERM), (20.0, SIGKILL)]


def test_a_fenced_attempt_is_saved_by_no_move() -> None:
    subject = attempt(deadline_s=100.0)
    assert subject.step(90.0) == SIGTERM
    subject.move_deadline(1000.0, 91.0)
    assert played(subject) == [(100.0, SIGKILL)]


@pytest.mark.parametrize("reason", [EndReason.FENCED, EndReason.CANCELLED, EndReason.TIMED_OUT])
def test_a_kill_has_its_whole_grace_while_the_deadline_moves_on(reason: EndReason) -> None:
    """The agent's own stop carries the reason of a deadline, though none came near."""
    subject = attempt(deadline_s=8.0)
    assert subject.kill(reason, 15.0, 1.0) == SIGTERM
    subject.move_deadline(11.0, 3.0)
    subject.move_deadline(19.0, 11.0)
    assert played(subject) == [(16.0, SIGKILL)]


def test_a_timeout_has_its_grace_but_never_beyond_the_deadline() -> None:
    assert played(attempt(timeout_s=50.0)) == [(50.0, SIGTERM), (60.0, SIGKILL)]
    subject = attempt(timeout_s=50.0, deadline_s=64.0)
    assert subject.step(50.0) == SIGTERM
    subject.move_deadline(55.0, 51.0)
    assert played(subject) == [(55.0, SIGKILL)]
    assert subject.ending is EndReason.TIMED_OUT


def test_of_two_kills_the_first_reason_and_the_earlier_sigkill_stand() -> None:
    subject = attempt()
    assert subject.kill(EndReason.CANCELLED, 30.0, 5.0) == SIGTERM
    assert subject.kill(EndReason.TIMED_OUT, 10.0, 6.0) is None
    assert subject.kill(EndReason.TIMED_OUT, 60.0, 7.0) is None
    assert played(subject) == [(16.0, SIGKILL)]
    assert subject.ending is EndReason.CANCELLED


def test_sigkill_is_repeated_and_backs_off() -> None:
    subject = attempt()
    assert subject.kill(EndReason.CANCELLED, 0.0, 5.0) == SIGKILL
    times = [5.0]
    for _ in range(12):
        times.append(subject.next_due_s())
        assert subject.step(times[-1]) == SIGKILL
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == pytest.approx(sorted(gaps))
    assert gaps[0] < 0.01
    assert gaps[-1] == pytest.approx(1.0)
    subject.move_deadline(0.0, times[-1])
    assert subject.next_due_s() > times[-1]


@pytest.mark.parametrize("deadline_s", [8.0, math.inf])
def test_what_is_being_killed_tells_its_deadline(deadline_s: float) -> None:
    """None at all is that of a process which runs on without its agent."""
    subject = attempt(deadline_s=deadline_s)
    assert subject.kill(EndReason.FENCED, 0.0, 5.0) == SIGKILL
    assert subject.running().deadline_mono_s == deadline_s
    while subject.next_due_s() < 20.0:
        before_s = subject.next_due_s()
        assert subject.step(before_s) == SIGKILL
        assert subject.next_due_s() > before_s
    assert subject.running().deadline_mono_s == deadline_s


def test_a_main_process_that_ends_asks_the_rest_to_stop_once() -> None:
    subject = attempt()
    assert subject.main_ended(0, 5.0)
    assert played(subject) == [(15.0, SIGKILL)]
    assert subject.ending is EndReason.EXITED
    cancelled = attempt()
    cancelled.kill(EndReason.CANCELLED, 10.0, 1.0)
    assert not cancelled.main_ended(0, 2.0)
    assert played(cancelled) == [(11.0, SIGKILL)]


def test_wait_statuses() -> None:
    assert exit_and_signal(7 << 8) == (7, None)
    assert exit_and_signal(SIGKILL) == (None, SIGKILL)
    assert exit_and_signal(signal.SIGSEGV | 0x80) == (None, signal.SIGSEGV)


@given(
    deadline_s=st.floats(0.1, 100),
    grace_s=st.floats(0, 100),
    timeout_s=st.none() | st.floats(0, 200),
    moves=st.lists(st.tuples(st.floats(0, 5), st.floats(-5, 20)), max_size=8),
    kill_after=st.none() | st.integers(0, 8),
    reason=st.sampled_from((EndReason.CANCELLED, EndReason.FENCED)),
)
def test_no_attempt_outlives_its_deadline(
    deadline_s: float,
    grace_s: float,
    timeout_s: float | None,
    moves: list[tuple[float, float]],
    kill_after: int | None,
    reason: EndReason,
) -> None:
    """Whatever is asked for, SIGKILL comes by the last deadline that was given in time."""
    subject = attempt(deadline_s=deadline_s, grace_s=grace_s, timeout_s=timeout_s)
    now_s, bound_s = 0.0, deadline_s
    for turn, (wait_s, ahead_s) in enumerate(moves):
        until_s = now_s + wait_s
        while subject.stage is not Stage.KILLING and subject.next_due_s() <= until_s:
            now_s = max(now_s, subject.next_due_s())
            subject.step(now_s)
        if subject.stage is Stage.KILLING:
            break
        now_s = until_s
        if turn == kill_after:
            subject.kill(reason, grace_s, now_s)
        subject.move_deadline(now_s + ahead_s, now_s)
        if not subject.is_fenced:
            bound_s = now_s + max(0.0, ahead_s)
    while subject.stage is not Stage.KILLING:
        now_s = max(now_s, subject.next_due_s())
        subject.step(now_s)
    assert now_s <= bound_s + 1e-9
