"""Each planted bug shows on the scenario that is kept of it, and nothing shows without the bug.
``make mutants`` looks for new ones, too."""

from __future__ import annotations

import pytest

from tests.mutants.hunt import try_kept
from tests.mutants.planted import PLANTED, Planted


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_it_is_caught(planted: Planted) -> None:
    catch = try_kept(planted)
    assert catch.scenario is not None, f"{planted.what}: shown by {catch.by or 'nothing'}"
