"""All attempts that an agent knows, and where each stands."""

from __future__ import annotations

from etcsched.core.agent.attempt import Attempt, Phase, Spool


class Attempts:
    """Changed by the machine's parts only. ``by_id`` holds all of them; the others hold a part,
    in the order of arrival."""

    def __init__(self) -> None:
        self.by_id: dict[str, Attempt] = {}
        self.by_run: dict[tuple[str, str], Attempt] = {}
        self.waiting: dict[str, Attempt] = {}
        self.occupying: dict[str, Attempt] = {}
        self.reporting: dict[str, Attempt] = {}
        self.unspooled: dict[str, Attempt] = {}
        """Of those that are reported, the ones that the disk doesn't have, nor is to have yet."""
        self.rejected: dict[str, Attempt] = {}
        """Of those that are reported, the ones that etcd takes in no form."""

    def settle(self, attempt: Attempt) -> None:
        """It waits for nothing any more, and takes no slot."""
        for part in (
            self.waiting, self.occupying, self.reporting, self.unspooled, self.rejected,
        ):  # fmt: skip
            part.pop(attempt.id, None)

    @property
    def is_unsettled(self) -> bool:
        """Whether a claim or a start is under way, or an outcome neither in etcd nor on disk."""
        return any(a.phase is not Phase.RUNNING for a in self.occupying.values()) or any(
            a.spool is not Spool.STORED for a in self.reporting.values()
        )

    def phase_of(self, attempt_id: str) -> Phase | None:
        attempt = self.by_id.get(attempt_id)
        return None if attempt is None else attempt.phase
