"""How much of what each job wants kept is kept, as the archive grows and shrinks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcsched.core.leader import effects as fx
from etcsched.core.leader import events as ev
from etcsched.core.leader.context import Context, Options
from etcsched.core.leader.retention import LEAST_SHARE, Retention, next_share
from etcsched.core.records import Change, Keep, Kind, Watermark
from etcsched.core.times import Utc
from etcsched.core.view import View
from tests.support.jobs import job, resubmit


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


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_what_a_request_names_stays(is_asked_for: bool) -> None:
    """Of a record of missed ticks others may be asked for next; and those that ran drive it out."""
    view, runs = View(), [f"20261122T1200{second:02}Z" for second in (10, 20, 30)]
    passed = Watermark(through=Utc("2026-11-22T13:00:00.000Z"), term=1)
    request = resubmit("r1", runs[0], tick="20261122T120015Z")
    view.apply(
        [
            Change(Kind.JOB, ("backup",), job(every_s=60, keep=Keep(runs=1)), 1),
            Change(Kind.WATERMARK, (), passed, 1),
            *([Change(Kind.REQUEST, ("r1",), request, 1)] if is_asked_for else []),
        ],
        1,
    )
    context = Context(view, 1, "s1", Options())
    found = tuple(("backup", run, 1, 100) for run in runs)
    Retention(context).listed(ev.ArchiveListed(job="backup", found=found, is_last=True, count=3))
    forgotten = [write.run_id for write in context.effects if isinstance(write, fx.Forget)]
    assert forgotten == runs[is_asked_for:2]
