"""The coming and going of agents, and the jobs that run then (``lifecycle``).

What the leader has decided about each incarnation of an agent is a record, ``state/live/<agent>``.
One transaction at a time changes these records and makes the runs that follow, so that everything
happens once, whoever leads: an incarnation that has a record has come already. Who is the first and
who is the last is seen in the records as they stand, and as this very transaction changes them. Of
one whose presence can't be read nothing new is decided: somebody is there.

An agent that wants to go says so in its presence (``draining``), ends what it has, and waits until
its record says ``dismissed``. One that vanishes is just ``gone``: nothing runs for that. Either
record stays for a while, so that one whose presence comes back isn't taken for a new one.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context, Matter
from etcsched.core.leader.placement import Requirement, requirement_of, why_not
from etcsched.core.leader.runs import new_run
from etcsched.core.records import Due, Job, Kind, Live, Presence, Run
from etcsched.core.states import JobState, Occasion, Origin, RunState, Stage
from etcsched.core.times import ms_of, tick_id
from etcsched.core.view import View

LIVE: Matter = ("live",)

MOST_AT_ONCE = 20
"""Of agents, and of runs, so that one transaction holds them."""

MOST_DUE_BYTES = 512 << 10
"""Of what is due to run on them: each record says it by name."""

AWAY_KEPT_S = 3600.0
"""A presence that was deleted by hand comes back, also that of an agent that hasn't heard yet that
it may go; longer than any lease lives without it."""

_IN_FORCE = (Stage.HERE, Stage.LEAVING)
_AWAY = (Stage.DISMISSED, Stage.GONE)


def live_matter(agent: str) -> Matter:
    return ("live", agent)


def run_id_of(live: Live, occasion: Occasion) -> str:
    """It follows from the record, so that the run is made once. A cluster's startup is for any
    agent; all others are for this one."""
    word = "down" if occasion.is_shutdown else "up"
    second = tick_id(ms_of(live.since) // 1000 * 1000)
    name = f"{second}-{word}-{live.incarnation}"
    return name if occasion is Occasion.CLUSTER_STARTUP else f"{name}@{live.agent}"


class _Plan:
    """One transaction, as far as it is put together."""

    def __init__(self, in_force: set[str]) -> None:
        self.in_force = in_force
        """The live set: whoever is here, and isn't going as the last or going already."""
        self.come: dict[str, Live] = {}
        self.all_have_come = True
        self.is_begun_anew = False
        """The first of all comes: what an earlier start of the cluster left to do is void."""
        self.due_bytes = 0
        self.changes: list[fx.LiveChange] = []
        self.created: list[Run] = []
        self.jobs: dict[str, int] = {}
        self.witnesses: dict[str, int] = {}

    @property
    def is_full(self) -> bool:
        if self.due_bytes >= MOST_DUE_BYTES or not self.all_have_come:
            return True
        return len(self.changes) >= MOST_AT_ONCE or not self.runs_left

    @property
    def runs_left(self) -> int:
        return MOST_AT_ONCE - len(self.created)


class LiveAgents:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._view: View = context.view
        self._dirty: dict[str, None] = {}

    def look_at(self, agent: str) -> None:
        self._dirty[agent] = None

    def look_at_all(self) -> None:
        for agent in (*self._view.presences, *self._view.live):
            self._dirty[agent] = None

    def work_changed(self, agent: str) -> None:
        """It has less to do than before, perhaps nothing."""
        if self._is_told_to_stop(agent):
            self._dirty[agent] = None

    def sweep(self) -> None:
        """Records of agents that were gone long ago."""
        for agent, entry in self._view.live.items():
            if entry.record.stage in _AWAY:
                self._dirty[agent] = None

    def decide(self) -> None:
        if not self._dirty or self._context.is_busy(LIVE):
            return
        view = self._view
        plan = _Plan({agent for agent in view.live if self._is_in_force(agent)})
        # Whether one may go depends on the others.
        waiting = {a for a, entry in view.live.items() if entry.record.stage is Stage.LEAVING}
        agents = self._in_order({*self._dirty, *waiting})
        self._let_come([agent for agent in agents if self._comes(agent)], plan)
        left = self._leave_what_is_void(plan) if plan.is_begun_anew else set()
        for agent in agents:
            if plan.is_full and agent not in plan.come:
                break
            if agent in left:
                continue
            self._dirty.pop(agent, None)
            self._look(agent, plan)
        if plan.changes:
            self._write(plan)

    def _let_come(self, agents: list[str], plan: _Plan) -> None:
        """All that come, before any goes: also one that came only to be told to stop is one more
        that another may rely on, or has to wait for."""
        for agent in agents[:MOST_AT_ONCE]:
            if plan.due_bytes >= MOST_DUE_BYTES:
                break
            if self._is_new(agent):
                live = self._come(self._view.presences[agent].record, plan)
            else:
                live = self._stay(self._view.live[agent].record, plan)
            plan.come[agent] = live
            plan.due_bytes += _due_bytes(live)
        plan.all_have_come = len(agents) == len(plan.come)

    def _leave_what_is_void(self, plan: _Plan) -> set[str]:
        """As the cluster begins anew, all its startup jobs do: what is left of an earlier beginning
        isn't begun. Answered: whose records said so."""
        left: set[str] = set()
        for agent, entry in self._view.live.items():
            live = entry.record
            if agent in plan.come or not _for_any_agent(live):
                continue  # (One that is here comes with a later transaction.)
            rest = tuple(due for due in live.due if due.occasion is not Occasion.CLUSTER_STARTUP)
            change = fx.LiveChange(
                agent=agent, revision=self._view.seen(Kind.LIVE, agent),
                presence_revision=self._view.seen(Kind.PRESENCE, agent),
                live=replace(live, due=rest),
            )  # fmt: skip
            plan.changes.append(change)
            left.add(agent)
        return left

    def _comes(self, agent: str) -> bool:
        return self._is_new(agent) or self._returns(agent)

    def _is_new(self, agent: str) -> bool:
        """Whether it is an incarnation without a record."""
        presence, live = self._view.presences.get(agent), self._view.live.get(agent)
        if presence is None:
            return False
        return live is None or live.record.incarnation != presence.record.incarnation

    def _returns(self, agent: str) -> bool:
        """Whether its presence was away for a moment only (deleted by hand), or no longer says
        that it stops."""
        presence, entry = self._view.presences.get(agent), self._view.live.get(agent)
        if presence is None or entry is None or self._is_new(agent):
            return False
        stage = entry.record.stage
        return stage is Stage.GONE or (not presence.record.draining and stage is not Stage.HERE)

    def _is_in_force(self, agent: str) -> bool:
        live, presence = self._view.live[agent].record, self._view.presences.get(agent)
        if presence is None:
            is_here = self._view.is_unreadable(Kind.PRESENCE, agent)
        else:
            is_here = presence.record.incarnation == live.incarnation
        return is_here and live.stage in _IN_FORCE

    def _in_order(self, agents: Iterable[str]) -> list[str]:
        """Who comes, in the order of their coming, and then who goes."""

        def place(agent: str) -> tuple[bool, int, str]:
            presence = self._view.presences.get(agent)
            create_revision = presence.create_revision if presence is not None else 0
            return (not self._comes(agent), create_revision, agent)

        return sorted(agents, key=place)

    def _look(self, agent: str, plan: _Plan) -> None:
        """Everything that can be decided about one agent now."""
        entry, presence = self._view.live.get(agent), self._view.presences.get(agent)
        before = entry.record if entry is not None else None
        after: Live | None
        if presence is None:
            is_there = self._view.is_unreadable(Kind.PRESENCE, agent)
            if before is None or is_there or not self._is_news(before):
                return
            after = self._without_agent(before, plan)
            plan.in_force.discard(agent)
        else:
            after = plan.come.get(agent, before)
            if self._comes(agent) and after is before:
                return  # Its turn comes with the next transaction.
            while (step := self._next(after, presence.record, plan)) is not None:
                after = step
            if after is before:
                return
            if agent not in plan.come:
                plan.due_bytes += _due_bytes(after)
        change = fx.LiveChange(
            agent=agent, revision=self._view.seen(Kind.LIVE, agent),
            presence_revision=self._view.seen(Kind.PRESENCE, agent), live=after,
        )  # fmt: skip
        plan.changes.append(change)

    def _is_news(self, live: Live) -> bool:
        """Whether there is anything to do about an agent that isn't here."""
        age_s = (self._context.wall_ms - ms_of(live.since)) / 1000
        is_over = live.stage in _AWAY and not _for_any_agent(live)
        return not is_over or age_s > AWAY_KEPT_S

    def _without_agent(self, live: Live, plan: _Plan) -> Live | None:
        """What the cluster's startup begins is for any agent, also if the first one, whose record
        says what is still to be made, is away again. None: the record goes."""
        for_any = _for_any_agent(live)
        if live.stage in _AWAY and not for_any:
            return None
        if live.stage is not Stage.GONE:
            self._context.say("is gone", agent=live.agent, warn=True)
        rest = tuple(due for due in _not_yet_begun(live) if due not in for_any)
        made = self._make_runs(replace(live, due=for_any), plan) if for_any else None
        left = made.due if made is not None else for_any
        return self._at(live, Stage.GONE, (*left, *rest))

    def _write(self, plan: _Plan) -> None:
        context = self._context
        changed = {change.agent for change in plan.changes}
        write = fx.ChangeLive(
            seq=context.next_seq(),
            changes=tuple(plan.changes),
            created=tuple(plan.created),
            jobs=tuple(sorted(plan.jobs.items())),
            witnesses=tuple(sorted((a, r) for a, r in plan.witnesses.items() if a not in changed)),
        )
        context.write(write, LIVE, *(live_matter(agent) for agent in sorted(changed)))

    # --- one step of one agent

    def _next(self, live: Live | None, presence: Presence, plan: _Plan) -> Live | None:
        """None: nothing follows now."""
        if live is None:
            return None
        if live.due:
            return self._make_runs(live, plan)
        if not presence.draining:
            return None
        match live.stage:
            case Stage.HERE:
                return self._begin_to_go(live, presence) if self._is_work_over(live) else None
            case Stage.LEAVING:
                return None if self._runs_on(live, plan) else self._let_go(live, presence, plan)
            case Stage.LAST:
                return None if self._runs_on(live, plan) else self._dismiss(live, plan)
            case Stage.DISMISSED | Stage.GONE:
                return None

    def _at(self, live: Live, stage: Stage, due: tuple[Due, ...] = ()) -> Live:
        context = self._context
        return replace(live, stage=stage, since=context.now, term=context.term, due=due)

    def _stay(self, live: Live, plan: _Plan) -> Live:
        plan.in_force.add(live.agent)
        void = _for_any_agent(live) if plan.is_begun_anew else ()
        return self._at(live, Stage.HERE, tuple(due for due in live.due if due not in void))

    def _come(self, presence: Presence, plan: _Plan) -> Live:
        """An incarnation that is new. A host that stops already isn't started."""
        context, agent = self._context, presence.agent
        plan.in_force.discard(agent)
        is_first = not plan.in_force
        if not is_first:
            self._rest_on(min(plan.in_force), plan)
        plan.in_force.add(agent)
        due: list[Due] = []
        if is_first:
            plan.is_begun_anew = True
            due += [_due(Occasion.CLUSTER_STARTUP, j) for j in self._jobs_at_cluster_startup()]
        elif not plan.is_begun_anew and (before := self._view.live.get(agent)) is not None:
            due += _for_any_agent(before.record)
        if not presence.draining:
            due += [
                _due(Occasion.HOST_STARTUP, j)
                for j in self._jobs_on(Occasion.HOST_STARTUP, presence)
            ]
        text = "has come, the first of all" if is_first else "has come"
        context.say(text, agent=agent)
        return Live(
            agent=agent, incarnation=presence.incarnation, stage=Stage.HERE, since=context.now,
            term=context.term, due=tuple(due),
        )  # fmt: skip

    def _begin_to_go(self, live: Live, presence: Presence) -> Live:
        jobs = self._jobs_on(Occasion.HOST_SHUTDOWN, presence)
        due = tuple(_due(Occasion.HOST_SHUTDOWN, job) for job in jobs)
        return self._at(live, Stage.LEAVING, due)

    def _let_go(self, live: Live, presence: Presence, plan: _Plan) -> Live | None:
        """Its host is shut down; is it the last, and so the cluster, too?"""
        if not plan.all_have_come:
            return None
        others = sorted(plan.in_force - {live.agent})
        staying = [a for a in others if not self._is_told_to_stop(a)]
        if others:
            if not staying and self._is_needed_at_the_end(presence, others):
                return None
            self._rest_on((staying or others)[0], plan)
            return self._dismiss(live, plan)
        jobs = self._jobs_on(Occasion.CLUSTER_SHUTDOWN, presence)
        if not jobs:
            return self._dismiss(live, plan)
        plan.in_force.discard(live.agent)
        self._context.say("is the last to go", agent=live.agent)
        due = tuple(_due(Occasion.CLUSTER_SHUTDOWN, job) for job in jobs)
        return self._at(live, Stage.LAST, due)

    def _rest_on(self, other: str, plan: _Plan) -> None:
        """This is decided so because another one is here."""
        plan.witnesses[other] = self._view.seen(Kind.PRESENCE, other)

    def _is_told_to_stop(self, agent: str) -> bool:
        presence = self._view.presences.get(agent)
        return presence is not None and presence.record.draining

    def _is_needed_at_the_end(self, presence: Presence, others: list[str]) -> bool:
        """All are going: whether it may run more of the cluster's shutdown jobs than any other, and
        so is to be the last."""
        presences = self._view.presences
        mine = self._use_at_the_end(presence)
        return mine > max(self._use_at_the_end(presences[other].record) for other in others)

    def _use_at_the_end(self, presence: Presence) -> tuple[int, int]:
        """How many of the cluster's shutdown jobs it may run. A drain or a missing seat leaves it
        none; where nobody has any, those that are meant for it count, and will end ``missed``."""
        meant = self._jobs_on(Occasion.CLUSTER_SHUTDOWN, presence)
        jobs = [self._view.jobs[name].record for name in meant]
        able = [j for j in jobs if self._context.agents.is_eligible(_wanted(j, presence), presence)]
        return len(able), len(meant)

    def _dismiss(self, live: Live, plan: _Plan) -> Live:
        plan.in_force.discard(live.agent)
        self._context.say("may go", agent=live.agent)
        return self._at(live, Stage.DISMISSED)

    # --- what an agent has to do still

    def _is_work_over(self, live: Live) -> bool:
        context, agent = self._context, live.agent
        if context.agents.used_slots(agent) == 0:
            return True
        works = (self._view.runs.get(key) for key in self._view.assigned_to.get(agent, ()))
        is_held = [run is None or run.record.state is RunState.HELD for run in works]
        return all(is_held) and not context.agents.is_reserved(agent)

    def _runs_on(self, live: Live, plan: _Plan) -> bool:
        """Whether any run that its going waits for isn't over."""
        if any(run.host == live.agent for run in plan.created):
            return True
        for key in self._view.bound_to.get(live.agent, ()):
            run = self._view.runs[key].record
            is_mine = run.incarnation == live.incarnation and run.state is not RunState.HELD
            if is_mine and run.is_for_shutdown:
                return True
        return False

    # --- jobs

    def _jobs_on(self, occasion: Occasion, presence: Presence) -> list[str]:
        """Those that are due on this agent: enabled, and meant for it."""
        found = []
        for name in self._view.jobs_at[occasion]:
            job = self._view.jobs[name].record
            if self._may_run(job) and why_not(_wanted(job, presence), presence, False) is None:
                found.append(name)
        return sorted(found)

    def _jobs_at_cluster_startup(self) -> list[str]:
        names = self._view.jobs_at[Occasion.CLUSTER_STARTUP]
        return sorted(name for name in names if self._may_run(self._view.jobs[name].record))

    def _may_run(self, job: Job) -> bool:
        return self._context.state_of(job) in (JobState.ENABLED, JobState.AD_HOC_ACTIVE)

    def _make_runs(self, live: Live, plan: _Plan) -> Live | None:
        if not plan.runs_left:
            return None
        now, later = live.due[: plan.runs_left], live.due[plan.runs_left :]
        for due in now:
            entry = self._view.jobs.get(due.job)
            if entry is None or not self._may_run(entry.record):
                continue  # Stopped in the meantime.
            plan.jobs[due.job] = entry.mod_revision
            plan.created.append(self._run(entry.record, live, due.occasion))
        return replace(live, due=later)

    def _run(self, job: Job, live: Live, occasion: Occasion) -> Run:
        """Outside of ``overlap``, as a request is; it is placed once it is there."""
        context = self._context
        return new_run(
            context.author,
            job,
            run_id_of(live, occasion),
            RunState.READY,
            _CAUSES[occasion].format(agent=live.agent),
            origin=Origin.LIFECYCLE,
            params=dict(job.params),
            occasion=occasion,
            incarnation=live.incarnation,
        )


_CAUSES = {
    Occasion.HOST_STARTUP: "{agent} has come",
    Occasion.HOST_SHUTDOWN: "{agent} stops",
    Occasion.CLUSTER_STARTUP: "{agent} has come, the first of all",
    Occasion.CLUSTER_SHUTDOWN: "{agent} stops, the last of all",
}


def _not_yet_begun(live: Live) -> tuple[Due, ...]:
    """What is still to run for its coming, should it be away for a moment only. What runs for its
    going is found anew: it goes anew."""
    return live.due if live.stage in (Stage.HERE, Stage.GONE) else ()


def _for_any_agent(live: Live) -> tuple[Due, ...]:
    return tuple(due for due in live.due if due.occasion is Occasion.CLUSTER_STARTUP)


def _due_bytes(live: Live | None) -> int:
    return sum(len(due.job) + 64 for due in live.due) if live is not None else 0


def _wanted(job: Job, presence: Presence) -> Requirement:
    return replace(requirement_of(job), is_leaving=presence.draining)


def _due(occasion: Occasion, job: str) -> Due:
    return Due(occasion=occasion, job=job)
