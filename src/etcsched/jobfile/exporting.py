"""What a cluster has, as a job file that brings it back: applied there again it changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from io import StringIO
from typing import Any, Final

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from etcsched.core.records import Calendar, ClusterSettings, ConflictGroup, Job, Noop
from etcsched.core.schedule import At
from etcsched.core.states import JobState
from etcsched.core.times import ms_of
from etcsched.jobfile.notify import notifications_of
from etcsched.jobfile.writing import fields_of, settings_of

__all__ = ["Export", "export", "to_yaml"]

_USUAL: Final = {"timezone": "UTC", "state": JobState.ENABLED.value}
# Printable lines that don't begin with a blank, each with its end: a block takes them as they are.
_PLAIN_LINES: Final = re.compile(r"(?:[!-~][ -~]*\n)+")
_NAMED: Final = 5


class Export(msgspec.Struct, frozen=True):
    """``document`` is the file, by its top-level maps. ``notes`` say, in a line each, what of the
    cluster it can't bring back, or not everywhere."""

    document: dict[str, Any]
    notes: tuple[str, ...]


def export(
    jobs: Iterable[Job],
    calendars: Iterable[Calendar],
    groups: Iterable[ConflictGroup],
    settings: ClusterSettings,
    now_ms: int,
) -> Export:
    """Of the settings those that differ from their defaults; deleted jobs are gone."""
    there = {job.name: job for job in jobs if job.current.state is not JobState.DELETED}
    written = {name: job for name, job in there.items() if not isinstance(job.run, Noop)}
    notes = [
        f"{name}: has the executor noop, which no job file can give; left out"
        for name in sorted(there.keys() - written.keys())
    ]
    usual = settings_of(ClusterSettings())
    found_groups, group_notes = _groups(groups, written)
    sections: dict[str, dict[str, Any]] = {
        "settings": {n: v for n, v in settings_of(settings).items() if v != usual[n]},
        "calendars": {calendar.name: _calendar(calendar) for calendar in calendars},
        "conflicts": found_groups,
        "jobs": _jobs(written),
    }
    document = {name: section for name, section in sections.items() if section}
    return Export(document, (*notes, *group_notes, *_notes(written, now_ms)))


def to_yaml(document: dict[str, Any]) -> str:
    """Block style, short maps and lists in one line; texts of several lines stay readable."""
    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = None
    yaml.allow_unicode = False
    yaml.width = 1 << 20
    text = StringIO()
    yaml.dump(_readable(document), text)
    return text.getvalue()


def _jobs(jobs: Mapping[str, Job]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    folded: set[str] = set()
    for name, job in sorted(jobs.items()):
        notices = notifications_of(job, jobs)
        folded |= notices.keys()
        fields = fields_of(job)
        for field, usual in _USUAL.items():
            if fields[field] == usual:
                del fields[field]
        if notices:
            del fields["chain"][len(job.chain) - len(notices) :]
            if not fields["chain"]:
                del fields["chain"]
            fields["notify"] = list(notices.values())
        found[name] = fields
    return {name: fields for name, fields in found.items() if name not in folded}


def _calendar(calendar: Calendar) -> dict[str, list[str]]:
    current = calendar.current
    days = {"exclude": list(current.exclude), "include": list(current.include)}
    return {field: given for field, given in days.items() if given}


def _groups(
    groups: Iterable[ConflictGroup], jobs: Mapping[str, Job]
) -> tuple[dict[str, list[str]], list[str]]:
    found, notes = {}, []
    for group in groups:
        members = [job for job in group.jobs if job in jobs]
        gone = [job for job in group.jobs if job not in jobs]
        if gone:
            left_out = "is left out" if len(members) < 2 else "is written without"
            notes.append(f"conflict group {group.group} {left_out}: no job {', '.join(gone)}")
        if len(members) > 1:
            found[group.group] = members
    return found, notes


def _notes(jobs: Mapping[str, Job], now_ms: int) -> list[str]:
    notes = []
    past = [
        name
        for name, job in sorted(jobs.items())
        if any(isinstance(p, At) and ms_of(p.time) <= now_ms for p in job.current.patterns)
    ]
    if past:
        more = f" and {len(past) - _NAMED} more" if len(past) > _NAMED else ""
        notes.append(
            f"{', '.join(past[:_NAMED])}{more}: at a time that has passed; only a cluster that has "
            "it already takes it"
        )
    for name, job in sorted(jobs.items()):
        newer = [field for field in job.unknown or () if field != "v"]
        if newer:
            notes.append(f"{name}: {', '.join(newer)}: of a newer version; left out")
        gone = dict.fromkeys(link.to for link in job.chain if link.to not in jobs)
        notes += [f"{name}: chains to {to}, which isn't there; apply refuses that" for to in gone]
    return notes


def _readable(value: Any) -> Any:
    match value:
        case dict():
            return {name: _readable(inner) for name, inner in value.items()}
        case list():
            return [_readable(inner) for inner in value]
        case str() if _PLAIN_LINES.fullmatch(value):
            return LiteralScalarString(value)
        case str() if value.startswith((":", "?")):
            # Within braces it would be written as it is, and not be read again.
            return DoubleQuotedScalarString(value)
    return value
