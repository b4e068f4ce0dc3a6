"""What the kernel says of a process: the time it had a processor, and the memory it holds."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

CPU_RESOLUTION_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """All threads, in user and kernel mode, since it began; exact to ``CPU_RESOLUTION_S``."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * CPU_RESOLUTION_S


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    raise ProcessLookupError(f"process {pid} holds no memory: it has ended")


async def cpu_percent(pid: int, period_s: float) -> float:
    """Of one processor, over a period in which nothing else is to happen."""
    began_s, before_s = time.monotonic(), cpu_s(pid)
    await asyncio.sleep(period_s)
    return 100 * (cpu_s(pid) - before_s) / (time.monotonic() - began_s)
