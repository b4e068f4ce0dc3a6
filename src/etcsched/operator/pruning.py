"""Removing what files named once and name no more: each as it was looked at, or not at all."""

from __future__ import annotations

import asyncio
from typing import Final

from etcsched.core.errors import CalendarInUse, NotFound
from etcsched.core.times import Utc
from etcsched.keyspace.keys import Keys
from etcsched.operator.apply import JobChange, prune
from etcsched.operator.calendars import CalendarChange, delete_calendar
from etcsched.operator.changes import ChangeKind
from etcsched.operator.conflicts import GroupChange, delete_group
from etcsched.operator.defined import Defined
from etcsched.ports import Etcd

__all__ = ["Removal", "plan_removal", "remove"]

Removal = JobChange | CalendarChange | GroupChange

_PAUSE_S: Final = 0.2
_CALENDARS_WAIT: Final = 3
"""So many times the timeout for an answer: when little is due, the watermark moves every 5 s."""


def plan_removal(gone: Defined) -> list[Removal]:
    """What ``remove`` would do."""
    return [
        *(GroupChange(name, ChangeKind.DELETE) for name in gone.conflicts),
        *(JobChange(name, ChangeKind.DELETE) for name in gone.jobs),
        *(CalendarChange(name, ChangeKind.DELETE) for name in gone.calendars),
    ]


async def remove(
    etcd: Etcd, keys: Keys, gone: Defined, now: Utc, by: str, *, timeout_s: float
) -> tuple[list[Removal], list[str]]:
    """What was removed, and why a calendar stays, in a line each.

    ``Refused`` where something was changed since it was looked at: it stays, and what comes after
    it. Groups go first, then jobs, then the calendars that they used.
    """
    done: list[Removal] = []
    for name, group in gone.conflicts.items():
        try:
            await delete_group(etcd, keys, name, timeout_s=timeout_s, expected=group)
        except NotFound:
            continue
        done.append(GroupChange(name, ChangeKind.DELETE))
    jobs = list(gone.jobs.values())
    changes = await prune(etcd, keys, jobs, now, by, timeout_s=timeout_s)
    done += [change for change in changes if change.kind is ChangeKind.DELETE]
    # Ticks just past go by them until the watermark has passed, which is a matter of moments.
    until_s = asyncio.get_running_loop().time() + _CALENDARS_WAIT * timeout_s
    stay: list[str] = []
    for name, calendar in gone.calendars.items():
        while True:
            try:
                await delete_calendar(etcd, keys, name, timeout_s=timeout_s, expected=calendar)
            except NotFound:
                break
            except CalendarInUse as error:
                if asyncio.get_running_loop().time() >= until_s:
                    stay.append(str(error))
                    break
                await asyncio.sleep(_PAUSE_S)
                continue
            done.append(CalendarChange(name, ChangeKind.DELETE))
            break
    return done, stay
