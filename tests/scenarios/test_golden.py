"""The scenarios of the documents that the project began with, as texts: see ``golden/``.

Where one differs on purpose, ``make golden`` writes it anew; the difference is read like any other.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.golden.script import parse, text_of
from tests.scenarios.golden.stage import play

SCRIPTS = sorted((Path(__file__).parent / "golden").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    script = parse(text)
    played = play(script)
    assert text_of(script, played.seen) == text
    assert [str(violation) for violation in played.verdict.violations] == []
    assert played.verdict.invalid_because == ()
