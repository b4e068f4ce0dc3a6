"""What counts as text: everything that is kept is UTF-8."""

from __future__ import annotations


def is_text(text: str) -> bool:
    """False: it has half of a surrogate pair, which stands for no character (a YAML or JSON escape,
    or a file's undecodable bytes, can bring one in)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
