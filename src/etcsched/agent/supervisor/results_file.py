"""What an attempt left in its results file, read once no process of it is left."""

from __future__ import annotations

import os
import stat

from etcsched.agent.supervisor.messages import RESULTS_MAX_BYTES


def read_results(path: str | None) -> tuple[bytes, bool]:
    """Its first bytes, and whether there are more. Nothing where there is no ordinary file: most
    attempts have none, and whatever else a job put there mustn't lead or hold us anywhere."""
    if path is None:
        return b"", False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b"", False
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return b"", False
        data = os.read(handle, RESULTS_MAX_BYTES + 1)
    except OSError:
        return b"", False
    finally:
        os.close(handle)
    return data[:RESULTS_MAX_BYTES], len(data) > RESULTS_MAX_BYTES
