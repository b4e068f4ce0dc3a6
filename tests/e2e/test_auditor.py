"""The judge is judged: each planted violation makes it complain, and an orderly history doesn't."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from etcsched.core.records import (
    Assignment,
    Candidate,
    ConflictGroup,
    Drain,
    Job,
    Kind,
    Noop,
    Pause,
    PauseInterval,
    Presence,
    Record,
    Report,
    Run,
    ScheduleVersion,
    StartSeen,
    Term,
    Transition,
    Watermark,
)
from etcsched.core.states import JobState, Origin, RunState
from etcsched.core.times import utc_of
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType, KeyValue, WatchEvent
from tests.e2e.auditor import Auditor

AT = utc_of(1_700_000_000_000)
LATER = utc_of(1_700_000_001_000)
KEYS = Keys()
JOB = Job(name="job", run=Noop(), versions=(ScheduleVersion(since=AT),))
ASSIGNED = (RunState.ASSIGNED,)
DONE = (RunState.ASSIGNED, RunState.COMPLETED)


class Story:
    """Writes records one revision after the other, and shows each to the auditor."""

    def __init__(self) -> None:
        self.auditor = Auditor(KEYS)
        self.revision = 1
        self._now: dict[str, KeyValue] = {}

    def put(self, *records: tuple[str, Record]) -> int:
        return self._show([(key, encode(record)) for key, record in records])

    def delete(self, *keys: str) -> int:
        return self._show([(key, None) for key in keys])

    def change(self, puts: list[tuple[str, Record]], deletes: list[str]) -> int:
        return self._show([*((k, encode(r)) for k, r in puts), *((k, None) for k in deletes)])

    def _show(self, changes: list[tuple[str, bytes | None]]) -> int:
        self.revision += 1
        events = []
        for key, value in changes:
            old = self._now.get(key)
            kv = KeyValue(
                key=key,
                value=value or b"",
                create_revision=old.create_revision if old else self.revision,
                mod_revision=self.revision,
                version=old.version + 1 if old else 1,
                lease=0,
            )
            type_ = EventType.DELETE if value is None else EventType.PUT
            events.append(WatchEvent(type=type_, kv=kv, prev=old))
        self.auditor.judge(self.revision, events, self._now)
        for event in events:
            if event.type is EventType.PUT:
                self._now[event.kv.key] = event.kv
            else:
                del self._now[event.kv.key]
        return self.revision

    # --- what happens in an orderly cluster

    def led(self, number: int = 1) -> None:
        lease = f"{number:x}"
        candidate = Candidate(node=f"s{number}", host="h", pid=1, since=AT, clock=AT, version="1")
        token = self.put((KEYS.of(Kind.ELECTION, lease), candidate))
        term = Term(number=number, leader=f"s{number}", election_key=lease, token=token, since=AT)
        self.put((KEYS.term, term))

    def staffed(self, agent: str = "a", slots: int = 1) -> None:
        presence = Presence(
            agent=agent, incarnation=agent, supervisor="s", slots=slots,
            host="h", pid=1, since=AT, clock=AT, version="1",
        )  # fmt: skip
        self.put((KEYS.of(Kind.PRESENCE, agent), presence), (KEYS.of(Kind.JOB, "job"), JOB))

    def created(self, *, run: str = "r", agent: str = "a", term: int = 1) -> int:
        return self.put(
            (KEYS.of(Kind.RUN, "job", run), a_run(ASSIGNED, run=run, term=term)),
            (KEYS.of(Kind.ASSIGNMENT, agent, "job", run), assignment(agent, run=run, term=term)),
        )

    def claimed(self, token: int, *, run: str = "r") -> None:
        report = Report(
            job="job", run=run, attempt=1, token=token, incarnation="a", supervisor="s",
            claimed_at=AT,
        )  # fmt: skip
        self.put((KEYS.of(Kind.REPORT, "a", "job", run), report))

    def ended(self, states: tuple[RunState, ...] = DONE) -> None:
        kinds = (Kind.ASSIGNMENT, Kind.REPORT)
        gone = [KEYS.of(kind, "a", "job", "r") for kind in kinds]
        self.change(
            [(KEYS.archive("job", "r"), a_run(states))], [*gone, KEYS.of(Kind.RUN, "job", "r")]
        )


def a_run(states: tuple[RunState, ...], *, run: str = "r", term: int = 1) -> Run:
    history = tuple(Transition(state=s, at=AT, cause="", term=term) for s in states)
    return Run(
        job="job", id=run, state=states[-1], origin=Origin.SCHEDULE, created_at=AT, history=history
    )


def assignment(agent: str, *, run: str = "r", attempt: int = 1, term: int = 1) -> Assignment:
    return Assignment(
        job="job", run=run, agent=agent, incarnation=agent, attempt=attempt, action=Noop(),
        seen=StartSeen(job=1), assigned_at=AT, term=term,
    )  # fmt: skip


@pytest.fixture
def story() -> Story:
    story = Story()
    story.led()
    story.staffed()
    return story


def complaint(story: Story) -> str:
    """The only invariant complained of."""
    (found,) = {text.split()[0] for text in story.auditor.complaints}
    return found


def test_an_orderly_history(story: Story) -> None:
    story.claimed(story.created())
    story.ended()
    story.put((KEYS.watermark, Watermark(through=AT, term=1)))
    story.put((KEYS.watermark, Watermark(through=LATER, term=1)))
    story.delete(KEYS.of(Kind.ELECTION, "1"))
    story.led(2)
    story.put((KEYS.archive("job", "r"), a_run(DONE)))  # a late report, folded in
    assert story.auditor.complaints == []


def test_a_write_without_the_election_key(story: Story) -> None:
    story.delete(KEYS.of(Kind.ELECTION, "1"))
    story.created()
    assert complaint(story) == "I6"


def test_a_write_of_an_older_term(story: Story) -> None:
    story.delete(KEYS.of(Kind.ELECTION, "1"))
    story.led(2)
    story.created(term=1)
    assert complaint(story) == "I6"


def test_a_term_of_the_second_in_the_queue(story: Story) -> None:
    story.led(2)
    assert complaint(story) == "I6"


def test_a_run_created_twice(story: Story) -> None:
    story.claimed(story.created())
    story.ended()
    story.created()
    assert complaint(story) == "I1"


def test_a_watermark_that_goes_back(story: Story) -> None:
    story.put((KEYS.watermark, Watermark(through=LATER, term=1)))
    story.put((KEYS.watermark, Watermark(through=AT, term=1)))
    assert complaint(story) == "I1"


def test_a_final_state_that_changes(story: Story) -> None:
    story.claimed(story.created())
    story.ended()
    story.put((KEYS.archive("job", "r"), a_run((RunState.ASSIGNED, RunState.FAILED))))
    assert complaint(story) == "I7"


def test_an_attempt_beside_the_one_before(story: Story) -> None:
    story.staffed("b")
    story.claimed(story.created())
    story.put((KEYS.of(Kind.ASSIGNMENT, "b", "job", "r"), assignment("b", attempt=2)))
    assert complaint(story) == "I4"


def test_an_assignment_to_an_agent_that_is_gone(story: Story) -> None:
    story.delete(KEYS.of(Kind.PRESENCE, "a"))
    story.created()
    assert complaint(story) == "I10"


def test_an_assignment_to_a_drained_agent(story: Story) -> None:
    story.put((KEYS.of(Kind.DRAIN, "a"), Drain(agent="a", since=AT)))
    story.created()
    assert complaint(story) == "I10"


def test_more_assignments_than_slots(story: Story) -> None:
    story.created(run="r1")
    story.created(run="r2")
    assert complaint(story) == "I10"


def test_an_assignment_beside_one_of_its_conflict_group(story: Story) -> None:
    group = ConflictGroup(group="g", jobs=("other", "job"))
    story.put((KEYS.of(Kind.CONFLICT, "g"), group))
    story.staffed("b")
    story.created(agent="b")
    assert story.auditor.complaints == []
    other = replace(assignment("a"), job="other")
    story.put((KEYS.of(Kind.ASSIGNMENT, "a", "other", "r"), other))
    assert complaint(story) == "I10"


def test_a_claim_with_a_stale_token(story: Story) -> None:
    story.claimed(story.created() - 1)
    assert complaint(story) == "I7"


@pytest.mark.parametrize("of", ["job", "_cluster"])
def test_a_claim_after_a_pause(story: Story, of: str) -> None:
    token = story.created()
    story.put((KEYS.of(Kind.PAUSE, of), Pause(intervals=(PauseInterval(since=AT),))))
    story.claimed(token)
    assert complaint(story) == "I14"


def test_a_claim_after_the_job_was_disabled(story: Story) -> None:
    token = story.created()
    disabled = ScheduleVersion(since=LATER, state=JobState.DISABLED)
    job = Job(name="job", run=Noop(), versions=(disabled,))
    story.put((KEYS.of(Kind.JOB, "job"), job))
    story.claimed(token)
    assert complaint(story) == "I14"
