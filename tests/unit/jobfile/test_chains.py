"""``chain``, ``results`` and ``notify``: what they make, and what is refused where."""

from __future__ import annotations

import pytest

from etcsched.core.errors import InvalidJobFile
from etcsched.core.records import Condition, Exec, Job, Link
from etcsched.core.states import ConditionOp, JobState, RunState
from etcsched.core.times import Utc, ms_of
from etcsched.jobfile import Known, load
from etcsched.jobfile.chains import idle_targets, lone_joins, parted_joins
from etcsched.jobfile.writing import fields_of
from tests.support.jobs import job as made

NOW_MS = ms_of(Utc("2026-11-22T12:00:00.000Z"))
HEAD = "jobs:\n  b: {run: {exec: [b]}, state: chain_active}\n  a:\n    run: {exec: [a]}\n"


def load_all(text: str, others: dict[str, Job] | None = None) -> dict[str, Job]:
    return {
        job.name: job
        for job in load(
            [("a.yaml", text)], NOW_MS, Known(jobs=others) if others is not None else None
        ).jobs
    }


def problems(text: str, others: dict[str, Job] | None = None) -> list[str]:
    with pytest.raises(InvalidJobFile) as error:
        load([("a.yaml", text)], NOW_MS, Known(jobs=others) if others is not None else None)
    return error.value.problems


FULL = (
    HEAD
    + """\
    schedule: {every: 1h}
    results: [rows, kind]
    chain:
      - to: b
        on: [completed, failed]
        when:
          rows: {more_than: 0, not_in: [7, 8], exists: true}
          kind: full
        within: "* 6-22 * * *"
      - {to: b, on: died, when: {rows: {exists: false}}}
"""
)


def test_everything_that_a_chain_can_say() -> None:
    first, second = load_all(FULL)["a"].chain
    assert first == Link(
        to="b",
        on=(RunState.COMPLETED, RunState.FAILED),
        when=(
            Condition(name="rows", op=ConditionOp.MORE_THAN, values=("0",)),
            Condition(name="rows", op=ConditionOp.NOT_IN, values=("7", "8")),
            Condition(name="rows", op=ConditionOp.EXISTS),
            Condition(name="kind", op=ConditionOp.EQUALS, values=("full",)),
        ),
        within="* 6-22 * * *",
    )
    missing = Condition(name="rows", op=ConditionOp.MISSING)
    assert second == Link(to="b", on=(RunState.DIED,), when=(missing,))


def test_written_back_it_says_the_same() -> None:
    a = load_all(FULL)["a"]
    assert fields_of(a)["results"] == ["rows", "kind"]
    assert fields_of(a)["chain"] == [
        {
            "to": "b",
            "on": ["completed", "failed"],
            "when": {
                "rows": {"more_than": "0", "not_in": ["7", "8"], "exists": True},
                "kind": {"equals": "full"},
            },
            "within": "* 6-22 * * *",
        },
        {"to": "b", "on": ["died"], "when": {"rows": {"exists": False}}},
    ]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("chain: {to: c}", "5: jobs.a.chain: unknown job 'c'; known are b, a; give the file that"),
        ("chain: [{to: b}, {to: c}]", "5: jobs.a.chain[1]: unknown job 'c'; known are b, a; give"),
        ("chain: {on: completed}", "5: jobs.a.chain: names no job to go on with; write e.g."),
        ("chain: {to: b, on: [done]}", "5: jobs.a.chain.on[0]: unknown value 'done'; known are"),
        ("chain: {to: b, on: ready}", "5: jobs.a.chain.on: unknown value 'ready'; known are comp"),
        ("chain: {to: b, on: []}", "5: jobs.a.chain.on: is empty; write e.g. [completed]"),
        ("chain: {to: b, if: x}", "5: jobs.a.chain.if: unknown field 'if'; known are to, on"),
        ("chain: {to: b, require: some}", "5: jobs.a.chain.require: takes all, or is left out"),
        ("chain: {to: b, within: '* 25 * * *'}", "5: jobs.a.chain.within: '* 25 * * *': hour"),
        ("chain: {to: b, within: '0 0 30 2 *'}", "5: jobs.a.chain.within: '0 0 30 2 *': nev"),
        ("chain: {to: b, when: {x: {than: 1}}}", "5: jobs.a.chain.when.x.than: unknown condition"),
        ("chain: {to: b, when: {x: {less_than: y}}}", "5: jobs.a.chain.when.x.less_than: 'y' is n"),
        ("chain: {to: b, when: {x: {in: []}}}", "5: jobs.a.chain.when.x.in: is empty; write e.g."),
        ("chain: {to: b, when: {x: {}}}", "5: jobs.a.chain.when.x: asks nothing; write e.g."),
        ("chain: {to: b, when: {x: {exists: 1}}}", "5: jobs.a.chain.when.x.exists: '1' is neither"),
        ("chain: {to: b, when: {x-y: 1}}", "5: jobs.a.chain.when.x-y: 'x-y' is no result's name"),
        ("results: [a b]", "5: jobs.a.results[0]: 'a b' is no result's name"),
        ("results: [rows, job]", "5: jobs.a.results[1]: every run has its own 'job'; choose"),
        ("results: ETCSCHED_X", "5: jobs.a.results: names beginning with ETCSCHED_ are set by"),
        (
            "results: [rows, Rows]",
            "5: jobs.a.results: become parameters of what follows, and parameters rows and Rows "
            "differ only in case; rename one",
        ),
        (
            "params: {Rows: 1}\n    results: [rows]\n    chain: {to: b}",
            "7: jobs.a.chain: results become parameters of b, and parameters Rows and rows differ",
        ),
        (
            "results: [rows]\n    chain: {to: b, when: {row: 1}}",
            "6: jobs.a.chain: unknown result 'row'; did you mean rows?",
        ),
        ("notify: {webhook: 'http://x'}", "5: jobs.a.notify.webhook: isn't there yet; write run:"),
        ("notify: {on: failed}", "5: jobs.a.notify: has no run; write e.g. run: {exec:"),
        ("notify: {run: {exec: [x, '{who}']}}", "5: jobs.a.notify.run.exec[1]: unknown parameter"),
        ("notify: {run: {exec: [x]}, to: me}", "5: jobs.a.notify.to: unknown field 'to'; known"),
        (f"chain: [{', '.join(['{to: b}'] * 17)}]", "5: jobs.a.chain: has 17 links; 16 are"),
    ],
)  # fmt: skip
def test_wrong(lines: str, problem: str) -> None:
    (line,) = problems(f"{HEAD}    {lines}\n    state: ad_hoc_active\n")
    assert line.startswith(f"a.yaml:{problem}"), line


@pytest.mark.parametrize("state", ["disabled", "ad_hoc_active"])
def test_a_target_that_never_runs_for_a_chain_may_stay(state: str) -> None:
    """Whoever disables a job can still apply the files of those that chain to it."""
    text = HEAD.replace("chain_active", state) + "    schedule: {every: 1h}\n    chain: {to: b}\n"
    jobs = load_all(text)
    (found,) = idle_targets(jobs)
    assert found == (jobs["a"], jobs["b"])
    a_alone = text.replace(f"  b: {{run: {{exec: [b]}}, state: {state}}}\n", "")
    there = made("b", state=JobState(state))
    assert load_all(a_alone, {"b": there})["a"] == jobs["a"]


def test_which_targets_are_idle() -> None:
    def found(target: str, source: str = "") -> list[str]:
        chain = "[{to: b}, {to: b}]"
        a = f"{{run: {{exec: [a]}}, schedule: {{every: 1h}}, chain: {chain}{source}}}"
        jobs = load_all(f"jobs:\n  a: {a}\n  b: {{run: {{exec: [b]}}{target}}}\n")
        return [job.name for _, job in idle_targets(jobs)]

    window = "windows: {from: 2026-12-01, until: 2026-12-02, state: enabled}"
    assert found(", state: disabled") == ["b"]
    assert found(f", state: disabled, {window}") == []
    assert found(", state: disabled", source=", state: disabled") == []
    assert found(", state: disabled", source=f", state: disabled, {window}") == ["b"]
    assert found(", state: chain_active") == []
    gone = made("b", state=JobState.DELETED)
    assert idle_targets({"a": made("a", chain=(Link(to="b"),)), "b": gone}) == []


def test_results_fit_among_the_targets_parameters() -> None:
    text = HEAD + "    schedule: {every: 1h}\n    results: [Rows]\n    chain: {to: b}\n"
    of_b = "state: chain_active, params: {rows: 0}"
    assert problems(text.replace("state: chain_active", of_b)) == [
        "a.yaml:7: jobs.a.chain: results become parameters of b, and parameters rows and Rows "
        "differ only in case; rename one"
    ]
    undeclared = text.replace("    results: [Rows]\n", "").replace("state: chain_active", of_b)
    assert load_all(undeclared)["b"].params == {"rows": "0"}
    assert load_all(text.replace("state: chain_active", of_b.replace("rows", "Rows")))


def test_cycles_over_files_and_the_cluster() -> None:
    text = HEAD + "    schedule: {every: 1h}\n    chain: [{to: b}, {to: there}]\n"
    there = made("there", chain=(Link(to="back"),), state=JobState.CHAIN_ACTIVE)
    back = made("back", chain=(Link(to="a"),), state=JobState.CHAIN_ACTIVE)
    assert problems(text, {"there": there, "back": back}) == [
        "a.yaml:6: jobs.a.chain[1]: makes a cycle: a -> there -> back -> a"
    ]
    assert load_all(text, {"there": there, "back": made("back")})["a"].chain[1].to == "there"
    gone = made("there", state=JobState.DELETED)
    assert problems(text, {"there": gone}) == [
        "a.yaml:6: jobs.a.chain[1]: unknown job 'there'; known are b, a"
    ]


def test_a_job_that_chains_to_itself() -> None:
    text = HEAD + "    schedule: {every: 1h}\n    chain: {to: a}\n"
    assert problems(text) == ["a.yaml:6: jobs.a.chain: makes a cycle: a -> a"]


def test_joins_need_two() -> None:
    """But the other may come later, or have gone before."""
    jobs = load_all(HEAD + "    schedule: {every: 1h}\n    chain: {to: b, require: all}\n")
    assert jobs["a"].chain[0].joins
    assert lone_joins(jobs) == [(jobs["a"], "b")]
    other = made("other", chain=(Link(to="b", joins=True),))
    assert lone_joins({**jobs, "other": other}) == []
    assert lone_joins({**jobs, "other": made("other", chain=(Link(to="b"),))}) != []
    gone = made("other", chain=other.chain, state=JobState.DELETED)
    assert lone_joins({**jobs, "other": gone}) == [(jobs["a"], "b")]


JOIN = (Link(to="end", joins=True),)
ROOT = (Link(to="one"), Link(to="two"))
TICKS, TICKS_ON_EACH = {"every_s": 60}, {"every_s": 60, "per_host": True}


@pytest.mark.parametrize(
    ("one", "two", "root", "is_parted"),
    [
        (TICKS_ON_EACH, TICKS, {}, True),
        (TICKS_ON_EACH, {"state": JobState.AD_HOC_ACTIVE}, {}, True),
        (TICKS_ON_EACH, TICKS_ON_EACH, {}, False),
        (TICKS, TICKS, {"per_host": True}, False),
        # Both follow the same run, be it one on each agent or not.
        ({}, {}, {**TICKS_ON_EACH, "chain": ROOT}, False),
        ({"per_host": True}, {}, {**TICKS, "chain": ROOT}, False),
        # One follows a per_host run, the other doesn't.
        ({}, TICKS, {**TICKS_ON_EACH, "chain": ROOT[:1]}, True),
        (TICKS_ON_EACH, {}, {**TICKS, "chain": ROOT[1:]}, True),
        # One that may come by either way may come.
        ({}, TICKS, {**TICKS_ON_EACH, "chain": ROOT}, False),
        (TICKS, TICKS, {**TICKS_ON_EACH, "chain": ROOT}, False),
        # What has no ticks any more begins nothing.
        ({**TICKS_ON_EACH, "state": JobState.CHAIN_ACTIVE}, TICKS, {}, False),
    ],
)
def test_joins_that_never_meet(
    one: dict[str, object], two: dict[str, object], root: dict[str, object], is_parted: bool
) -> None:
    jobs = {
        "one": made("one", chain=JOIN, **one),  # type: ignore[arg-type]
        "two": made("two", chain=JOIN, **two),  # type: ignore[arg-type]
        "root": made("root", **root),  # type: ignore[arg-type]
        "end": made("end", state=JobState.CHAIN_ACTIVE),
    }
    found = [(source.name, to, other.name) for source, to, other in parted_joins(jobs)]
    assert found == ([("one", "end", "two")] if is_parted else [])


def test_a_notification_is_a_chained_job() -> None:
    text = HEAD + (
        "    schedule: {every: 1h}\n    user: app\n    results: [rows]\n"
        "    notify:\n"
        "      - run: {exec: [alert, '{source_job} {source_state} {rows}']}\n"
        "      - {on: completed, run: {shell: ok}, timeout: 5s}\n"
    )
    jobs = load_all(text)
    assert [link.to for link in jobs["a"].chain] == ["a.notify", "a.notify2"]
    assert jobs["a"].chain[0].on == tuple(
        RunState(s) for s in ("failed", "timed_out", "died", "abandoned", "missed")
    )
    assert jobs["a"].chain[1].on == (RunState.COMPLETED,)
    notify = jobs["a.notify"]
    assert notify.run == Exec(("alert", "{source_job} {source_state} {rows}"))
    assert (notify.current.state, notify.user, notify.retry.max) == (
        JobState.CHAIN_ACTIVE, "app", 5,
    )  # fmt: skip
    assert jobs["a.notify2"].timeout_s == 5.0


def test_what_a_notification_has_of_its_job() -> None:
    """What its process sees, but not where the job runs: that host may be what is lost."""
    notice = load_all(
        "defaults: {workdir: /srv/app, user: app, env: {A: x}, hosts: [host-a], require: {r: a}}\n"
        "jobs:\n"
        "  a: {run: {shell: x}, schedule: {every: 1h}, notify: {run: {shell: y}}}\n"
    )["a.notify"]
    assert (notice.workdir, notice.user, notice.env) == ("/srv/app", "app", {"A": "x"})
    assert (notice.hosts, notice.require) == ((), {})


def test_a_notification_has_neither_schedule_nor_windows_nor_calendars() -> None:
    """A window with a schedule would run it without anything to tell of."""
    text = HEAD + (
        "    schedule: {every: 1h, calendars: [days]}\n    notify: {run: {exec: [x]}}\n"
        "    windows: {from: 2026-12-01, until: 2026-12-02, schedule: {every: 1m}}\n"
        "calendars: {days: {include: [2026-12-01]}}\n"
    )
    current = load_all(text)["a.notify"].current
    assert (current.patterns, current.windows, current.calendars) == ((), (), ())


def test_a_notification_takes_a_name() -> None:
    text = HEAD + (
        "    schedule: {every: 1h}\n    notify: {run: {exec: [x]}}\n"
        "  a.notify: {run: {exec: [x]}, state: chain_active}\n"
    )
    assert problems(text) == ["a.yaml:7: jobs.a.notify: is given twice; first in a.yaml:3"]
