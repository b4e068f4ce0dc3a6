"""The auditor's way in and out: entries of a history one by one, and the verdict at their end."""

from __future__ import annotations

from etcsched.audit.history import Entry
from etcsched.audit.verdict import Bounds, Lateness, Outcome, Verdict, Violation

__all__ = ["Auditor"]


class Auditor:
    """Judges while the history grows: one entry costs what it changes, never what exists.

    ``take`` never raises for what a history says; ``violations`` grows as they are found. What
    can be judged only when all is over (a loss, a quiet end) is added by ``finish``.
    """

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.violations: list[Violation] = []

    def take(self, entry: Entry) -> None:
        """The next entry; the first is ``Begun``."""

    def finish(self) -> Verdict:
        """The verdict on all that was taken; nothing may be taken after it."""
        return Verdict(
            outcome=Outcome.INVALID,
            violations=tuple(self.violations),
            results=(),
            invalid_because=("nothing was judged",),
            from_revision=0,
            through_revision=0,
            from_ms=0,
            through_ms=0,
            lateness=Lateness(up_to_ms=(), counts=()),
        )
