"""Conflict groups as a whole."""

from __future__ import annotations

import pytest

from etcsched.core.conflicts import Groups, contradiction
from etcsched.core.records import ConflictGroup


def groups(**jobs: str) -> Groups:
    return Groups(ConflictGroup(group=name, jobs=tuple(letters)) for name, letters in jobs.items())


def test_rivals_are_the_other_jobs_of_all_groups() -> None:
    both = groups(g="abc", h="cd")
    assert both.rivals("c") == {"a": "g", "b": "g", "d": "h"}
    assert both.rivals("d") == {"c": "h"}
    assert both.rivals("x") == {}
    assert (both.of("c"), both.of("x")) == (("g", "h"), ())


@pytest.mark.parametrize(
    "jobs",
    [
        {"g": "abc"},
        {"g": "cba", "h": "ba"},
        {"g": "dc", "h": "cb", "i": "ba"},
        {"g": "ab", "h": "xy"},
    ],
)
def test_the_rank_agrees_with_every_group(jobs: dict[str, str]) -> None:
    found = groups(**jobs)
    for letters in jobs.values():
        ranks = [found.rank(job) for job in letters]
        assert ranks == sorted(ranks)
    assert [found.rank(job) for job in found.ranked] == list(range(len(found.ranked)))


def test_of_contradicting_groups_the_first_by_name_orders() -> None:
    found = groups(h="ba", g="ab", i="bc")
    assert found.rank("a") < found.rank("b") < found.rank("c")
    assert found.rivals("b") == {"a": "g", "c": "i"}


def test_contradictions() -> None:
    assert contradiction({"g": ("a", "b"), "h": ("b", "c")}) is None
    cycle = contradiction({"g": ("a", "b"), "h": ("b", "c"), "i": ("c", "a")})
    assert cycle is not None
    assert set(cycle) == {"a", "b", "c"}
