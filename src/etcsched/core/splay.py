"""``splay``: a delay of a job's starts, so that not all that is due at once starts at once."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from etcsched.core.records import Job

__all__ = ["delay_ms", "longest_delay_ms"]


def delay_ms(job: Job, host: str = "") -> int:
    """Within the job's splay, the same for every tick, and for every leader: it follows from the
    job's name (and the host's, where the job runs on each)."""
    return _share(job.name, host, int(job.splay_s * 1000)) if job.splay_s else 0


def longest_delay_ms(job: Job) -> int:
    """By which at most a tick's last run may be delayed: of a job that runs on each host, any host
    may have all of it."""
    return int(job.splay_s * 1000) if job.per_host else delay_ms(job)


@lru_cache(maxsize=16384)
def _share(name: str, host: str, splay_ms: int) -> int:
    digest = blake2b(f"{name}/{host}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") * splay_ms >> 64
