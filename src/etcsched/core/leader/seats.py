"""The leader gives seats and takes them away, as ``core.seats`` plans it.

One transaction at a time does so, which compares all that it rests on: what it leaves over, the
next one does. Whoever leads next plans the same from what it sees.
"""

from __future__ import annotations

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import Matter
from etcsched.core.records import Kind, Seat

SEATS: Matter = ("seats",)

MOST_AT_ONCE = 30
"""Of given and of taken seats, so that a transaction holds them."""


class Seats:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._view = context.view

    def decide(self) -> None:
        context, view = self._context, self._view
        plan = context.agents.seating.plan
        if not (plan.given or plan.taken) or context.is_busy(SEATS):
            return
        # A seat is taken before it is given: both lists begin with what goes first.
        taken = plan.taken[:MOST_AT_ONCE]
        rest = len(view.seats) - len(taken)
        most = view.settings.max_active_agents or 0
        given = plan.given[: min(MOST_AT_ONCE, max(0, most - rest))]
        seats = tuple(Seat(agent=agent, since=context.now, term=context.term) for agent in given)
        context.write(
            fx.ChangeSeats(
                seq=context.next_seq(),
                given=tuple(
                    (seat, view.seen(Kind.SEAT, seat.agent), view.seen(Kind.PRESENCE, seat.agent))
                    for seat in seats
                ),
                taken=tuple(
                    (agent, view.seats[agent].mod_revision, view.seen(Kind.PRESENCE, agent))
                    for agent in taken
                ),
                settings_revision=view.settings_revision,
            ),
            SEATS,
        )
        for agent in taken:
            is_bound = view.settings.max_active_agents is not None
            text = "gives up its seat" if is_bound else "needs no seat any more"
            context.say(text, agent=agent)
        for agent in given:
            context.say("gets a seat", agent=agent)
