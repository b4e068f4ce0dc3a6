"""What a job is called that was a crontab's command: after the program that it is for.

A command often begins with what only leads to that one: a lock, a delay, a test whether a file is
there, a change of directory. This tells shells' words apart well enough for a name, and no better.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["name_for"]

_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")
_OF_NOTICES: Final = re.compile(r"\.(notify[0-9]*)$")
_WORD: Final = re.compile(r"[^\s;&|<>()]+")
_MAX_NAME: Final = 60
_BEGINS: Final = r"""(?:(?<=[\s;&|("'`{])|^)(?:/\S*/)?"""
_LOCKED: Final = re.compile(rf"{_BEGINS}flock\s+(?:-\S+\s+(?:\d+\s+)?)*\S+\s+")
_DELAYED: Final = re.compile(rf"{_BEGINS}sleep\s+(?:\$\(\(.*?\)\)|[^\s;&|]+)\s*(?:;|&&)")


def _options(*with_values: str) -> str:
    values = "|".join(with_values)
    return rf"(?:(?:{values})(?:\s++|=)?\S++\s++|-\S++\s++)*+"


_LIMITED: Final = re.compile(
    rf"{_BEGINS}timeout\s++{_options('-[ks]', '--signal', '--kill-after')}[0-9.]+[smhd]?\s+"
)
_AS_OTHERS: Final = re.compile(
    rf"{_BEGINS}(?:runuser\s++-l\s++[\w.-]+\s++-c\s++"
    rf"|(?:sudo|runuser)\s++{_options('-[gu]', '--user', '--group')}"
    r"|su\s++(?:-\S*+\s++)*+[\w.-]+\s++-c\s++)"
)
_NAMES_NOTHING: Final = (_LOCKED, _DELAYED, _LIMITED, _AS_OTHERS)
"""A lock with its file, a delay or a limit with its length, a user with its name."""
_LOOKED_AT: Final = 2000
"""So many characters of a command are, for its name."""
_SEPARATOR: Final = re.compile(r"[;&|\n]+")
_ASKED: Final = re.compile(r"\$\([^()]*\)|`[^`]*`")
_TESTED: Final = re.compile(r"(?<![^\s;&|(])\[\[?\s[^\]]*\]\]?")
_HEAD: Final = re.compile(
    r"""\A(?:[\s("'{}!]|\w+=\S*\s|(?:if|then|else|elif|do|while|until|time|exec)\s"""
    r"""|(?:/\S*/)?(?:ba|da|z|k)?sh\s+-\w*c\s|(?:/\S*/)?(?:sudo|env|chronic)\s|nice(?:\s+-\S+|\s+\d+)*\s)*+"""
)
"""What may stand before a step's program."""
_LEADS: Final = re.compile(
    r"""(?:/\S*/)?(?:test|cd|exit|true|false|:|\.|source|export|umask|ulimit|set|unset|trap|sleep"""
    r"""|which|type|hash|pgrep|pidof|for|case|read|fi|done|esac)(?:\s|["']|$)"""
    r"""|command\s+-v|(?:/\S*/)?e?grep\s+-\w*q|(?:perl|ruby)\s+-e\s*["']?\s*sleep\b|[^\w/.$~]*$"""
)
_FOUND: Final = re.compile(r"(?:/\S*/)?find\s")
_TAKES_FOUND: Final = re.compile(r"(?:/\S*/)?(?:xargs\s|e?grep\s+-\w*q|while\s|read\s)")
# Programs that stand before the one that matters.
_IN_FRONT: Final = frozenset(
    {"[", "bash", "cd", "chronic", "command", "do", "elif", "else", "env", "exec", "flock", "if"}
    | {"ionice", "nice", "perl", "php", "python", "python3", "ruby", "run-parts", "sh", "sudo"}
    | {"test", "then", "time", "timeout", "until", "while", "xargs"}
)


def name_for(command: str, taken: Iterable[str]) -> str:
    """That of the program that is run, as well as can be told, and a number where it is taken."""
    command = command[:_LOOKED_AT]
    for pattern in _NAMES_NOTHING:
        command = pattern.sub(" ", command)
    steps = [step for step in _SEPARATOR.split(_TESTED.sub(" ", _ASKED.sub("$_", command))) if step]
    run = [
        _run_by(step)
        for step, following in zip(steps, [*steps[1:], ""], strict=True)
        if not _only_leads(step, following)
    ]
    programs = [program for step in run for program in _programs(step)] or _programs(command)
    chosen = next((program for program in programs if program not in _IN_FRONT), None)
    # What ends with .notify is the name of a notification.
    base = _OF_NOTICES.sub(r"-\1", (chosen or (programs or ["job"])[0])[:_MAX_NAME])
    names = {*taken}
    if base not in names:
        return base
    return next(name for n in range(2, len(names) + 3) if (name := f"{base}-{n}") not in names)


def _only_leads(step: str, following: str) -> bool:
    """Whether it asks for something, or prepares what follows, so that it names nothing."""
    step, following = _HEAD.sub("", step), _HEAD.sub("", following)
    if _FOUND.match(step) is not None and _TAKES_FOUND.match(following) is not None:
        return True
    return _LEADS.match(step) is not None


def _run_by(step: str) -> str:
    """Of ``find``, the program that it starts."""
    find, begins, executed = step.partition(" -exec")
    is_find = bool(begins) and _FOUND.match(_HEAD.sub("", find)) is not None
    return executed.partition(" ")[2] if is_find else step


def _programs(text: str) -> list[str]:
    """What may be a program's name among its words."""
    words = (word.strip("\"'") for word in _WORD.findall(text))
    return [
        base
        for word in words
        if "=" not in word
        and not word.startswith(("-", "$"))
        and (base := _NO_NAME.sub("-", word.rstrip("/").rpartition("/")[2]).strip("-._"))
        and not base.isdecimal()
    ]
