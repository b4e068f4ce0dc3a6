"""``{name}`` in an element of an argv: there the agent puts a value (``core.agent.command``).

The agent lets a brace that encloses no name stand for itself. Here it is refused: of
``{"a": {"b": 1}}`` the agent would make something else, since ``}}`` stands for a single brace.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["BUILTINS", "names_in"]

BUILTINS: Final = (
    "scheduled_time",
    "scheduled_date",
    "job",
    "run",
    "attempt",
    "source_job",
    "source_run",
    "source_state",
)
"""What every run has beside its parameters; the source's are empty where none chained to it."""

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_.-]*)\}|[{}]")


def names_in(element: str) -> list[str]:
    """The names that the element mentions; ``ValueError`` for a brace that belongs to none."""
    names = []
    for token in _TOKEN.finditer(element):
        if token[1] is not None:
            names.append(token[1])
        elif token[0] in "{}":
            raise ValueError(
                f"{element!r}: a single {token[0]!r} at character {token.start() + 1}; "
                f"write {{name}} for a parameter, {token[0] * 2} for the character itself"
            )
    return names
