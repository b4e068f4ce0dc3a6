"""What people see: whole tables, on wide and on narrow terminals."""

from __future__ import annotations

import json
from textwrap import dedent
from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.core.leader.setbacks import ASIDE_REASON
from etcsched.core.records import (
    Barred,
    Calendar,
    CalendarVersion,
    Candidate,
    ClusterSettings,
    Drain,
    Gap,
    Kind,
    Link,
    Live,
    Presence,
    Report,
    Run,
    Seat,
    Term,
    Transition,
    Watermark,
    Window,
)
from etcsched.core.states import JobState, Origin, Outcome, RunState, Stage
from etcsched.core.times import Utc
from etcsched.keyspace.codec import encode
from etcsched.keyspace.ops import Delete, Put, Txn
from etcsched.operator import cluster as operator_cluster
from etcsched.operator import top as operator_top
from tests.cli.console import NOW, Console, finished, job
from tests.support.jobs import job as made

SINCE = Utc("2026-11-22T18:00:00.000Z")

WIDE, NARROW = 200, 80


def screen(text: str) -> str:
    return dedent(text).removeprefix("\n")


@pytest.mark.parametrize("columns", [WIDE, NARROW])
def test_status(cluster: Console, columns: int) -> None:
    worst = "worst 12 ms (close_books/20261122T023000Z))"
    late = f"12 ms (median of the last 2 starts, {worst}"
    if columns == NARROW:
        late = late.replace("ms (close", f"ms\n{' ' * 12}(close")
    shown = cluster.ok("status", columns=columns)
    assert shown == (
        "leader      host-a, term 7, for 30m\n"
        "schedulers  host-a (leads), host-b\n"
        "jobs        2\n"
        "runs        1 running, 1 assigned, 0 waiting\n"
        f"late        {late}\n"
        "next tick   rotate_logs in 4m59s, 2026-11-22 19:05:00Z\n"
        "decided     through 2026-11-22 19:00:00Z\n"
        "etcd        model: 3.5.0, 0.0 MiB, revision 16\n"
        "\n"
        "AGENT   STATE  USED  SLOTS  RUNNING  LABELS    HOST    UP  VERSION\n"
        "host-a  ready     1      4        0            host-a  1h  0.1.0\n"
        "host-b  full      1      1        1  role=erp  host-b  1h  0.1.0\n"
    )


def test_status_of_nothing(console: Console) -> None:
    assert console.ok("status") == screen(
        """
        leader     nobody leads: nothing is decided; start etcsched scheduler
        jobs       0
        runs       0 running, 0 assigned, 0 waiting
        next tick  none: there are no jobs
        etcd       model: 3.5.0, 0.0 MiB, revision 1

        no agent is here; start one with etcsched agent
        """
    )


def test_jobs(cluster: Console) -> None:
    assert cluster.ok("jobs", "list", columns=WIDE) == screen(
        """
        JOB          STATE    SCHEDULE     NEXT      LAST    ENDED       RUNNING  WAITING
        close_books  enabled  30 2 * * *   in 7h29m  failed  16h29m ago        0        0
        rotate_logs  enabled  */5 * * * *  in 4m59s  -       -                 1        1
        """
    )
    assert cluster.ok("jobs", "list", columns=NARROW) == screen(
        """
        JOB          STATE    SCHEDULE     NEXT      LAST    ENDED       RUNNING
        close_books  enabled  30 2 * * *   in 7h29m  failed  16h29m ago        0
        rotate_logs  enabled  */5 * * * *  in 4m59s  -       -                 1
        not shown for want of width: WAITING; see --json
        """
    )
    assert [view["name"] for view in cluster.json("jobs", "list", "--tag", "finance")] == [
        "close_books"
    ]
    assert cluster.json("jobs", "list", "--state", "disabled") == []
    assert cluster.ok("jobs", "list", "--limit", "1").endswith(
        "... and more than these 1; see --limit, --tag\n"
    )


def test_a_long_name_is_never_cut(console: Console) -> None:
    name = "x" * 100
    console.put(job(name), Kind.JOB, name)
    lines = console.ok("jobs", "list", columns=NARROW).splitlines()
    assert all(len(line) <= NARROW for line in lines)
    assert lines[0] == "JOB"
    assert "".join(line.split(" ")[0] for line in lines[1:3]) == name
    note = "not shown for want of width: STATE, SCHEDULE, NEXT, LAST, ENDED, RUNNING, WAITING; see"
    assert " ".join(lines[3:]) == f"{note} --json"


def test_a_name_goes_before_columns(cluster: Console) -> None:
    """No header is cut, and no name is broken where that can be helped."""
    name = "reconcile_the_ledgers_of_all_branches"
    cluster.put(job(name), Kind.JOB, name)
    cluster.archive(finished(name, "20261122T023000Z", Utc("2026-11-22T02:30:00.000Z")))
    assert cluster.ok("jobs", "list", columns=NARROW) == screen(
        """
        JOB                                    STATE    SCHEDULE     NEXT      LAST
        close_books                            enabled  30 2 * * *   in 7h29m  failed
        reconcile_the_ledgers_of_all_branches  enabled  30 2 * * *   in 7h29m  completed
        rotate_logs                            enabled  */5 * * * *  in 4m59s  -
        not shown for want of width: ENDED, RUNNING, WAITING; see --json
        """
    )
    assert cluster.ok("runs", "list", "--state", "completed", columns=NARROW) == screen(
        """
        RUN                                                     STATE       TOOK  AGENT
        reconcile_the_ledgers_of_all_branches/20261122T023000Z  completed  1.5 s  host-a
        close_books/20261121T023000Z                            completed  1.5 s  host-a
        not shown for want of width: WHY, LATE, TRY; see --json
        """
    )


def test_one_job(cluster: Console) -> None:
    assert cluster.ok("jobs", "show", "close_books") == screen(
        """
        job    close_books
        state  enabled
        next   2026-11-23 02:30:00Z, in 7h29m
        last   close_books/20261122T023000Z: failed
        now    0 running, 0 waiting
        since  2026-10-01 00:00:00Z, by unknown

        jobs:
          close_books:
            run:
              exec: [/bin/true]
            schedule:
            - {cron: 30 2 * * *}
            timezone: UTC
            state: enabled
            tags: [finance]
        """
    )


def test_a_paused_job(cluster: Console) -> None:
    cluster.ok("jobs", "pause", "close_books")
    shown = cluster.ok("jobs", "show", "close_books")
    assert "state  paused\nnext   -\nlast" in shown
    shown = cluster.ok("explain", "close_books")
    assert "state  paused\n" in shown
    assert "enabled" not in shown


def test_coming_ticks_over_a_change_of_the_clocks(console: Console) -> None:
    """In Berlin clocks go back on 25 October 2026 at 3:00, and forward on 28 March 2027 at 2:00."""
    for name, cron in (("daily", "30 2 * * *"), ("often", "*/30 * * * *")):
        console.put(job(name, cron, "Europe/Berlin"), Kind.JOB, name)

    console.now = Utc("2026-10-24T12:00:00.000Z")
    assert console.ok("jobs", "next", "daily", "-n", "2") == screen(
        """
        TICK                  IN THE JOB'S ZONE          REMARK
        2026-10-25 00:30:00Z  2026-10-25T02:30:00+02:00  clocks go back: the first of two 02:30
        2026-10-26 01:30:00Z  2026-10-26T02:30:00+01:00  clocks went back since the tick before
        """
    )
    console.now = Utc("2026-10-25T00:00:00.000Z")
    assert console.ok("jobs", "next", "often", "-n", "4") == screen(
        """
        TICK                  IN THE JOB'S ZONE          REMARK
        2026-10-25 00:30:00Z  2026-10-25T02:30:00+02:00  clocks go back: the first of two 02:30
        2026-10-25 01:00:00Z  2026-10-25T02:00:00+01:00  clocks go back: the second of two 02:00
        2026-10-25 01:30:00Z  2026-10-25T02:30:00+01:00  clocks go back: the second of two 02:30
        2026-10-25 02:00:00Z  2026-10-25T03:00:00+01:00
        """
    )
    console.now = Utc("2027-03-27T12:00:00.000Z")
    (tick,) = console.json("jobs", "next", "daily", "-n", "1")
    assert tick == {
        "at": "2027-03-28T01:00:00.000Z",
        "local": "2027-03-28T03:00:00+02:00",
        "starts_at": "2027-03-28T01:00:00.000Z",
        "starts_on": {},
        "remark": "clocks go forward: 02:00 to 03:00 is skipped",
    }


def test_why_nothing_is_due(cluster: Console) -> None:
    by_hand = job("by_hand")
    version = replace(by_hand.current, state=JobState.AD_HOC_ACTIVE)
    cluster.put(replace(by_hand, versions=(version,)), Kind.JOB, "by_hand")
    assert cluster.ok("jobs", "next", "by_hand") == screen(
        """
        nothing is due
        it is ad_hoc_active: it runs only on request
        """
    )
    told = cluster.run("jobs", "next", "by_hand", "--json")
    assert (told.exit_code, json.loads(told.stdout)) == (0, [])
    assert told.stderr == "note: it is ad_hoc_active: it runs only on request\n"
    cluster.ok("jobs", "pause", "rotate_logs")
    nothing, why, rest = cluster.ok("jobs", "next", "rotate_logs").splitlines()
    assert nothing == "nothing is due"
    assert why.startswith("job rotate_logs is paused since 2026-11-22T19:00:00.500Z, by anna@")
    assert rest == "its next tick would be due at 2026-11-22T19:05:00.000Z"


def test_what_leaves_out_days_of_coming_ticks(cluster: Console) -> None:
    """A window that is over says nothing any more."""
    made_at = Utc("2026-10-01T00:00:00.000Z")
    days = CalendarVersion(since=made_at, exclude=("2026-11-24",))
    cluster.put(Calendar(name="holidays", versions=(days,)), Kind.CALENDAR, "holidays")
    daily = job("daily")
    past, coming = (
        Window(
            since=Utc(f"{day}T00:00:00.000Z"),
            until=Utc(f"{day}T12:00:00.000Z"),
            state=JobState.DISABLED,
        )
        for day in ("2026-11-01", "2026-11-26")
    )
    version = replace(daily.current, calendars=("holidays",), windows=(past, coming))
    cluster.put(replace(daily, versions=(version,)), Kind.JOB, "daily")
    assert cluster.ok("jobs", "next", "daily", "-n", "3") == screen(
        """
        TICK                  IN THE JOB'S ZONE          REMARK
        2026-11-23 02:30:00Z  2026-11-23T02:30:00+00:00
        2026-11-25 02:30:00Z  2026-11-25T02:30:00+00:00
        2026-11-27 02:30:00Z  2026-11-27T02:30:00+00:00
        without days that its calendars leave out: holidays
        another state or schedule, by its windows: 2026-11-26 00:00:00Z to 2026-11-26 12:00:00Z
        """
    )


def test_each_agents_own_start(cluster: Console) -> None:
    """A job that runs on each agent has no one start; who may not have it isn't named."""
    cluster.put(job("clean", splay_s=600.0, per_host=True), Kind.JOB, "clean")
    host_a = cluster.get(Presence, Kind.PRESENCE, "host-a")
    host_b = cluster.get(Presence, Kind.PRESENCE, "host-b")
    for presence in (host_a, host_b):
        cluster.put(
            replace(presence, users=("app",), default_user="app"), Kind.PRESENCE, presence.agent
        )
    (tick,) = cluster.json("jobs", "next", "clean", "-n", "1")
    starts = tick["starts_on"]
    assert tick["starts_at"] is None
    assert set(starts) == {"host-a", "host-b"}
    assert tick["at"] < min(starts.values()) < max(starts.values()) < "2026-11-23T02:40"
    assert cluster.ok("jobs", "next", "clean", "-n", "2") == screen(
        """
        TICK                  IN THE JOB'S ZONE          REMARK
        2026-11-23 02:30:00Z  2026-11-23T02:30:00+00:00
        2026-11-24 02:30:00Z  2026-11-24T02:30:00+00:00

        AGENT   STARTS
        host-a  6m59s after each tick
        host-b  3m56s after each tick
        """
    )
    for agent in ("host-a", "host-b"):
        cluster.ok("agents", "drain", agent)
    assert cluster.ok("jobs", "next", "clean").endswith(
        "each agent starts at its own time; none may run it now, see etcsched explain\n"
    )


def test_runs(cluster: Console) -> None:
    assert cluster.ok("runs", "list", columns=NARROW) == screen(
        """
        RUN                           STATE      WHY        LATE   TOOK  AGENT   TRY
        rotate_logs/20261122T190000Z  assigned   schedule      -      -  host-a    1
        rotate_logs/20261122T185500Z  running    schedule   8 ms     5m  host-b    1
        close_books/20261122T023000Z  failed     schedule  12 ms  1.5 s  host-a    1
        close_books/20261121T023000Z  completed  schedule  12 ms  1.5 s  host-a    1
        """
    )
    of_job = cluster.json("runs", "list", "close_books", "--state", "completed")
    assert [view["name"] for view in of_job] == ["close_books/20261121T023000Z"]
    assert len(cluster.json("runs", "list", "--limit", "3")) == 3
    assert cluster.ok("runs", "list", "rotate_logs", "--state", "died") == "no runs\n"


@pytest.mark.parametrize("columns", [WIDE, NARROW])
def test_one_run(cluster: Console, columns: int) -> None:
    """What a command wrote is shown, but gives the terminal no orders."""
    shown = cluster.ok("runs", "show", "close_books/20261122T023000Z", columns=columns)
    assert shown == screen(
        """
        run        close_books/20261122T023000Z
        state      failed
        scheduled  2026-11-22 02:30:00Z
        made by    schedule, 2026-11-22 02:30:00Z
        agent      host-a
        started    2026-11-22 02:30:00Z
        ended      2026-11-22 02:30:01Z
        late       12 ms

        TRY  AGENT   OUTCOME  EXIT   TOOK     CPU    MEMORY  REASON
          1  host-a  failed      3  1.5 s  0.25 s  11.0 MiB  exit code 3

        AT                    STATE     CAUSE        TERM
        2026-11-22 02:30:00Z  assigned  due             7
        2026-11-22 02:30:01Z  failed    exit code 3     7

        end of its output:
        \\x1b[31mno such ledger
        """
    )


def test_agents_and_leader(cluster: Console) -> None:
    cluster.ok("agents", "drain", "host-b")
    cluster.ok("agents", "drain", "host-c", "--absent-too")
    assert cluster.ok("agents", "list") == screen(
        """
        AGENT   STATE     USED  SLOTS  RUNNING  LABELS    HOST    UP  VERSION
        host-a  ready        1      4        0            host-a  1h  0.1.0
        host-b  draining     1      1        1  role=erp  host-b  1h  0.1.0
        host-c  absent       0      -        0                    -
        """
    )
    assert cluster.ok("leader") == screen(
        """
        leader         host-a
        term           7, since 2026-11-22 18:30:00Z
        fencing token  2
        decided        through 2026-11-22 19:00:00Z

        SCHEDULER  ROLE       HOST    PID  UP  VERSION
        host-a     leads      host-a  100  1h  0.1.0
        host-b     stands by  host-b  101  1h  0.1.0
        """
    )


def test_one_agent(cluster: Console) -> None:
    cluster.ok("agents", "drain", "host-b")
    come = Live(agent="host-b", incarnation="11", stage=Stage.HERE, since=SINCE, term=7)
    cluster.put(come, Kind.LIVE, "host-b")
    cluster.store.advance(cluster.store.now_s + 3.5)
    by = cluster.get(Drain, Kind.DRAIN, "host-b").by
    assert cluster.ok("agents", "show", "host-b") == screen(
        f"""
        agent    host-b
        state    draining
        slots    1 of 1 used, 1 running
        labels   role=erp
        users    none; jobs without one are declined
        drained  since 2026-11-22 19:00:00Z, by {by}
        stage    here since 2026-11-22 18:00:00Z
        host     host-b, pid 201, version 0.1.0
        up       1h, since 2026-11-22 18:00:00Z
        session  11
        output   not served
        seen     4 s ago at most; its lease runs out in 3596 s

        RUN                           STATE    TRY  RUNS FOR
        rotate_logs/20261122T185500Z  running    1  5m
        """
    )
    told = cluster.json("agents", "show", "host-a")
    (listed, _) = cluster.json("agents", "list")
    assert told.items() >= listed.items()
    (assigned,) = told["runs"]
    assert (assigned["name"], assigned["state"]) == ("rotate_logs/20261122T190000Z", "assigned")
    assert (told["seen_s_ago"], told["stage"], told["drained_since"]) == (4, None, None)


def test_what_an_agent_takes_and_shows(cluster: Console) -> None:
    presence = cluster.get(Presence, Kind.PRESENCE, "host-a")
    users = {
        "users": ("*", "root"),
        "default_user": "app",
        "clock": Utc("2026-11-22T19:00:05.000Z"),
    }
    cluster.put(replace(presence, output_address="10.0.0.1:7070", **users), Kind.PRESENCE, "host-a")
    cluster.put(ClusterSettings(max_active_agents=1), Kind.SETTINGS)
    shown = cluster.ok("agents", "show", "host-a")
    assert "state    standby\n" in shown
    assert "users    any but root, root; jobs without one run as app\n" in shown
    assert "seat     none\n" in shown
    assert "output   10.0.0.1:7070\n" in shown
    assert "clock    ahead by at least 4.5 s\n" in shown


def test_an_agent_that_is_gone(cluster: Console) -> None:
    """What is left of it is shown, if anything is."""
    assert cluster.fails(4, "agents", "show", "host-c") == (
        "etcsched: agent host-c: there is none; see etcsched agents list"
    )
    gone = Live(agent="host-c", incarnation="9", stage=Stage.GONE, since=SINCE, term=7)
    cluster.put(gone, Kind.LIVE, "host-c")
    assert cluster.ok("agents", "show", "host-c") == screen(
        """
        agent  host-c
        state  absent
        stage  gone since 2026-11-22 18:00:00Z
        """
    )
    cluster.store.txn(Txn((), (Delete(cluster.keys.of(Kind.PRESENCE, "host-b")),)))
    assert cluster.ok("agents", "show", "host-b") == screen(
        """
        agent  host-b
        state  absent

        RUN                           STATE    TRY  RUNS FOR
        rotate_logs/20261122T185500Z  running    1  5m
        """
    )


def test_agents_that_stand_by(cluster: Console) -> None:
    cluster.put(ClusterSettings(max_active_agents=1), Kind.SETTINGS)
    cluster.put(
        Seat(agent="host-a", since=Utc("2026-11-22T18:00:00.000Z"), term=7), Kind.SEAT, "host-a"
    )
    assert [(a["agent"], a["state"], a["seated"]) for a in cluster.json("agents", "list")] == [
        ("host-a", "ready", True),
        ("host-b", "standby", False),
    ]
    findings = {f["topic"]: f for f in cluster.run_json(1, "doctor")}
    assert findings["agents"]["text"] == "1 of 2 take runs; 1 of 4 slots are used; 1 stand by"
    assert "drained agents" not in findings
    assert "host-b" in cluster.ok("status")
    cluster.ok("agents", "drain", "host-a")
    findings = {f["topic"]: f for f in cluster.run_json(1, "doctor")}
    assert findings["agents"]["level"] == "bad"
    assert findings["agents"]["advice"] == "undrain one, or raise settings: max_active_agents"


def test_the_doctor_names_drained_agents(cluster: Console) -> None:
    """A drain is somebody's wish, as a pause is, and as easily forgotten."""
    drained = cluster.ok("agents", "drain", "host-a", "host-a")
    assert drained == "host-a is draining\n"
    (found,) = [f for f in cluster.run_json(1, "doctor") if f["topic"] == "drained agents"]
    assert (found["level"], found["text"]) == ("warning", "host-a")
    line = cluster.fails(4, "agents", "drain", "host-b", "ghost")
    assert line.startswith("etcsched: agent ghost: isn't here; ")
    assert cluster.get(Drain, Kind.DRAIN, "host-b") is None
    both = cluster.ok("agents", "undrain", "host-b", "host-a")
    assert both == "host-b wasn't draining\nhost-a takes runs again\n"


def test_a_leader_that_does_not_answer(cluster: Console) -> None:
    """It counts as the leader until its lease runs out, and that is said."""
    lease = cluster.store.lease_grant(10).lease
    candidate = cluster.get(Candidate, Kind.ELECTION, "a")
    key = cluster.keys.of(Kind.ELECTION, "a")
    cluster.store.txn(Txn((), (Delete(key),)))
    token = cluster.store.txn(Txn((), (Put(key, encode(candidate), lease),))).revision
    cluster.store.txn(Txn((), (Delete(cluster.keys.of(Kind.ELECTION, "b")),)))
    term = cluster.get(Term, Kind.TERM)
    cluster.put(replace(term, token=token), Kind.TERM)
    cluster.store.advance(cluster.store.now_s + 3.0)
    assert "leader      host-a, term 7, for 30m\n" in cluster.ok("status")
    assert "silent" not in cluster.ok("leader")
    cluster.store.advance(cluster.store.now_s + 3.5)
    silence = "hasn't answered for 7 s; its lease runs out in 3 s, then another leads"
    assert f"leader      host-a, term 7, for 30m; {silence}\n" in cluster.ok("status")
    assert f"silent         {silence}\n" in cluster.ok("leader")
    found = cluster.json("leader")
    assert (found["node"], found["silent_s"], found["lease_left_s"]) == ("host-a", 7, 3)
    (doubtful,) = [f for f in cluster.run_json(1, "doctor") if f["topic"] == "leader"]
    assert doubtful["level"] == "warning"
    assert doubtful["text"] == f"host-a leads in term 7, 0 standing by; it {silence}"


def test_a_scheduler_that_doesnt_stand_is_named(cluster: Console) -> None:
    reason = "this node's clock is 7.0 s behind most nodes'; set it right"
    barred = Barred(
        node="host-c", host="host-c", pid=7, since=cluster.now, clock=cluster.now, version="0.1.0",
        reason=reason,
    )  # fmt: skip
    cluster.store.txn(Txn((), (Put(cluster.keys.barred("host-c"), encode(barred)),)))
    shown = cluster.ok("status")
    assert "schedulers  host-a (leads), host-b\n" in shown
    assert f"barred      host-c: {reason}\n" in shown
    assert f"barred: {reason}" in cluster.ok("leader")
    found = {s["node"]: s["barred"] for s in cluster.json("leader")["schedulers"]}
    assert found == {"host-a": "", "host-b": "", "host-c": reason}

    def leader() -> tuple[str, str]:
        (told,) = [f for f in cluster.run_json(1, "doctor") if f["topic"] == "leader"]
        return told["level"], told["text"]

    named = f"barred: host-c ({reason})"
    assert leader() == ("warning", f"host-a leads in term 7, 1 standing by; {named}")
    cluster.put(barred, Kind.ELECTION, "d")
    assert "schedulers  host-a (leads), host-b\n" in cluster.ok("status")
    for name in ("a", "b", "d"):
        cluster.store.txn(Txn((), (Delete(cluster.keys.of(Kind.ELECTION, name)),)))
    assert leader() == ("bad", f"nobody leads, and nobody stands for election; {named}")


def test_a_leader_that_was_killed_and_started_again(cluster: Console) -> None:
    """The old one leads until its lease ends, and what is due meanwhile is overdue."""
    again = Candidate(
        node="host-a", host="host-a", pid=300, since=cluster.now, clock=cluster.now, version="0.1.0"
    )
    cluster.put(again, Kind.ELECTION, "c")
    both = (
        "host-a (leads, process 100 on host-a, shares its name)",
        ("host-a (process 300 on host-a, shares its name)"),
    )
    assert f"schedulers  {both[0]}, host-b, {both[1]}\n" in cluster.ok("status")
    assert [s["pid"] for s in cluster.json("leader")["schedulers"]] == [100, 101, 300]
    cluster.store.txn(Txn((), (Delete(cluster.keys.of(Kind.ELECTION, "b")),)))
    shown = cluster.ok("leader")
    assert "host-a     leads, shares its name      host-a  100  1h  0.1.0\n" in shown
    assert "host-a     stands by, shares its name  host-a  300  0s  0.1.0\n" in shown
    findings = json.loads(cluster.run("doctor", "--json").stdout)
    told = {f["topic"]: f["text"] for f in findings}
    assert told["leader"] == "host-a leads in term 7, 1 standing by"
    named = "host-a (process 100 on host-a), host-a (process 300 on host-a)"
    assert told["schedulers"] == f"several of one name: {named}"
    cluster.now = Utc("2026-11-22T19:05:01.500Z")
    through = Utc("2026-11-22T19:04:59.600Z")
    cluster.put(Watermark(through=through, term=7), Kind.WATERMARK)
    assert "next tick   rotate_logs in 4m58s, 2026-11-22 19:10:00Z\n" in cluster.ok("status")
    cluster.now = Utc("2026-11-22T19:05:12.500Z")
    overdue = "rotate_logs was due 12s ago, 2026-11-22 19:05:00Z, and isn't decided"
    assert f"next tick   {overdue}\n" in cluster.ok("status")
    shown = cluster.ok("top", "--once")
    assert "rotate_logs  overdue for 12s  2026-11-22T19:05:00Z\n" in shown
    assert "close_books  7h24m            2026-11-23T02:30:00Z\n" in shown


def test_a_scheduler_with_two_sessions_is_one(cluster: Console) -> None:
    """It leads by the first until that one's lease ends."""
    cluster.put(cluster.get(Candidate, Kind.ELECTION, "a"), Kind.ELECTION, "c")
    assert "schedulers  host-a (leads), host-b\n" in cluster.ok("status")
    (told,) = [f["text"] for f in cluster.run_json(1, "doctor") if f["topic"] == "leader"]
    assert told == "host-a leads in term 7, 1 standing by"


def test_what_fell_into_an_outage_isnt_overdue(cluster: Console) -> None:
    """It waits for the outage's end, and may become one record for many ticks."""
    through = Utc("2026-11-22T19:04:59.600Z")
    cluster.put(Watermark(through=through, term=7), Kind.WATERMARK)
    cluster.now = Utc("2026-11-22T19:10:12.500Z")
    at = Utc("2026-11-22T19:07:00.000Z")
    gap = Gap(job="rotate_logs", since=at, decided_through=at, reason="no agent")

    def next_tick() -> dict[str, str]:
        cluster.put(gap, Kind.GAP, "rotate_logs")
        found: dict[str, str] = cluster.json("status")["next_tick"]
        return found

    coming = {"job": "rotate_logs", "at": "2026-11-22T19:15:00.000Z"}
    assert next_tick() == coming
    gap = replace(gap, closed=True)
    assert next_tick() == {"job": "rotate_logs", "at": "2026-11-22T19:10:00.000Z"}
    gap = replace(gap, decided_through=Utc("2026-11-22T19:10:00.000Z"))
    assert next_tick() == coming


def test_what_is_overdue_after_a_long_outage(cluster: Console) -> None:
    """However many of its ticks the watermark hasn't passed yet."""
    cluster.put(Watermark(through=SINCE, term=7), Kind.WATERMARK)
    cluster.put(job("often", "* * * * * *"), Kind.JOB, "often")
    through = Utc("2026-11-22T18:02:30.000Z")
    gap = Gap(job="often", since=SINCE, decided_through=through, reason="no agent", closed=True)
    cluster.put(gap, Kind.GAP, "often")
    overdue = {"job": "often", "at": "2026-11-22T18:02:31.000Z"}
    assert cluster.json("status")["next_tick"] == overdue


def test_many_jobs_in_outages_hide_none_that_is_overdue(cluster: Console) -> None:
    cluster.put(Watermark(through=SINCE, term=7), Kind.WATERMARK)
    for number in range(30):
        name = f"out-{number}"
        cluster.put(job(name, "* * * * *"), Kind.JOB, name)
        gap = Gap(job=name, since=SINCE, decided_through=SINCE, reason="no agent")
        cluster.put(gap, Kind.GAP, name)
    overdue = {"job": "rotate_logs", "at": "2026-11-22T18:05:00.000Z"}
    assert cluster.json("status")["next_tick"] == overdue


def test_what_the_watermark_hasnt_passed_yet_may_be_decided(cluster: Console) -> None:
    """It moves every few seconds only. A job that is due more often has several ticks by then."""
    cluster.put(job("often", "* * * * * *"), Kind.JOB, "often")
    cluster.now = Utc("2026-11-22T19:05:04.500Z")
    through = Utc("2026-11-22T19:04:59.600Z")
    cluster.put(Watermark(through=through, term=7), Kind.WATERMARK)

    def next_tick() -> dict[str, str]:
        found: dict[str, str] = cluster.json("status")["next_tick"]
        return found

    assert next_tick() == {"job": "often", "at": "2026-11-22T19:05:00.000Z"}
    for second in (0, 1, 2):
        at = Utc(f"2026-11-22T19:05:0{second}.000Z")
        run = finished("often", "", Utc("2026-11-22T19:05:00.000Z"))
        cluster.archive(replace(run, id=f"20261122T19050{second}Z", scheduled_at=at))
    assert next_tick() == {"job": "rotate_logs", "at": "2026-11-22T19:05:00.000Z"}
    active = cluster.get(Run, Kind.RUN, "rotate_logs", "20261122T190000Z")
    cluster.put(replace(active, id="20261122T190500Z"), Kind.RUN, "rotate_logs", "20261122T190500Z")
    assert next_tick() == {"job": "often", "at": "2026-11-22T19:05:05.000Z"}
    cluster.now = Utc("2026-11-22T19:05:05.100Z")
    assert next_tick() == {"job": "often", "at": "2026-11-22T19:05:03.000Z"}


def test_whoever_has_not_won_the_term_does_not_lead(cluster: Console) -> None:
    term = cluster.get(Term, Kind.TERM)
    cluster.put(replace(term, token=term.token + 1), Kind.TERM)
    assert cluster.json("leader")["node"] == ""


def test_the_doctor(cluster: Console) -> None:
    findings = {f["topic"]: f for f in cluster.run_json(1, "doctor")}
    assert {topic: f["level"] for topic, f in findings.items()} == {
        "etcd model": "bad",
        "etcd compaction": "ok",
        "history": "ok",
        "etcd latency": "ok",
        "records": "ok",
        "leader": "ok",
        "next tick": "ok",
        "agents": "ok",
        "eligible agents": "warning",
        "clocks": "ok",
    }
    assert "is 3.5.0, which can lose acknowledged writes" in findings["etcd model"]["text"]


def test_the_doctor_says_what_it_found_on_a_narrow_screen_too(cluster: Console) -> None:
    shown = cluster.run("doctor", columns=40).stdout
    assert "leader           ok\n  host-a leads in term 7, 1 standing by\n" in shown
    assert "not shown" not in shown


def test_the_doctor_names_what_is_wrong(cluster: Console) -> None:
    cluster.put_raw(cluster.keys.of(Kind.JOB, "broken"), b"{}")
    cluster.put_raw(cluster.keys.watched + "what/is/this", b"x")
    dead = job("dead", "30 2 30 2 *")
    cluster.put(dead, Kind.JOB, "dead")
    cluster.now = Utc("2026-11-22T18:59:50.000Z")
    findings = cluster.run_json(1, "doctor")
    bad = {f["topic"]: f["text"] for f in findings if f["level"] == "bad"}
    assert (
        "2 can't be read; what depends on them waits: /etcsched/v1/spec/jobs/broken"
        in bad["records"]
    )
    assert "/etcsched/v1/spec/jobs/dead (cron '30 2 30 2 *': never due" in bad["records"]
    (clocks,) = [f for f in findings if f["topic"] == "clocks"]
    assert clocks["text"] == "ahead of this host's: host-a (by 10.0 s), host-b (by 10.0 s)"
    (foreign,) = [f for f in findings if f["topic"] == "records" and f["level"] == "warning"]
    assert "election/what/is/this" in foreign["text"]


def test_the_doctor_foresees_outages(console: Console) -> None:
    """Of jobs that are due once, and that no agent may run. Without any agent that says it all."""
    for number in range(5):
        name = f"j{number}"
        console.put(job(name, hosts=("nowhere",), user="app"), Kind.JOB, name)
    console.put(job("here", hosts=("host-a",), user="app"), Kind.JOB, "here")
    gap = Gap(job="j4", since=SINCE, decided_through=SINCE, reason="no agent")
    console.put(gap, Kind.GAP, "j4")

    def found() -> list[Any]:
        return [f for f in console.run_json(1, "doctor") if f["topic"] == "eligible agents"]

    assert found() == []
    presence = Presence(
        agent="host-a", incarnation="1", supervisor="s", slots=4, host="host-a", pid=2,
        since=SINCE, clock=SINCE, version="0.1.0", users=("app",),
    )  # fmt: skip
    console.put(presence, Kind.PRESENCE, "host-a")
    assert found() == [
        {
            "topic": "eligible agents",
            "level": "warning",
            "text": "none may run j0, j1, j2 and 1 more, so that the next tick begins an outage",
            "advice": "etcsched explain JOB says why; start an agent that its hosts, labels and "
            "user allow",
        }
    ]


def _over(console: Console, job: str, *outcomes: Outcome | RunState) -> None:
    """Its runs, one a day, the newest last."""
    for day, outcome in enumerate(outcomes, start=10):
        at = Utc(f"2026-11-{day}T02:30:00.000Z")
        if isinstance(outcome, Outcome):
            console.archive(finished(job, f"202611{day}T023000Z", at, outcome))
        else:
            run = finished(job, f"202611{day}T023000Z", at)
            console.archive(replace(run, state=outcome, attempts=()))


def test_the_doctor_names_jobs_that_fail_again_and_again(
    cluster: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, timed_out, died = Outcome.FAILED, Outcome.TIMED_OUT, Outcome.DIED
    well = Outcome.COMPLETED

    def failing() -> list[str]:
        findings = json.loads(cluster.run("doctor", "--json").stdout)
        return [f["text"] for f in findings if f["topic"] == "failing jobs"]

    for name in ("all", "mixed", "twice", "mended", "off"):
        cluster.put(job(name), Kind.JOB, name)
    off = job("off")
    version = replace(off.current, state=JobState.DISABLED)
    cluster.put(replace(off, versions=(version,)), Kind.JOB, "off")
    _over(cluster, "twice", well, failed, failed)
    _over(cluster, "mended", failed, failed, failed, well)
    _over(cluster, "off", failed, failed, failed)
    _over(cluster, "gone", failed, failed, failed)
    assert failing() == []
    _over(cluster, "all", *[failed] * 12)
    # What never ran says nothing of how it runs.
    _over(cluster, "mixed", well, timed_out, failed, RunState.OVERLAPPED, died, RunState.MISSED)
    assert failing() == [
        "the last runs of each all failed: all (10 failed or more), "
        "mixed (1 died, 1 failed, 1 timed_out)"
    ]
    monkeypatch.setattr("etcsched.operator.doctor.failing._SUSPECTS", 1)
    (text,) = failing()
    assert text.endswith("), and perhaps others")


def test_the_doctor_names_runs_that_no_agent_may_run(cluster: Console) -> None:
    """Full agents are no such reason, nor is what is paused."""
    full = cluster.get(Presence, Kind.PRESENCE, "host-b")
    cluster.put(replace(full, users=("app",), default_user="app"), Kind.PRESENCE, "host-b")
    for name, hosts in (("nowhere", ("elsewhere",)), ("full", ("host-b",)), ("still", ("none",))):
        cluster.put(job(name, hosts=hosts), Kind.JOB, name)
        waits = Run(
            job=name,
            id="r",
            state=RunState.READY,
            origin=Origin.REQUEST,
            created_at=NOW,
            history=(Transition(state=RunState.READY, at=NOW, cause="on request", term=7),),
        )
        cluster.put(waits, Kind.RUN, name, "r")
    cluster.ok("jobs", "pause", "still")
    (finding,) = [f for f in cluster.run_json(1, "doctor") if f["topic"] == "waiting runs"]
    assert finding["level"] == "warning"
    assert finding["text"] == "no agent may run nowhere/r"


def test_a_deleted_chain_target_is_missed(console: Console) -> None:
    console.put(job("tick", chain=(Link(to="report"),)), Kind.JOB, "tick")
    console.put(job("report"), Kind.JOB, "report")
    deleted = console.run("jobs", "delete", "report", "--yes")
    assert (deleted.exit_code, deleted.stderr) == (
        0,
        "note: tick won't go on with report any more\n",
    )
    (found,) = [f for f in console.run_json(1, "doctor") if f["topic"] == "chains"]
    assert (found["level"], found["text"]) == (
        "bad",
        "not there, so that nothing follows: report (of tick)",
    )
    console.ok("jobs", "delete", "tick", "--yes")
    assert "chains" not in {f["topic"] for f in console.run_json(1, "doctor")}


def test_the_doctor_looks_where_chains_lead(console: Console) -> None:
    chain = (Link(to="report", joins=True),)
    console.put(job("tick", chain=chain), Kind.JOB, "tick")
    console.put(made("report", state=JobState.DISABLED), Kind.JOB, "report")

    def found() -> dict[str, tuple[str, str]]:
        return {
            f["topic"]: (f["level"], f["text"])
            for f in console.run_json(1, "doctor")
            if f["topic"] in ("chains", "joins")
        }

    idle = "disabled or only on request, so that nothing follows: report (of tick)"
    alone = "joined by one job only, so that it waits for nobody: report (of tick)"
    assert found() == {"chains": ("warning", idle), "joins": ("warning", alone)}
    console.put(job("report"), Kind.JOB, "report")
    console.put(job("tock", chain=chain), Kind.JOB, "tock")
    assert found() == {}
    console.put(job("tock", per_host=True, chain=chain), Kind.JOB, "tock")
    parted = "per_host begins a chain on each agent, so that these never meet: "
    assert found() == {"joins": ("warning", f"{parted}tock and tick (at report)")}


def test_a_run_that_goes_on_shows_its_attempt(cluster: Console) -> None:
    shown = cluster.ok("runs", "show", "rotate_logs/20261122T185500Z")
    assert "  1  host-b  running  " in shown
    run = cluster.get(Run, Kind.RUN, "rotate_logs", "20261122T185500Z")
    failed = finished("rotate_logs", "20261122T185500Z", SINCE, Outcome.FAILED).attempts
    waiting = replace(run, state=RunState.READY, agent="", attempts=failed)
    cluster.put(waiting, Kind.RUN, "rotate_logs", "20261122T185500Z")
    shown = cluster.ok("runs", "show", "rotate_logs/20261122T185500Z")
    assert "  1  host-a  failed  " in shown
    assert not {"started", "ended"} & {line.split()[0] for line in shown.splitlines() if line}


def test_of_each_job_one_waiting_run_is_named_and_the_others_counted(cluster: Console) -> None:
    run = cluster.get(Run, Kind.RUN, "rotate_logs", "20261122T190000Z")
    for id_ in ("20261122T190001Z", "20261122T190002Z"):
        queued = replace(run, id=id_, state=RunState.QUEUED, agent="", attempt=0)
        cluster.put(queued, Kind.RUN, "rotate_logs", id_)
    assert "waiting     rotate_logs/20261122T190001Z and 1 more: " in cluster.ok("status")
    assert "rotate_logs/20261122T190001Z and 1 more  queued  " in cluster.ok("top", "--once")


def test_a_held_run_waits_for_an_operator(cluster: Console) -> None:
    """Its agent is gone, and its claim is still there, but nothing of it runs."""
    held = replace(
        cluster.get(Run, Kind.RUN, "rotate_logs", "20261122T185500Z"), state=RunState.HELD
    )
    cluster.put(held, Kind.RUN, "rotate_logs", "20261122T185500Z")
    cluster.store.txn(Txn((), (Delete(cluster.keys.of(Kind.PRESENCE, "host-b")),)))
    shown = cluster.ok("status")
    assert "runs        0 running, 1 assigned, 1 waiting\n" in shown
    assert "waiting     rotate_logs/20261122T185500Z: " in shown
    (rotate_logs,) = [one for one in cluster.json("jobs", "list") if one["name"] == "rotate_logs"]
    assert (rotate_logs["running"], rotate_logs["waiting"]) == (0, 2)
    assert "it waits for an operator (etcsched runs release)" in rotate_logs["why"]
    shown = cluster.ok("jobs", "show", "rotate_logs")
    assert "now    0 running, 2 waiting\n" in shown
    assert "it waits for an operator (etcsched runs release)" in shown
    (lost,) = [one for one in cluster.json("agents", "list") if one["agent"] == "host-b"]
    assert (lost["used"], lost["running"], lost["held"]) == (0, 0, 1)
    assert cluster.json("top", "--once")["running"] == []
    findings = {f["topic"]: f for f in cluster.run_json(1, "doctor")}
    assert findings["held runs"]["level"] == "warning"
    assert findings["held runs"]["text"] == (
        "1 held, for an operator to decide: rotate_logs/20261122T185500Z"
    )
    assert "etcsched runs release" in findings["held runs"]["advice"]
    assert findings["agents"]["level"] == "ok"


def test_more_jobs_than_are_looked_at(cluster: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outages and held runs are told at any size, and of the rest that it wasn't looked for."""
    for module in (operator_cluster, operator_top):
        monkeypatch.setattr(module, "JOBS_LOOKED_AT", 1)
    gap = Gap(job="close_books", since=SINCE, decided_through=SINCE, reason="no agent")
    cluster.put(gap, Kind.GAP, "close_books")
    held = replace(
        cluster.get(Run, Kind.RUN, "rotate_logs", "20261122T185500Z"), state=RunState.HELD
    )
    cluster.put(held, Kind.RUN, "rotate_logs", "20261122T185500Z")
    held_name = "rotate_logs/20261122T185500Z"
    held_text = "due; it waits for an operator (etcsched runs release) or host-b's return"
    assert cluster.ok("status").splitlines()[3:7] == [
        "runs        0 running, 1 assigned, 1 waiting",
        f"waiting     {held_name}: {held_text}",
        f"outages     close_books: an outage since {SINCE}: no agent",
        "late        12 ms (median of the last 2 starts, worst 12 ms "
        "(close_books/20261122T023000Z))",
    ]
    assert "next tick   not looked for among so many jobs; etcsched doctor does\n" in cluster.ok(
        "status"
    )
    assert cluster.json("status")["not_looked_for"] == ["next_tick"]

    cluster.put(
        replace(held, job="j2", id="r2", state=RunState.READY, agent=""), Kind.RUN, "j2", "r2"
    )
    others = "why others wait isn't looked for among so many jobs; etcsched explain JOB/ID does"
    assert f"            {others}\n" in cluster.ok("status")
    shown = cluster.json("status")
    assert shown["not_looked_for"] == ["waits", "next_tick"]
    assert [(one["run"], one["text"]) for one in shown["waits"]] == [(held_name, held_text)]
    top = cluster.json("top", "--once")
    assert (top["not_looked_for"], top["cluster"]["not_looked_for"]) == (["next_ticks"], ["waits"])
    screen = cluster.ok("top", "--once")
    assert f"waiting  {others}\n" in screen
    assert "NEXT\nnot looked for among so many jobs; etcsched jobs next JOB does\n" in screen


def test_an_outcome_that_waits_for_a_leader_runs_no_more(cluster: Console) -> None:
    """It is told, and by whom; until a leader has taken it in the run is assigned."""
    name, place = "rotate_logs/20261122T185500Z", ("host-b", "rotate_logs", "20261122T185500Z")
    ended = replace(
        cluster.get(Report, Kind.REPORT, *place),
        outcome=Outcome.COMPLETED,
        ended_at=Utc("2026-11-22T18:55:02.008Z"),
    )
    cluster.put(ended, Kind.REPORT, *place)
    assert "runs        0 running, 2 assigned, 0 waiting\n" in cluster.ok("status")
    (job,) = [one for one in cluster.json("jobs", "list") if one["name"] == "rotate_logs"]
    assert job["running"] == 0
    assert cluster.json("runs", "list", "--state", "running") == []
    (run,) = [one for one in cluster.json("runs", "list") if one["name"] == name]
    assert (run["state"], run["reported"]) == ("assigned", "completed")
    assert (run["started_at"], run["ended_at"]) == (ended.started_at, ended.ended_at)
    shown = cluster.ok("runs", "show", name)
    assert "state      assigned\nreported   completed; no leader has taken it in\n" in shown
    assert cluster.json("top", "--once")["running"] == []


def test_the_doctor_sees_a_leader_that_does_not_decide(cluster: Console) -> None:
    cluster.now = Utc("2026-11-22T19:06:00.000Z")
    findings = {f["topic"]: f["text"] for f in cluster.run_json(1, "doctor")}
    assert findings["next tick"] == "rotate_logs was due 1m ago, and isn't decided"


def test_the_doctor_names_keys_that_never_go(cluster: Console) -> None:
    key = cluster.keys.of(Kind.ELECTION, "0")
    cluster.put_raw(key, b'{"v":1}')
    (found,) = [f for f in cluster.run_json(1, "doctor") if f["topic"] == "leases"]
    assert found["level"] == "bad"
    assert key in found["text"]


def test_the_doctor_weighs_history(cluster: Console) -> None:
    def history() -> dict[str, Any]:
        findings = cluster.run_json(1, "doctor")
        return next(found for found in findings if found["topic"] == "history")

    at = Utc("2026-11-20T02:30:00.000Z")
    for number in range(10):
        cluster.archive(finished("close_books", f"20261120T02300{number}Z", at))
    assert history() == {
        "topic": "history",
        "level": "ok",
        "text": "12 runs, about 0.0 MiB; at most 512MiB are kept",
        "advice": "",
    }
    cluster.put(ClusterSettings(max_history_bytes=1024), Kind.SETTINGS)
    assert history() == {
        "topic": "history",
        "level": "warning",
        "text": "12 runs, about 0.0 MiB; at most 1KiB are kept, and so less of each job's than its "
        "keep says",
        "advice": "keep less (keep: {runs: 20}), or raise settings: max_history",
    }


def test_the_doctor_reminds_of_pauses(cluster: Console) -> None:
    cluster.ok("pause")
    cluster.ok("jobs", "pause", "close_books")
    findings = {f["topic"]: f for f in cluster.run_json(1, "doctor")}
    assert findings["paused"]["level"] == findings["paused jobs"]["level"] == "warning"
    assert findings["paused"]["text"].startswith(f"everything is, since {cluster.now}, by ")
    assert findings["paused"]["advice"] == "once it is over: etcsched resume"
    assert findings["paused jobs"]["text"] == "close_books"


def test_no_colour_without_a_terminal(cluster: Console) -> None:
    assert "\x1b" not in cluster.ok("status") + cluster.ok("runs", "list")


def test_doctor_tells_what_is_set_aside_from_what_has_no_agent(cluster: Console) -> None:
    for name, reason in (("close_books", "no agent"), ("rotate_logs", ASIDE_REASON)):
        gap = Gap(job=name, since=SINCE, decided_through=SINCE, reason=reason)
        cluster.put(gap, Kind.GAP, name)
    said = cluster.run("doctor").output
    assert "without an agent: close_books (no agent)" in said
    assert "set aside, since something of them can't be written or decided: rotate_logs" in said
