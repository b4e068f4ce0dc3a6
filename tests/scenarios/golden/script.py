"""The form of a golden script: what is done, and below a line of dashes what comes of it.

A script begins with a paragraph of comments that says what it is about. Then come steps: one
command or several, a line each, ``----``, and the lines that tell what the cluster was seen to do,
up to an empty line. What a command takes besides (a job file) is indented below it. A step without
``----`` is one that hasn't been carried out yet.
"""

from __future__ import annotations

import msgspec

__all__ = ["Command", "Script", "Step", "parse", "text_of"]

_RULE = "----"


class Command(msgspec.Struct, frozen=True):
    line: int
    words: str
    below: str = ""


class Step(msgspec.Struct, frozen=True):
    """``source`` is as written. ``seen`` are the lines that are expected."""

    source: str
    commands: tuple[Command, ...]
    seen: tuple[str, ...]


class Script(msgspec.Struct, frozen=True):
    head: str
    steps: tuple[Step, ...]


def parse(text: str) -> Script:
    head, *chunks = text.rstrip("\n").split("\n\n")
    if not all(line.startswith("#") for line in head.splitlines()):
        raise ValueError("line 1: a script begins with comments that say what it is about")
    line = head.count("\n") + 3
    steps = []
    for chunk in chunks:
        source, _, seen = chunk.partition(f"\n{_RULE}")
        steps.append(Step(source, _commands(source, line), tuple(seen.strip("\n").splitlines())))
        line += chunk.count("\n") + 2
    return Script(head, tuple(steps))


def text_of(script: Script, seen: list[list[str]]) -> str:
    """The script with what was seen now."""
    parts = [script.head]
    for step, lines in zip(script.steps, seen, strict=True):
        parts.append("\n".join([step.source, _RULE, *lines]))
    return "\n\n".join(parts) + "\n"


def _commands(source: str, first_line: int) -> tuple[Command, ...]:
    found: list[Command] = []
    for number, line in enumerate(source.splitlines(), start=first_line):
        if line.startswith("#"):
            continue
        if line.startswith(" "):
            if not found:
                raise ValueError(f"line {number}: indented below nothing")
            last = found[-1]
            found[-1] = msgspec.structs.replace(last, below=f"{last.below}{line[2:]}\n")
        else:
            found.append(Command(number, line.strip()))
    return tuple(found)
