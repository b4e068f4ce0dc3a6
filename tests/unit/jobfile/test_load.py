"""Job files: what they become, and every way in which they can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest

from etcsched.core.errors import InvalidJobFile, UsageError
from etcsched.core.records import ClusterSettings, Exec, Job, Keep, Retry, ScheduleVersion, Shell
from etcsched.core.schedule import At, Cron, Every
from etcsched.core.states import (
    HostsFor,
    JobState,
    Lifecycle,
    OnAgentLoss,
    OnDisconnect,
    Outcome,
    Overlap,
    Placement,
    Recovery,
    RunState,
)
from etcsched.core.times import Utc, ms_of
from etcsched.jobfile import load, read_files
from etcsched.jobfile.exporting import export, to_yaml
from etcsched.jobfile.writing import fields_of

NOW = Utc("2026-11-22T19:00:00.500Z")
NOW_MS = ms_of(NOW)
RUNS = "run: {exec: [/bin/true]}, schedule: {every: 1h}"


def load_text(text: str) -> list[Job]:
    return load([("jobs.yaml", dedent(text))], NOW_MS).jobs


def problems_of(*texts: str) -> list[str]:
    files = [(f"{'abc'[number]}.yaml", dedent(text)) for number, text in enumerate(texts)]
    with pytest.raises(InvalidJobFile) as caught:
        load(files, NOW_MS)
    return caught.value.problems


def test_every_field() -> None:
    (job,) = load_text(
        """
        defaults: {timezone: Europe/Berlin, keep: {age: 7d}, env: {LANG: C, A: b}}
        jobs:
          close_books:
            description: Close the month
            owner: erp team
            tags: [finance, nightly]
            run: {exec: [/opt/erp/close, --date, "{scheduled_date}", "{{{month}}}"]}
            schedule: [{cron: 30 2 * * 1-5}, {every: 90m}, {at: 2026-12-24T18:00:00}]
            state: disabled
            recovery: all
            pickup_buffer: 5m
            recover_within: 1d
            catch_up_limit: 7
            overlap: queue
            timeout: 2h
            kill_grace: 500ms
            on_agent_loss: died
            disconnect_grace: 5m
            on_disconnect: continue
            max_reassigns: 0
            hosts: host-a
            prefer: [host-b, disk=ssd]
            placement: fixed_priority
            hosts_for: scheduled
            lifecycle: host_both
            require: {role: erp}
            priority: -5
            params: {month: 007}
            env: {A: c}
            workdir: /srv/erp
            user: erp
            keep: {runs: 50}
            retry: {max: 3, interval: 5m, exponential: true, cap: 1h, jitter: 10s, on: failed}
        """
    )
    assert job == Job(
        name="close_books",
        description="Close the month",
        owner="erp team",
        tags=("finance", "nightly"),
        run=Exec(("/opt/erp/close", "--date", "{scheduled_date}", "{{{month}}}")),
        versions=(
            ScheduleVersion(
                since=NOW,
                state=JobState.DISABLED,
                patterns=(
                    Cron("30 2 * * 1-5"),
                    Every(5400, Utc("2026-11-22T19:00:00.000Z")),
                    At(Utc("2026-12-24T17:00:00.000Z")),
                ),
                timezone="Europe/Berlin",
            ),
        ),
        recovery=Recovery.ALL,
        pickup_buffer_s=300.0,
        recover_within_s=86400.0,
        catch_up_limit=7,
        overlap=Overlap.QUEUE,
        timeout_s=7200.0,
        kill_grace_s=0.5,
        on_agent_loss=OnAgentLoss.DIED,
        disconnect_grace_s=300.0,
        on_disconnect=OnDisconnect.CONTINUE,
        max_reassigns=0,
        hosts=("host-a",),
        prefer=("host-b", "disk=ssd"),
        placement=Placement.FIXED_PRIORITY,
        hosts_for=HostsFor.SCHEDULED,
        lifecycle=Lifecycle.HOST_BOTH,
        require={"role": "erp"},
        priority=-5,
        params={"month": "007"},
        env={"LANG": "C", "A": "c"},
        workdir="/srv/erp",
        user="erp",
        keep=Keep(runs=50, age_s=7 * 86400.0),
        retry=Retry(
            max=3,
            interval_s=300.0,
            exponential=True,
            cap_s=3600.0,
            jitter_s=10.0,
            on=(Outcome.FAILED,),
        ),
        from_file=True,
    )


def test_a_file_of_many_kinds_of_things() -> None:
    found = load(
        [
            (
                "jobs.yaml",
                dedent(
                    """
                    defaults: {timezone: Europe/Berlin, on_agent_loss: died, keep: {runs: 50, age: 30d}}
                    calendars: {bank_holidays: {exclude: [2026-12-25, 2027-01-01]}}
                    conflicts: {ledger: [close_books, report]}
                    jobs:
                      close_books:
                        run: {exec: [/opt/erp/close, --date, "{scheduled_date}"]}
                        schedule: {cron: "30 2 * * 1-5", calendars: [bank_holidays]}
                        recovery: all
                        retry: {max: 3, interval: 5m, exponential: true, cap: 1h}
                        timeout: 2h
                        require: {role: erp}
                        tags: [finance]
                        chain: [{to: report, on: [completed]}]
                      report:
                        state: chain_active
                        run: {shell: "make-report > $ETCSCHED_RESULTS"}
                      rotate_logs:
                        run: {exec: [/usr/sbin/logrotate, /etc/logrotate.conf]}
                        schedule: {cron: "0 3 * * *", splay: 10m}
                        per_host: true
                    """  # noqa: E501
                ),
            )
        ],
        NOW_MS,
    )
    jobs = {job.name: job for job in found.jobs}
    assert list(jobs) == ["close_books", "report", "rotate_logs"]
    assert jobs["close_books"].current.calendars == ("bank_holidays",)
    assert jobs["close_books"].chain[0].to == "report"
    assert jobs["rotate_logs"].splay_s == 600.0
    assert jobs["rotate_logs"].per_host
    assert {job.on_agent_loss for job in found.jobs} == {OnAgentLoss.DIED}
    again = export(found.jobs, found.calendars, found.conflicts, ClusterSettings(), NOW_MS)
    assert load([("again.yaml", to_yaml(again.document))], NOW_MS) == found


def test_what_is_shown_of_a_job_is_a_job_file_again() -> None:
    (job,) = load_text(
        """
        jobs:
          a:
            run: {shell: 'echo "$ETCSCHED_RUN"'}
            schedule: [{cron: "@daily"}, {at: 2026-12-24T18:00:00+01:00}]
            timezone: Asia/Tokyo
            timeout: 90s
            params: {x: '1'}
            keep: {runs: 3}
            retry: {max: 2, exponential: true, cap: 1h, jitter: 500ms, on: [timed_out]}
        """
    )
    again = json.dumps({"jobs": {"a": fields_of(job)}})  # JSON is YAML
    assert load([("again.yaml", again)], NOW_MS).jobs == [job]


@pytest.mark.parametrize(
    ("written", "read"),
    [("no", "no"), ("on", "on"), ("1:30", "1:30"), ("2026-01-01", "2026-01-01"), ("~x", "~x")],
)
def test_yaml_1_2_scalars_are_text(written: str, read: str) -> None:
    (job,) = load_text(f"jobs: {{a: {{{RUNS}, params: {{p: {written}}}}}}}")
    assert job.params == {"p": read}


def test_several_documents_and_files() -> None:
    one = f"jobs: {{a: {{{RUNS}}}}}\n---\ndefaults: {{owner: me}}\n---\njobs: {{b: {{{RUNS}}}}}\n"
    two = f"jobs: {{c: {{{RUNS}}}}}"
    jobs = load([("1.yaml", one), ("2.yaml", two)], NOW_MS).jobs
    assert [(job.name, job.owner) for job in jobs] == [("a", "me"), ("b", "me"), ("c", "")]


def test_settings_need_no_jobs_and_add_up_over_files() -> None:
    files = [
        ("a.yaml", "settings: {resubmit_states: [died, failed, died]}"),
        ("b.yaml", "jobs: {}"),
    ]
    loaded = load(files, NOW_MS)
    assert loaded.jobs == []
    assert loaded.settings == {"resubmit_states": (RunState.DIED, RunState.FAILED)}
    assert load([("a.yaml", "settings: {resubmit_states: missed}")], NOW_MS).settings == {
        "resubmit_states": (RunState.MISSED,)
    }
    assert load([("a.yaml", "settings: {recovery_rate: 2.5/s}")], NOW_MS).settings == {
        "recovery_rate": 2.5
    }
    for given, read in (("3", 3), ("unlimited", None)):
        text = f"settings: {{max_active_agents: {given}}}"
        assert load([("a.yaml", text)], NOW_MS).settings == {"max_active_agents": read}
    assert load([("a.yaml", "settings: {max_history: 16MiB}")], NOW_MS).settings == {
        "max_history_bytes": 16 << 20
    }
    assert load([("a.yaml", f"jobs: {{a: {{{RUNS}}}}}")], NOW_MS).settings == {}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("{resubmit_state: died}", ".resubmit_state: unknown setting 'resubmit_state'; did you"),
        (
            "{recovery_rate: fast}",
            ".recovery_rate: 'fast' is no rate; write e.g. 10/s",
        ),
        (
            "{max_active_agents: few}",
            ".max_active_agents: 'few' is no whole number; write e.g. 1, or unlimited",
        ),
        (
            "{max_active_agents: 0}",
            ".max_active_agents: 0 is out of range; it takes 1 to 100000, or unlimited",
        ),
        (
            "{max_history: 512}",
            ".max_history: '512' is not a size; write a whole number with a unit, like 16MiB",
        ),
        (
            "{max_history: 2TiB}",
            ".max_history: '2TiB' is out of range; it takes 1KiB to 1TiB",
        ),
        (
            "{recovery_rate: 0/s}",
            ".recovery_rate: '0/s' is out of range; it takes 0.01/s to 100000/s",
        ),
        (
            "{resubmit_states: [ready]}",
            ".resubmit_states[0]: unknown value 'ready'; known are",
        ),
        ("{resubmit_states: []}", ".resubmit_states: is empty; write e.g. [failed,"),
        ("[died]", ": takes a map like {resubmit_states: [failed]}, not a list"),
    ],
)
def test_a_wrong_setting(settings: str, problem: str) -> None:
    (found,) = problems_of(f"\nsettings: {settings}")
    assert found.startswith(f"a.yaml:2: settings{problem}")


def test_a_setting_given_twice() -> None:
    text = "settings: {resubmit_states: died}"
    (found,) = problems_of(text, text)
    assert found == "b.yaml:1: settings.resubmit_states: is given twice; first in a.yaml:1"


def test_conflict_groups_may_name_jobs_of_other_files() -> None:
    files = [
        ("a.yaml", f"conflicts: {{ledger: [b, a]}}\njobs: {{a: {{{RUNS}}}}}"),
        ("b.yaml", f"jobs: {{b: {{{RUNS}}}}}\n---\nconflicts: {{other: [b, a]}}"),
    ]
    groups = load(files, NOW_MS).conflicts
    assert [(group.group, group.jobs) for group in groups] == [
        ("ledger", ("b", "a")), ("other", ("b", "a"))
    ]  # fmt: skip
    assert all(group.from_file for group in groups)


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ("{g: [a, d]}", "3: conflicts.g[1]: unknown job 'd'; known are a, b"),
        ("{g: [a]}", "3: conflicts.g: takes two jobs or more, highest priority first; what a "),
        ("{g: a}", "3: conflicts.g: takes a list like [close_books, report], not 'a'"),
        ("{g: [a, b, a]}", "3: conflicts.g[2]: 'a' stands in the group twice"),
        ("{_g: [a, b]}", "3: conflicts._g: '_g' is no name for a group; it takes up to 128 "),
        ("[a, b]", "3: conflicts: takes a map like {ledger: [close_books, report]}, not a list"),
        (
            "{g: [a, b], h: [b, a]}",
            "3: conflicts.h: its order contradicts that of g (a before b before a); put these ",
        ),
        (f"{{g: [{', '.join(f'j{n}' for n in range(101))}]}}", "has 101 jobs; a group may have"),
    ],
)
def test_a_wrong_conflict_group(groups: str, problem: str) -> None:
    jobs = f"jobs: {{a: {{{RUNS}}}, b: {{{RUNS}}}}}"
    (found,) = problems_of(f"{jobs}\n\nconflicts: {groups}")
    assert problem in found
    assert found.startswith("a.yaml:3: conflicts")


def test_a_conflict_group_given_twice() -> None:
    text = f"jobs: {{a: {{{RUNS}}}, b: {{{RUNS}}}}}\nconflicts: {{g: [a, b]}}"
    (found,) = problems_of(text, "conflicts: {g: [b, a]}")
    assert found == "b.yaml:1: conflicts.g: is given twice; first in a.yaml:2"


def test_a_shell_line_is_left_alone() -> None:
    (job,) = load_text("jobs: {a: {run: {shell: 'echo ${HOME} {x}'}, state: ad_hoc_active}}")
    assert job.run == Shell("echo ${HOME} {x}")


RETRY_FIELDS = "unknown field 'times'; known are max, interval, exponential, cap, jitter, on"
FIELD_PROBLEMS: list[tuple[str, str, str]] = [
    ("timeout: 2 hours", "timeout", "'2 hours' is no duration; write e.g. 2h"),
    ("timeout: 30", "timeout", "'30' is no duration; write e.g. 30s"),
    ("timeout: soon", "timeout", "'soon' is no duration; write e.g. 30s, 2m, 1h30m or 1d"),
    ("timeout: 99999999999d", "timeout", "99999999999d is out of range; it takes 1ms to 3650d"),
    ("priority: 99999999999999999999999", "priority", "99999999999999999999999 is out of range"),
    ("timeout: 0s", "timeout", "0s is out of range; it takes 1ms to 3650d"),
    ("timeout:", "timeout", "has no value; write '' for an empty text, or leave it out"),
    ("timeout: [1h]", "timeout", "takes a single value, not a list"),
    ("timout: 1h", "timout", "unknown field 'timout'; did you mean timeout?"),
    (
        "prefer: [a, disk=]",
        "prefer[1]",
        "'disk=' is neither an agent's name nor a label like disk=ssd",
    ),
    (
        "placement: fixed_priority",
        "placement",
        "placement: fixed_priority takes the job's hosts in their order; give it hosts",
    ),
    ("per_host: yes", "per_host", "'yes' is neither true nor false"),
    (
        "per_host: true\n    prefer: a",
        "prefer",
        "there is nothing to choose: per_host runs on every agent that may run it",
    ),
    (
        "hosts_for: scheduled",
        "hosts_for",
        "hosts_for says which runs hosts and require bind, and it has neither",
    ),
    ("overlap: always", "overlap", "unknown value 'always'; known are skip, queue, allow, replace"),
    (
        "state: no",
        "state",
        "unknown value 'no'; known are enabled, disabled, chain_active, ad_hoc_active",
    ),
    (
        "state: deleted",
        "state",
        "unknown value 'deleted'; known are enabled, disabled, chain_active, ad_hoc_active",
    ),
    ("priority: high", "priority", "'high' is no whole number; write e.g. 1"),
    ("catch_up_limit: 0", "catch_up_limit", "0 is out of range; it takes 1 to 10000"),
    ("tags: [a b]", "tags[0]", "'a b' is no name; it takes letters, digits, '.', '_', '/' and '-'"),
    ("require: erp", "require", "takes a map like {role: erp}, not 'erp'"),
    ("workdir: srv", "workdir", "'srv' is no absolute path; write e.g. /srv/app"),
    ("user: 'a b'", "user", "'a b' is no user's name"),
    ("owner: !x y", "owner", "the tag !x has no meaning here; leave it out"),
    ('owner: "a\\0b"', "owner", "must not contain the character NUL"),
    ('owner: "a\\ud800"', "owner", "has half of a surrogate pair, which is no character"),
    ('env: {"\\ud800": x}', "env", "the key '\\ud800' has half of a surrogate pair"),
    ("params: {job: x}", "params.job", "every run has its own 'job'; choose another name"),
    (
        "params: {a_b: x, A_B: y}",
        "params",
        "parameters a_b and A_B differ only in case; rename one",
    ),
    ("params: {1: x}", "params.1", "'1' is no variable's name; it takes letters, digits and '_'"),
    (
        "env: {ETCSCHED_JOB: x}",
        "env.ETCSCHED_JOB",
        "names beginning with ETCSCHED_ are set by the agent",
    ),
    ("retry: {max: many}", "retry.max", "'many' is no whole number; write e.g. 1"),
    ("retry: {max: 3, times: 2}", "retry.times", RETRY_FIELDS),
    ("retry: {interval: 5m}", "retry", "has no max: how many retries? write e.g. {max: 3, "),
    ("retry: {max: 3, exponential: yes}", "retry.exponential", "'yes' is neither true nor false"),
    ("retry: {max: 3, cap: 1h}", "retry", "cap bounds intervals that double: add exponential"),
    (
        "retry: {max: 3, interval: 2h, exponential: true, cap: 1h}",
        "retry",
        "cap is shorter than interval",
    ),
    (
        "retry: {max: 3, on: [died]}",
        "retry.on[0]",
        "an attempt that died goes by on_agent_loss; leave it out here",
    ),
    ("retry: {max: 3, on: cancelled}", "retry.on", "unknown value 'cancelled'; known are failed, "),
    ("retry: {max: 3, on: []}", "retry.on", "is empty; write e.g. [failed, timed_out], or max: 0"),
    ("retry: 3", "retry", "takes a map like {max: 3, interval: 5m}, not '3'"),
    ("keep: {days: 3}", "keep.days", "unknown field 'days'; known are runs, age"),
    ("owner: a\n    owner: b", "owner", "is given twice; first in line 5"),
]


@pytest.mark.parametrize(("line", "path", "text"), FIELD_PROBLEMS)
def test_a_wrong_field(line: str, path: str, text: str) -> None:
    file = f"jobs:\n  a:\n    run: {{exec: [/bin/true]}}\n    schedule: {{every: 1h}}\n    {line}\n"
    (problem,) = problems_of(file)
    number = 5 + line.count("\n")
    assert problem.startswith(f"a.yaml:{number}: jobs.a.{path}: {text}")


@pytest.mark.parametrize(
    ("schedule", "path", "text"),
    [
        ("{cron: 30 2 30 2 *}", ".cron", "never due"),
        ("{cron: 61 * * * *}", ".cron", "minute"),
        ('{cron: "@reboot"}', ".cron", "@reboot"),
        ("{every: 500ms}", ".every", "whole seconds"),
        ("{at: 2026-11-22T19:00:00}", ".at", "has passed (it is 2026-11-22T19:00:00.500Z now)"),
        ("{at: tomorrow}", ".at", "not a time"),
        (
            "{every: 1h, at: 2027-01-01}",
            "",
            "takes exactly one of cron, every, at; write e.g. {cron: 0 3 * * *}; several stand in "
            "a list: [{cron: 0 3 * * *}, {every: 1h}]",
        ),
        ("[{every: 1h}, {evry: 2h}]", "[1].evry", "unknown field 'evry'; did you mean every?"),
        ("[]", "", "has no pattern"),
        ("0 3 * * *", "", "takes a map like {cron: 0 3 * * *}, not '0 3 * * *'"),
    ],
)
def test_a_wrong_schedule(schedule: str, path: str, text: str) -> None:
    problems = problems_of(f"jobs:\n  a: {{run: {{exec: [x]}}, schedule: {schedule}}}\n")
    assert problems[0].startswith(f"a.yaml:2: jobs.a.schedule{path}: ")
    assert text in problems[0]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ('["{dat}"]', "unknown parameter 'dat'; did you mean date?"),
        ('["{scheduled_date}{run-id}"]', "unknown parameter 'run-id'; known are date"),
        ('["{"]', "a single '{' at character 1; write {name} for a parameter, {{ for"),
        ('[\'{"a": {"b": 1}}\']', "a single '{' at character 1"),
    ],
)
def test_a_wrong_placeholder(argv: str, text: str) -> None:
    (problem, *_) = problems_of(
        f"jobs: {{a: {{run: {{exec: {argv}}}, state: ad_hoc_active, params: {{date: x}}}}}}"
    )
    assert problem.startswith("a.yaml:1: jobs.a.run.exec[0]: ")
    assert text in problem


@pytest.mark.parametrize("run", ["5", "{}", "{exec: [a], shell: b}", "{exec: []}", "{shell: ' '}"])
def test_a_wrong_run(run: str) -> None:
    (problem,) = problems_of(f"jobs: {{a: {{run: {run}, state: ad_hoc_active}}}}")
    assert problem.startswith("a.yaml:1: jobs.a.run")


@pytest.mark.parametrize(
    ("executor", "instead"),
    [("http", "curl"), ("docker", "docker, run"), ("python", "python3, -m")],
)
def test_an_executor_that_isnt_there_yet_says_what_does_instead(
    executor: str, instead: str
) -> None:
    (problem,) = problems_of(f"jobs: {{a: {{run: {{{executor}: x}}, state: ad_hoc_active}}}}")
    assert problem.startswith(f"a.yaml:1: jobs.a.run.{executor}: isn't there yet; write e.g. exec:")
    assert instead in problem


def test_per_host_without_a_tick_that_it_could_be_of() -> None:
    job = "{run: {exec: [/bin/true]}, per_host: true, lifecycle: cluster_startup}"
    (problem,) = problems_of(f"jobs: {{a: {job}}}")
    assert problem.startswith("a.yaml:1: jobs.a.per_host: ticks run on each agent, and it has no")
    for useful in (
        job.replace("cluster", "host"),
        job.replace("run:", "schedule: {every: 1h}, run:"),
    ):
        assert load([("a.yaml", f"jobs: {{a: {useful}}}")], NOW_MS).jobs


@pytest.mark.parametrize("name", ["_a", "a b", "ä", "x" * 129, "a/b", "''", ".."])
def test_a_wrong_name(name: str) -> None:
    (problem,) = problems_of(f"jobs: {{{name}: {{{RUNS}}}}}")
    assert "is no name for a job" in problem
    assert problem.endswith("doesn't begin with '_' and isn't '.' or '..'")


def test_all_problems_of_all_files_in_their_order() -> None:
    assert problems_of(
        f"""
        defaults: {{timezone: Europe/Berln}}
        calendar: {{}}
        jobs:
          a: {{{RUNS}}}
          b: {{schedule: {{every: x}}}}
        """,
        f"""
        jobs:
          a: {{{RUNS}}}
          c: {{run: {{exec: [x]}}}}
          d:
        """,
        "jobs: [a",
    ) == [
        "a.yaml:2: defaults.timezone: timezone 'Europe/Berln' is unknown; "
        "did you mean Europe/Berlin or Europe/Dublin or Europe/Belfast?",
        "a.yaml:3: calendar: unknown field 'calendar'; did you mean calendars?",
        "a.yaml:6: jobs.b.schedule.every: 'x' is not a duration; write whole numbers with units, "
        "largest first, like 500ms, 30s, 2m, 1h30m or 1d",
        "a.yaml:6: jobs.b: has no run; write e.g. run: {exec: [/bin/true]}",
        "b.yaml:3: jobs.a: is given twice; first in a.yaml:5",
        "b.yaml:4: jobs.c: has no schedule; give it one, or a lifecycle, or state: ad_hoc_active "
        "if it runs on request only, chain_active if other jobs chain to it",
        "b.yaml:5: jobs.d: takes a map like {run: {exec: [/bin/true]}, schedule: {every: 1h}}, "
        "not nothing",
        "c.yaml:1: not YAML: while parsing a flow sequence expected ',' or ']', but got "
        "'<stream end>'",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no jobs; write them below the top-level map jobs"),
        ("a: b: c", "not YAML: mapping values are not allowed here"),
        ("jobs: &a [*a]", "jobs: takes a map like {name: {run: ...}}, not a list"),
        ("- jobs", "takes a map like {jobs: ...}, not a list"),
        ("jobs: \x01", "not YAML: no text"),
        ("[" * 5000, "nested more than 50 levels deep"),
        (
            "defaults: {owner: me}",
            "defaults: hold for the jobs of their own file, and it has none; put them beside "
            "their jobs",
        ),
    ],
)
def test_a_file_that_holds_no_jobs(text: str, problem: str) -> None:
    assert problems_of(text) == [f"a.yaml:1: {problem}"]


@pytest.mark.parametrize("begin", ["[", "{a: ", "- "])
def test_what_is_nested_too_deeply_is_refused_where_it_gets_so(begin: str) -> None:
    end = {"[": "]", "{a: ": "}", "- ": ""}[begin]

    def nested(levels: int) -> str:
        return f"jobs:\n  a:\n    run:\n      {begin * levels}x{end * levels}\n"

    (said,) = problems_of(nested(5000))
    assert said == "a.yaml:4: nested more than 50 levels deep"
    assert problems_of(nested(47)) == [said]
    assert said not in problems_of(nested(46))


def test_sizes() -> None:
    (too_long,) = problems_of(
        f"jobs: {{a: {{run: {{shell: {'x' * 70_000}}}, state: ad_hoc_active}}}}"
    )
    assert "bytes; a job may take 65536" in too_long
    (too_much,) = problems_of(f"jobs: {{a: {{{RUNS}, params: {{a: {'x' * 16_384}}}}}}}")
    assert "16385 bytes of parameters; 16384 are allowed" in too_much


def test_aliases_that_multiply_stay_harmless() -> None:
    bomb = "defaults: {env: {A: &0 [x]}}\njobs:\n" + "".join(
        f"  j{n}: {{run: &{n} {{exec: [*{n - 1}, *{n - 1}, *{n - 1}]}}}}\n" for n in range(1, 40)
    )
    assert len(problems_of(bomb)) > 40


def test_files_and_directories(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text("b")
    (tmp_path / "a.yaml").write_text("a")
    (tmp_path / ".hidden.yaml").write_text("h")
    (tmp_path / "notes.txt").write_text("n")
    assert [text for _, text in read_files([str(tmp_path)])] == ["a", "b"]

    (tmp_path / "bad.yaml").write_bytes(b"\xff")
    with pytest.raises(InvalidJobFile) as caught:
        read_files([str(tmp_path), str(tmp_path / "none.yaml")])
    assert caught.value.problems == [
        f"{tmp_path}/bad.yaml: can't be read: it isn't text in UTF-8 (line 1)",
        f"{tmp_path}/none.yaml: can't be read: No such file or directory",
    ]
    with pytest.raises(UsageError, match="given twice"):
        read_files([str(tmp_path / "a.yaml"), str(tmp_path)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no \.yaml or \.yml file"):
        read_files([str(tmp_path / "empty")])


def test_retries_of_defaults() -> None:
    defaults = "defaults: {retry: {max: 3, interval: 5m}}\n"
    jobs = f"{{a: {{{RUNS}, retry: {{interval: 1m}}}}, b: {{{RUNS}, retry: {{max: 0}}}}}}"
    first, second = load_text(f"{defaults}jobs: {jobs}")
    assert first.retry == Retry(max=3, interval_s=60.0)
    assert second.retry.max == 0
    # Not a whole one, but every job may make it one.
    (only,) = load_text(
        f"defaults: {{retry: {{interval: 5m}}}}\njobs: {{a: {{{RUNS}, retry: {{max: 1}}}}}}"
    )
    assert only.retry == Retry(max=1, interval_s=300.0)


def test_defaults_of_maps_are_added_to() -> None:
    (job,) = load_text(
        f"""
        defaults: {{require: {{role: erp, zone: a}}, params: {{x: d}}}}
        jobs: {{a: {{{RUNS}, require: {{zone: b}}}}}}
        """
    )
    assert (job.require, job.params) == ({"role": "erp", "zone": "b"}, {"x": "d"})


def test_parameters_make_sense_together_with_those_of_the_defaults() -> None:
    defaults = f"defaults: {{params: {{x: {'d' * 16_000}}}}}\n"
    (clash,) = problems_of(f"{defaults}jobs: {{a: {{{RUNS}, params: {{X: d}}}}}}")
    assert clash == "a.yaml:2: jobs.a.params: parameters x and X differ only in case; rename one"
    (size,) = problems_of(f"{defaults}jobs: {{a: {{{RUNS}, params: {{y: {'d' * 400}}}}}}}")
    assert size.endswith("16402 bytes of parameters; 16384 are allowed")


@pytest.mark.parametrize("lifecycle", list(Lifecycle))
def test_each_lifecycle_reads_back(lifecycle: Lifecycle) -> None:
    (job,) = load_text(f"""
        jobs: {{a: {{{RUNS}, lifecycle: {lifecycle.value}}}}}
    """)
    assert job.lifecycle is lifecycle
    written = fields_of(job)
    assert ("lifecycle" in written) is (lifecycle is not Lifecycle.NONE)
    (again,) = load_text(json.dumps({"jobs": {"a": written}}))
    assert again.lifecycle is lifecycle


def test_a_lifecycle_needs_no_schedule() -> None:
    (job,) = load_text("""
        jobs: {a: {run: {exec: [/bin/true]}, lifecycle: cluster_startup}}
    """)
    assert job.current.state is JobState.ENABLED
    assert not job.current.patterns


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (
            "lifecycle: host_start, state: ad_hoc_active",
            "a.yaml:2: jobs.a.lifecycle: unknown value 'host_start'; did you mean host_startup?",
        ),
        (
            "lifecycle: host_startup, state: chain_active",
            "a.yaml:2: jobs.a.lifecycle: a job that is chain_active runs at no startup and no "
            "shutdown; its state would be enabled or ad_hoc_active",
        ),
        (
            "lifecycle: none",
            "a.yaml:2: jobs.a: has no schedule; give it one, or a lifecycle, or state: "
            "ad_hoc_active if it runs on request only, chain_active if other jobs chain to it",
        ),
    ],
)
def test_what_no_lifecycle_is(written: str, problem: str) -> None:
    text = f"""
        jobs: {{a: {{run: {{exec: [/bin/true]}}, {written}}}}}
    """
    assert problems_of(text) == [problem]
