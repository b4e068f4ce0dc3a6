"""What the simulated etcd of a world holds, as a leader sees it."""

from __future__ import annotations

from etcsched.core.view import View
from etcsched.keyspace.feed import Feed
from etcsched.testing.world import World

__all__ = ["view_of"]


def view_of(world: World) -> View:
    view = View()
    snapshot = world.store.snapshot(world.keys.watched, world.keys.watched_end)
    Feed(world.keys, view, lambda *_: None).take(snapshot)
    return view
