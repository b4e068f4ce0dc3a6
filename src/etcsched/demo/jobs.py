"""What the demonstration's jobs are, and the program that they run: each says in a file that it
starts, lives and ends (audit/words.py)."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from etcsched.core.states import JobState

__all__ = ["LONG_JOB", "SCHEDULED", "SCRIPT", "DemoJob", "job_file"]

BEAT_S = 0.1
SCRIPT = f"""
ledger=$1; beats=$2; fails=$3
tell() {{
  who="$ETCSCHED_JOB $ETCSCHED_RUN $ETCSCHED_TOKEN"
  echo "$1 $who $(date +%s.%N) $ETCSCHED_ATTEMPT $ETCSCHED_AGENT" >> "$ledger"
}}
tell start
while [ "$beats" -gt 0 ]; do sleep {BEAT_S}; tell beat; beats=$((beats - 1)); done
[ "$ETCSCHED_ATTEMPT" -gt "$fails" ] || exit 1
tell end
"""


class DemoJob(msgspec.Struct, frozen=True, kw_only=True):
    """``cron`` is empty for a job that only follows others; each attempt beats ``beats`` times,
    every 0.1 s; the first ``fails`` of a run fail."""

    cron: str = ""
    beats: int
    fails: int = 0
    more: dict[str, Any] = {}


_FAR_AWAY = "0 0 29 2 *"

LONG_JOB = "backup"
JOBS = {
    "heartbeat": DemoJob(cron="*/2 * * * * *", beats=1),
    "invoices": DemoJob(cron="*/5 * * * * *", beats=15),
    "reports": DemoJob(cron="1-59/7 * * * * *", beats=25),
    LONG_JOB: DemoJob(cron="*/10 * * * * *", beats=70),
    # While nobody leads for a session's length, its older ticks are missed, and recovered.
    "shipping": DemoJob(
        cron="* * * * * *", beats=1, more={"recovery": "all", "pickup_buffer": "2s"}
    ),
    # Its next tick would end a retry that waits while nobody leads: it comes later than that lasts.
    "import": DemoJob(
        cron="8-59/15 * * * * *", beats=3, fails=1, more={"retry": {"max": 3, "interval": "500ms"}}
    ),
    # These two are due together, and never run together.
    "close_books": DemoJob(
        cron="4-59/15 * * * * *", beats=10, more={"chain": [{"to": "statement"}]}
    ),
    "stocktake": DemoJob(cron="4-59/15 * * * * *", beats=10),
    "statement": DemoJob(beats=3, more={"state": JobState.CHAIN_ACTIVE.value}),
}
CONFLICTS = {"ledger": ["close_books", "stocktake"]}
SCHEDULED = tuple(name for name, job in JOBS.items() if job.cron)


def job_file(script: str, ledger: str, *, is_over: bool = False) -> str:
    """Both paths as the agents see them. ``is_over``: nothing more is due soon; disabled, a job's
    waiting runs would be cancelled. (JSON is YAML.)"""
    jobs = {}
    for name, job in JOBS.items():
        run = {"exec": ["/bin/sh", script, ledger, str(job.beats), str(job.fails)]}
        schedule = {"schedule": {"cron": _FAR_AWAY if is_over else job.cron}} if job.cron else {}
        jobs[name] = {"run": run, **schedule, **job.more}
    defaults = {"overlap": "queue", "max_reassigns": 5, "keep": {"runs": 500}}
    return json.dumps({"defaults": defaults, "jobs": jobs, "conflicts": CONFLICTS})
