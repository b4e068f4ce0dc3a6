"""What keeps the keyspace small: old answers, ended pauses, deleted jobs, late reports."""

from __future__ import annotations

from msgspec.structs import replace

from etcsched.core.leader import effects as fx
from etcsched.core.leader.chains import join_matter
from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import Matter, job_matter
from etcsched.core.leader.runs import is_of_another, late_attempt_of
from etcsched.core.records import CLUSTER, Kind, Report, Run
from etcsched.core.states import JobState
from etcsched.core.times import utc_of
from etcsched.core.view import revision_of

SWEEP_EVERY_S = 10.0
MAX_LATE_REPORTS = 8
ORDER_HEARD_S = 30.0
"""An agent that is here for so long, and for twice its session's TTL, knows its orders, and obeys
them whatever becomes of them."""

ORDER_KEPT_S = 30 * 86400.0
"""An order for one that never comes back."""

_SWEEP: Matter = ("sweep",)


class Upkeep:
    """Nothing here is urgent: it goes on with every sweep."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._view = context.view
        self._deleted: dict[str, int] = {}
        """As of which revision a job was: what came to its joins before goes, also where it is made
        anew at once, as soon as nobody is just coming to them."""
        self._looks_at_joins = False
        self._late: dict[tuple[str, str, str, str], None] = {}
        self._reading: set[tuple[str, str]] = set()
        self._heard_s: dict[tuple[str, str, str], float] = {}
        """By order whose run is over, since when its agent is here."""
        context.wake_at(context.mono_s + SWEEP_EVERY_S, _SWEEP)

    # --- sweeps

    def sweep(self) -> None:
        """Called when its timer is due."""
        context = self._context
        context.wake_at(context.mono_s + SWEEP_EVERY_S, _SWEEP)
        kept_ms = int(context.options.answer_kept_s * 1000)
        oldest = utc_of(context.wall_ms - kept_ms)
        for request, answer in self._view.answers.items():
            matter = ("answer", request)
            if answer.record.at < oldest and not context.is_busy(matter):
                write = fx.ForgetAnswer(
                    seq=context.next_seq(), request=request, revision=answer.mod_revision
                )
                context.write(write, matter)
        self._forget_pauses()
        self._forget_joins()
        self._forget_jobs()
        self._forget_attempts_without_run()
        self._forget_orders()

    def _forget_pauses(self) -> None:
        context, watermark = self._context, self._view.watermark
        if watermark is None:
            return
        for name, pause in self._view.pauses.items():
            last = pause.record.intervals[-1].until if pause.record.intervals else ""
            is_over = last is not None and last < watermark.record.through
            has_gap = bool(self._view.gaps) if name == CLUSTER else name in self._view.gaps
            matter = ("pause", name)
            if is_over and not has_gap and not context.is_busy(matter):
                write = fx.ForgetPause(
                    seq=context.next_seq(), name=name, revision=pause.mod_revision
                )
                context.write(write, matter)

    def _forget_joins(self) -> None:
        """Sources that failed may never come. Nor does a job of this name that is made anew take up
        what came to a deleted one."""
        context = self._context
        oldest = utc_of(context.wall_ms - int(context.options.join_kept_s * 1000))
        for (target, instance), entry in self._view.joins.items():
            matter = join_matter(target, instance)
            job = self._view.jobs.get(target)
            is_gone = job is None or job.record.current.state is JobState.DELETED
            is_gone = is_gone or entry.create_revision < self._deleted.get(target, 0)
            is_gone = is_gone or (job is not None and is_of_another(job, entry))
            if (entry.record.since >= oldest and not is_gone) or context.is_busy(matter):
                continue
            write = fx.ForgetJoin(
                seq=context.next_seq(),
                target=target,
                instance=instance,
                revision=entry.mod_revision,
            )
            context.write(write, matter)
            names = ", ".join(f"{a.job}/{a.run}" for a in entry.record.arrived)
            why = f"waited for {target}, which was deleted"
            if not is_gone:
                why = f"waited in vain for the others that {target} joins"
            context.say(f"{names} {why}", warn=True)

    def _forget_jobs(self) -> None:
        context, watermark = self._context, self._view.watermark
        if watermark is None:
            return
        for name, job in self._view.jobs.items():
            current = job.record.current
            if current.state is not JobState.DELETED or current.since > watermark.record.through:
                continue
            matter = job_matter(name)
            is_needed = name in self._view.runs_of_job or name in self._view.gaps
            is_needed = is_needed or any(key[0] == name for key in self._view.fan_outs)
            if not is_needed and not context.is_busy(matter):
                write = fx.ForgetJob(
                    seq=context.next_seq(),
                    job=name,
                    job_revision=job.mod_revision,
                    pause_revision=self._view.seen(Kind.PAUSE, name),
                )
                context.write(write, matter)

    def _forget_attempts_without_run(self) -> None:
        """Only a hand with etcdctl leaves any; they would hold their agent's slots for ever."""
        context = self._context
        for (agent, job, run_id), entry in self._view.assignments.items():
            matter = ("run", job, run_id)
            if (job, run_id) in self._view.runs or context.is_busy(matter):
                continue
            report = self._view.reports.get((agent, job, run_id))
            write = fx.ForgetAttempt(
                seq=context.next_seq(),
                agent=agent,
                job=job,
                run_id=run_id,
                assignment_revision=entry.mod_revision,
                report_revision=revision_of(report),
            )
            context.write(write, matter)
            text = "its run was deleted by hand: its assignment and report go too"
            context.say(text, run=(job, run_id), agent=agent, warn=True)

    def _forget_orders(self) -> None:
        """Those that outlast their runs, for an agent that may come back with the process."""
        context, left = self._context, dict[tuple[str, str, str], float]()
        oldest = utc_of(context.wall_ms - int(ORDER_KEPT_S * 1000))
        for place, entry in self._view.orders.items():
            agent, job, run_id = place
            matter = ("run", job, run_id)
            if (job, run_id) in self._view.runs or context.is_busy(matter):
                continue
            has_heard, presence = False, self._view.presences.get(agent)
            if presence is not None:
                left[place] = since_s = self._heard_s.get(place, context.mono_s)
                heard_s = max(ORDER_HEARD_S, 2.0 * presence.record.session_ttl_s)
                has_heard = context.mono_s - since_s >= heard_s
            if has_heard or entry.record.at < oldest:
                write = fx.ForgetOrder(
                    seq=context.next_seq(),
                    agent=agent,
                    job=job,
                    run_id=run_id,
                    revision=entry.mod_revision,
                )
                context.write(write, matter)
        self._heard_s = left

    # --- joins of jobs that were deleted

    def job_deleted(self, job: str, revision: int) -> None:
        """It was, as of this revision, also if it is there again."""
        self._deleted[job] = max(revision, self._deleted.get(job, 0))

    def forget_joins_of_deleted(self) -> None:
        """Before any run's end is decided: one that came to such a join would go with it."""
        if self._deleted or self._looks_at_joins:
            self._looks_at_joins = False
            self._forget_joins()
            joins = self._view.joins
            left = {t for (t, _), e in joins.items() if e.create_revision < self._deleted.get(t, 0)}
            self._deleted = {job: self._deleted[job] for job in left}

    # --- late reports

    def look_at_all(self) -> None:
        self._looks_at_joins = True
        for place in self._view.late_reports:
            self._late[place] = None

    def late_report(self, place: tuple[str, str, str, str]) -> None:
        self._late[place] = None

    def decide(self) -> None:
        """Fold late reports into their runs' records, wherever those are by now."""
        late, self._late = self._late, {}
        for place in late:
            _, job, run_id, _ = place
            if place not in self._view.late_reports:
                continue
            if self._context.is_busy(("late", *place), ("run", job, run_id)):
                self._late[place] = None
                continue
            active = self._view.runs.get((job, run_id))
            if active is not None:
                self._fold(place, active.record, active.mod_revision, in_archive=False)
            elif (job, run_id) not in self._reading:
                self._reading.add((job, run_id))
                self._context.effects.append(fx.ReadArchived(job=job, run_id=run_id))

    def archived_read(self, job: str, run_id: str, run: Run | None, revision: int) -> None:
        self._reading.discard((job, run_id))
        for place in self._view.late_reports:
            if place[1:3] != (job, run_id):
                continue
            is_active = (job, run_id) in self._view.runs  # By now, or once more.
            if is_active or self._context.is_busy(("late", *place), ("run", job, run_id)):
                self._late[place] = None  # One at a time: the record changes with each.
            else:
                self._fold(place, run, revision, in_archive=True)

    def _fold(
        self, place: tuple[str, str, str, str], run: Run | None, revision: int, in_archive: bool
    ) -> None:
        context = self._context
        agent, job, run_id, token = place
        report = self._view.late_reports[place]
        is_known = run is not None and _has_folded(run, report.record)
        changed = None
        if run is not None and not is_known and len(run.late_reports) < MAX_LATE_REPORTS:
            event = late_attempt_of(agent, report.record)
            changed = replace(run, late_reports=(*run.late_reports, event))
        order = self._view.orders.get((agent, job, run_id))
        is_obeyed = order is not None and order.record.token == int(token)
        context.write(
            fx.FoldLateReport(
                seq=context.next_seq(),
                agent=agent,
                job=job,
                run_id=run_id,
                token=int(token),
                report_revision=report.mod_revision,
                run=changed,
                run_revision=revision,
                in_archive=in_archive,
                order_revision=revision_of(order) if is_obeyed else 0,
            ),
            ("late", *place),
            ("run", job, run_id),
        )
        if is_known:
            return
        outcome = report.record.outcome
        word = outcome.value if outcome is not None else "a claim"
        context.say(
            f"late report from {agent}: {word} came after the run had moved",
            run=(job, run_id),
            agent=agent,
            warn=True,
        )


def _has_folded(run: Run, report: Report) -> bool:
    """Whether this very outcome is in the record already: its agent hadn't heard that it was
    committed, and sent it again after the run was over."""
    return any(
        attempt.token == report.token
        and attempt.outcome is report.outcome
        and attempt.ended_at == report.ended_at
        for attempt in (*run.attempts, *run.late_reports)
    )
