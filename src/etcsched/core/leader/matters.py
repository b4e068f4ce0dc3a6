"""What writes are about: whose decision waits for which write's result."""

from __future__ import annotations

from etcsched.core.view import RunKey

Matter = tuple[str, ...]
"""What a write is about: ("run", job, id), ("job", name), ("request", id), ("watermark",)...
Of each matter at most one write is in flight; what else concerns it waits for the result."""


def job_matter(job: str) -> Matter:
    return ("job", job)


def aside_matter(job: str) -> Matter:
    """That a job is set aside, or isn't any more."""
    return ("aside", job)


def run_matter(key: RunKey) -> Matter:
    return ("run", *key)


def turn_matter(lane: str) -> Matter:
    """That one of a lane's runs, which wait for each other, is being dispatched: to the view it
    waits still."""
    return ("turn", lane)


def lane_matter(lane: str) -> Matter:
    """That a run that is bound to an agent is being made."""
    return ("lane", lane)


def request_matter(request: str) -> Matter:
    return ("request", request)
