"""What stands as it did some seconds before, so that the leader has seen it: agents, their free
slots, jobs, and what holds for the whole cluster."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from etcsched.audit.eligibility import eligible_for, used_slots
from etcsched.audit.state import Keyspace, Place, Step, Write
from etcsched.core.records import CLUSTER, Job, Kind, Live, Pause, Presence
from etcsched.core.states import Stage

__all__ = ["SETTLED_MS", "Standing", "is_clock_only"]

SETTLED_MS = 5_000
"""What a leader decides by what has stood for so long, it has seen; and what it had under way then,
is committed so long after, or never."""

_CLUSTER = ("cluster",)


class Standing:
    """``wrote`` is called with each write to a place in ``places``, while the state is still that
    before its revision."""

    places: frozenset[Place] = frozenset(
        {
            Kind.ASSIGNMENT, Kind.JOB, Kind.PAUSE, Kind.GAP, Kind.PRESENCE, Kind.DRAIN, Kind.SEAT,
            Kind.LIVE, Kind.CONFLICT, Kind.SETTINGS, Kind.TERM,
        }
    )  # fmt: skip

    def __init__(self, state: Keyspace) -> None:
        self._state = state
        self._began_ms = state.at_ms
        self._changed_ms: dict[tuple[str, ...], int] = {}
        self._full_ms: dict[str, int] = {}
        """When an agent had no free slot last."""

    def wrote(self, write: Write, step: Step) -> None:
        match write.place:
            case Kind.ASSIGNMENT:
                self._assigned(write.ids[0], step)
            case Kind.PRESENCE if is_clock_only(write):
                pass
            case Kind.PRESENCE | Kind.DRAIN | Kind.SEAT | Kind.LIVE:
                self._changed_ms["agent", write.ids[0]] = step.at_ms
            case Kind.JOB | Kind.PAUSE | Kind.GAP if write.ids[0] != CLUSTER:
                self._changed_ms["job", write.ids[0]] = step.at_ms
            case _:
                self._changed_ms[_CLUSTER] = step.at_ms

    def _assigned(self, agent: str, step: Step) -> None:
        presence = self._state.record(Presence, Kind.PRESENCE, agent)
        if presence is not None and used_slots(self._state, agent) >= presence.slots:
            self._full_ms[agent] = step.at_ms

    # --- since when

    def agent_since_ms(self, agent: str) -> int:
        """When what decides about it was last changed, but for its slots."""
        return self._changed_ms.get(("agent", agent), self._began_ms)

    def job_since_ms(self, job: str) -> int:
        """When what decides about the job, or about all, was last changed: its definition, pauses
        and outages; settings, conflict groups, and who leads."""
        changed_ms = self._changed_ms.get(("job", job), self._began_ms)
        return max(changed_ms, self._changed_ms.get(_CLUSTER, self._began_ms))

    def is_job_settled(self, job: str, at_ms: int) -> bool:
        return at_ms - self.job_since_ms(job) > SETTLED_MS

    def agents_for(self, job: Job, host: str, at_ms: int) -> Iterator[Presence]:
        """Those that may have a run of the job for certain, full or not, and have for some time;
        of one that is bound to a host, that one."""
        for presence in eligible_for(self._state, job):
            agent = presence.agent
            live = self._state.record(Live, Kind.LIVE, agent)
            has_begun = (
                live is not None
                and live.incarnation == presence.incarnation
                and live.stage is Stage.HERE
                and not live.due
            )
            is_settled = at_ms - self.agent_since_ms(agent) > SETTLED_MS
            if has_begun and host in ("", agent) and is_settled:
                yield presence

    def had_slot(self, agent: str, at_ms: int, *, but_for: int = 0) -> bool:
        """... free, and some time before; ``but_for`` so many that it has just taken."""
        presence = self._state.record(Presence, Kind.PRESENCE, agent)
        used = used_slots(self._state, agent) - but_for
        was_full = at_ms - self._full_ms.get(agent, -SETTLED_MS) <= SETTLED_MS
        return presence is not None and used < presence.slots and not was_full

    # --- what stands in the way of all runs of a job

    def is_paused(self, job: str) -> bool:
        pauses = (self._state.record(Pause, Kind.PAUSE, name) for name in (job, CLUSTER))
        return any(pause is not None and pause.active for pause in pauses)


def is_clock_only(write: Write) -> bool:
    """Each agent shows its clock now and then."""
    before = write.old
    after = write.new
    if not isinstance(before, Presence) or not isinstance(after, Presence):
        return False
    return replace(before, clock=after.clock) == after
