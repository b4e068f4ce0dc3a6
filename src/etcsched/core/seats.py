"""Who may receive runs where the cluster's settings bound how many agents do (standby seats).

Purely: from what the view shows to the changes of seats that it calls for. A seat of an agent that
is gone stays its own, so that it finds it when it returns, until somebody who is here needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from etcsched.core.records import Presence
    from etcsched.core.view import View


class SeatPlan(msgspec.Struct, frozen=True):
    """``taken``: from agents that are gone, and from those beyond the bound. ``given``: to agents
    that stand by, in the order of their coming."""

    given: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()


NOTHING_TO_DO = SeatPlan()


class Sitting(msgspec.Struct, frozen=True):
    """A seat: whose, since when (a revision), and whether its agent is here."""

    agent: str
    since: int
    is_here: bool


class Standby(msgspec.Struct, frozen=True):
    agent: str
    came: int


def plan_seats(
    most: int | None, sitting: tuple[Sitting, ...], standbys: tuple[Standby, ...]
) -> SeatPlan:
    """``most`` None: no bound, and so no seats."""
    if most is None:
        return SeatPlan(taken=tuple(sorted(seat.agent for seat in sitting)))
    # Whose seat goes first: who is gone, the longest seated of them; then who came last.
    gone = sorted((s for s in sitting if not s.is_here), key=lambda s: (s.since, s.agent))
    here = sorted((s for s in sitting if s.is_here), key=lambda s: (s.since, s.agent), reverse=True)
    in_turn = [seat.agent for seat in (*gone, *here)]
    excess = max(0, len(sitting) - most)
    waiting = [s.agent for s in sorted(standbys, key=lambda s: (s.came, s.agent))]
    free = max(0, most - len(sitting))
    to_vacate = min(max(0, len(gone) - excess), max(0, len(waiting) - free))
    given = waiting[: free + to_vacate]
    return SeatPlan(given=tuple(given), taken=tuple(in_turn[: excess + to_vacate]))


class Seating:
    """What the view's seats mean for placement."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._plan: SeatPlan | None = None

    def changed(self) -> None:
        """Presences, drains, seats or settings have."""
        self._plan = None

    @property
    def plan(self) -> SeatPlan:
        if self._plan is None:
            view, most = self._view, self._view.settings.max_active_agents
            if most is None and not view.seats:
                self._plan = NOTHING_TO_DO
                return self._plan
            sitting = tuple(
                Sitting(agent, seat.create_revision, agent in view.presences)
                for agent, seat in view.seats.items()
            )
            standbys = tuple(
                Standby(agent, entry.create_revision)
                for agent, entry in view.presences.items()
                if agent not in view.seats and self._may_sit(entry.record)
            )
            self._plan = plan_seats(most, sitting, standbys)
        return self._plan

    def _may_sit(self, presence: Presence) -> bool:
        """Whoever is about to leave, or drained, would only hold the seat up."""
        return not presence.draining and presence.agent not in self._view.drains

    def is_standby(self, agent: str) -> bool:
        """Whether it gets no runs for want of a seat; one that is about to get a seat isn't, but
        has no slot yet."""
        view, plan = self._view, self.plan
        if view.settings.max_active_agents is None:
            return False
        if agent in view.seats:
            return agent in plan.taken
        return agent not in plan.given

    def has_slots(self, agent: str) -> bool:
        return self._view.settings.max_active_agents is None or agent in self._view.seats
