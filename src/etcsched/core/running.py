"""Which runs run. It is written nowhere: the claim tells it (DESIGN 2), but not the claim alone."""

from __future__ import annotations

from etcsched.core.records import Report, Run
from etcsched.core.states import RunState

__all__ = ["is_running", "shown_state"]


def is_running(run: Run, claim: Report | None) -> bool:
    """``claim`` is the word of the agent that the run is assigned to.

    A held run keeps its claim though its process is gone, and a claim with an outcome stays until
    a leader has taken that in: neither runs.
    """
    return (
        run.state is RunState.ASSIGNED
        and claim is not None
        and claim.attempt == run.attempt
        and claim.outcome is None
    )


def shown_state(run: Run, claim: Report | None) -> RunState:
    """As a user is told it: ``running`` for an assigned run that runs."""
    return RunState.RUNNING if is_running(run, claim) else run.state
