"""How much of what each job wants kept is kept, as the archive grows and shrinks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcsched.core.leader.retention import LEAST_SHARE, next_share


@pytest.mark.parametrize(
    ("share", "fullest", "size_bytes", "then"),
    [
        (1.0, 1.0, 0, 1.0),
        (1.0, 1.0, 1000, 1.0),
        (1.0, 1.0, 1200, 0.75),
        (0.8, 0.8, 1200, 0.6),
        (1.0, 0.01, 1200, 0.0075),
        (0.01, 1.0, 1200, 0.0075),  # It had that much before it gave.
        (0.5, 0.5, 1000, 0.5),
        (0.5, 0.5, 700, 0.5),
        (0.5, 0.5, 699, 1.0),
        (0.001, 0.001, 0, 1.0),
        (LEAST_SHARE, 1.0, 10**9, LEAST_SHARE),
    ],
)
def test_the_share(share: float, fullest: float, size_bytes: int, then: float) -> None:
    assert next_share(share, fullest, size_bytes, 1000) == pytest.approx(then)


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.floats(0.01, 1.0)), min_size=1, max_size=20),
    st.floats(0.05, 1.5),
)
def test_rounds_come_to_the_limit_and_not_far_below(
    jobs: list[tuple[int, float]], part: float
) -> None:
    """Of jobs with these keeps, so much of each being there, and a limit that is a part of all."""
    held = [keep * filled for keep, filled in jobs]
    most = max(1, round(part * sum(held)))
    share, before = 1.0, list(held)
    for _ in range(200):
        fullest = max(runs / keep for (keep, _), runs in zip(jobs, held, strict=True))
        size = sum(held)
        if size <= most:
            break
        share = next_share(share, fullest, size, most)
        held = [min(runs, share * keep) for (keep, _), runs in zip(jobs, held, strict=True)]
    assert sum(held) <= most or share == LEAST_SHARE
    assert sum(held) >= 0.89 * most or held == before
