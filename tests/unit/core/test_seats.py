"""Who gets a seat, and who gives his up."""

from __future__ import annotations

import pytest

from etcsched.core.seats import SeatPlan, Sitting, Standby, plan_seats

HERE = {"a": 1, "b": 2, "c": 3}


def sitting(**agents: bool) -> tuple[Sitting, ...]:
    """Since the first they are named, the longer."""
    return tuple(Sitting(name, n, here) for n, (name, here) in enumerate(agents.items()))


def waiting(*agents: str) -> tuple[Standby, ...]:
    return tuple(Standby(name, n) for n, name in enumerate(agents))


@pytest.mark.parametrize(
    ("most", "seats", "standbys", "given", "taken"),
    [
        pytest.param(None, {}, ("a",), (), (), id="no bound"),
        pytest.param(None, {"a": True}, ("b",), (), ("a",), id="no bound any more"),
        pytest.param(2, {}, ("a", "b", "c"), ("a", "b"), (), id="first come, first seated"),
        pytest.param(2, {"a": True}, ("b",), ("b",), (), id="a free one"),
        pytest.param(1, {"a": True}, ("b",), (), (), id="none free"),
        pytest.param(1, {"a": False}, (), (), (), id="kept for one that is gone"),
        pytest.param(1, {"a": False}, ("b",), ("b",), ("a",), id="needed by another"),
        pytest.param(2, {"a": False, "b": False}, ("c",), ("c",), ("a",), id="the older one"),
        pytest.param(3, {"a": False, "b": True}, ("c",), ("c",), (), id="a free one first"),
        pytest.param(1, {"a": True, "b": True}, (), (), ("b",), id="who came last goes"),
        pytest.param(1, {"a": True, "b": False}, (), (), ("b",), id="who is gone goes first"),
        pytest.param(1, {"a": False, "b": False}, ("c",), ("c",), ("a", "b"), id="fewer, and one"),
        pytest.param(
            2, {"a": True, "b": False, "c": True, "d": True}, ("e",), (), ("b", "d"), id="far fewer"
        ),
    ],
)
def test_seats(
    most: int | None,
    seats: dict[str, bool],
    standbys: tuple[str, ...],
    given: tuple[str, ...],
    taken: tuple[str, ...],
) -> None:
    assert plan_seats(most, sitting(**seats), waiting(*standbys)) == SeatPlan(given, taken)
