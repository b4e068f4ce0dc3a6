"""I16, on histories by hand: each violation caught, and what is in order passed."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.audit.verdict import Invariant, Outcome
from etcsched.core.records import Due, Job, Kind, Live, Run
from etcsched.core.states import JobState, Lifecycle, Occasion, Origin, RunState, Stage
from etcsched.keyspace.codec import encode
from tests.unit.audit.story import KEYS, Story, a_job, a_live, a_run

HOST, WHOLE = Lifecycle.HOST_BOTH, Lifecycle.CLUSTER_BOTH
UP, DOWN = Occasion.HOST_STARTUP, Occasion.HOST_SHUTDOWN
FIRST, LAST = Occasion.CLUSTER_STARTUP, Occasion.CLUSTER_SHUTDOWN


def a_lifecycle_job(name: str, lifecycle: Lifecycle, **fields: Any) -> Job:
    job = a_job(name, lifecycle=lifecycle, **fields)
    return replace(job, versions=(replace(job.current, patterns=()),))


class Agents(Story):
    """With a leader, and a job for each agent and one for all."""

    def __init__(self) -> None:
        super().__init__()
        self.led()
        self.through(0.5)
        self.defined(a_lifecycle_job("host", HOST))
        self.defined(a_lifecycle_job("whole", WHOLE))

    def live(self, agent: str, stage: Stage, *due: Due) -> tuple[str, Live]:
        return KEYS.of(Kind.LIVE, agent), a_live(agent, stage, due=due)

    def run_at(self, occasion: Occasion, agent: str = "a", **fields: Any) -> tuple[str, Run]:
        job = "host" if occasion in (UP, DOWN) else "whole"
        id_ = f"20261122T120001Z-{'down' if occasion.is_shutdown else 'up'}-{agent}1"
        id_ += "" if occasion is FIRST else f"@{agent}"
        values = {
            "job": job, "origin": Origin.LIFECYCLE, "occasion": occasion,
            "incarnation": f"{agent}1", **fields,
        }  # fmt: skip
        run = a_run(id_, RunState.READY, **values)
        return KEYS.of(Kind.RUN, run.job, run.id), run

    def over(self, *runs: tuple[str, Run]) -> None:
        for key, run in runs:
            ended = replace(run, state=RunState.CANCELLED)
            self.commit((KEYS.archive(run.job, run.id), encode(ended)), (key, None))

    def came(self, agent: str = "a", *, first: bool = True) -> None:
        self.staffed(agent)
        runs = [self.run_at(UP, agent), *([self.run_at(FIRST, agent)] if first else [])]
        self.put(self.live(agent, Stage.HERE), *runs)
        self.over(*runs)

    def stops(self, agent: str = "a") -> None:
        self.staffed(agent, draining=True)

    def went(self, agent: str = "a", *, last: bool = True) -> None:
        self.stops(agent)
        down = self.run_at(DOWN, agent)
        self.put(self.live(agent, Stage.LEAVING), down)
        self.over(down)
        if last:
            down = self.run_at(LAST, agent)
            self.put(self.live(agent, Stage.LAST), down)
            self.over(down)
        self.put(self.live(agent, Stage.DISMISSED))
        self.delete(KEYS.of(Kind.PRESENCE, agent))
        self.delete(KEYS.of(Kind.LIVE, agent))


@pytest.fixture
def story() -> Agents:
    return Agents()


def check(story: Agents, *words: str) -> None:
    found = [v.text for v in story.verdict().violations if v.invariant is Invariant.I16]
    assert len(found) == len(words), found
    for text, word in zip(found, words, strict=True):
        assert word in text


def test_all_in_order(story: Agents) -> None:
    story.came("a")
    story.came("b", first=False)
    story.went("a", last=False)
    story.went("b")
    verdict = story.verdict()
    assert verdict.outcome is Outcome.CLEAN, verdict.violations


@pytest.mark.parametrize("first", [False, True])
def test_one_whose_presence_cant_be_read_is_there(story: Agents, first: bool) -> None:
    story.came("a")
    story.commit((KEYS.of(Kind.PRESENCE, "a"), b"nonsense"))
    story.came("b", first=first)
    check(story, *(["b isn't the first: a were here"] if first else []))


def test_one_that_stays_after_all_and_goes_later(story: Agents) -> None:
    story.came("b")
    story.came("a", first=False)
    story.stops("a")
    down = story.run_at(DOWN, "a")
    story.put(story.live("a", Stage.LEAVING), down)
    story.over(down)
    story.staffed("a")
    story.put(story.live("a", Stage.HERE))
    story.stops("a")
    again = replace(down[1], id="20261122T120501Z-down-a1@a")
    story.put(story.live("a", Stage.LEAVING), (KEYS.of(Kind.RUN, "host", again.id), again))
    check(story)


def test_two_that_come_and_go_in_one_step(story: Agents) -> None:
    story.staffed("a")
    story.staffed("b")
    runs = [story.run_at(UP, "a"), story.run_at(UP, "b"), story.run_at(FIRST, "a")]
    story.put(story.live("a", Stage.HERE), story.live("b", Stage.HERE), *runs)
    story.over(*runs)
    story.stops("a")
    story.stops("b")
    runs = [story.run_at(DOWN, "a"), story.run_at(DOWN, "b")]
    story.put(story.live("a", Stage.LEAVING), story.live("b", Stage.LEAVING), *runs)
    story.over(*runs)
    last = story.run_at(LAST, "b")
    story.put(story.live("a", Stage.DISMISSED), story.live("b", Stage.LAST), last)
    story.over(last)
    story.put(story.live("b", Stage.DISMISSED))
    check(story)


def test_a_startup_twice(story: Agents) -> None:
    story.came()
    _, run = story.run_at(UP)
    again = replace(run, id="20261122T120002Z-up-a1@a")
    story.put((KEYS.of(Kind.RUN, "host", again.id), again))
    check(story, "a second host_startup of a1")


@pytest.mark.parametrize("missing", [UP, FIRST])
def test_a_startup_that_isnt_there(story: Agents, missing: Occasion) -> None:
    story.staffed()
    story.put(story.live("a", Stage.HERE), story.run_at(FIRST if missing is UP else UP))
    check(story, f"no {missing.value} of {'host' if missing is UP else 'whole'}")


def test_what_is_due_may_come_a_little_later(story: Agents) -> None:
    story.staffed()
    due = Due(occasion=UP, job="host")
    story.put(story.live("a", Stage.HERE, due), story.run_at(FIRST))
    story.put(story.live("a", Stage.HERE), story.run_at(UP))
    check(story)


def test_what_was_due_and_never_came(story: Agents) -> None:
    story.staffed()
    story.put(story.live("a", Stage.HERE, Due(occasion=UP, job="host")), story.run_at(FIRST))
    story.put(story.live("a", Stage.HERE))
    check(story, "no host_startup of host")


def test_a_second_that_counts_as_the_first(story: Agents) -> None:
    story.came("a")
    story.came("b")
    check(story, "b isn't the first: a were here")


def test_a_last_that_isnt(story: Agents) -> None:
    story.came("a")
    story.came("b", first=False)
    story.went("a")
    check(story, "a isn't the last: b stay")


def test_the_last_goes_without_a_word(story: Agents) -> None:
    story.came()
    story.went(last=False)
    check(story, "a: the last to go, without cluster_shutdown of whole")


def test_a_shutdown_that_isnt_there(story: Agents) -> None:
    story.came("a")
    story.came("b", first=False)
    story.stops("a")
    story.put(story.live("a", Stage.DISMISSED))
    check(story, "no host_shutdown of host")


def test_one_that_is_let_go_before_its_jobs_are_over(story: Agents) -> None:
    story.came("a")
    story.came("b", first=False)
    story.stops("a")
    story.put(story.live("a", Stage.LEAVING), story.run_at(DOWN))
    story.put(story.live("a", Stage.DISMISSED))
    check(story, "dismissed before host/20261122T120001Z-down-a1@a was over")


def test_shutdown_jobs_before_its_work_is_over(story: Agents) -> None:
    story.came()
    story.defined()
    story.now_s = 60.01
    story.created("20261122T120100Z")
    story.stops()
    story.put(story.live("a", Stage.LEAVING), story.run_at(DOWN))
    check(story, "leaving before job/20261122T120100Z was over")


def test_a_crash_that_is_taken_for_a_stop(story: Agents) -> None:
    story.came()
    story.put(story.live("a", Stage.LEAVING), story.run_at(DOWN))
    check(story, "leaving, and wasn't told to stop", "made, and a wasn't told to stop")


def test_a_shutdown_of_one_that_is_gone(story: Agents) -> None:
    story.came()
    story.delete(KEYS.of(Kind.PRESENCE, "a"))
    story.put(story.run_at(DOWN))
    check(story, "session a1 isn't there")


def test_a_change_of_leader_that_starts_something(story: Agents) -> None:
    story.came()
    story.led(2)
    _, run = story.run_at(UP, term=2)
    again = replace(run, id="20261122T130001Z-up-a1@a")
    story.put((KEYS.of(Kind.RUN, "host", again.id), again))
    check(story, "a second host_startup of a1")


def test_a_job_of_another_lifecycle(story: Agents) -> None:
    story.came()
    _, run = story.run_at(DOWN)
    story.stops()
    wrong = replace(run, job="whole")
    story.put((KEYS.of(Kind.RUN, "whole", wrong.id), wrong))
    check(story, "its job's lifecycle is cluster_both")


def test_a_run_on_another_host(story: Agents) -> None:
    story.came("a")
    _, run = story.run_at(UP, "b")
    story.staffed("b")
    wrong = replace(run, id="20261122T120001Z-up-b1@a")
    story.put(story.live("b", Stage.HERE), (KEYS.of(Kind.RUN, "host", wrong.id), wrong))
    check(story, "bound to a, made for b")


def test_a_scheduled_run_with_an_occasion(story: Agents) -> None:
    story.came()
    _, run = story.run_at(UP)
    odd = replace(run, id="20261122T120101Z", origin=Origin.REQUEST, incarnation="a2")
    story.put((KEYS.of(Kind.RUN, "host", odd.id), odd))
    check(story, "made by request, for", "session a2 isn't there")


@pytest.mark.parametrize(
    ("fields", "is_due"),
    [
        ({}, True),
        ({"hosts": ("b",)}, False),
        ({"require": {"role": "erp"}}, False),
        ({"user": "erp"}, False),
    ],
)
def test_whom_a_job_suits(fields: dict[str, Any], is_due: bool) -> None:
    story = Agents()
    story.defined(a_lifecycle_job("host", HOST, **fields))
    story.staffed(users=("app",), default_user="app")
    story.put(story.live("a", Stage.HERE), story.run_at(FIRST))
    check(story, *(["no host_startup of host"] if is_due else []))


@pytest.mark.parametrize("state", [JobState.DISABLED, JobState.CHAIN_ACTIVE])
def test_a_job_that_is_off(story: Agents, state: JobState) -> None:
    job = a_lifecycle_job("host", HOST)
    story.defined(replace(job, versions=(replace(job.current, state=state),)))
    story.staffed()
    story.put(story.live("a", Stage.HERE), story.run_at(FIRST))
    check(story)


def test_a_job_that_came_after_the_agent_may_be_left_out(story: Agents) -> None:
    """The leader needn't have seen it."""
    story.staffed()
    story.defined(a_lifecycle_job("later", HOST))
    story.put(story.live("a", Stage.HERE), story.run_at(FIRST), story.run_at(UP))
    check(story)


def test_at_a_quiet_end_everybody_is_accounted_for(story: Agents) -> None:
    story.came("a")
    story.staffed("b")
    story.put(story.live("c", Stage.HERE))
    story.put(story.live("d", Stage.GONE))
    story.quiet(processes=(), leases=3, nodes=3)
    check(
        story, "c (c1): has come, and isn't there", "d (d1): has come, and isn't there",
        "b (b1): nobody has seen it come", "c: nobody has seen it go",
    )  # fmt: skip


def test_lifecycle_runs_that_were_there_before_count(story: Agents) -> None:
    story.came()
    rest = story.continued()
    _, run = story.run_at(UP)
    again = replace(run, id="20261122T130001Z-up-a1@a")
    rest.put((KEYS.of(Kind.RUN, "host", again.id), again))
    found = [v.text for v in rest.verdict().violations if v.invariant is Invariant.I16]
    assert len(found) == 1
    assert "a second host_startup" in found[0]


# --- a startup that goes on without the first


def begun(story: Agents) -> None:
    """What is due at the cluster's startup isn't made yet as its first agent is gone."""
    story.staffed("a")
    story.staffed("b")
    due = (Due(occasion=FIRST, job="whole"), Due(occasion=UP, job="host"))
    story.put(story.live("a", Stage.HERE, *due), story.live("b", Stage.HERE, due[1]))
    story.put(story.live("b", Stage.HERE), story.run_at(UP, "b"))
    story.delete(KEYS.of(Kind.PRESENCE, "a"))


def test_it_goes_on_while_the_first_is_gone(story: Agents) -> None:
    begun(story)
    left = story.live("a", Stage.GONE, Due(occasion=UP, job="host"))
    story.put(left, story.run_at(FIRST, "a"))
    check(story)


def test_it_goes_on_as_the_first_comes_anew(story: Agents) -> None:
    begun(story)
    story.staffed("a", incarnation="a2")
    made = [story.run_at(occasion, "a", incarnation="a2")[1] for occasion in (FIRST, UP)]
    runs = [replace(run, id=run.id.replace("a1", "a2")) for run in made]
    live = replace(story.live("a", Stage.HERE)[1], incarnation="a2")
    story.put((KEYS.of(Kind.LIVE, "a"), live), *((KEYS.of(Kind.RUN, r.job, r.id), r) for r in runs))
    check(story)


def test_it_doesnt_go_on_beyond_what_was_left(story: Agents) -> None:
    begun(story)
    story.put(story.live("a", Stage.GONE, Due(occasion=UP, job="host")))
    story.put(story.run_at(FIRST, "a"))
    check(story, "session a1 isn't there")


@pytest.mark.parametrize(("said", "words"), [(UP, ()), (None, ("resubmitted for",))])
def test_a_resubmission_is_told_what_its_original_was_for(
    story: Agents, said: Occasion | None, words: tuple[str, ...]
) -> None:
    story.came()
    original = story.run_at(UP)[1]
    again = a_run(
        "r1@a", RunState.QUEUED, job="host", origin=Origin.RESUBMISSION, resubmits=original.id,
        stands_for=said,
    )  # fmt: skip
    story.put((KEYS.of(Kind.RUN, "host", again.id), again))
    check(story, *words)
