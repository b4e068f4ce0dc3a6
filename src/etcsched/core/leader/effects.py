"""What the leader wants done. The keyspace turns each *write* into one nested transaction.

A write names every revision that its decision rests on ("as seen"; 0: absent). If one of them has
moved on, etcd refuses that write alone, and the leader decides anew on what it then sees.
``seq`` numbers a leader's writes; their results come back under it.
"""

from __future__ import annotations

import msgspec

from etcsched.core.records import (
    Answer,
    Assignment,
    FanOut,
    Gap,
    Join,
    Live,
    Order,
    Rotation,
    Run,
    Seat,
    StartSeen,
    Term,
    Watermark,
)
from etcsched.core.times import Utc


class Consumed(msgspec.Struct, frozen=True, kw_only=True):
    """A request that a write answers and takes away, in the same transaction."""

    request_revision: int
    answer: Answer


class OldAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that a write ends: its assignment, report and order go. ``report_revision`` 0:
    it wasn't claimed. ``presence_revision`` is compared where it is not None (T5: 0 says that the
    agent is gone). ``order`` stays for an agent that may come back with the process."""

    agent: str
    assignment_revision: int
    report_revision: int
    presence_revision: int | None = None
    order: Order | None = None


class JoinChange(msgspec.Struct, frozen=True, kw_only=True):
    """A join, as seen at ``revision`` (0: absent), that one more has come to, or (``join`` None)
    the last."""

    target: str
    instance: str
    revision: int
    join: Join | None


class Following(msgspec.Struct, frozen=True, kw_only=True):
    """What the end of a run begins, in the transaction that ends it: chained runs, absent before,
    and joins; ``jobs`` are the definitions that this rests on, with their revisions. A join that
    waits for nobody more rests on that there is no other definition either: nobody has edited
    anything since ``edited_revision`` (None: no matter)."""

    created: tuple[Run, ...]
    joins: tuple[JoinChange, ...]
    jobs: tuple[tuple[str, int], ...]
    edited_revision: int | None = None


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """A leader's write; each is its own nested transaction."""

    seq: int


class CreateRun(Write, frozen=True, kw_only=True):
    """T1. Absent in ``state/runs`` and in the archive; a tick's also later than the watermark, and
    its job's calendars as seen (name, revision). ``fan_out_revision``: one of a fan-out, which
    still stands; without it a run that is over and forgotten could be made once more.

    ``run`` is assigned (with its assignment), waiting, or already over (into the archive).
    ``rotation``: whose turn this was, where agents take turns; here and below.
    """

    run: Run
    seen: StartSeen
    is_tick: bool
    fan_out_revision: int = 0
    calendars: tuple[tuple[str, int], ...] = ()
    assignment: Assignment | None = None
    rotation: Rotation | None = None
    presence_revision: int = 0
    consumed: Consumed | None = None
    following: Following | None = None


def following_of(write: Write | None) -> Following | None:
    """What a write begins beside what it is about."""
    if isinstance(write, CreateRun | EndRun | EndJoin | RecoverTicks):
        return write.following
    return None


class CreateFanOut(Write, frozen=True, kw_only=True):
    """T1 of a tick that will be one run for each of several agents."""

    fan_out: FanOut
    seen: StartSeen
    calendars: tuple[tuple[str, int], ...] = ()


class ForgetFanOut(Write, frozen=True, kw_only=True):
    """All its runs are there, and the watermark has passed it."""

    job: str
    run_id: str
    revision: int


class Dispatch(Write, frozen=True, kw_only=True):
    """A waiting run gets an agent: T1's second half, later."""

    run: Run
    run_revision: int
    assignment: Assignment
    presence_revision: int
    rotation: Rotation | None = None


class MoveRun(Write, frozen=True, kw_only=True):
    """T5, T4a, and the reassignment of a died attempt: the old one goes; the run is assigned anew,
    or waits as ``ready`` or ``retrying``."""

    run: Run
    run_revision: int
    old: OldAttempt | None
    assignment: Assignment | None = None
    presence_revision: int = 0
    rotation: Rotation | None = None
    consumed: Consumed | None = None


class HoldRun(Write, frozen=True, kw_only=True):
    """T5 where the job says ``hold``: the run waits for a word. ``is_attempt_over``: the attempt's
    keys go; else they stay, so that the agent's return can decide."""

    run: Run
    run_revision: int
    old: OldAttempt
    is_attempt_over: bool


class ResumeRun(Write, frozen=True, kw_only=True):
    """A held run whose agent has come back and adopted its attempt goes on there."""

    run: Run
    run_revision: int
    old: OldAttempt


class EndRun(Write, frozen=True, kw_only=True):
    """T4b: the run goes to the archive, with all that belongs to its attempt."""

    run: Run
    run_revision: int
    old: OldAttempt | None = None
    consumed: Consumed | None = None
    following: Following | None = None


class Requeue(Write, frozen=True, kw_only=True):
    """A run waits on in another way: its buffer ended in an outage (then outside any buffer), or
    its conflict group is held, or isn't any more."""

    run: Run
    run_revision: int


class Resubmit(Write, frozen=True, kw_only=True):
    """A new run in the place of ``original``, both linked. The original is in the archive as of
    ``original_revision``, or was waiting for a retry (``was_active``), which ends with this."""

    run: Run
    seen: StartSeen
    original: Run
    original_revision: int
    was_active: bool
    consumed: Consumed


class SendOrder(Write, frozen=True, kw_only=True):
    """An order to the agent that holds this assignment."""

    agent: str
    order: Order
    run_revision: int
    consumed: Consumed | None = None


class AnswerRequest(Write, frozen=True, kw_only=True):
    """A request that changes nothing else (refused, or already so)."""

    consumed: Consumed


class OpenGap(Write, frozen=True, kw_only=True):
    """No eligible agent lives: the job's ticks after ``decided_through`` wait. ``gap_revision`` is
    that of the closed gap before, which it takes the place of (0: there is none)."""

    gap: Gap
    gap_revision: int
    job_revision: int
    pause_revision: int = 0
    cluster_pause_revision: int = 0
    calendars: tuple[tuple[str, int], ...] = ()


class KeepGap(Write, frozen=True, kw_only=True):
    """An open gap, as seen, lasts for another reason by now."""

    gap: Gap
    gap_revision: int


class RecoverTicks(Write, frozen=True, kw_only=True):
    """One step of an outage's end: all ticks of the job up to ``gap.decided_through`` are decided
    at once, some as runs, some as records of why not.

    ``gap_revision`` 0: no gap was open, no leader was there; then ``first_tick`` is compared with
    the watermark, as T1 does. ``following`` is what the only record of this step begins: of a tick
    that ended ``overlapped``, or of missed ones.
    """

    job: str
    job_revision: int
    pause_revision: int
    cluster_pause_revision: int
    calendars: tuple[tuple[str, int], ...] = ()
    gap_revision: int
    gap: Gap
    created: tuple[Run, ...]
    archived: tuple[Run, ...]
    fan_outs: tuple[FanOut, ...] = ()
    first_tick: Utc | None = None
    following: Following | None = None


class ForgetGap(Write, frozen=True, kw_only=True):
    """A closed gap that the watermark has passed."""

    job: str
    revision: int


class FoldLateReport(Write, frozen=True, kw_only=True):
    """A report that came after its run had moved: an event in the run's record, nothing else.

    ``run`` None: the record is pruned already, and the report just goes. So does the order at
    ``order_revision`` (0: there is none), which told it to end.
    """

    agent: str
    job: str
    run_id: str
    token: int
    report_revision: int
    run: Run | None
    run_revision: int
    in_archive: bool
    order_revision: int = 0


class Forget(Write, frozen=True, kw_only=True):
    """Retention: an archived run (job, run), compared with the revision it was listed at."""

    job: str
    run_id: str
    revision: int


class ForgetAttempt(Write, frozen=True, kw_only=True):
    """What is left of an attempt whose run somebody deleted by hand (run absent)."""

    agent: str
    job: str
    run_id: str
    assignment_revision: int
    report_revision: int


class ForgetOrder(Write, frozen=True, kw_only=True):
    """One whose run is over, and that its agent has heard of, or never will."""

    agent: str
    job: str
    run_id: str
    revision: int


class ForgetAnswer(Write, frozen=True, kw_only=True):
    request: str
    revision: int


class EndJoin(Write, frozen=True, kw_only=True):
    """All that a join waits for is there, since it waits for fewer than before: it begins its run,
    or, where its job is stopped, just goes."""

    following: Following


class ForgetJoin(Write, frozen=True, kw_only=True):
    """One that nobody can complete any more."""

    target: str
    instance: str
    revision: int


class ForgetJob(Write, frozen=True, kw_only=True):
    """A deleted job whose ticks are all decided (it has no gap) and whose runs are over: its
    definition goes."""

    job: str
    job_revision: int
    pause_revision: int


class ForgetPause(Write, frozen=True, kw_only=True):
    """Pauses that ended before the watermark say nothing any more."""

    name: str
    revision: int


class ChangeSeats(Write, frozen=True, kw_only=True):
    """Seats that are given (each with its agent's presence as seen) and taken (agent, the seat's
    revision, its agent's presence: 0 says that it is gone), by the settings as seen."""

    given: tuple[tuple[Seat, int, int], ...]
    taken: tuple[tuple[str, int, int], ...]
    settings_revision: int


class LiveChange(msgspec.Struct, frozen=True, kw_only=True):
    """Of the record at ``revision`` (0: absent), while its agent's presence is as seen (0: gone);
    ``live`` None: it goes."""

    agent: str
    revision: int
    presence_revision: int
    live: Live | None


class ChangeLive(Write, frozen=True, kw_only=True):
    """Agents come and go, one after the other as they stand here, with the runs that this begins.

    ``jobs`` are the definitions (name, revision) that these rest on. ``witnesses`` (agent, its
    presence's revision) are still there, so that others aren't the first or the last.
    """

    changes: tuple[LiveChange, ...]
    created: tuple[Run, ...] = ()
    jobs: tuple[tuple[str, int], ...] = ()
    witnesses: tuple[tuple[str, int], ...] = ()


class AdvanceWatermark(Write, frozen=True, kw_only=True):
    """A transaction of its own, sent only when every decision up to it is confirmed, and refused
    where jobs or pauses have been edited since ``edited_revision``."""

    watermark: Watermark
    old_revision: int
    edited_revision: int


class WinTerm(Write, frozen=True, kw_only=True):
    """The candidate's step to leadership: own election key, nothing older, the old term as seen."""

    term: Term
    old_revision: int


class ConfirmLoss(msgspec.Struct, frozen=True, kw_only=True):
    """Ask etcd whether this lease still lives; the answer is an event."""

    agent: str
    lease: int


class ListArchive(msgspec.Struct, frozen=True, kw_only=True):
    """List a job's archived runs' keys (None: a page of the whole archive after a cursor)."""

    job: str | None
    after: str = ""


class ReadArchived(msgspec.Struct, frozen=True, kw_only=True):
    """Read one archived run, to fold a late report into it."""

    job: str
    run_id: str


class StepDown(msgspec.Struct, frozen=True, kw_only=True):
    """Lead no longer; ``reason`` is for people."""

    reason: str


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One line for the log: an event that people should see."""

    text: str
    job: str = ""
    run: str = ""
    agent: str = ""
    is_warning: bool = False


class Defect(msgspec.Struct, frozen=True, kw_only=True):
    """A decision raised. It is left out and tried again later, so that all others are made."""

    about: str
    trace: str


Effect = Write | ConfirmLoss | ListArchive | ReadArchived | StepDown | Note | Defect
