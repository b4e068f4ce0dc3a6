"""Names that nodes and their labels may have: job files mean agents by them."""

from __future__ import annotations

import re
from typing import Final

from etcsched.core.errors import UsageError

__all__ = ["LABEL", "check_node_name", "flaw_of_label"]

_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LABEL: Final = re.compile(r"[A-Za-z0-9._/-]{1,128}")


def check_node_name(role: str, name: str) -> None:
    if _NODE.fullmatch(name) is None:
        raise UsageError(f"{role} id {name!r}: letters, digits, '.', '_' and '-', up to 128")


def flaw_of_label(name: str) -> str | None:
    if LABEL.fullmatch(name) is not None:
        return None
    return f"{name!r} is no label; it takes letters, digits, '.', '_', '/' and '-'"
