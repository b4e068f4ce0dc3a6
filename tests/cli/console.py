"""The command line against a model of etcd: one call after another, at a fixed time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
from click.testing import CliRunner, Result

from etcsched.core.records import (
    Assignment,
    Attempt,
    Candidate,
    Exec,
    Job,
    Kind,
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
from etcsched.core.schedule import Cron
from etcsched.core.states import Origin, Outcome, RunState
from etcsched.core.times import Utc, ms_of
from etcsched.keyspace.codec import decode, encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Put, Range, Txn
from etcsched.testing.model_etcd import ModelEtcd
from etcsched.testing.model_store import ModelStore
from etcsched_cli.main import cli
from etcsched_cli.settings import Environment

NOW = Utc("2026-11-22T19:00:00.500Z")


class Console:
    """``run`` is one command; ``store`` is the cluster that they all see."""

    def __init__(self, home: Path) -> None:
        self.store = ModelStore()
        self.keys = Keys()
        self.home = home
        self.now = NOW
        self.is_reachable = True

    def run(self, *args: str, columns: int = 200, stdin: str | bytes = "", **env: str) -> Result:
        def open_etcd(*_: Any) -> ModelEtcd:
            etcd = ModelEtcd(self.store)
            if not self.is_reachable:
                etcd.cut()
            return etcd

        environment = Environment(
            open_etcd=open_etcd, now_ms=lambda: ms_of(self.now), entropy=lambda: b"\xab\xcd"
        )
        # What the developer's shell says of a cluster is not for tests.
        unset = dict.fromkeys((n for n in os.environ if n.startswith("ETCSCHED_")), None)
        return CliRunner().invoke(
            cli,
            list(args),
            obj=environment,
            input=stdin,
            env={
                **unset,
                "HOME": str(self.home),
                "COLUMNS": str(columns),
                "LOGNAME": "anna",
                **env,
            },
        )

    def ok(self, *args: str, **options: Any) -> str:
        result = self.run(*args, **options)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    def json(self, *args: str) -> Any:
        return json.loads(self.ok(*args, "--json"))

    def run_json(self, code: int, *args: str) -> Any:
        result = self.run(*args, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def fails(self, code: int, *args: str, **options: Any) -> str:
        """The one line that it ends with."""
        result = self.run(*args, **options)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        assert result.stdout == ""
        return result.stderr.rstrip("\n")

    def put(self, record: Record, kind: Kind, *ids: str) -> int:
        """What goes with its node has a lease, as the node would have it."""
        goes = kind in (Kind.ELECTION, Kind.PRESENCE)
        lease = self.store.lease_grant(3600).lease if goes else 0
        put = Put(self.keys.of(kind, *ids), encode(record), lease)
        return self.store.txn(Txn((), (put,))).revision

    def at(self, now: Utc) -> None:
        """It is later; the agents' clocks show it, as they do once a minute."""
        self.now = now
        for kv in self.store.range(Range(*self.keys.all_of(Kind.PRESENCE))).kvs:
            shown = msgspec.structs.replace(decode(Presence, kv.value), clock=now)
            self.store.txn(Txn((), (Put(kv.key, encode(shown), kv.lease),)))

    def put_raw(self, key: str, value: bytes) -> None:
        self.store.txn(Txn((), (Put(key, value),)))

    def archive(self, run: Run) -> None:
        self.store.txn(Txn((), (Put(self.keys.archive(run.job, run.id), encode(run)),)))

    def get(self, type_: type[Any], kind: Kind, *ids: str) -> Any:
        found = self.store.range(Range(self.keys.of(kind, *ids))).kvs
        return msgspec.json.decode(found[0].value, type=type_) if found else None


def job(name: str, cron: str = "30 2 * * *", timezone: str = "UTC", **fields: Any) -> Job:
    since = Utc("2026-10-01T00:00:00.000Z")
    version = ScheduleVersion(since=since, patterns=(Cron(cron),), timezone=timezone)
    return Job(name=name, run=Exec(("/bin/true",)), versions=(version,), **fields)


def finished(job: str, id_: str, scheduled_at: Utc, outcome: Outcome = Outcome.COMPLETED) -> Run:
    """Started 12 ms late, took 1.5 s, on host-a."""
    begun_ms = ms_of(scheduled_at)
    started = Utc(scheduled_at.replace(".000Z", ".012Z"))
    ended = Utc(scheduled_at.replace("00.000Z", "01.512Z"))
    assert ms_of(started) == begun_ms + 12
    state = RunState(outcome.value)
    has_failed = outcome is Outcome.FAILED
    attempt = Attempt(
        number=1,
        agent="host-a",
        token=40,
        assigned_at=scheduled_at,
        outcome=outcome,
        started_at=started,
        ended_at=ended,
        exit_code=3 if has_failed else 0,
        reason="exit code 3" if has_failed else "completed",
        cpu_s=0.25,
        peak_memory_bytes=11 << 20,
        tail="\x1b[31mno such ledger\n" if has_failed else "",
    )
    return Run(
        job=job,
        id=id_,
        state=state,
        origin=Origin.SCHEDULE,
        created_at=scheduled_at,
        scheduled_at=scheduled_at,
        attempt=1,
        attempts=(attempt,),
        history=(
            Transition(state=RunState.ASSIGNED, at=scheduled_at, cause="due", term=7),
            Transition(state=state, at=ended, cause=attempt.reason, term=7),
        ),
    )


def populate(console: Console) -> None:
    """A leader and its standby, two agents, three jobs, a run of each kind."""
    since = Utc("2026-11-22T18:00:00.000Z")
    token = 0
    for number, node in enumerate(("host-a", "host-b")):
        candidate = Candidate(
            node=node, host=node, pid=100 + number, since=since, clock=since, version="0.1.0"
        )
        revision = console.put(candidate, Kind.ELECTION, f"{number + 10:x}")
        token = token or revision
    term = Term(
        number=7,
        leader="host-a",
        election_key=console.keys.of(Kind.ELECTION, "a"),
        token=token,
        since=Utc("2026-11-22T18:30:00.000Z"),
    )
    console.put(term, Kind.TERM)
    through = Utc("2026-11-22T19:00:00.000Z")
    console.put(Watermark(through=through, term=7), Kind.WATERMARK)
    for number, agent in enumerate(("host-a", "host-b")):
        presence = Presence(
            agent=agent,
            incarnation=f"1{number}",
            supervisor="s",
            slots=4 - 3 * number,
            host=agent,
            pid=200 + number,
            since=since,
            clock=through,
            version="0.1.0",
            labels={"role": "erp"} if number else {},
        )
        console.put(presence, Kind.PRESENCE, agent)
    console.put(job("close_books", tags=("finance",)), Kind.JOB, "close_books")
    console.put(job("rotate_logs", "*/5 * * * *"), Kind.JOB, "rotate_logs")
    console.archive(finished("close_books", "20261121T023000Z", Utc("2026-11-21T02:30:00.000Z")))
    console.archive(
        finished(
            "close_books",
            "20261122T023000Z",
            Utc("2026-11-22T02:30:00.000Z"),
            Outcome.FAILED,
        )
    )
    _assign(console, "20261122T185500Z", "host-b", claimed=True)
    _assign(console, "20261122T190000Z", "host-a", claimed=False)


def _assign(console: Console, id_: str, agent: str, claimed: bool) -> None:
    scheduled = Utc(f"2026-11-22T{id_[9:11]}:{id_[11:13]}:00.000Z")
    run = Run(
        job="rotate_logs",
        id=id_,
        state=RunState.ASSIGNED,
        origin=Origin.SCHEDULE,
        created_at=scheduled,
        scheduled_at=scheduled,
        agent=agent,
        attempt=1,
        history=(Transition(state=RunState.ASSIGNED, at=scheduled, cause="due", term=7),),
    )
    console.put(run, Kind.RUN, "rotate_logs", id_)
    assignment = Assignment(
        job="rotate_logs",
        run=id_,
        agent=agent,
        incarnation="1f",
        attempt=1,
        action=Exec(("/bin/true",)),
        seen=StartSeen(job=1),
        assigned_at=scheduled,
        term=7,
    )
    token = console.put(assignment, Kind.ASSIGNMENT, agent, "rotate_logs", id_)
    if claimed:
        report = Report(
            job="rotate_logs",
            run=id_,
            attempt=1,
            token=token,
            incarnation="1f",
            supervisor="s",
            claimed_at=scheduled,
            started_at=Utc(scheduled.replace(".000Z", ".008Z")),
        )
        console.put(report, Kind.REPORT, agent, "rotate_logs", id_)
