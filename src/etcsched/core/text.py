"""What counts as text: everything that is kept is UTF-8. And names in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_NAMED: Final = 3


def is_text(text: str) -> bool:
    """False: it has half of a surrogate pair, which stands for no character (a YAML or JSON escape,
    or a file's undecodable bytes, can bring one in)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shortened(text: str, most: int) -> str:
    """At most so many characters, and dots where there were more."""
    return text if len(text) <= most else text[:most] + "..."


def some(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
