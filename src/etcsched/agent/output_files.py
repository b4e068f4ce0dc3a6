"""Keeping the output of past attempts within its age and size."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec


class Pruned(msgspec.Struct, frozen=True):
    files: int
    size_bytes: int


def prune_output(
    root: Path, active: frozenset[str], *, keep_s: float, keep_bytes: int, now_s: float
) -> Pruned:
    """Delete what was last written more than ``keep_s`` ago, then the oldest until the rest takes
    no more than ``keep_bytes`` (``now_s`` is Unix time). Directories that are left empty go too.

    ``active`` are the ``<job>/<run>`` that may be written to: they are left alone. Blocks.
    """
    found = sorted(_files(root, active))
    total = sum(size for _, size, _ in found)
    files = size_bytes = 0
    for written_s, size, path in found:
        if written_s >= now_s - keep_s and total <= keep_bytes:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
            files += 1
            size_bytes += size
            for directory in Path(path).parents[:2]:
                directory.rmdir()  # Refused, which ends this, while there is anything in it.
        total -= size
    return Pruned(files, size_bytes)


def _files(root: Path, active: frozenset[str]) -> list[tuple[float, int, str]]:
    """(last written, bytes on disk, path) of every file below ``root`` but the active runs'."""
    found = []
    for directory, _, names in os.walk(root):
        if os.path.relpath(directory, root) in active:
            continue
        for name in names:
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                found.append((status.st_mtime, 512 * status.st_blocks, path))
    return found
