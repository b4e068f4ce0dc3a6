"""The world of most stories; where another is needed, its file has its own."""

from __future__ import annotations

import pytest

from etcsched.testing.world import World


@pytest.fixture
def world() -> World:
    """A leader, and an agent whose runs take long unless a test says otherwise."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=100.0)
    world.advance(0.5)
    return world
