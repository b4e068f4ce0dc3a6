"""What operators ask once: each request is consumed and answered in one transaction."""

from __future__ import annotations

from typing import assert_never

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context, request_matter, run_matter
from etcsched.core.leader.placement import requirement_of
from etcsched.core.leader.resubmission import Resubmissions
from etcsched.core.leader.run_decider import RunDecider
from etcsched.core.leader.runs import (
    assignment_of,
    how_to_enable,
    is_of_another,
    may_start,
    new_run,
)
from etcsched.core.records import (
    MAX_PARAMS_BYTES,
    Answer,
    Job,
    Release,
    Request,
    RequestKind,
    Run,
    params_bytes,
    params_clash,
)
from etcsched.core.states import WAITING, JobState, Origin, RunState
from etcsched.core.times import ms_of
from etcsched.core.view import Entry, revision_of


class RequestDecider:
    def __init__(self, context: Context, runs: RunDecider) -> None:
        self._context = context
        self._view = context.view
        self._runs = runs
        self._dirty: dict[str, None] = {}
        self._granted: set[str] = set()
        self._came_ms: dict[str, int] = {}
        self._resubmissions = Resubmissions(context, self._consumed, self.look_at)

    def look_at(self, request: str) -> None:
        self._dirty[request] = None

    def found_run_of(self, request: str) -> None:
        """The run that a request asks for is there: it was asked for before, long ago."""
        self._granted.add(request)
        self._dirty[request] = None

    def look_at_all(self) -> None:
        for request in self._view.requests:
            self._dirty[request] = None

    def archived_read(self, job: str, run_id: str, run: Run | None, revision: int) -> None:
        self._resubmissions.archived_read(job, run_id, run, revision)

    def decide(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for request_id in sorted(dirty):
            entry = self._view.requests.get(request_id)
            matter = request_matter(request_id)
            if entry is None or self._context.is_busy(matter) or self._context.rests(matter):
                continue
            with self._context.contain(matter):
                self._decide(request_id, entry)

    def came(self, request: str) -> None:
        """While this leader leads."""
        self._came_ms.setdefault(request, self._context.wall_ms)
        self.look_at(request)

    def gone(self, request: str) -> None:
        self._came_ms.pop(request, None)
        self._context.unwritable.discard(request_matter(request))

    def _decide(self, request_id: str, entry: Entry[Request]) -> None:
        if request_matter(request_id) in self._context.unwritable:
            self._answer(entry, False, _UNWRITABLE, entry.record.run)
            return
        if (why := self._why_too_late(entry)) is not None:
            self._answer(entry, False, why, entry.record.run)
            return
        match entry.record.kind:
            case RequestKind.TRIGGER:
                self._trigger(entry)
            case RequestKind.CANCEL:
                self._cancel(entry)
            case RequestKind.RESUBMIT if request_id in self._granted:
                self._granted.discard(request_id)
                self._resubmissions.granted_before(entry)
            case RequestKind.RESUBMIT:
                self._resubmissions.decide(entry)
            case RequestKind.RELEASE:
                self._release(entry)
            case other:
                assert_never(other)

    def _why_too_late(self, entry: Entry[Request]) -> str | None:
        """A copy that a frozen member of etcd held back may come when the answer to what it is a
        copy of, and the run, are forgotten. Told by when it came into etcd, not by how long it has
        waited there for somebody who leads."""
        request, came_ms = entry.record, self._came_ms.get(entry.record.id)
        if came_ms is None and (watermark := self._view.watermark) is not None:
            # It came before this leader: later than the watermark as it stands, or who knows when.
            is_later = watermark.mod_revision < entry.create_revision
            came_ms = ms_of(watermark.record.through) if is_later else None
        late_s = (came_ms - ms_of(request.at)) / 1000 if came_ms is not None else 0.0
        if late_s < self._context.options.answer_kept_s * _COMES_WITHIN:
            return None
        return (
            f"it is of {request.at}, and came {late_s / 3600:.0f} h later: an old copy, which was "
            "done then, or by a clock that is far behind; ask for it again"
        )

    def _consumed(
        self, entry: Entry[Request], accepted: bool, message: str, run: str = ""
    ) -> fx.Consumed:
        request = entry.record
        answer = Answer(
            request=request.id,
            accepted=accepted,
            message=message,
            at=self._context.now,
            job=request.job,
            run=run,
        )
        return fx.Consumed(request_revision=entry.mod_revision, answer=answer)

    def _answer_of_none(self, entry: Entry[Request], what_may: str) -> None:
        """The run that it is about isn't there."""
        request = entry.record
        message = f"run {request.job}/{request.run} is over, or never was; {what_may}"
        self._answer(entry, False, message, request.run)

    def _answer(self, entry: Entry[Request], accepted: bool, message: str, run: str = "") -> None:
        context = self._context
        context.write(
            fx.AnswerRequest(
                seq=context.next_seq(), consumed=self._consumed(entry, accepted, message, run)
            ),
            request_matter(entry.record.id),
        )

    def _trigger(self, entry: Entry[Request]) -> None:
        request = entry.record
        job = self._view.jobs.get(request.job)
        if request.id in self._granted:
            self._granted.discard(request.id)
            self._answer(entry, True, "it was started before", request.id)
        elif job is None or job.record.current.state is JobState.DELETED:
            self._answer(entry, False, f"there is no job {request.job}")
        elif self._context.state_of(job.record) is JobState.DISABLED:
            how = how_to_enable(job.record, self._context.wall_ms)
            self._answer(entry, False, f"job {request.job} is disabled; {how}")
        elif self._context.state_of(job.record) is JobState.CHAIN_ACTIVE:
            text = f"job {request.job} is chain_active: it runs only when another chains to it"
            self._answer(entry, False, text)
        elif (paused := self._view.what_is_paused(request.job)) is not None:
            self._answer(entry, False, f"{paused} is paused; resume it first")
        elif params_bytes({**job.record.params, **request.params}) > MAX_PARAMS_BYTES:
            self._answer(entry, False, f"its parameters take more than {MAX_PARAMS_BYTES} bytes")
        elif clash := params_clash({**job.record.params, **request.params}, request.params):
            self._answer(entry, False, clash)
        elif self._context.is_busy(run_matter((request.job, request.id))):
            self.look_at(request.id)  # A run of that id is in motion.
        else:
            self._start(entry, job.record)

    def _start(self, entry: Entry[Request], job: Job) -> None:
        context, request = self._context, entry.record
        requirement = requirement_of(job, Origin.REQUEST)
        state, agent = RunState.READY, None
        presence, why = context.choose_now(job.name, requirement)
        if presence is None:
            where = f"waits: {why}"
            if context.conflicts.holder(job.name) is not None:
                state = RunState.CONFLICTED
        elif context.conflicts.is_in_group(job.name):
            # Who of its conflict groups goes first is found out once it is there.
            presence, where = None, _GOES_NEXT
        else:
            state, agent = RunState.ASSIGNED, presence.record.agent
            where = f"assigned to {agent}"
        seen = self._view.start_seen(job.name, agent)
        run = new_run(
            context.author,
            job,
            request.id,
            state,
            f"requested by {request.by}",
            origin=Origin.REQUEST,
            params={**job.params, **request.params},
            requested_by=request.by,
            agent=agent or "",
            attempt=0 if agent is None else 1,
        )
        assignment = None
        if presence is not None:
            assignment = assignment_of(context.author, run, job, presence.record, seen)
        context.write(
            fx.CreateRun(
                seq=context.next_seq(),
                run=run,
                seen=seen,
                is_tick=False,
                assignment=assignment,
                presence_revision=revision_of(presence),
                rotation=context.agents.rotate(job, agent),
                consumed=self._consumed(entry, True, where, run.id),
            ),
            run_matter((run.job, run.id)),
            request_matter(request.id),
            agent=agent,
        )

    def _cancel(self, entry: Entry[Request]) -> None:
        request = entry.record
        key = (request.job, request.run)
        run = self._view.runs.get(key)
        if run is None:
            self._answer_of_none(entry, "what waits, runs or is held can be cancelled")
        elif self._context.is_busy(run_matter(key)):
            self.look_at(request.id)  # Its run is in motion; asked again with the next event.
        elif self._runs.held.is_decided(run.record):
            self.look_at(request.id)  # Its agent's word came first.
        elif run.record.state is RunState.HELD:
            consumed = self._consumed(entry, True, "cancelled", request.run)
            self._runs.held.end(run, RunState.CANCELLED, _cause(request), consumed)
        elif run.record.state in WAITING:
            consumed = self._consumed(entry, True, "cancelled", request.run)
            self._runs.ends.end_waiting(run, RunState.CANCELLED, _cause(request), consumed)
        elif run.record.state is RunState.ASSIGNED:
            self._cancel_assigned(entry, run)
        else:
            # Somebody put it there: no leader does.
            message = f"run {request.job}/{request.run} is {run.record.state.value}"
            self._answer(entry, False, message, request.run)

    def _cancel_assigned(self, entry: Entry[Request], run: Entry[Run]) -> None:
        request = entry.record
        place = (run.record.agent, run.record.job, run.record.id)
        report, assignment = self._view.reports.get(place), self._view.assignments.get(place)
        if assignment is None:
            consumed = self._consumed(entry, True, "its assignment was gone", request.run)
            self._runs.ends.end_without_assignment(run, consumed)
            return
        if report is None:
            consumed = self._consumed(entry, True, "cancelled before it started", request.run)
            self._runs.ends.end_assigned(
                run, assignment, None, RunState.CANCELLED, _cause(request), consumed
            )
            return
        if report.record.outcome is not None:
            self.look_at(request.id)  # Its attempt is over: it ends, or waits for a retry.
            return
        told = f"{run.record.agent} is told to end it"
        consumed = self._consumed(entry, True, told, request.run)
        self._runs.ends.tell_to_end(run, assignment, _cause(request), request.by, consumed)

    def _release(self, entry: Entry[Request]) -> None:
        request = entry.record
        key = (request.job, request.run)
        run, job = self._view.runs.get(key), self._view.jobs.get(request.job)
        if run is None:
            self._answer_of_none(entry, _RELEASABLE)
        elif self._context.is_busy(run_matter(key)) or self._runs.held.is_decided(run.record):
            self.look_at(request.id)  # Its agent's word came first.
        elif run.record.state is not RunState.HELD or request.release is None:
            state = self._view.shown_state(run.record).value
            message = f"run {request.job}/{request.run} is {state}; {_RELEASABLE}"
            self._answer(entry, False, message, request.run)
        elif request.release is Release.REASSIGN and (
            job is None or not may_start(job, run, self._context.wall_ms)
        ):
            why = f"job {request.job} is gone"
            if job is not None and is_of_another(job, run):
                why = f"job {request.job} was deleted and made anew since, so this run ends"
            elif job is not None:
                state = self._context.state_of(job.record).value
                how = how_to_enable(job.record, self._context.wall_ms)
                why = f"job {request.job} is {state}, so this run mustn't start; {how}"
            self._answer(entry, False, f"{why}, or release the run --died", request.run)
        elif (
            request.release is Release.REASSIGN
            and job is not None
            and (pointless := self._runs.waiting.why_pointless(run.record, job.record)) is not None
        ):
            why = f"{pointless}: it can't run again; release it --died"
            self._answer(entry, False, why, request.run)
        else:
            consumed = self._consumed(entry, True, _RELEASED[request.release], request.run)
            cause = f"released by {request.by}" if request.by else "released"
            self._runs.held.release(run, request.release, cause, consumed)


_RELEASABLE = "only what is held can be released"

_COMES_WITHIN = 0.5
"""Of the time for which answers are kept: the rest is for clocks of who asks that are ahead."""

_UNWRITABLE = "etcd takes no write that does it; the leader's log says why"

_GOES_NEXT = "starts now, unless another of its conflict groups goes first"

_RELEASED = {
    Release.REASSIGN: "waits for an agent: it will run again",
    Release.DIED: "ended as died",
}


def _cause(request: Request) -> str:
    return f"cancelled by {request.by}" if request.by else "cancelled"
