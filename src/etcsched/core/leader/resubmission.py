"""``runs resubmit``: a new run in the place of one that is over (SEMANTICS, resubmission).

The original is read from the archive, a few at a time, so that thousands of requests hold up
nothing else; a request whose original isn't read yet waits in etcd, also for the next leader.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from msgspec.structs import replace

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import Matter, request_matter, run_matter
from etcsched.core.leader.placement import requirement_of_run
from etcsched.core.leader.runs import how_to_enable, new_run, step
from etcsched.core.missed import is_summary, place_of, tick_in, ticks_of, with_resubmitted
from etcsched.core.records import (
    MAX_PARAMS_BYTES,
    Job,
    Request,
    Run,
    host_in,
    params_bytes,
    params_clash,
)
from etcsched.core.retry import state_without_retry
from etcsched.core.states import JobState, Origin, RunState
from etcsched.core.view import Entry, RunKey

MAX_READS = 32
"""Originals that are being read at once."""

MAX_LINKS = 16
"""Of a run's resubmissions its record names the newest."""

Consume = Callable[[Entry[Request], bool, str, str], fx.Consumed]


class Resubmissions:
    def __init__(
        self, context: Context, consume: Consume, look_again: Callable[[str], None]
    ) -> None:
        """``look_again`` at a request: what it waited for is there."""
        self._context = context
        self._view = context.view
        self._consume = consume
        self._look_again = look_again
        self._originals: dict[RunKey, tuple[Run | None, int]] = {}
        self._reading: set[RunKey] = set()
        self._waiting: dict[RunKey, dict[str, None]] = {}

    def decide(self, entry: Entry[Request]) -> None:
        request = entry.record
        key = (request.job, request.run)
        original = self._originals.pop(key, None)  # As read just now; later it is read anew.
        refusal = self._refusal_by_job(request)
        if refusal is not None:
            self._refuse(entry, refusal)
        elif self._context.is_busy(
            run_matter(key), run_matter((request.job, resubmission_id(request)))
        ):
            self._look_again(request.id)
        elif (active := self._view.runs.get(key)) is not None:
            if active.record.state is RunState.RETRYING:
                self._end_and_resubmit(entry, active)
            else:
                state = self._view.shown_state(active.record).value
                self._refuse(
                    entry,
                    f"run {_name(request)} is {state}; only one that is over, or retrying, can be "
                    "resubmitted",
                )
        elif original is not None:
            self._resubmit(entry, *original)
        else:
            self._waiting.setdefault(key, {})[request.id] = None
            self._read_some()

    def archived_read(self, job: str, run_id: str, run: Run | None, revision: int) -> None:
        key = (job, run_id)
        self._reading.discard(key)
        asking = self._waiting.pop(key, {})
        if asking:
            self._originals[key] = (run, revision)
        for request in asking:
            self._look_again(request)
        self._read_some()

    def granted_before(self, entry: Entry[Request]) -> None:
        """The run that it asks for is there: it was asked for before, long ago."""
        consumed = self._consume(
            entry, True, "it was resubmitted before", resubmission_id(entry.record)
        )
        self._context.write(
            fx.AnswerRequest(seq=self._context.next_seq(), consumed=consumed),
            request_matter(entry.record.id),
        )

    def _read_some(self) -> None:
        for key in self._waiting:
            if len(self._reading) >= MAX_READS:
                return
            if key not in self._reading:
                self._reading.add(key)
                self._context.effects.append(fx.ReadArchived(job=key[0], run_id=key[1]))

    def _refusal_by_job(self, request: Request) -> str | None:
        job = self._view.jobs.get(request.job)
        if job is None or job.record.current.state is JobState.DELETED:
            return f"there is no job {request.job}; apply its file again first"
        if self._context.state_of(job.record) is JobState.DISABLED and not request.force:
            how = how_to_enable(job.record, self._context.wall_ms)
            return f"job {request.job} is disabled; {how}, or resubmit with --force"
        if resubmission_id(request) == request.run:
            return "the request has the id of the run itself: give it one of its own"
        return None

    def _resubmit(self, entry: Entry[Request], original: Run | None, revision: int) -> None:
        if original is None:
            self._refuse(entry, f"there is no run {_name(entry.record)}")
        elif is_summary(original) or entry.record.tick:
            self._resubmit_tick(entry, original, revision)
        elif self._is_alone(entry, original) and self._may(
            entry, original.id, original.state, original
        ):
            self._write(entry, original, revision, was_active=False)

    def _resubmit_tick(self, entry: Entry[Request], record: Run, revision: int) -> None:
        """Of several that share a record."""
        request, count = entry.record, record.missed_count
        place = place_of(record, request.tick or record.id) if is_summary(record) else None
        if place is None:
            whose = f"{request.job}/{request.run}, which stands for {count} missed ticks"
            self._refuse(entry, f"{request.tick} is no tick of {whose}")
            return
        tick = tick_in(record, next(islice(ticks_of(record), place, None)))
        if self._is_alone(entry, tick) and self._may(entry, tick.id, tick.state, tick):
            self._write(entry, tick, revision, was_active=False, record=record, place=place)

    def _end_and_resubmit(self, entry: Entry[Request], active: Entry[Run]) -> None:
        """It waits for a retry: its resubmission ends that, and the run with it."""
        run = active.record
        state = state_without_retry(run)
        if self._is_alone(entry, run) and self._may(entry, run.id, state, run):
            cause = f"no retry any more: resubmitted as {entry.record.id}"
            over = step(self._context.author, run, active.mod_revision, state, cause)
            self._write(entry, over, active.mod_revision, was_active=True)

    def _is_alone(self, entry: Entry[Request], original: Run) -> bool:
        """Whether no other resubmission that goes back to the same run is being written; else it is
        looked at again, when that one is there."""
        is_alone = not self._context.is_busy(root_matter(original))
        if not is_alone:
            self._look_again(entry.record.id)
        return is_alone

    def _may(self, entry: Entry[Request], run_id: str, state: RunState, original: Run) -> bool:
        allowed = self._view.settings.resubmit_states
        others = self._view.resubmissions_of.get((original.job, original.root), ())
        again = [each for each in others if each != run_id]  # It may be one itself, that retries.
        job = self._view.jobs[original.job].record
        params = {**job.params, **original.params, **entry.record.params}
        if state not in allowed:
            names = ", ".join(each.value for each in allowed)
            text = f"run {_name(entry.record)} is {state.value}; the settings allow {names}"
        elif again:
            first = f"{original.job}/{min(again)}"
            text = f"run {_name(entry.record)} is resubmitted as {first}, which isn't over"
        elif params_bytes(params) > MAX_PARAMS_BYTES:
            text = f"its parameters take more than {MAX_PARAMS_BYTES} bytes"
        elif clash := params_clash(params, entry.record.params):
            text = clash
        else:
            return True
        self._refuse(entry, text)
        return False

    def _write(
        self,
        entry: Entry[Request],
        original: Run,
        revision: int,
        *,
        was_active: bool,
        record: Run | None = None,
        place: int = 0,
    ) -> None:
        """``record``: that of several missed ticks, whose ``place`` is the original's."""
        context, request = self._context, entry.record
        job: Job = self._view.jobs[original.job].record
        run = new_run(
            context.author,
            job,
            resubmission_id(request),
            RunState.QUEUED,
            f"resubmitted by {request.by}" if request.by else "resubmitted",
            origin=Origin.RESUBMISSION,
            scheduled_at=original.scheduled_at,
            params={**original.params, **request.params},
            requested_by=request.by,
            resubmits=original.id if record is None else record.id,
            resubmits_first=original.root,
            forced=request.force,
            instance=original.chain,
            depth=original.depth,
            chained_from=original.chained_from,
            stands_for=original.told_occasion,
        )
        if record is None:
            links = (*original.resubmitted_as, run.id)[-MAX_LINKS:]
            linked = replace(original, resubmitted_as=links)
        else:
            linked = with_resubmitted(record, place, run.id, MAX_LINKS)
        where = f"waits: {self._what_holds(job, run) or 'its turn comes next'}"
        if record is not None and not request.tick:
            where += f"; {_name(request)} stands for {record.missed_count} missed ticks, and this "
            where += "is the first: name each of the others by its own time"
        context.write(
            fx.Resubmit(
                seq=context.next_seq(),
                run=run,
                seen=self._view.start_seen(job.name),
                original=linked,
                original_revision=revision,
                was_active=was_active,
                consumed=self._consume(entry, True, where, run.id),
            ),
            run_matter((run.job, run.id)),
            run_matter((linked.job, linked.id)),
            root_matter(original),
            request_matter(request.id),
        )

    def _what_holds(self, job: Job, run: Run) -> str | None:
        paused = self._view.what_is_paused(job.name)
        if paused is not None:
            return f"{paused} is paused"
        behind = len(self._view.ids_of(run.lane))
        if behind:
            return f"behind {behind} of its job"
        presence, why = self._context.choose_now(job.name, requirement_of_run(job, run))
        return why if presence is None else None

    def _refuse(self, entry: Entry[Request], text: str) -> None:
        context = self._context
        consumed = self._consume(entry, False, text, "")
        context.write(
            fx.AnswerRequest(seq=context.next_seq(), consumed=consumed),
            request_matter(entry.record.id),
        )


def root_matter(run: Run) -> Matter:
    """Of all that are resubmitted for one run, however often."""
    return ("root", run.job, run.root)


def resubmission_id(request: Request) -> str:
    """Of the run that a request makes: bound to an agent as its original is."""
    host = host_in(request.run)
    return f"{request.id}@{host}" if host else request.id


def _name(request: Request) -> str:
    return f"{request.job}/{request.tick or request.run}"
