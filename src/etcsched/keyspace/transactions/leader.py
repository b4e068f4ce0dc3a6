"""Each of the leader's writes as one nested transaction."""

from __future__ import annotations

from etcsched.core.leader import effects as fx
from etcsched.core.records import (
    CLUSTER,
    Assignment,
    FanOut,
    Kind,
    Order,
    Record,
    Rotation,
    Run,
    StartSeen,
    fan_out_in,
)
from etcsched.core.states import FINAL
from etcsched.core.times import Utc, instant_after
from etcsched.keyspace.codec import encode, watermark_operand
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Compare, Delete, Operation, Put, Range, Relation, Target, Txn


class LeaderTransactions:
    """Each of the leader's writes as one nested transaction."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def build(self, write: fx.Write) -> Txn:  # noqa: C901 - one case a write is the clearest form
        match write:
            case fx.CreateRun():
                return self._create(write)
            case fx.CreateFanOut():
                return self._fan_out(write)
            case fx.ForgetFanOut():
                key = self._key(Kind.FAN_OUT, write.job, write.run_id)
                return self._forget(key, write.revision)
            case fx.Dispatch():
                return self._dispatch(write)
            case fx.MoveRun():
                return self._move(write)
            case fx.HoldRun():
                return self._hold(write)
            case fx.ResumeRun():
                return self._resume(write)
            case fx.EndRun():
                return self._end(write)
            case fx.Requeue():
                return self._rewrite(write.run, write.run_revision)
            case fx.Resubmit():
                return self._resubmit(write)
            case fx.SendOrder():
                return self._order(write)
            case fx.AnswerRequest():
                return self._consume((), (), write.consumed)
            case fx.OpenGap():
                return self._open_gap(write)
            case fx.KeepGap(gap=gap):
                compare = self._as_seen(Kind.GAP, write.gap_revision, gap.job)
                return Txn((compare,), (self._put(Kind.GAP, gap, gap.job),))
            case fx.RecoverTicks():
                return self._recover(write)
            case fx.FoldLateReport():
                return self._fold_late(write)
            case fx.Forget():
                return self._forget(self._keys.archive(write.job, write.run_id), write.revision)
            case fx.ForgetAttempt():
                return self._forget_attempt(write)
            case fx.ForgetOrder():
                place = (write.agent, write.job, write.run_id)
                return self._forget(self._key(Kind.ORDER, *place), write.revision)
            case fx.ForgetAnswer():
                return self._forget(self._key(Kind.ANSWER, write.request), write.revision)
            case fx.ForgetGap():
                return self._forget(self._key(Kind.GAP, write.job), write.revision)
            case fx.EndJoin():
                compares = self._following_compares(write.following)
                writes = self._following_writes(write.following)
                return Txn(tuple(compares), tuple(writes))
            case fx.ForgetJoin():
                key = self._key(Kind.JOIN, write.target, write.instance)
                return self._forget(key, write.revision)
            case fx.ChangeSeats():
                return self._seats(write)
            case fx.ChangeLive():
                return self._live(write)
            case fx.ForgetPause():
                return self._forget(self._key(Kind.PAUSE, write.name), write.revision)
            case fx.ForgetJob():
                return self._forget_job(write)
            case fx.AdvanceWatermark():
                return Txn(
                    (
                        self._as_seen(Kind.WATERMARK, write.old_revision),
                        self._as_seen(Kind.EDITED, write.edited_revision),
                    ),
                    (Put(self._keys.watermark, encode(write.watermark)),),
                )
            case _:
                raise AssertionError(f"no transaction for {write!r}")

    def _key(self, kind: Kind, *ids: str) -> str:
        return self._keys.of(kind, *ids)

    def _as_seen(self, kind: Kind, revision: int, *ids: str) -> Compare:
        return Compare(self._key(kind, *ids), Target.MOD, revision)

    def _put(self, kind: Kind, record: Record, *ids: str) -> Put:
        return Put(self._key(kind, *ids), encode(record))

    def _start_compares(
        self, run: Run, seen: StartSeen, agent: str | None, presence_revision: int
    ) -> list[Compare]:
        compares = [
            self._as_seen(Kind.JOB, seen.job, run.job),
            self._as_seen(Kind.PAUSE, seen.pause, run.job),
            self._as_seen(Kind.PAUSE, seen.cluster_pause, CLUSTER),
        ]
        if agent is not None:
            compares.append(self._as_seen(Kind.PRESENCE, presence_revision, agent))
            compares.append(self._as_seen(Kind.DRAIN, seen.drain, agent))
            compares.append(self._as_seen(Kind.SEAT, seen.seat, agent))
        return compares

    def _consume(
        self,
        compares: tuple[Compare, ...],
        then: tuple[Operation, ...],
        consumed: fx.Consumed | None,
    ) -> Txn:
        if consumed is None:
            return Txn(compares, then)
        request = consumed.answer.request
        return Txn(
            (*compares, self._as_seen(Kind.REQUEST, consumed.request_revision, request)),
            (
                *then,
                Delete(self._key(Kind.REQUEST, request)),
                self._put(Kind.ANSWER, consumed.answer, request),
            ),
        )

    def _absent(self, run: Run) -> tuple[Compare, Compare]:
        return (
            self._as_seen(Kind.RUN, 0, run.job, run.id),
            Compare(self._keys.archive(run.job, run.id), Target.MOD, 0),
        )

    def _whether_there(self, *runs: Run) -> tuple[Range, ...]:
        """Asked where a write is refused, of each run at both of its places."""
        return tuple(Range(c.key, keys_only=True) for run in runs for c in self._absent(run))

    def _create(self, write: fx.CreateRun) -> Txn:
        run, assignment = write.run, write.assignment
        compares = [*self._absent(run)]
        agent = assignment.agent if assignment is not None else None
        compares += self._start_compares(run, write.seen, agent, write.presence_revision)
        compares += self._calendar_compares(write.calendars)
        if write.is_tick:
            assert run.scheduled_at is not None
            compares.append(self._later_than_watermark(run.scheduled_at))
        if write.fan_out_revision:
            place = (run.job, fan_out_in(run.id))
            compares.append(self._as_seen(Kind.FAN_OUT, write.fan_out_revision, *place))
        then: list[Operation] = [self._home(run)]
        if assignment is not None:
            then += self._assign(assignment, write.rotation)
        compares += self._following_compares(write.following)
        then += self._following_writes(write.following)
        created = self._consume(tuple(compares), tuple(then), write.consumed)
        # Why was it refused? Where the run is there already, the tick is decided.
        exists = self._whether_there(run, *_begun_by(write.following))
        return Txn(created.compares, created.then, exists)

    def _assign(self, assignment: Assignment, rotation: Rotation | None) -> list[Put]:
        place = (assignment.agent, assignment.job, assignment.run)
        puts = [self._put(Kind.ASSIGNMENT, assignment, *place)]
        if rotation is not None:
            puts.append(self._put(Kind.ROTATION, rotation, rotation.job))
        return puts

    def _fan_out(self, write: fx.CreateFanOut) -> Txn:
        fan_out, seen = write.fan_out, write.seen
        absent = self._absent_fan_out(fan_out)
        compares = (
            *absent,
            self._as_seen(Kind.JOB, seen.job, fan_out.job),
            self._as_seen(Kind.PAUSE, seen.pause, fan_out.job),
            self._as_seen(Kind.PAUSE, seen.cluster_pause, CLUSTER),
            *self._calendar_compares(write.calendars),
            self._later_than_watermark(fan_out.scheduled_at),
        )
        exists = tuple(Range(compare.key, keys_only=True) for compare in absent)
        return Txn(compares, (self._put(Kind.FAN_OUT, fan_out, fan_out.job, fan_out.run),), exists)

    def _absent_fan_out(self, fan_out: FanOut) -> tuple[Compare, Compare, Compare]:
        """Nor was the tick decided otherwise: by a run, or by a record of why there is none."""
        place = (fan_out.job, fan_out.run)
        return (
            self._as_seen(Kind.FAN_OUT, 0, *place),
            self._as_seen(Kind.RUN, 0, *place),
            Compare(self._keys.archive(*place), Target.MOD, 0),
        )

    def _following_compares(self, following: fx.Following | None) -> list[Compare]:
        if following is None:
            return []
        jobs = [self._as_seen(Kind.JOB, revision, job) for job, revision in following.jobs]
        joins = [
            self._as_seen(Kind.JOIN, change.revision, change.target, change.instance)
            for change in following.joins
        ]
        absent = [compare for run in following.created for compare in self._absent(run)]
        edited = following.edited_revision
        edits = [self._as_seen(Kind.EDITED, edited)] if edited is not None else []
        return [*jobs, *joins, *absent, *edits]

    def _following_writes(self, following: fx.Following | None) -> list[Operation]:
        if following is None:
            return []
        writes: list[Operation] = [self._home(run) for run in following.created]
        for change in following.joins:
            place = (change.target, change.instance)
            if change.join is not None:
                writes.append(self._put(Kind.JOIN, change.join, *place))
            else:
                writes.append(Delete(self._key(Kind.JOIN, *place)))
        return writes

    def _resubmit(self, write: fx.Resubmit) -> Txn:
        original = write.original
        archived = self._keys.archive(original.job, original.id)
        compares = [*self._absent(write.run), *self._start_compares(write.run, write.seen, None, 0)]
        then: list[Operation] = [self._home(write.run), self._home(original)]
        if write.was_active:
            compares += self._over_as_seen(original, write.original_revision)
            then.append(Delete(self._key(Kind.RUN, original.job, original.id)))
        else:
            compares.append(Compare(archived, Target.MOD, write.original_revision))
        made = self._consume(tuple(compares), tuple(then), write.consumed)
        # Where the run is there already, this was done before.
        exists = tuple(Range(c.key, keys_only=True) for c in self._absent(write.run))
        return Txn(made.compares, made.then, exists)

    def _over_as_seen(self, run: Run, revision: int) -> tuple[Compare, Compare]:
        return (
            self._as_seen(Kind.RUN, revision, run.job, run.id),
            Compare(self._keys.archive(run.job, run.id), Target.MOD, 0),
        )

    def _calendar_compares(self, seen: tuple[tuple[str, int], ...]) -> list[Compare]:
        return [self._as_seen(Kind.CALENDAR, revision, name) for name, revision in seen]

    def _later_than_watermark(self, tick: Utc) -> Compare:
        return Compare(self._keys.watermark, Target.VALUE, watermark_operand(tick), Relation.LESS)

    def _home(self, run: Run) -> Put:
        """A run lives in ``state/runs`` until it is over, then in the archive."""
        if run.state in FINAL:
            return Put(self._keys.archive(run.job, run.id), encode(run))
        return self._put(Kind.RUN, run, run.job, run.id)

    def _dispatch(self, write: fx.Dispatch) -> Txn:
        run, assignment = write.run, write.assignment
        return Txn(
            (
                self._as_seen(Kind.RUN, write.run_revision, run.job, run.id),
                *self._start_compares(
                    run, assignment.seen, assignment.agent, write.presence_revision
                ),
            ),
            (
                self._put(Kind.RUN, run, run.job, run.id),
                *self._assign(assignment, write.rotation),
            ),
        )

    def _rewrite(self, run: Run, revision: int) -> Txn:
        return Txn(
            (self._as_seen(Kind.RUN, revision, run.job, run.id),),
            (self._put(Kind.RUN, run, run.job, run.id),),
        )

    def _old_compares(self, run: Run, old: fx.OldAttempt) -> list[Compare]:
        compares = [
            self._as_seen(Kind.ASSIGNMENT, old.assignment_revision, old.agent, run.job, run.id),
            self._as_seen(Kind.REPORT, old.report_revision, old.agent, run.job, run.id),
        ]
        if old.presence_revision is not None:
            compares.append(self._as_seen(Kind.PRESENCE, old.presence_revision, old.agent))
        return compares

    def _old_deletes(self, run: Run, old: fx.OldAttempt) -> list[Operation]:
        place = (old.agent, run.job, run.id)
        kinds = (Kind.ASSIGNMENT, Kind.REPORT)
        gone: list[Operation] = [Delete(self._key(kind, *place)) for kind in kinds]
        if old.order is None:
            return [*gone, Delete(self._key(Kind.ORDER, *place))]
        return [*gone, self._put(Kind.ORDER, old.order, *place)]

    def _move(self, write: fx.MoveRun) -> Txn:
        run, assignment = write.run, write.assignment
        compares = [self._as_seen(Kind.RUN, write.run_revision, run.job, run.id)]
        deletes: list[Operation] = []
        if write.old is not None:
            compares += self._old_compares(run, write.old)
            deletes = self._old_deletes(run, write.old)
        puts: list[Operation] = [self._put(Kind.RUN, run, run.job, run.id)]
        if assignment is not None:
            compares += self._start_compares(
                run, assignment.seen, assignment.agent, write.presence_revision
            )
            puts += self._assign(assignment, write.rotation)
            if write.old is not None and assignment.agent == write.old.agent:
                # The same key put anew replaces the old one: deleting it too would be refused.
                deletes = deletes[1:]
        return self._consume(tuple(compares), (*deletes, *puts), write.consumed)

    def _hold(self, write: fx.HoldRun) -> Txn:
        held = self._resume(write)
        gone = self._old_deletes(write.run, write.old) if write.is_attempt_over else []
        return Txn(held.compares, (*held.then, *gone))

    def _resume(self, write: fx.HoldRun | fx.ResumeRun) -> Txn:
        run = write.run
        return Txn(
            (
                self._as_seen(Kind.RUN, write.run_revision, run.job, run.id),
                *self._old_compares(run, write.old),
            ),
            (self._put(Kind.RUN, run, run.job, run.id),),
        )

    def _end(self, write: fx.EndRun) -> Txn:
        run = write.run
        compares = [*self._over_as_seen(run, write.run_revision)]
        then: list[Operation] = [self._home(run), Delete(self._key(Kind.RUN, run.job, run.id))]
        if write.old is not None:
            compares += self._old_compares(run, write.old)
            then += self._old_deletes(run, write.old)
        compares += self._following_compares(write.following)
        then += self._following_writes(write.following)
        ended = self._consume(tuple(compares), tuple(then), write.consumed)
        exists = self._whether_there(*_begun_by(write.following))
        return Txn(ended.compares, ended.then, exists)

    def _order(self, write: fx.SendOrder) -> Txn:
        order: Order = write.order
        return self._consume(
            (
                self._as_seen(Kind.RUN, write.run_revision, order.job, order.run),
                self._as_seen(Kind.ASSIGNMENT, order.token, write.agent, order.job, order.run),
            ),
            (self._put(Kind.ORDER, order, write.agent, order.job, order.run),),
            write.consumed,
        )

    def _open_gap(self, write: fx.OpenGap) -> Txn:
        gap = write.gap
        # A copy of this that a frozen member commits as it wakes finds no gap again, if this one
        # is forgotten by then; but it is forgotten only once the watermark has passed its end.
        after = instant_after(gap.decided_through)
        return Txn(
            (
                self._as_seen(Kind.GAP, write.gap_revision, gap.job),
                self._as_seen(Kind.JOB, write.job_revision, gap.job),
                # Ticks that its account begins behind were found not to be due by these.
                self._as_seen(Kind.PAUSE, write.pause_revision, gap.job),
                self._as_seen(Kind.PAUSE, write.cluster_pause_revision, CLUSTER),
                *self._calendar_compares(write.calendars),
                self._later_than_watermark(after),
            ),
            (self._put(Kind.GAP, gap, gap.job),),
        )

    def _recover(self, write: fx.RecoverTicks) -> Txn:
        compares = [
            self._as_seen(Kind.GAP, write.gap_revision, write.job),
            self._as_seen(Kind.JOB, write.job_revision, write.job),
            self._as_seen(Kind.PAUSE, write.pause_revision, write.job),
            self._as_seen(Kind.PAUSE, write.cluster_pause_revision, CLUSTER),
        ]
        compares += self._calendar_compares(write.calendars)
        if write.first_tick is not None:
            compares.append(self._later_than_watermark(write.first_tick))
        then: list[Operation] = [self._put(Kind.GAP, write.gap, write.job)]
        exists: list[Operation] = []
        for run in (*write.created, *write.archived):
            # An earlier leader may have decided that tick for each agent.
            absent = [*self._absent(run), self._as_seen(Kind.FAN_OUT, 0, run.job, run.id)]
            compares += absent
            then.append(self._home(run))
            exists += (Range(compare.key, keys_only=True) for compare in absent)
        for fan_out in write.fan_outs:
            undecided = self._absent_fan_out(fan_out)
            compares += undecided
            then.append(self._put(Kind.FAN_OUT, fan_out, fan_out.job, fan_out.run))
            exists += (Range(compare.key, keys_only=True) for compare in undecided)
        compares += self._following_compares(write.following)
        then += self._following_writes(write.following)
        exists += self._whether_there(*_begun_by(write.following))
        return Txn(tuple(compares), tuple(then), tuple(exists))

    def _fold_late(self, write: fx.FoldLateReport) -> Txn:
        late = (write.agent, write.job, write.run_id, str(write.token))
        compares = [self._as_seen(Kind.LATE_REPORT, write.report_revision, *late)]
        then: list[Operation] = [Delete(self._key(Kind.LATE_REPORT, *late))]
        if write.order_revision:
            place = (write.agent, write.job, write.run_id)
            compares.append(self._as_seen(Kind.ORDER, write.order_revision, *place))
            then.append(Delete(self._key(Kind.ORDER, *place)))
        if write.run is not None:
            key = (
                self._keys.archive(write.job, write.run_id)
                if write.in_archive
                else self._key(Kind.RUN, write.job, write.run_id)
            )
            compares.append(Compare(key, Target.MOD, write.run_revision))
            then.append(Put(key, encode(write.run)))
        return Txn(tuple(compares), tuple(then))

    def _seats(self, write: fx.ChangeSeats) -> Txn:
        compares = [self._as_seen(Kind.SETTINGS, write.settings_revision)]
        then: list[Operation] = []
        for agent, revision, presence_revision in write.taken:
            compares.append(self._as_seen(Kind.SEAT, revision, agent))
            compares.append(self._as_seen(Kind.PRESENCE, presence_revision, agent))
            then.append(Delete(self._key(Kind.SEAT, agent)))
        for seat, revision, presence_revision in write.given:
            compares.append(self._as_seen(Kind.SEAT, revision, seat.agent))
            compares.append(self._as_seen(Kind.PRESENCE, presence_revision, seat.agent))
            then.append(self._put(Kind.SEAT, seat, seat.agent))
        return Txn(tuple(compares), tuple(then))

    def _live(self, write: fx.ChangeLive) -> Txn:
        compares: list[Compare] = []
        then: list[Operation] = []
        for change in write.changes:
            compares.append(self._as_seen(Kind.LIVE, change.revision, change.agent))
            compares.append(self._as_seen(Kind.PRESENCE, change.presence_revision, change.agent))
            if change.live is not None:
                then.append(self._put(Kind.LIVE, change.live, change.agent))
            else:
                then.append(Delete(self._key(Kind.LIVE, change.agent)))
        compares += [self._as_seen(Kind.PRESENCE, rev, agent) for agent, rev in write.witnesses]
        compares += [self._as_seen(Kind.JOB, revision, job) for job, revision in write.jobs]
        for run in write.created:
            compares += self._absent(run)
            then.append(self._home(run))
        return Txn(tuple(compares), tuple(then))

    def _forget(self, key: str, revision: int) -> Txn:
        return Txn((Compare(key, Target.MOD, revision),), (Delete(key),))

    def _forget_attempt(self, write: fx.ForgetAttempt) -> Txn:
        place = (write.agent, write.job, write.run_id)
        kinds = (Kind.ASSIGNMENT, Kind.REPORT, Kind.ORDER)
        return Txn(
            (
                self._as_seen(Kind.RUN, 0, write.job, write.run_id),
                self._as_seen(Kind.ASSIGNMENT, write.assignment_revision, *place),
                self._as_seen(Kind.REPORT, write.report_revision, *place),
            ),
            tuple(Delete(self._key(kind, *place)) for kind in kinds),
        )

    def _forget_job(self, write: fx.ForgetJob) -> Txn:
        return Txn(
            (
                self._as_seen(Kind.JOB, write.job_revision, write.job),
                self._as_seen(Kind.PAUSE, write.pause_revision, write.job),
                self._as_seen(Kind.GAP, 0, write.job),
            ),
            tuple(
                Delete(self._key(kind, write.job)) for kind in (Kind.JOB, Kind.PAUSE, Kind.ROTATION)
            ),
        )


def _begun_by(following: fx.Following | None) -> tuple[Run, ...]:
    """The runs that an end begins."""
    return following.created if following is not None else ()
