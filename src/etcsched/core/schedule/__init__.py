"""When jobs are due: patterns as records keep them, schedules as they are evaluated.

``fields`` and ``days`` read the fields of a cron expression, ``cron`` searches its matches in wall
time, ``zone`` knows a time zone's periods, ``dst`` brings both together, ``schedule`` combines the
patterns of a job.
"""

from etcsched.core.schedule.patterns import At, Cron, Every, Pattern, parse_at, parse_every
from etcsched.core.schedule.schedule import Schedule, schedule_of
from etcsched.core.schedule.zone import check_timezone

__all__ = [
    "At",
    "Cron",
    "Every",
    "Pattern",
    "Schedule",
    "check_timezone",
    "parse_at",
    "parse_every",
    "schedule_of",
]
