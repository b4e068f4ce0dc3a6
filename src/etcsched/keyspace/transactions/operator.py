"""What operators write: requests, and what they want (jobs, pauses, drains)."""

from __future__ import annotations

from etcsched.core.records import Drain, Edited, Job, Kind, Pause, Request
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Compare, Delete, Put, Range, Relation, Target, Txn


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
