"""What a hand has put where a record stands: no command fails by it, or takes it for another's."""

from __future__ import annotations

from etcsched.core.leader import effects as fx
from etcsched.core.records import Drain, Job, Kind
from etcsched.core.states import JobState
from etcsched.core.times import Utc
from etcsched.keyspace import archive_listing
from etcsched.keyspace.codec import encode
from etcsched.keyspace.ops import Range
from tests.cli.console import Console, finished


def copy_job(cluster: Console) -> None:
    (kv,) = cluster.store.range(Range(cluster.keys.of(Kind.JOB, "close_books"))).kvs
    cluster.put_raw(cluster.keys.of(Kind.JOB, "copied"), kv.value)


def test_a_key_below_the_archive_that_is_no_runs(cluster: Console) -> None:
    cluster.put_raw(cluster.keys.archive_prefix + "close_books", b"x")
    assert "20261122T023000Z" in cluster.ok("runs", "list", "--state", "failed")
    effect = fx.ListArchive(job=None)
    found = cluster.store.range(archive_listing.listing(cluster.keys, effect))
    listed = archive_listing.listed(cluster.keys, effect, found)
    assert len(listed.found) == len(found.kvs) - 1


def test_the_record_of_another_jobs_run(cluster: Console) -> None:
    run = finished("close_books", "20261122T023000Z", Utc("2026-11-22T02:30:00.000Z"))
    cluster.put_raw(cluster.keys.archive("rotate_logs", run.id), encode(run))
    assert "rotate_logs" in cluster.ok("jobs", "show", "rotate_logs")


def test_the_record_of_another_job(cluster: Console) -> None:
    copy_job(cluster)
    assert cluster.run("jobs", "delete", "copied", "--yes").exit_code != 0
    assert cluster.get(Job, Kind.JOB, "close_books").current.state is JobState.ENABLED
    exported = cluster.run("export")
    assert exported.exit_code == 1
    assert "copied" in exported.output


def test_a_drain_that_cant_be_read_drains_nothing_and_is_replaced(cluster: Console) -> None:
    cluster.put_raw(cluster.keys.of(Kind.DRAIN, "host-a"), b"{}")
    assert "already" not in cluster.ok("agents", "drain", "host-a")
    assert cluster.get(Drain, Kind.DRAIN, "host-a").agent == "host-a"
