"""All job files of one apply: everything in them, or every problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from etcsched.core.errors import InvalidJobFile
from etcsched.core.records import Calendar, ConflictGroup, Job
from etcsched.jobfile.calendars import check_uses, read_calendars, read_names
from etcsched.jobfile.chains import check_chains
from etcsched.jobfile.conflicts import GroupPlaces, check_groups, read_groups
from etcsched.jobfile.jobs import read_defaults, read_job
from etcsched.jobfile.nodes import Problems, Value, documents_of, unknown_text
from etcsched.jobfile.settings import read_settings

__all__ = ["JobFiles", "load", "mentions_chains"]

_TOP_LEVEL = ["defaults", "jobs", "calendars", "conflicts", "settings"]


class JobFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What files want: jobs in their order, each with one version from now on, calendars
    likewise, conflict groups, and of the cluster's settings those that they name."""

    jobs: list[Job]
    calendars: list[Calendar] = []
    conflicts: list[ConflictGroup] = []
    settings: dict[str, Any] = {}


def mentions_chains(files: Sequence[tuple[str, str]]) -> bool:
    """Whether what other jobs there are may matter to them."""
    return any("chain" in text or "notify" in text for _, text in files)


def load(
    files: Sequence[tuple[str, str]], now_ms: int, others: Mapping[str, Job] | None = None
) -> JobFiles:
    """What (name, text) files say. ``others`` are the jobs that the cluster has, which they may
    chain to (None: nobody has looked).

    ``defaults`` hold for the jobs of their own file, all its documents. ``InvalidJobFile`` has
    one line for every problem: ``file:line: field: what is wrong; what would be right``.
    """
    problems = Problems()
    jobs: list[Job] = []
    places: dict[str, str] = {}
    settings: dict[str, Any] = {}
    settings_places: dict[str, str] = {}
    calendars: list[Calendar] = []
    calendar_places: dict[str, str] = {}
    uses: list[Value] = []
    groups: list[ConflictGroup] = []
    group_places: GroupPlaces = {}
    chains: dict[str, Value] = {}
    for number, (file, text) in enumerate(files):
        sections = _sections(problems, number, file, text)
        defaults: dict[str, Value] = {}
        for value in sections["defaults"]:
            defaults |= read_defaults(problems, value, now_ms)
        for value in sections["settings"]:
            settings |= read_settings(problems, value, settings_places)
        for value in sections["calendars"]:
            calendars += read_calendars(problems, value, calendar_places, now_ms)
        for value in sections["conflicts"]:
            groups += read_groups(problems, value, group_places)
        for value in sections["jobs"]:
            entries = problems.attempt(lambda v: v.entries("{name: {run: ...}}"), value) or {}
            for name, entry in entries.items():
                if name in places:
                    entry.refuse(f"is given twice; first in {places[name]}")
                places.setdefault(name, entry.place)
                made = read_job(problems, name, entry, defaults, now_ms)
                jobs += made
                if made:
                    uses += read_names(problems, entry.entries("{}"), defaults)
                if made and made[0].chain:
                    chains[name] = _chain_of(entry, defaults)
                for job in made[1:]:
                    if job.name in places:
                        entry.refuse(f"{job.name} is its notification's name; rename that job")
                    places.setdefault(job.name, entry.place)
    check_uses(uses, calendar_places)
    check_groups(problems, groups, group_places, places.keys())
    if not len(problems):
        check_chains({job.name: job for job in jobs}, chains, others)
    if len(problems):
        raise InvalidJobFile(problems.lines())
    return JobFiles(jobs=jobs, calendars=calendars, conflicts=groups, settings=settings)


def _chain_of(job: Value, defaults: dict[str, Value]) -> Value:
    """Where a job's chain is written."""
    own = job.entries("{name: {run: ...}}")
    for name in ("chain", "notify"):
        for entries in (own, defaults):
            if name in entries:
                return entries[name]
    return job


def _sections(problems: Problems, number: int, file: str, text: str) -> dict[str, list[Value]]:
    """The top-level maps of all of a file's documents."""
    sections: dict[str, list[Value]] = {name: [] for name in _TOP_LEVEL}
    before = len(problems)
    for document in documents_of(problems, number, file, text):
        if document.is_null():
            continue
        entries = problems.attempt(lambda v: v.entries("{jobs: ...}"), document) or {}
        for name, value in entries.items():
            if name not in sections:
                value.refuse(unknown_text("field", name, _TOP_LEVEL))
            elif name == "defaults" and sections[name]:
                value.refuse(f"is given twice; first in line {sections[name][0].line}")
            elif not value.is_null():
                sections[name].append(value)
    if sections["defaults"] and not sections["jobs"]:
        sections["defaults"][0].refuse(
            "hold for the jobs of their own file, and it has none; put them beside their jobs"
        )
    elif not any(sections.values()) and len(problems) == before:
        problems.add_at(number, file, 1, "", "no jobs; write them below the top-level map jobs")
    return sections
