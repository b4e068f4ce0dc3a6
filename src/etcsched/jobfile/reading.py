"""Which files a person means, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from etcsched.core.errors import InvalidJobFile, UsageError
from etcsched.files import STDIN, read_text

__all__ = ["read_file", "read_files"]

_SUFFIXES: Final = (".yaml", ".yml")
_MAX_BYTES: Final = 64 << 20


def read_files(paths: Sequence[str]) -> list[tuple[str, str]]:
    """(name, text) of every file. A directory stands for the YAML files right in it, by name;
    ``-`` for standard input.

    ``UsageError`` where there is nothing to read, ``InvalidJobFile`` for what can't be.
    """
    names = [name for path in paths for name in _expand(path)]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"{min(twice)}: given twice")
    files, problems = [], []
    for name in names:
        try:
            files.append((name, read_file(name, _MAX_BYTES)))
        except InvalidJobFile as error:
            problems += error.problems
    if problems:
        raise InvalidJobFile(problems)
    return files


def read_file(name: str, most_bytes: int) -> str:
    """``-`` is standard input; ``InvalidJobFile`` for what can't be read."""
    try:
        return read_text(name, most_bytes)
    except OSError as error:
        raise InvalidJobFile([f"{name}: can't be read: {error.strerror}"]) from None


def _expand(path: str) -> list[str]:
    if path == STDIN or not Path(path).is_dir():
        return [path]
    found = sorted(
        str(entry)
        for entry in Path(path).iterdir()
        if entry.suffix in _SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    )
    if not found:
        raise UsageError(f"{path}: no {' or '.join(_SUFFIXES)} file in this directory")
    return found
