"""A chain's history as one tree: every run that one beginning led to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from etcsched.core.errors import NotFound
from etcsched.core.view import RunKey
from etcsched.keyspace.keys import Keys
from etcsched.operator.runs import RunView, read_some
from etcsched.ports import Etcd

__all__ = ["MAX_RUNS", "ChainTree", "TreeNode", "read_tree"]

MAX_RUNS: Final = 1000


class TreeNode(msgspec.Struct, frozen=True, kw_only=True):
    """A run and what followed. ``run`` None: there is none (``note`` says why), not yet, or not any
    more. ``is_repeated``: a join, whose own runs stand where it came up first."""

    name: str
    run: RunView | None
    note: str = ""
    is_repeated: bool = False
    children: tuple[TreeNode, ...] = ()


class ChainTree(msgspec.Struct, frozen=True, kw_only=True):
    """``roots``: where it began, several if they joined. ``is_cut``: there are more runs than
    ``MAX_RUNS``."""

    roots: tuple[TreeNode, ...]
    is_cut: bool = False


async def read_tree(etcd: Etcd, keys: Keys, job: str, run: str) -> ChainTree:
    """The whole chain that this run is of. ``NotFound`` where there is no such run (any more)."""
    runs = await _reachable(etcd, keys, (job, run))
    if (job, run) not in runs:
        raise NotFound(f"run {job}/{run}: there is none; see etcsched runs list {job}")
    begins = [key for key, view in runs.items() if not any(p in runs for p in _before(view))]
    shown: set[RunKey] = set()
    roots = tuple(_node(key, "", runs, shown) for key in sorted(begins, key=_by_time))
    return ChainTree(roots=roots, is_cut=len(runs) >= MAX_RUNS)


async def _reachable(etcd: Etcd, keys: Keys, start: RunKey) -> dict[RunKey, RunView]:
    """All runs that are linked with ``start``, in whatever direction, a generation at a time."""
    runs: dict[RunKey, RunView] = {}
    looked_for: set[RunKey] = set()
    wanted = [start]
    while wanted and len(runs) < MAX_RUNS:
        looked_for.update(wanted)
        found = await read_some(etcd, keys, wanted[: MAX_RUNS - len(runs)])
        runs |= found
        linked = (key for view in found.values() for key in (*_before(view), *_after(view)))
        wanted = sorted({key for key in linked if key not in looked_for})
    return runs


def _before(view: RunView) -> Iterable[RunKey]:
    """A resubmission hangs below its original, not beside it."""
    run = view.run
    if run.resubmits:
        return [(run.job, run.resubmits)]
    return [(source.job, source.run) for source in run.chained_from]


def _after(view: RunView) -> Iterable[RunKey]:
    run = view.run
    again = [(run.job, id_) for id_ in run.resubmitted_as]
    return [*again, *((follow.job, follow.run) for follow in run.followed_by if follow.run)]


def _node(key: RunKey, note: str, runs: dict[RunKey, RunView], shown: set[RunKey]) -> TreeNode:
    name, view = "/".join(filter(None, key)), runs.get(key)
    if view is None:
        gone = "" if note or not key[1] else "not there any more"
        return TreeNode(name=name, run=None, note=note or gone)
    if key in shown:
        return TreeNode(name=name, run=view, note=note, is_repeated=True)
    shown.add(key)
    children = [_node((key[0], id_), "resubmitted", runs, shown) for id_ in view.run.resubmitted_as]
    for follow in view.run.followed_by:
        child = (follow.job, follow.run)
        children.append(_node(child, "" if child in runs else follow.note, runs, shown))
    return TreeNode(name=name, run=view, note=note, children=tuple(children))


def _by_time(key: RunKey) -> tuple[str, str]:
    return key[1], key[0]
