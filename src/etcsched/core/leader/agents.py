"""Which agents may take what, and which of them gets it: eligible ones, their slots and turns.

Slots that a write in flight will take count as taken.
"""

from __future__ import annotations

from collections import defaultdict

from msgspec.structs import replace

from etcsched.core.leader.placement import (
    NEVER_TRIED,
    Requirement,
    Tried,
    decliners_of,
    declines_of,
    rank_of,
    requirement_of_run,
    why_not,
)
from etcsched.core.leader.pool import NOBODY, Member, Pool, pool_of
from etcsched.core.records import Job, Presence, Rotation, Run
from etcsched.core.seats import Seating
from etcsched.core.states import Occasion, Placement, RunState
from etcsched.core.view import Entry, View


class Agents:
    def __init__(self, view: View) -> None:
        self._view = view
        self.seating = Seating(view)
        self._reserved_slots: defaultdict[str, int] = defaultdict(int)
        self._pools: dict[Requirement, Pool] = {}
        self._pools_of: defaultdict[str, list[Pool]] = defaultdict(list)
        self._known_full: dict[Requirement, Pool] = {}
        """Of what some have declined: there may be many, each without others, and all have to go
        through the free ones that are no use to them."""
        self.changes = 0
        """How often presences, drains or seats have changed."""
        self._rotated: dict[str, str] = {}
        """By job, the agent that had its last turn, as planned."""

    # --- their load

    def reserve(self, agent: str) -> None:
        """A slot, for what is about to be assigned to it."""
        self._reserved_slots[agent] += 1
        self.load_changed(agent)

    def release(self, agent: str) -> None:
        self._reserved_slots[agent] -= 1
        self.load_changed(agent)

    def used_slots(self, agent: str) -> int:
        return self._view.slots_taken(agent) + self._reserved_slots.get(agent, 0)

    def is_reserved(self, agent: str) -> bool:
        """Whether something that is about to be assigned to it isn't shown yet."""
        return self._reserved_slots.get(agent, 0) > 0

    def load_changed(self, agent: str) -> None:
        """It has more or less to do than before."""
        for pool in self._pools_of.get(agent, ()):
            pool.load_changed(agent)
        presence = self._view.presences.get(agent)
        if presence is not None and self.used_slots(agent) < presence.record.slots:
            known = self._known_full.items()
            for each in [r for r, pool in known if agent in pool and agent not in r.without]:
                del self._known_full[each]

    # --- who is eligible

    def wanted(self, job: Entry[Job], run: Run) -> Requirement:
        """What the run asks by now, whoever has declined it left out."""
        requirement = requirement_of_run(job.record, run)
        if not declines_of(run):
            return requirement
        decliners = decliners_of(run, job.mod_revision, self._view.presences)
        return replace(requirement, without=decliners)

    def changed(self) -> None:
        """Presences, drains or seats have changed: who is eligible is found out anew."""
        self.changes += 1
        self.seating.changed()
        self._pools.clear()
        self._pools_of.clear()
        self._known_full.clear()

    def why_not(self, requirement: Requirement, presence: Presence) -> str | None:
        """Why this agent, full or not, isn't eligible; None: it is."""
        is_drained = presence.agent in self._view.drains
        is_standby = self.seating.is_standby(presence.agent)
        why = why_not(requirement, presence, is_drained, is_standby=is_standby)
        if why is None and presence.agent in requirement.without:
            return "has declined it"
        return why

    def is_eligible(self, requirement: Requirement, presence: Presence) -> bool:
        return self.why_not(requirement, presence) is None

    def has_eligible(self, requirement: Requirement) -> bool:
        """Whether an eligible agent lives, full or not."""
        pool = self._pool_of(requirement)
        return len(pool) > sum(agent in pool for agent in requirement.without)

    def eligible(self, requirement: Requirement) -> tuple[str, ...]:
        """The agents that live and may run it, full or not, by name."""
        agents = self._pool_of(requirement).agents
        return tuple(agent for agent in agents if agent not in requirement.without)

    def why_none(self, requirement: Requirement) -> str:
        """Why no agent takes this now, in words."""
        if not self._view.presences:
            return "no agent is here"
        if self.has_eligible(requirement):
            return "every agent that may run it is full"
        names_by_reason: defaultdict[str, list[str]] = defaultdict(list)
        for name, entry in sorted(self._view.presences.items()):
            names_by_reason[self.why_not(requirement, entry.record) or ""].append(name)
        # What keeps few is most likely what can be mended: the others aren't meant for it.
        rarest = sorted(names_by_reason.items(), key=lambda each: (len(each[1]), each[1]))
        reasons = [
            f"{names[0]}{f' (and {len(names) - 1} more)' if len(names) > 1 else ''} {reason}"
            for reason, names in rarest
        ]
        more = f"; and {len(reasons) - 3} more reasons" if len(reasons) > 3 else ""
        return f"no agent may run it: {'; '.join(reasons[:3])}{more}"

    def has_to_start(self, presence: Presence) -> bool:
        """Whether a run about the agent's coming is ready for it and not placed yet: that goes
        first."""
        view = self._view
        runs = (view.runs[key].record for key in view.bound_to.get(presence.agent, ()))
        return any(
            run.state is RunState.READY
            and run.is_bound_to_incarnation
            and not view.is_paused(run.job)
            and (job := view.jobs.get(run.job)) is not None
            and self.is_eligible(requirement_of_run(job.record, run), presence)
            for run in runs
        )

    # --- who gets it

    def choose(
        self, requirement: Requirement, job: str, tried: Tried = NEVER_TRIED
    ) -> Entry[Presence] | None:
        """The eligible agent that gets the job's next run; None: there is none with a free slot."""
        if self.is_known_full(requirement):
            return None
        pool, decliners = self._pool_of(requirement), requirement.without
        after = (
            self._last_in_rotation(job) if requirement.placement is Placement.ROUND_ROBIN else None
        )
        agent = pool.choose(tried.agents, after, job, decliners)
        if agent in tried.agents:
            # All have tried it: then at least another than the last time, or one that could.
            for avoid in (tried.unable | {tried.last}, tried.unable):
                agent = pool.choose(avoid, after, job, decliners)
                if agent not in avoid:
                    break
        if agent is None:
            if decliners:
                self._known_full[requirement] = pool
            return None
        return self._view.presences[agent]

    def is_known_full(self, requirement: Requirement) -> bool:
        """Whether nobody had a free slot as was asked last, and nobody has got one since."""
        return requirement in self._known_full

    def rotate(self, job: Job, agent: str | None) -> Rotation | None:
        """What the write that assigns a run of this job says of the job's turns. A turn that is
        planned counts as taken, whatever becomes of the write."""
        if agent is None or job.placement is not Placement.ROUND_ROBIN:
            return None
        self._rotated[job.name] = agent
        return Rotation(job=job.name, agent=agent)

    def _last_in_rotation(self, job: str) -> str | None:
        planned = self._rotated.get(job)
        if planned is not None:
            return planned
        entry = self._view.rotations.get(job)
        return entry.record.agent if entry is not None else None

    def _pool_of(self, requirement: Requirement) -> Pool:
        """Shared by all that ask the same, whoever has declined them: a pool costs something
        whenever an agent's load changes."""
        if requirement.without:
            requirement = replace(requirement, without=NOBODY)
        pool = self._pools.get(requirement)
        if pool is None:
            presences = self._view.presences
            names = requirement.hosts or presences
            members = {
                name: Member(
                    entry.record.slots if self._has_slots(entry.record) else 0,
                    rank_of(requirement, entry.record),
                )
                for name in names
                if (entry := presences.get(name)) is not None
                and self.is_eligible(requirement, entry.record)
            }
            pool = pool_of(requirement.placement, members, self.used_slots)
            self._pools[requirement] = pool
            for name in members:
                self._pools_of[name].append(pool)
        return pool

    def _has_slots(self, presence: Presence) -> bool:
        """Not before it has a seat, and not before its startup jobs are there: those go first."""
        if self._view.jobs_at[Occasion.HOST_STARTUP]:
            live = self._view.live.get(presence.agent)
            if live is None or live.record.incarnation != presence.incarnation or live.record.due:
                return False
        return self.seating.has_slots(presence.agent)
