"""The only place where transactions are built (DESIGN 3 to 5).

Every process commits *outer* transactions, guarded by its own key, that hold one *nested*
transaction per write. A refused guard means: you are no longer what you were. A refused nested
transaction means: this one decision rested on something that has changed.
"""

from __future__ import annotations

from typing import assert_never

from etcsched.core.agent.effects import Claim, ReportOutcome
from etcsched.core.leader import effects as fx
from etcsched.core.records import (
    CLUSTER,
    Candidate,
    Drain,
    Edited,
    Job,
    Kind,
    Order,
    Pause,
    Presence,
    Record,
    Request,
    Run,
    StartSeen,
    Term,
)
from etcsched.core.states import FINAL
from etcsched.core.times import Utc
from etcsched.keyspace.codec import encode, watermark_operand
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Compare, Delete, Operation, Put, Range, Relation, Target, Txn

MAX_OPERATIONS = 120
"""Below etcd's default ``--max-txn-ops`` of 128. An outer transaction of n nested ones with at
most k compares or operations each is accepted while n + k is at most that."""

MAX_BYTES = 1 << 20
"""Below etcd's default request limit of 1.5 MiB."""


class LeaderGuard:
    """What every transaction of one leader compares: its own election key and its term."""

    def __init__(self, keys: Keys, term: Term, term_revision: int) -> None:
        self.compares = (
            Compare(keys.of(Kind.ELECTION, term.election_key), Target.CREATE, term.token),
            Compare(keys.term, Target.MOD, term_revision),
        )


class AgentGuard:
    """What every report of one agent compares: its presence, by create revision, since an agent
    may change its own record."""

    def __init__(self, keys: Keys, agent: str, presence_create_revision: int) -> None:
        self.compares = (
            Compare(keys.of(Kind.PRESENCE, agent), Target.CREATE, presence_create_revision),
        )


def guarded(guard: LeaderGuard | AgentGuard, nested: list[Txn]) -> Txn:
    """One outer transaction; its responses are the nested ones', in order."""
    return Txn(guard.compares, tuple(nested))


def cost(txn: Txn) -> int:
    """What one nested transaction adds to k (see ``MAX_OPERATIONS``)."""
    return max(len(txn.compares), len(txn.then), len(txn.otherwise))


def size_bytes(txn: Txn) -> int:
    """Roughly what a nested transaction takes on the wire."""
    total = sum(len(compare.key) + 24 for compare in txn.compares)
    for operation in (*txn.then, *txn.otherwise):
        match operation:
            case Put():
                total += len(operation.key) + len(operation.value) + 16
            case Txn():
                total += size_bytes(operation)
            case _:
                total += len(operation.key) + 16
    return total


def touched(txn: Txn) -> set[str]:
    """The keys that a nested transaction writes: no two of one outer may share any."""
    keys: set[str] = set()
    for operation in (*txn.then, *txn.otherwise):
        match operation:
            case Put() | Delete():
                keys.add(operation.key)
            case Txn():
                keys |= touched(operation)
            case _:
                pass
    return keys


class LeaderTransactions:
    """Each of the leader's writes as one nested transaction."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def build(self, write: fx.Write) -> Txn:  # noqa: C901 - one case a write is the clearest form
        match write:
            case fx.CreateRun():
                return self._create(write)
            case fx.Dispatch():
                return self._dispatch(write)
            case fx.MoveRun():
                return self._move(write)
            case fx.EndRun():
                return self._end(write)
            case fx.Requeue():
                return self._rewrite(write.run, write.run_revision)
            case fx.SendOrder():
                return self._order(write)
            case fx.AnswerRequest():
                return self._consume((), (), write.consumed)
            case fx.OpenGap():
                return self._open_gap(write)
            case fx.RecoverTicks():
                return self._recover(write)
            case fx.FoldLateReport():
                return self._fold_late(write)
            case fx.Forget():
                return self._forget(self._keys.archive(write.job, write.run_id), write.revision)
            case fx.ForgetAttempt():
                return self._forget_attempt(write)
            case fx.ForgetAnswer():
                return self._forget(self._key(Kind.ANSWER, write.request), write.revision)
            case fx.ForgetGap():
                return self._forget(self._key(Kind.GAP, write.job), write.revision)
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

    def _create(self, write: fx.CreateRun) -> Txn:
        run, assignment = write.run, write.assignment
        compares = [*self._absent(run)]
        agent = assignment.agent if assignment is not None else None
        compares += self._start_compares(run, write.seen, agent, write.presence_revision)
        if write.is_tick:
            assert run.scheduled_at is not None
            compares.append(self._later_than_watermark(run.scheduled_at))
        then: list[Operation] = [self._home(run)]
        if assignment is not None:
            then.append(self._put(Kind.ASSIGNMENT, assignment, assignment.agent, run.job, run.id))
        created = self._consume(tuple(compares), tuple(then), write.consumed)
        # Why was it refused? Where the run is there already, the tick is decided.
        exists = tuple(Range(c.key, keys_only=True) for c in self._absent(run))
        return Txn(created.compares, created.then, exists)

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
                self._put(Kind.ASSIGNMENT, assignment, assignment.agent, run.job, run.id),
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
        kinds = (Kind.ASSIGNMENT, Kind.REPORT, Kind.ORDER)
        return [Delete(self._key(kind, old.agent, run.job, run.id)) for kind in kinds]

    def _move(self, write: fx.MoveRun) -> Txn:
        run, assignment = write.run, write.assignment
        compares = [
            self._as_seen(Kind.RUN, write.run_revision, run.job, run.id),
            *self._old_compares(run, write.old),
        ]
        deletes = self._old_deletes(run, write.old)
        puts: list[Operation] = [self._put(Kind.RUN, run, run.job, run.id)]
        if assignment is not None:
            compares += self._start_compares(
                run, assignment.seen, assignment.agent, write.presence_revision
            )
            puts.append(self._put(Kind.ASSIGNMENT, assignment, assignment.agent, run.job, run.id))
            if assignment.agent == write.old.agent:
                # The same key put anew replaces the old one: deleting it too would be refused.
                deletes = deletes[1:]
        return Txn(tuple(compares), (*deletes, *puts))

    def _end(self, write: fx.EndRun) -> Txn:
        run = write.run
        compares = [
            self._as_seen(Kind.RUN, write.run_revision, run.job, run.id),
            Compare(self._keys.archive(run.job, run.id), Target.MOD, 0),
        ]
        then: list[Operation] = [self._home(run), Delete(self._key(Kind.RUN, run.job, run.id))]
        if write.old is not None:
            compares += self._old_compares(run, write.old)
            then += self._old_deletes(run, write.old)
        return self._consume(tuple(compares), tuple(then), write.consumed)

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
        return Txn(
            (
                self._as_seen(Kind.GAP, write.gap_revision, write.gap.job),
                self._as_seen(Kind.JOB, write.job_revision, write.gap.job),
            ),
            (self._put(Kind.GAP, write.gap, write.gap.job),),
        )

    def _recover(self, write: fx.RecoverTicks) -> Txn:
        compares = [
            self._as_seen(Kind.GAP, write.gap_revision, write.job),
            self._as_seen(Kind.JOB, write.job_revision, write.job),
            self._as_seen(Kind.PAUSE, write.pause_revision, write.job),
            self._as_seen(Kind.PAUSE, write.cluster_pause_revision, CLUSTER),
        ]
        if write.first_tick is not None:
            compares.append(self._later_than_watermark(write.first_tick))
        then: list[Operation] = [self._put(Kind.GAP, write.gap, write.job)]
        exists: list[Operation] = []
        for run in (*write.created, *write.archived):
            absent = self._absent(run)
            compares += absent
            then.append(self._home(run))
            exists += (Range(compare.key, keys_only=True) for compare in absent)
        return Txn(tuple(compares), tuple(then), tuple(exists))

    def _fold_late(self, write: fx.FoldLateReport) -> Txn:
        late = (write.agent, write.job, write.run_id, str(write.token))
        compares = [self._as_seen(Kind.LATE_REPORT, write.report_revision, *late)]
        then: list[Operation] = [Delete(self._key(Kind.LATE_REPORT, *late))]
        if write.run is not None:
            key = (
                self._keys.archive(write.job, write.run_id)
                if write.in_archive
                else self._key(Kind.RUN, write.job, write.run_id)
            )
            compares.append(Compare(key, Target.MOD, write.run_revision))
            then.append(Put(key, encode(write.run)))
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
            tuple(Delete(self._key(kind, write.job)) for kind in (Kind.JOB, Kind.PAUSE)),
        )


class AgentTransactions:
    """An agent's writes as nested transactions below its ``AgentGuard``."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def build(self, write: Claim | ReportOutcome) -> Txn:
        match write:
            case Claim():
                return self._claim(write)
            case ReportOutcome():
                return self._outcome(write)
            case _:
                assert_never(write)

    def _claim(self, write: Claim) -> Txn:
        keys, assignment = self._keys, write.assignment
        place = (assignment.agent, assignment.job, assignment.run)
        seen = assignment.seen
        report = keys.of(Kind.REPORT, *place)
        return Txn(
            (
                Compare(keys.of(Kind.ASSIGNMENT, *place), Target.MOD, write.token),
                Compare(report, Target.MOD, 0),
                Compare(keys.of(Kind.JOB, assignment.job), Target.MOD, seen.job),
                Compare(keys.of(Kind.PAUSE, assignment.job), Target.MOD, seen.pause),
                Compare(keys.pause_of_cluster(), Target.MOD, seen.cluster_pause),
                Compare(keys.of(Kind.DRAIN, assignment.agent), Target.MOD, seen.drain),
            ),
            (Put(report, encode(write.report)),),
            # Whose report is there? A claim of this very token and session is mine: the answer
            # to an earlier, identical sending was lost.
            (Range(report),),
        )

    def _outcome(self, write: ReportOutcome) -> Txn:
        keys, report = self._keys, write.report
        place = (write.agent, report.job, report.run)
        value = encode(report)
        return Txn(
            (Compare(keys.of(Kind.ASSIGNMENT, *place), Target.MOD, write.token),),
            (Put(keys.of(Kind.REPORT, *place), value),),
            (Put(keys.of(Kind.LATE_REPORT, *place, str(write.token)), value),),
        )


def join_election(keys: Keys, lease: int, candidate: Candidate) -> Txn:
    """Stand for election, once per session: the key's create revision is the place in the queue.
    The else branch reads what is there, so that a lost answer doesn't cost the place."""
    key = keys.election(lease)
    return Txn(
        (Compare(key, Target.CREATE, 0),),
        (Put(key, encode(candidate), lease),),
        (Range(key),),
    )


def update_candidate(keys: Keys, lease: int, token: int, candidate: Candidate) -> Txn:
    """Renew what a candidate says of itself; its place in the queue stays."""
    key = keys.election(lease)
    return Txn((Compare(key, Target.CREATE, token),), (Put(key, encode(candidate), lease),))


def leave_election(keys: Keys, lease: int, token: int) -> Txn:
    """Resign: the next candidate leads at once."""
    key = keys.election(lease)
    return Txn((Compare(key, Target.CREATE, token),), (Delete(key),))


def win_term(keys: Keys, write: fx.WinTerm) -> Txn:
    """Take the term: own election key as created, the term record as seen."""
    election_key = keys.of(Kind.ELECTION, write.term.election_key)
    return Txn(
        (
            Compare(election_key, Target.CREATE, write.term.token),
            Compare(keys.term, Target.MOD, write.old_revision),
        ),
        (Put(keys.term, encode(write.term)),),
    )


def join_presence(keys: Keys, lease: int, presence: Presence) -> Txn:
    """Register an agent: refused while another of its id is present (else branch: who)."""
    key = keys.of(Kind.PRESENCE, presence.agent)
    return Txn(
        (Compare(key, Target.CREATE, 0),), (Put(key, encode(presence), lease),), (Range(key),)
    )


def update_presence(keys: Keys, lease: int, create_revision: int, presence: Presence) -> Txn:
    """Renew what an agent says of itself."""
    key = keys.of(Kind.PRESENCE, presence.agent)
    return Txn(
        (Compare(key, Target.CREATE, create_revision),),
        (Put(key, encode(presence), lease),),
        (Range(key),),
    )


def leave_presence(keys: Keys, agent: str, create_revision: int) -> Txn:
    key = keys.of(Kind.PRESENCE, agent)
    return Txn((Compare(key, Target.CREATE, create_revision),), (Delete(key),))


def submit_request(keys: Keys, request: Request) -> Txn:
    """Created only if neither the request nor its answer exists, so that resending is safe."""
    key = keys.of(Kind.REQUEST, request.id)
    answer = keys.of(Kind.ANSWER, request.id)
    return Txn(
        (Compare(key, Target.MOD, 0), Compare(answer, Target.MOD, 0)),
        (Put(key, encode(request)),),
        (Range(key), Range(answer)),
    )


def write_jobs(keys: Keys, jobs: list[tuple[Job, int]], watermark_revision: int) -> Txn:
    """All of them or none: each as it was seen (0: new), and the watermark too, since each job's
    timeline is counted from it."""
    compares = [Compare(keys.watermark, Target.MOD, watermark_revision)]
    compares += [Compare(keys.of(Kind.JOB, job.name), Target.MOD, seen) for job, seen in jobs]
    puts = [Put(keys.of(Kind.JOB, job.name), encode(job)) for job, _ in jobs]
    return Txn(tuple(compares), (*puts, _edit(keys)))


def write_pause(keys: Keys, name: str, pause: Pause, seen: int, watermark_revision: int) -> Txn:
    """Pause or resume ``name`` (a job, or the cluster), whose record is as seen; so is the
    watermark, since the interval is counted from it."""
    key = keys.of(Kind.PAUSE, name)
    return Txn(
        (
            Compare(key, Target.MOD, seen),
            Compare(keys.watermark, Target.MOD, watermark_revision),
        ),
        (Put(key, encode(pause)), _edit(keys)),
    )


def _edit(keys: Keys) -> Put:
    return Put(keys.of(Kind.EDITED), encode(Edited()))


def write_drain(keys: Keys, drain: Drain) -> Txn:
    key = keys.of(Kind.DRAIN, drain.agent)
    return Txn((Compare(key, Target.MOD, 0),), (Put(key, encode(drain)),))


def end_drain(keys: Keys, agent: str) -> Txn:
    key = keys.of(Kind.DRAIN, agent)
    return Txn((Compare(key, Target.MOD, 0, Relation.GREATER),), (Delete(key),))
