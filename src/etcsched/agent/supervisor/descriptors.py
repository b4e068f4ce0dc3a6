"""How many attempts a supervisor's file descriptors are enough for.

One that has none left can neither look at processes nor signal them. So it takes as many as it may
have, starts nothing that would leave it too few, and gives its commands the limits it had itself.
"""

from __future__ import annotations

import resource

EACH_ATTEMPT = 2
"""Its output's pipe, and the file once there is something to write."""
SPARE = 32
"""For the supervisor itself, its connections, and its looks at processes."""
LIMIT_MOST = 1 << 20
"""Kernels without close_range(2) close one by one what a forked process leaves behind."""

Limits = tuple[int, int]
"""Soft and hard."""


def limits() -> Limits:
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def set_limits(to: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, to)


def raised(from_: Limits) -> Limits:
    """The most that this process may have."""
    soft, hard = from_
    if soft == resource.RLIM_INFINITY:
        return from_
    most = LIMIT_MOST if hard == resource.RLIM_INFINITY else min(hard, LIMIT_MOST)
    return max(soft, most), hard


def attempts_within(soft: int) -> int:
    """How many attempts may run at once."""
    if soft == resource.RLIM_INFINITY:
        soft = LIMIT_MOST
    return max(0, (soft - SPARE) // EACH_ATTEMPT)
