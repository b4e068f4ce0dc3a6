"""What all records have. Each one's JSON begins with its schema version ``v``; ``unknown`` carries
what a newer schema wrote at the top level, so that a rewrite by this version keeps it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

SCHEMA_VERSION: Final = 1


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of a record."""


class Record(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="v", tag=SCHEMA_VERSION
):
    unknown: dict[str, Any] | None = None
