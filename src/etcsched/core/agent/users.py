"""As whom an agent runs jobs. The leader asks the same question before it assigns."""

from __future__ import annotations

ANY_BUT_ROOT = "*"
"""In a presence's ``users``: everyone but root. A job must name whom it means."""

ROOT = "root"


def allows(users: tuple[str, ...], user: str) -> bool:
    """Whether a job that wants to run as ``user`` may (empty: it named none, and the agent has no
    default)."""
    if user in users:
        return True
    return ANY_BUT_ROOT in users and user not in ("", ROOT)
