from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.console import Console, populate


@pytest.fixture
def console(tmp_path: Path) -> Console:
    """An empty cluster."""
    return Console(tmp_path)


@pytest.fixture
def cluster(console: Console) -> Console:
    """One in the middle of its work."""
    populate(console)
    return console
