"""All job files of one apply: everything in them, or every problem."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from etcsched.core.errors import InvalidJobFile
from etcsched.core.records import Calendar, ConflictGroup, Job
from etcsched.core.states import JobState
from etcsched.jobfile.calendars import check_uses, read_calendars, read_names
from etcsched.jobfile.chains import check_chains
from etcsched.jobfile.conflicts import GroupPlaces, check_groups, read_groups
from etcsched.jobfile.jobs import read_defaults, read_job
from etcsched.jobfile.nodes import Problems, Value, documents_of, unknown_text
from etcsched.jobfile.notify import is_notification, told_of
from etcsched.jobfile.schedules import PastAt
from etcsched.jobfile.settings import read_settings

__all__ = ["Draft", "JobFiles", "Known", "load"]

_TOP_LEVEL = ["defaults", "jobs", "calendars", "conflicts", "settings"]


class JobFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What files want: jobs in their order, each with one version from now on, calendars
    likewise, conflict groups, and of the cluster's settings those that they name."""

    jobs: list[Job]
    calendars: list[Calendar] = []
    conflicts: list[ConflictGroup] = []
    settings: dict[str, Any] = {}


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster has, which files may refer to."""

    jobs: Mapping[str, Job]
    calendars: Collection[str] = ()
    conflicts: Mapping[str, ConflictGroup] = {}


class Draft:
    """Files as read, before anybody has looked whether what they refer to exists.

    ``defaults`` hold for the jobs of their own file, all its documents.
    """

    def __init__(self, files: Sequence[tuple[str, str]], now_ms: int) -> None:
        self._problems = Problems()
        self._now_ms = now_ms
        self._jobs: list[Job] = []
        self._places: dict[str, Value] = {}
        self._settings: dict[str, Any] = {}
        self._settings_places: dict[str, str] = {}
        self._calendars: list[Calendar] = []
        self._calendar_places: dict[str, str] = {}
        self._uses: list[Value] = []
        self._groups: list[ConflictGroup] = []
        self._group_places: GroupPlaces = {}
        self._chains: dict[str, Value] = {}
        self._past: dict[str, list[PastAt]] = {}
        for number, (file, text) in enumerate(files):
            self._read(number, file, text)

    @property
    def is_sound(self) -> bool:
        """False: the files are wrong, whatever the cluster has."""
        return not len(self._problems)

    @property
    def refers_to_others(self) -> bool:
        """Whether what the cluster has may matter to what the files say."""
        unknown = any(use.text() not in self._calendar_places for use in self._uses)
        may_tell = any(told_of(job.name) for job in self._jobs)
        return unknown or may_tell or bool(self._chains or self._groups or self._past)

    @property
    def names(self) -> JobFiles:
        """As ``resolved``, unchecked: for who only asks what is named."""
        return JobFiles(
            jobs=self._jobs,
            calendars=self._calendars,
            conflicts=self._groups,
            settings=self._settings,
        )

    def resolved(self, known: Known | None) -> JobFiles:
        """The whole, checked against what the cluster has (None: nobody has looked).

        ``InvalidJobFile`` has one line for every problem: ``file:line: field: what is wrong; what
        would be right``.
        """
        there = known or Known(jobs={})
        check_uses(self._uses, self._calendar_places, there.calendars, is_asked=known is not None)
        jobs = {
            name for name, job in there.jobs.items() if job.current.state is not JobState.DELETED
        }
        check_groups(
            self._problems, self._groups, self._group_places, self._places.keys() | jobs,
            there.conflicts,
        )  # fmt: skip
        self._check_past(there.jobs)
        self._check_notifications({name: there.jobs[name] for name in jobs})
        if self.is_sound:
            by_name = {job.name: job for job in self._jobs}
            check_chains(by_name, self._chains, known.jobs if known is not None else None)
        if not self.is_sound:
            raise InvalidJobFile(self._problems.lines())
        return self.names

    def _read(self, number: int, file: str, text: str) -> None:
        problems, now_ms = self._problems, self._now_ms
        sections = _sections(problems, number, file, text)
        defaults: dict[str, Value] = {}
        for value in sections["defaults"]:
            defaults |= read_defaults(problems, value, now_ms)
        for value in sections["settings"]:
            self._settings |= read_settings(problems, value, self._settings_places)
        for value in sections["calendars"]:
            self._calendars += read_calendars(problems, value, self._calendar_places, now_ms)
        for value in sections["conflicts"]:
            self._groups += read_groups(problems, value, self._group_places)
        for value in sections["jobs"]:
            entries = problems.attempt(lambda v: v.entries("{name: {run: ...}}"), value) or {}
            for name, entry in entries.items():
                self._read_job(name, entry, defaults)

    def _read_job(self, name: str, entry: Value, defaults: dict[str, Value]) -> None:
        if name in self._places:
            entry.refuse(f"is given twice; first in {self._places[name].place}")
        self._places.setdefault(name, entry)
        past: list[PastAt] = []
        made = read_job(self._problems, name, entry, defaults, self._now_ms, past)
        self._jobs += made
        if made:
            self._uses += read_names(self._problems, entry.entries("{}"), defaults)
        if past:
            self._past[name] = past
        if made and made[0].chain:
            self._chains[name] = _chain_of(entry, defaults)
        for job in made[1:]:
            if job.name in self._places:
                entry.refuse(f"{job.name} is its notification's name; rename that job")
            self._places.setdefault(job.name, entry)

    def _check_notifications(self, there: Mapping[str, Job]) -> None:
        """No notification takes the place of somebody's job in the cluster, nor the other way
        round, unless the files have the job that it told of, and so say that it tells no more."""
        for job in self._jobs:
            about, other = told_of(job.name), there.get(job.name)
            if not about or other is None or is_notification(job) is is_notification(other):
                continue
            if is_notification(job):
                self._places[job.name].refuse(
                    f"{job.name} is its notification's name, and the cluster has another job of "
                    f"that name; rename that, or delete it: etcsched jobs delete {job.name}"
                )
            elif about in there and about not in self._places:
                self._places[job.name].refuse(
                    f"is the name of {about}'s notification in the cluster; rename this job, or "
                    f"give {about}'s file, too, without notify"
                )

    def _check_past(self, known: Mapping[str, Job]) -> None:
        """A time that a job has had since before it passed may stay: files are applied again."""
        for name, found in self._past.items():
            has = known[name].current.patterns if name in known else ()
            for past in found:
                if past.pattern not in has:
                    past.value.refuse(past.problem)


def load(files: Sequence[tuple[str, str]], now_ms: int, known: Known | None = None) -> JobFiles:
    """What (name, text) files say, as ``Draft.resolved`` has it."""
    return Draft(files, now_ms).resolved(known)


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
