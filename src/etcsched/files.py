"""What is in a file that somebody names, or on standard input: bounded, whatever it leads to; and
where a node keeps its own files.

What is read is refused by ``OSError``, whose ``strerror`` is the reason in words.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from codecs import BOM_UTF8
from pathlib import Path
from typing import BinaryIO, Final

from etcsched.core.sizes import size_text

__all__ = [
    "STDIN",
    "decoded",
    "opened",
    "read_bytes",
    "read_text",
    "replace_file",
    "state_directory",
]

STDIN: Final = "-"


def read_text(name: str | Path, most_bytes: int) -> str:
    """``-`` is standard input. A byte order mark is no part of the text."""
    return decoded(read_bytes(name, most_bytes))


def read_bytes(name: str | Path, most_bytes: int) -> bytes:
    if name == STDIN:
        raw = sys.stdin.buffer.read(most_bytes + 1)
    else:
        with opened(Path(name)) as file:
            raw = file.read(most_bytes + 1)
            if not raw and stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.ENODATA, "it is a pipe, and nobody writes to it")
    if len(raw) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {size_text(most_bytes)}")
    return raw


def decoded(raw: bytes) -> str:
    raw = raw.removeprefix(BOM_UTF8)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise OSError(errno.EILSEQ, f"it isn't text in UTF-8 (line {line})") from None


def state_directory(role: str, node: str) -> Path:
    """Of a scheduler or agent that wasn't told another: the system's as root, else the user's."""
    if os.geteuid() == 0:
        return Path("/var/lib/etcsched", role, node)
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    return home / "etcsched" / role / node


def opened(path: Path) -> BinaryIO:
    """To be read. A named pipe that nobody writes to is empty: it isn't waited for."""
    return open(path, "rb", opener=_open_at_once)


def _open_at_once(path: str, flags: int) -> int:
    if not hasattr(os, "O_NONBLOCK"):
        return os.open(path, flags)  # Windows: no pipe has a place among files there.
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


def replace_file(path: Path, content: bytes) -> None:
    """The whole of it or nothing, and on disk when this returns. Raises ``OSError``."""
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
