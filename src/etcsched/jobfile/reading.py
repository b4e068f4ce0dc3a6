"""Which files a person means, and what is in them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from etcsched.core.errors import InvalidJobFile, UsageError

__all__ = ["STDIN", "read_files"]

STDIN: Final = "-"
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
            files.append((name, _read(name)))
        except OSError as error:
            problems.append(f"{name}:1: can't be read: {error.strerror}")
        except UnicodeDecodeError as error:
            problems.append(f"{name}:1: isn't text in UTF-8 (byte {error.start})")
    if problems:
        raise InvalidJobFile(problems)
    return files


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


def _read(name: str) -> str:
    if name == STDIN:
        return sys.stdin.read()
    with Path(name).open("rb") as file:
        raw = file.read(_MAX_BYTES + 1)
    if len(raw) > _MAX_BYTES:
        raise OSError(0, f"over {_MAX_BYTES >> 20} MiB")
    return raw.decode("utf-8-sig")
