"""Attempts in the agent's log."""

from __future__ import annotations

from etcsched.core.records import Report
from etcsched.core.states import Outcome
from etcsched.core.times import ms_of

__all__ = ["about_attempt", "name_of", "summary_of"]


def name_of(attempt_id: str) -> str:
    job, run, number, _ = attempt_id.split("/")
    return f"{job}/{run} attempt {number}"


def summary_of(report: Report) -> str:
    """``completed (1.2 s)``, ``failed: exit code 3 (0.1 s)``."""
    assert report.outcome is not None
    text = report.outcome.value
    if report.reason and report.outcome is not Outcome.COMPLETED:
        text += f": {report.reason}"
    if report.started_at is not None and report.ended_at is not None:
        text += f" ({(ms_of(report.ended_at) - ms_of(report.started_at)) / 1000:.3g} s)"
    return text


def about_attempt(attempt_id: str) -> dict[str, str | int]:
    """For logs that programs read."""
    job, run, number, _ = attempt_id.split("/")
    return {"job": job, "run": run, "attempt": int(number)}
