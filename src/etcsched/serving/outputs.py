"""How output is asked for: what the agent that serves it and whoever reads it agree on."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

__all__ = ["MOST_BYTES", "MOST_WAIT_S", "OVER_HEADER", "ROUTE", "place_in", "target_of"]

ROUTE: Final = "/output"
OVER_HEADER: Final = "Etcsched-Over"
"""``1``: the attempt is over, and this is its end."""
MOST_BYTES: Final = 1 << 20
"""In one answer."""
MOST_WAIT_S: Final = 20
"""How long an agent may be asked to wait for more before it says that there is none."""


def target_of(job: str, run: str, number: int, offset: int, wait_s: int) -> str:
    place = f"{ROUTE}/{quote(job, safe='')}/{quote(run, safe='')}"
    return f"{place}?attempt={number}&from={offset}&wait={wait_s}"


def place_in(path: str) -> tuple[str, str]:
    """Job and run; ``ValueError`` for what could lead anywhere but to a run's own directory."""
    parts = [unquote(part, errors="strict") for part in path.split("/")[2:]]
    is_plain = all(p not in ("", ".", "..") and not {"/", "\0"} & set(p) for p in parts)
    if len(parts) != 2 or not is_plain:
        raise ValueError(f"write {ROUTE}/JOB/RUN")
    return parts[0], parts[1]
