"""A mounted file system whose server doesn't answer: FUSE, spoken by hand."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

_MNT_DETACH = 2
_FUSE_INIT = 26
_REQUEST = struct.Struct("=IIQ")
"""Length, operation, number; the rest doesn't matter here."""
_ANSWER_TO_INIT = struct.Struct("=IiQ IIIIHHIIHH8I")

_libc = ctypes.CDLL(None, use_errno=True)


@asynccontextmanager
async def hung_mount(directory: Path, *, killable: bool) -> AsyncIterator[Path]:
    """On ``directory``. ``killable``: nothing was ever answered, so the kernel lets go of whoever
    is killed while it waits. Otherwise the server has taken the request, and whoever waits for the
    answer can't even die."""
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"/dev/fuse: {error.strerror}")
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0"
    where = os.fsencode(directory)
    if _libc.mount(b"hung", where, b"fuse", 0, options.encode()) != 0:
        os.close(fd)
        pytest.skip(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
    loop = asyncio.get_running_loop()
    if not killable:
        loop.add_reader(fd, _take_request, fd)
    try:
        yield directory
    finally:
        if not killable:
            loop.remove_reader(fd)
        _libc.umount2(where, _MNT_DETACH)
        # Whoever waits gets an error, dead or not.
        os.close(fd)


def _take_request(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        _, operation, number = _REQUEST.unpack_from(os.read(fd, 1 << 20))
        if operation == _FUSE_INIT:
            size = _ANSWER_TO_INIT.size
            numbers = (7, 31, 0, 0, 1, 1, 1 << 16, 1, 0, 0, *(0,) * 8)
            os.write(fd, _ANSWER_TO_INIT.pack(size, 0, number, *numbers))
