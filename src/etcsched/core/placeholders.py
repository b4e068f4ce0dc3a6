"""``{name}`` in an element of an argv: what a job file may write and what an agent fills in.

``{{`` and ``}}`` stand for single braces. A value is put in as it is, into its one element; no
shell sees it, and nothing in it is looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["BUILTINS", "fill_in", "names_in"]

BUILTINS: Final = ("scheduled_time", "scheduled_date", "job", "run", "attempt")
"""What every run has beside its parameters."""

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


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


def fill_in(element: str, values: Mapping[str, str]) -> str:
    """``KeyError`` for a name without a value; a lone brace stays what it is."""

    def value_of(token: re.Match[str]) -> str:
        return values[token[1]] if token[1] is not None else token[0][0]

    return _TOKEN.sub(value_of, element)
