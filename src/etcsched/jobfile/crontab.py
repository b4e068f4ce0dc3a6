"""What a crontab says, as cron reads it (crontab(5) of Vixie cron and cronie).

A line is blank, a comment, a setting (which holds for the entries below it) or an entry. In an
entry's command the first ``%`` ends the command; what follows is its standard input, in which each
further ``%`` is a line's end. ``\\%`` is the character.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

__all__ = ["Crontab", "Entry", "Unreadable", "read_crontab"]

_SETTING: Final = re.compile(
    r"""(?P<quote>["']?)(?P<name>[^\s"'=#][^\s"'=]*)(?P=quote)\s*=\s*(?P<value>.*)"""
)
_QUOTED: Final = re.compile(r"""(["'])(.*)\1""", re.DOTALL)
_TIME: Final = re.compile(r"-?(?P<time>@\S+|\S+\s+\S+\s+\S+\s+\S+\s+\S+)\s+(?P<rest>\S.*)")
_FIELD: Final = re.compile(r"-?[*0-9@][^\s=]*")
_HEADING: Final = re.compile(r"m\s+h\s+(dom|d)\b|min(ute)?\s+hour")
_PERCENT: Final = re.compile(r"\\%|%")


class Entry(msgspec.Struct, frozen=True):
    """``time``: five fields with single blanks, or a nickname like ``@daily``. ``user``: of system
    crontabs. ``input`` None: nothing is said about standard input. ``settings``: those above it.
    ``comment``: what stands right above it."""

    line: int
    time: str
    user: str
    command: str
    input: str | None
    settings: dict[str, str]
    comment: str


class Unreadable(msgspec.Struct, frozen=True):
    line: int
    text: str
    why: str


class Crontab(msgspec.Struct, frozen=True):
    name: str
    entries: tuple[Entry, ...]
    unreadable: tuple[Unreadable, ...]


def read_crontab(name: str, text: str, *, is_system: bool) -> Crontab:
    """``is_system``: each entry names its user before the command."""
    entries: list[Entry] = []
    unreadable: list[Unreadable] = []
    settings: dict[str, str] = {}
    comment: list[str] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip(" \t\r")
        if line.startswith("#"):
            text = line.lstrip("# \t")
            # A heading of columns, or an entry that somebody has switched off, describes nothing.
            if not _HEADING.match(text) and not (_FIELD.match(text) and _TIME.fullmatch(text)):
                comment.append(text)
            continue
        above, comment = " ".join(filter(None, comment)), []
        if not line:
            continue
        setting = None if _FIELD.match(line) else _SETTING.fullmatch(line)
        if setting is not None:
            settings = {**settings, setting["name"]: _value(setting["value"])}
            continue
        found = _entry(number, line, settings, above, is_system=is_system)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            unreadable.append(found)
    return Crontab(name, tuple(entries), tuple(unreadable))


def _value(written: str) -> str:
    quoted = _QUOTED.fullmatch(written)
    return quoted[2] if quoted is not None else written


def _entry(
    number: int, line: str, settings: dict[str, str], comment: str, *, is_system: bool
) -> Entry | Unreadable:
    match = _TIME.fullmatch(line)
    if match is None:
        return Unreadable(number, line, "is neither a setting nor a time with a command")
    user, rest = "", match["rest"]
    if is_system:
        user, *more = rest.split(None, 1)
        if not more:
            return Unreadable(number, line, "has nothing behind its user")
        (rest,) = more
    command, given = _split(rest)
    time = " ".join(match["time"].split())
    return Entry(number, time, user, command.rstrip(), given, settings, comment)


def _split(rest: str) -> tuple[str, str | None]:
    """The command and its standard input."""
    parts = [""]
    end = 0
    for match in _PERCENT.finditer(rest):
        parts[-1] += rest[end : match.start()]
        end = match.end()
        if match[0] == "%":
            parts.append("")
        else:
            parts[-1] += "%"
    parts[-1] += rest[end:]
    command, *lines = parts
    return command, "\n".join(lines) if lines else None
