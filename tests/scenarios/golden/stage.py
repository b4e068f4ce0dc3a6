"""Carries golden scripts out: the product's own cores of schedulers and agents, its own commands
for operators, a model of etcd, and virtual time. An auditor judges what happened besides."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import msgspec

from etcsched.audit.auditor import Auditor
from etcsched.audit.history import Entry
from etcsched.audit.verdict import Verdict
from etcsched.core.agent import effects as fx
from etcsched.core.agent.attempt import parse_attempt_id
from etcsched.core.durations import parse_duration_s
from etcsched.core.errors import EtcschedError
from etcsched.core.records import CLUSTER, Release, RequestKind
from etcsched.core.states import JobState
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.jobfile import Draft
from etcsched.operator.apply import apply
from etcsched.operator.calendars import apply_calendars
from etcsched.operator.conflicts import apply_groups
from etcsched.operator.defined import read_defined
from etcsched.operator.settings import apply_settings
from etcsched.testing.sim.cluster import Cluster
from etcsched.testing.sim.etcd import Outage
from etcsched.testing.sim.scenario import AgentPlan, FaultPlan, Scenario, SchedulerPlan
from etcsched.testing.sim.supervisor import Behaviour
from tests.scenarios.golden.narration import Narration, short
from tests.scenarios.golden.script import Command, Script

__all__ = ["Played", "play"]

START: Final = Utc("2026-11-22T12:00:00.000Z")
SETTLE_S: Final = 0.2
"""A command's consequences are awaited so long; waits count from before it."""
FOR_GOOD_S: Final = 1e9
CALL_TIMEOUT_S: Final = 5.0

_FAULTS: Final = {
    # what is done: (of a scheduler, of an agent's host), and how much of it
    "kill": ("scheduler killed", "host killed", 0.0),
    "stop": ("scheduler stopped", "agent stopped", 0.0),
    "freeze": ("scheduler frozen", "host frozen", 0.0),
    "cut off": ("cut", "cut", 2.0),
}
_ETCD_FAULTS: Final = {
    "goes down": Outage.KILLED,
    "loses its quorum": Outage.NO_QUORUM,
    "falls silent": Outage.HOSTS_GONE,
}
_BEHAVIOUR: Final = re.compile(
    r"(?:takes (?P<takes>\S+))?(?: and |)(?:(?P<fails>fails)|(?P<completes>completes))?"
    r"(?: and |)(?:hands on (?P<results>\S+))?(?P<stubborn> and ignores SIGTERM)?"
)

C = TypeVar("C", bound=Callable[..., Any])
_COMMANDS: list[tuple[re.Pattern[str], Callable[..., Any]]] = []


class Played(msgspec.Struct, frozen=True):
    """``seen``: of each step. ``verdict``: the auditor's, of the whole."""

    seen: list[list[str]]
    verdict: Verdict


def play(script: Script) -> Played:
    stage = Stage()
    seen = []
    for step in script.steps:
        for command in step.commands:
            try:
                stage.do(command)
            except (EtcschedError, LookupError, ValueError) as error:
                raise AssertionError(f"line {command.line}: {command.words}: {error}") from error
        seen.append(stage.narration.lines())
    return Played(seen, stage.finish())


def command(pattern: str) -> Callable[[C], C]:
    def note(method: C) -> C:
        _COMMANDS.append((re.compile(pattern), method))
        return method

    return note


class Steady(random.Random):
    """No chance: every way through the network takes the same time, and what is rare never is."""

    def random(self) -> float:
        return 0.5


class Stage:
    """One cluster, empty at first, at noon."""

    def __init__(self) -> None:
        self._auditor = Auditor()
        scenario = Scenario(seed=0, start=START, faulty_s=0.0, schedulers=(), agents=(), jobs=())
        self.cluster = Cluster(
            scenario, self._tell, chance_of=lambda _: Steady(), behaves=self._behaves
        )
        self.narration = Narration(self.cluster.keys)
        self._time_s = 0.0
        self._behaviours: dict[str, Behaviour] = {}
        self._faults: dict[str, int] = {}

    def _tell(self, entry: Entry) -> None:
        self._auditor.take(entry)
        if hasattr(self, "narration"):
            self.narration.take(entry)

    def _behaves(self, start: fx.StartProcess) -> Behaviour:
        job, *_ = parse_attempt_id(start.attempt_id)
        return self._behaviours.get(job, Behaviour(takes_s=1.0))

    def do(self, command: Command) -> None:
        for pattern, method in _COMMANDS:
            match = pattern.fullmatch(command.words)
            if match is None:
                continue
            given = match.groupdict()
            if "below" in inspect.signature(method).parameters:
                given["below"] = command.below
            elif command.below:
                raise ValueError("nothing is to be indented below it")
            method(self, **{name: value for name, value in given.items() if value is not None})
            self._run_until(max(self.cluster.loop.now_s, self._time_s + SETTLE_S))
            return
        raise ValueError("no such command")

    def finish(self) -> Verdict:
        self.cluster.finish()
        return self._auditor.finish()

    def _run_until(self, end_s: float) -> None:
        self.cluster.loop.run_until(end_s)

    # --- time

    @command(r"wait (?P<duration>\S+)")
    def wait(self, duration: str) -> None:
        self._time_s += parse_duration_s(duration)
        self._run_until(self._time_s)

    @command(r"wait until (?P<clock>\d\d:\d\d:\d\d)")
    def wait_until(self, clock: str) -> None:
        until_s = (ms_of(Utc(f"{START[:11]}{clock}.000Z")) - ms_of(START)) / 1000
        if until_s < self._time_s:
            raise ValueError(f"it is {self._time_s - until_s:g} s later than that")
        self._time_s = until_s
        self._run_until(until_s)

    # --- who is there

    @command(r"start schedulers? (?P<names>[a-z0-9 ]+)")
    def start_schedulers(self, names: str) -> None:
        for name in names.split():
            self.cluster.add_scheduler(SchedulerPlan(name=name))
            # One after the other, so that it is known who leads.
            self._run_until(self.cluster.loop.now_s + 0.02)

    @command(r"start agents? (?P<names>[a-z0-9 ]+?)(?: with (?P<details>.+))?")
    def start_agents(self, names: str, details: str = "") -> None:
        labels = dict(part.split("=", 1) for part in details.split())
        slots = int(labels.pop("slots", "4"))
        for name in names.split():
            plan = AgentPlan(host=name, agent=name, slots=slots, labels=labels, stop_timeout_s=60.0)
            self.cluster.add_agent(plan)
            self._run_until(self.cluster.loop.now_s + 0.02)

    @command(r"(?P<what>kill|stop|freeze|cut off) (?P<name>[a-z0-9]+)")
    def begin_fault(self, what: str, name: str) -> None:
        of_scheduler, of_agent, amount = _FAULTS[what]
        kind = of_scheduler if name in self.cluster.schedulers else of_agent
        with self.narration.quiet_about_processes(what == "freeze"):
            self._begin(name, FaultPlan(at_s=0.0, kind=kind, target=name, amount=amount))

    @command(r"etcd (?P<what>goes down|loses its quorum|falls silent)")
    def lose_etcd(self, what: str) -> None:
        self._begin("etcd", FaultPlan(at_s=0.0, kind="etcd down", amount=float(_ETCD_FAULTS[what])))

    @command(r"(?:return|thaw|reconnect) (?P<name>[a-z0-9]+)|(?P<etcd>etcd) comes back")
    def heal(self, name: str = "", etcd: str = "") -> None:
        with self.narration.quiet_about_processes():
            self.cluster.heal(self._faults.pop(name or etcd))

    def _begin(self, name: str, plan: FaultPlan) -> None:
        if name in self._faults:
            raise ValueError("something ails it already; heal that first")
        plan = msgspec.structs.replace(plan, for_s=FOR_GOOD_S)
        number = self.cluster.begin_fault(plan)
        if number is None:
            raise ValueError("there is no such node")
        self._faults[name] = number

    # --- what jobs do

    @command(r"(?P<job>\S+) (?P<how>(?:takes|fails|completes|hands on)\b.*)")
    def behave(self, job: str, how: str) -> None:
        match = _BEHAVIOUR.fullmatch(how)
        if match is None:
            raise ValueError("write e.g. report takes 20s and fails")
        before = self._behaviours.get(job, Behaviour(takes_s=1.0))
        takes, results = match["takes"], match["results"]
        self._behaviours[job] = Behaviour(
            takes_s=parse_duration_s(takes) if takes else before.takes_s,
            exit_code=1 if match["fails"] else 0,
            is_stubborn=match["stubborn"] is not None,
            results=(results or "").replace(",", "\n").encode(),
        )

    # --- what operators do

    @command("apply")
    def apply(self, below: str) -> None:
        cluster = self.cluster
        draft = Draft([("script", below)], cluster.loop.now_ms)
        now, operators = utc_of(cluster.loop.now_ms), cluster.operators
        etcd, keys = operators.etcd, cluster.keys

        async def work() -> None:
            known = (await read_defined(etcd, keys)).known()
            wanted = draft.resolved(known)
            limit: dict[str, Any] = {"timeout_s": CALL_TIMEOUT_S}
            if wanted.settings:
                await apply_settings(etcd, keys, wanted.settings, "op", **limit)
            await apply_calendars(etcd, keys, wanted.calendars, now, "op", **limit)
            await apply(etcd, keys, wanted.jobs, now, "op", **limit)
            await apply_groups(etcd, keys, wanted.conflicts, "op", **limit)

        self._finish(work())

    @command(r"(?P<what>disable|enable|delete) (?P<job>\S+)")
    def change(self, what: str, job: str) -> None:
        operators = self.cluster.operators
        if what == "delete":
            operators.delete(job)
        else:
            is_on = what == "enable"
            operators.set_state(job, JobState.ENABLED if is_on else JobState.DISABLED)

    @command(r"pause(?: (?P<job>\S+))?")
    def pause(self, job: str = CLUSTER) -> None:
        self.cluster.operators.pause(job)

    @command(r"resume(?: (?P<job>\S+))?")
    def resume(self, job: str = CLUSTER) -> None:
        self.cluster.operators.resume(job)

    @command(r"drain (?P<agent>\S+)")
    def drain(self, agent: str) -> None:
        self.cluster.operators.drain(agent)

    @command(r"undrain (?P<agent>\S+)")
    def undrain(self, agent: str) -> None:
        self.cluster.operators.undrain(agent)

    @command(r"trigger (?P<job>\S+)")
    def trigger(self, job: str) -> None:
        self.cluster.operators.request(RequestKind.TRIGGER, job)

    @command(r"cancel (?P<name>\S+)")
    def cancel(self, name: str) -> None:
        self.cluster.operators.request(RequestKind.CANCEL, *self._run_named(name))

    @command(r"resubmit (?P<name>\S+)(?P<force> --force)?")
    def resubmit(self, name: str, force: str = "") -> None:
        job, run = self._run_named(name)
        self.cluster.operators.request(RequestKind.RESUBMIT, job, run, force=bool(force))

    @command(r"release (?P<name>\S+) --(?P<how>reassign|died)")
    def release(self, name: str, how: str) -> None:
        job, run = self._run_named(name)
        self.cluster.operators.request(RequestKind.RELEASE, job, run, release=Release(how))

    # --- what is looked at

    @command(r"list runs of (?P<jobs>.+)")
    def list_runs(self, jobs: str) -> None:
        for job in jobs.split():
            for run in self.narration.runs_of(job):
                where = f" on {run.agent or run.attempts[-1].agent}" if run.attempts else ""
                many = f" ({run.missed_count} ticks)" if run.missed_count > 1 else ""
                text = f"{run.state.value}{where}{many}"
                self.narration.list(f"{job}/{short(run.id)}", text)

    def _run_named(self, name: str) -> tuple[str, str]:
        job, _, wanted = name.partition("/")
        for run in self.narration.runs_of(job):
            if short(run.id) == wanted:
                return job, run.id
        raise ValueError(f"no run {name}")

    def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Until it is done: a command that fails is a mistake in the script."""
        done: list[BaseException | None] = []

        async def watched() -> None:
            try:
                await work
            except EtcschedError as error:
                done.append(error)
            else:
                done.append(None)

        self.cluster.virtual_asyncio.start(watched())
        self._run_until(self.cluster.loop.now_s + SETTLE_S)
        if not done:
            raise ValueError("has no answer yet")
        if done[0] is not None:
            raise done[0]
