"""Schedulers that etcd is out of reach for, and what they make of what they see afterwards."""

from __future__ import annotations

from etcsched.core.clock import CLOCK_EVERY_S
from etcsched.core.schedule import Cron
from etcsched.testing.world import SimulatedAgent, World
from tests.support.jobs import job


def test_a_scheduler_leads_as_soon_as_it_is_back() -> None:
    """The clocks that others showed meanwhile are old by then, and say nothing of its own."""
    world = World()
    node = world.scheduler("s1")
    agents = [world.agent(f"a{number}", slots=10, takes_s=1.0) for number in range(10)]
    world.advance(1)
    world.apply(job("minutely", Cron("* * * * *")))

    def show_clock(agent: SimulatedAgent) -> None:
        agent.stay()
        world.at(world.now_s + CLOCK_EVERY_S, lambda: show_clock(agent))

    for number, agent in enumerate(agents):
        world.at(world.now_s + 6 * number, lambda agent=agent: show_clock(agent))  # type: ignore[misc]
    world.advance(120)
    node.is_cut_off = True
    world.advance(60)
    node.is_cut_off = False
    world.advance(5)
    assert node.leader is not None
