"""I13: after quiescence each node's view equals etcd."""

from __future__ import annotations

from etcsched.audit.history import NodeView, Quiet
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.verdict import Invariant


class Views(Rule):
    invariant = Invariant.I13

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._has_seen_views = False

    def quieted(self, quiet: Quiet) -> None:
        if quiet.views is None:
            return
        self._has_seen_views = True
        held = self.state.mod_revisions()
        for view in quiet.views:
            self._compare(view, held, quiet)

    def _compare(self, view: NodeView, held: dict[str, int], quiet: Quiet) -> None:
        """Keys that changed since the view was taken say nothing of it."""
        differing = [
            f"{key}: {view.node} holds revision {view.mod_revisions.get(key, 'none')}, etcd "
            f"{held.get(key, 'none')}"
            for key in sorted(held.keys() | view.mod_revisions.keys())
            if held.get(key) != view.mod_revisions.get(key) and held.get(key, 0) <= view.revision
        ]
        text = f"{view.node} doesn't see what etcd holds: {len(differing)} keys differ"
        evidence = tuple(differing[:8])
        self.expect(not differing, text, at_ms=quiet.at_ms, evidence=evidence)

    def not_judged(self) -> list[str]:
        return [] if self._has_seen_views else ["no node's view is recorded"]
