"""What a write in flight keeps others from."""

from __future__ import annotations

import msgspec

from etcsched.core.leader import effects as fx
from etcsched.core.leader.matters import Matter
from etcsched.core.states import RunState
from etcsched.core.view import RunKey


class Reservation(msgspec.Struct):
    """A write in flight. Once answered at ``revision``, it holds on until the view has come that
    far, or until ``release_at_s``: the revision of a refusal may be one that no event shows."""

    write: fx.Write
    matters: tuple[Matter, ...]
    agent: str | None
    revision: int | None = None
    release_at_s: float | None = None
    exists: bool = False
    is_rejected: bool = False

    @property
    def request(self) -> Matter | None:
        """Whoever asked for it, where it isn't the answer alone."""
        if isinstance(self.write, fx.AnswerRequest):
            return None
        return next((matter for matter in self.matters if matter[0] == "request"), None)

    @property
    def subject(self) -> Matter:
        """What it is about, told from other writes about the same; or who asked for it, whatever
        its run is about meanwhile."""
        return self.request or (type(self.write).__name__, *self.matters[0])

    @property
    def is_refused(self) -> bool:
        """Also what etcd rejects is."""
        return self.release_at_s is not None

    @property
    def starts(self) -> RunKey | None:
        """Whom it assigns."""
        match self.write:
            case fx.CreateRun() | fx.Dispatch() | fx.MoveRun() if self.write.assignment is not None:
                return (self.write.assignment.job, self.write.assignment.run)
        return None

    @property
    def requeues(self) -> str:
        """The job of which it lets a run wait on in its queue."""
        match self.write:
            case fx.Requeue(run=run) if run.state is RunState.QUEUED:
                return run.job
        return ""
