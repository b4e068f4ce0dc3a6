"""The top-level map ``conflicts``: groups of jobs of which no two run at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from etcsched.core.conflicts import contradiction
from etcsched.core.records import MAX_GROUP_JOBS, ConflictGroup
from etcsched.jobfile import fields
from etcsched.jobfile.nodes import FieldError, Problems, Value, unknown_text

__all__ = ["GroupPlaces", "check_groups", "read_groups"]

_EXAMPLE: Final = "{ledger: [close_books, report]}"

GroupPlaces = dict[str, Value]
"""Where each group stands; the first of two counts."""


def read_groups(problems: Problems, value: Value, places: GroupPlaces) -> list[ConflictGroup]:
    groups = []
    entries = problems.attempt(lambda v: v.entries(_EXAMPLE), value) or {}
    for name, entry in entries.items():
        if name in places:
            entry.refuse(f"is given twice; first in {places[name].place}")
            continue
        places[name] = entry
        group = problems.attempt(lambda v, name=name: _group(v, name), entry)  # type: ignore[misc]
        if group is not None:
            groups.append(group)
    return groups


def check_groups(
    problems: Problems,
    groups: list[ConflictGroup],
    places: GroupPlaces,
    jobs: Collection[str],
    others: Mapping[str, ConflictGroup],
) -> None:
    """What can be seen only once all files are read: a job that is in none of them (nor in the
    cluster), and orders that contradict each other, or those of ``others``."""
    for group in groups:
        for item in places[group.group].items("[close_books, report]"):
            if item.text() not in jobs:
                item.refuse(unknown_text("job", item.text(), sorted(jobs)))
    own = {group.group: group.jobs for group in groups}
    # The files' come last, so that one of them is refused where any has a part in it.
    orders = {name: group.jobs for name, group in others.items() if name not in own} | own
    while (cycle := contradiction(orders)) is not None:
        in_it = [name for name, order in orders.items() if len(set(cycle) & set(order)) > 1]
        last = in_it[-1]
        if last in own:
            chain = " before ".join([*cycle, cycle[0]])
            places[last].refuse(
                f"its order contradicts that of {', '.join(in_it[:-1])} ({chain}); "
                "put these jobs in one order everywhere"
            )
        del orders[last]


def _group(value: Value, name: str) -> ConflictGroup:
    flaw = fields.flaw_of_name(name, "group")
    if flaw is not None:
        raise FieldError(value, flaw)
    jobs: dict[str, None] = {}
    for item in value.items("[close_books, report]"):
        if item.text() in jobs:
            raise FieldError(item, f"{item.text()!r} stands in the group twice")
        jobs[item.text()] = None
    if len(jobs) < 2:
        raise FieldError(
            value,
            "takes two jobs or more, highest priority first; what a job's own runs are to each "
            "other, its overlap says",
        )
    if len(jobs) > MAX_GROUP_JOBS:
        raise FieldError(value, f"has {len(jobs)} jobs; a group may have {MAX_GROUP_JOBS}")
    return ConflictGroup(group=name, jobs=tuple(jobs), from_file=True)
