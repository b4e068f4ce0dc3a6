"""A job file out of crontabs, and what of them it can't say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from etcsched.core.errors import InvalidJobFile
from etcsched.jobfile.crontab import Crontab, Entry, Unreadable
from etcsched.jobfile.crontab_names import name_for
from etcsched.jobfile.exporting import to_yaml
from etcsched.jobfile.fields import VARIABLE
from etcsched.jobfile.load import load

__all__ = ["Imported", "flaw_of", "import_crontabs"]

_SHELL: Final = "/bin/sh"
_OF_MAIL: Final = ("MAILTO", "MAILFROM", "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING")
_NOT_FOR_JOBS: Final = frozenset({"SHELL", "CRON_TZ", "RANDOM_DELAY", *_OF_MAIL})
_NOTIFIED: Final = ["failed", "timed_out", "died", "abandoned", "missed"]
_SHARED: Final = ("timezone", "user", "hosts", "env", "workdir", "notify")
"""What stands in the file's defaults where all of its jobs have the same."""


class Imported(msgspec.Struct, frozen=True):
    """``document`` is the file; ``notes`` say what is different now, ``left_out`` what is missing,
    each in a line."""

    document: dict[str, Any]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


def import_crontabs(
    crontabs: Sequence[Crontab], *, timezone: str, user: str, host: str, now_ms: int
) -> Imported:
    """Every job is one that ``validate`` accepts. ``timezone``: that of cron's machine. ``user``:
    whose crontabs they are (empty: they say, or nobody knows). ``host``: the agent that their jobs
    stay on (empty: any)."""
    jobs: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    left_out: list[str] = []
    for crontab in crontabs:
        found: list[Entry | Unreadable] = [*crontab.entries, *crontab.unreadable]
        for entry in sorted(found, key=lambda entry: entry.line):
            place = f"{crontab.name}:{entry.line}"
            if isinstance(entry, Unreadable):
                left_out.append(f"{place}: {entry.text!r} {entry.why}")
                continue
            if entry.time.lower() == "@reboot":
                left_out.append(
                    f"{place}: @reboot is no time; give a job lifecycle: host_startup, then it "
                    "runs on each agent that joins"
                )
                continue
            fields, said = _fields(entry, timezone, entry.user or user, host)
            name = name_for(entry.command, jobs)
            wrong = _problem(name, fields, now_ms)
            if wrong:
                left_out.append(f"{place}: {wrong}")
                continue
            jobs[name] = fields
            notes += [f"{place}: {text}" for text in said]
    if jobs:
        notes += _in_general(crontabs, jobs.values(), user, host)
    return Imported(_document(jobs), tuple(notes), tuple(left_out))


def flaw_of(field: str, value: str) -> str:
    """Why no job's field can have this value; empty: it can."""
    job = {"run": {"shell": "true"}, "state": "ad_hoc_active", field: value}
    return _problem("job", job, 0).partition(": ")[2]


def _document(jobs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if not jobs:
        return {}
    first, *more = jobs.values()
    defaults = {
        field: first[field]
        for field in _SHARED
        if more and field in first and all(other.get(field) == first[field] for other in more)
    }
    own = {
        name: {field: value for field, value in fields.items() if field not in defaults}
        for name, fields in jobs.items()
    }
    return {"defaults": defaults, "jobs": own} if defaults else {"jobs": own}


def _fields(entry: Entry, timezone: str, user: str, host: str) -> tuple[dict[str, Any], list[str]]:
    settings, notes = entry.settings, []
    fields: dict[str, Any] = {}
    if entry.comment:
        fields["description"] = entry.comment
    fields["run"] = _run(entry)
    fields["schedule"] = [{"cron": entry.time.lower() if entry.time[0] == "@" else entry.time}]
    zone = settings.get("CRON_TZ", timezone)
    if zone != "UTC":
        fields["timezone"] = zone
    delay = settings.get("RANDOM_DELAY", "")
    if delay.isdecimal() and int(delay):
        fields["splay"] = f"{int(delay)}m"
        notes.append("RANDOM_DELAY became a splay, which is the same for all of a job's runs")
    if user:
        fields["user"] = user
    home = settings.get("HOME", "")
    if home.startswith("/"):
        fields["workdir"] = home
    env = {}
    for name, value in settings.items():
        if name in _NOT_FOR_JOBS:
            continue
        if VARIABLE.fullmatch(name) is None or name.upper().startswith("ETCSCHED_"):
            notes.append(f"{name}={value}: a job can't have a variable of this name; left out")
        else:
            env[name] = value
    if env:
        fields["env"] = env
    if host:
        fields["hosts"] = [host]
    receivers = [name for name in re.split(r"[,\s]+", settings.get("MAILTO", "")) if name]
    if any(receiver.startswith("-") for receiver in receivers):
        notes.append(f"MAILTO={settings['MAILTO']}: no address begins with '-'; left out")
    elif receivers:
        fields["notify"] = {"on": _NOTIFIED, "run": {"shell": _mail(receivers)}}
    return fields, notes


def _run(entry: Entry) -> dict[str, Any]:
    command = entry.command
    if entry.input:
        end = "END"
        lines = entry.input.split("\n")
        while end in lines:
            end += "_"
        # In braces, since cron gives the input to the whole command, not to its last program.
        command = f"{{ {command}\n}} <<'{end}'\n{entry.input}\n{end}\n"
    shell = entry.settings.get("SHELL", _SHELL)
    if shell == _SHELL:
        return {"shell": command}
    return {"exec": [_literal(shell), "-c", _literal(command)]}


def _literal(argument: str) -> str:
    return argument.replace("{", "{{").replace("}", "}}")


def _mail(receivers: Sequence[str]) -> str:
    to = " ".join(shlex.quote(receiver) for receiver in receivers)
    return (
        'echo "see etcsched runs show $ETCSCHED_SOURCE_JOB/$ETCSCHED_SOURCE_RUN" | mail -s '
        f'"$ETCSCHED_SOURCE_JOB $ETCSCHED_SOURCE_STATE" {to}'
    )


def _problem(name: str, fields: dict[str, Any], now_ms: int) -> str:
    """Why no job file can say this; empty: it can."""
    try:
        load([("", to_yaml({"jobs": {name: fields}}))], now_ms)
    except InvalidJobFile as error:
        return error.problems[0].partition(f"jobs.{name}")[2].lstrip(".: ") or error.problems[0]
    return ""


def _in_general(
    crontabs: Sequence[Crontab], jobs: Collection[dict[str, Any]], user: str, host: str
) -> list[str]:
    """What holds for all of them."""
    notes = []
    entries = [entry for crontab in crontabs for entry in crontab.entries]
    if any(not entry.user and re.match(r"root\s", entry.command) for entry in entries):
        notes.append(
            "some commands begin with 'root'; where that is the entry's user, as in /etc/crontab, "
            "say --system"
        )
    if any("notify" in fields for fields in jobs):
        notes.append(
            "MAILTO: cron mails what a command prints, a job mails only that it failed; the agents "
            "need the program mail for it"
        )
    if any("MAILTO" not in entry.settings for entry in entries):
        notes.append(
            "without MAILTO cron mails the crontab's owner; nobody is told here unless a job has "
            "notify"
        )
    if any("workdir" not in fields for fields in jobs):
        notes.append(
            "without HOME cron starts a command in its user's home; here it starts in /, unless "
            "the job has a workdir"
        )
    if not user and any(not entry.user for entry in entries):
        notes.append("no user is named, so the agent's default user runs them; see --user")
    if not host:
        notes.append("they run on any agent; --host AGENT keeps them on the one they come from")
    notes.append(
        "cron starts a job though its last run still runs; here such a tick ends overlapped, "
        "unless the job has overlap: allow"
    )
    notes.append(
        "what cron missed stayed missed; here the latest missed tick runs, unless the job has "
        "recovery: none"
    )
    return notes
