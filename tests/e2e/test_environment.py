"""What a job's process finds around it, from the job file to the process itself."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from etcsched.core.states import RunState
from tests.e2e.scene import EVERY_SECOND, Scene

pytestmark = pytest.mark.asyncio(loop_scope="session")

SAYS = (
    'printf "date=%s\\nday=%s\\nsite=%s\\ntime=%s\\ndirectory=%s\\nwho=%s\\n" "$0" '
    '"$ETCSCHED_PARAM_DAY" "$SITE" "$ETCSCHED_SCHEDULED_TIME" "$PWD" '
    '"$ETCSCHED_JOB/$ETCSCHED_RUN/$ETCSCHED_ATTEMPT" > "$ETCSCHED_RESULTS"'
)
NAMES = ["date", "day", "site", "time", "directory", "who", "never"]


def zone_of_another_day() -> str | None:
    """One in which the date isn't UTC's, now and for the next minute; None right before midnight,
    when there is none: from 10:00 on one is a day ahead, and until 11:00 another behind."""
    now = datetime.now(UTC)
    if (now.hour, now.minute) == (23, 59):
        return None
    return "Pacific/Kiritimati" if now.hour >= 10 else "Pacific/Niue"


async def test_a_tick_knows_its_time_in_its_zone_and_what_its_job_says(cluster: Scene) -> None:
    zone = await cluster.told(zone_of_another_day, "a minute that isn't a day's last", 70.0)
    await cluster.apply(
        says={
            "run": {"exec": ["/bin/sh", "-c", SAYS, "{scheduled_date}"]},
            "cron": EVERY_SECOND,
            "timezone": zone,
            "env": {"SITE": "north"},
            "params": {"day": "monday"},
            "workdir": "/usr",
            "results": NAMES,
        }
    )
    runs = await cluster.runs_ended("says", 2)
    await cluster.stop_schedules()
    for run in runs:
        assert run.state is RunState.COMPLETED, run
        assert run.scheduled_at is not None
        due = datetime.fromisoformat(run.scheduled_at)
        date = due.astimezone(ZoneInfo(zone)).date()
        assert date != due.date()
        assert run.results == {
            "date": (date.isoformat(),),
            "day": ("monday",),
            "site": ("north",),
            "time": (run.scheduled_at,),
            "directory": ("/usr",),
            "who": (f"says/{run.id}/1",),
        }
        assert run.results_problem == "no never"
    await cluster.settle()
