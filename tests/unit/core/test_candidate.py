"""The candidate against a view that the test writes."""

from __future__ import annotations

import pytest

from etcsched.core.candidate import (
    RETRY_S,
    CandidateMachine,
    Demote,
    Join,
    Lead,
    Leave,
    Standing,
    TakeTerm,
)
from etcsched.core.clock import Instant
from etcsched.core.records import Candidate, Change, Kind, Record, Term
from etcsched.core.times import utc_of
from etcsched.core.view import View

START_MS = 1_795_348_800_000


class Desk:
    """A candidate with lease 0xa, and what it says to whatever happens."""

    def __init__(self) -> None:
        self.view = View()
        self.machine = CandidateMachine("s1", self.view)
        self.now_s = 0.0

    @property
    def now(self) -> Instant:
        return Instant(START_MS + int(self.now_s * 1000), self.now_s)

    def see(  # type: ignore[no-untyped-def]
        self,
        kind: Kind,
        ids: tuple[str, ...],
        record: Record | None,
        create: int = 0,
        lease: int = 0,
    ):
        revision = self.view.revision + 1
        change = Change(
            kind=kind, ids=ids, record=record, mod_revision=revision, create_revision=create,
            lease=lease,
        )  # fmt: skip
        self.view.apply((change,), revision)
        return self.machine.view_changed((change,), True, self.now)

    def stands(  # type: ignore[no-untyped-def]
        self, name: str, create: int, *, node: str = "s1", skew_s: float = 0.0, lease: int = -1
    ):
        """Under the lease that its key names, unless told otherwise."""
        clock = utc_of(self.now.wall_ms + int(skew_s * 1000))
        record = Candidate(node=node, host="h", pid=1, since=clock, clock=clock, version="0")
        return self.see(
            Kind.ELECTION, (name,), record, create, int(name, 16) if lease < 0 else lease
        )

    def gone(self, lease: str):  # type: ignore[no-untyped-def]
        return self.see(Kind.ELECTION, (lease,), None)

    def term(self, number: int, token: int, least_schema: int = 1):  # type: ignore[no-untyped-def]
        term = Term(
            number=number, leader="x", election_key="a", token=token, since=utc_of(START_MS),
            least_schema=least_schema,
        )  # fmt: skip
        return self.see(Kind.TERM, (), term)

    def lead(self) -> None:
        self.machine.session_opened(10, self.now)
        self.stands("a", 5)
        (lead,) = self.term(1, 5)
        assert isinstance(lead, Lead)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_alone_it_joins_takes_the_term_and_leads(desk: Desk) -> None:
    assert desk.machine.session_opened(10, desk.now) == [Join(10)]
    (take,) = desk.stands("a", 5)
    assert isinstance(take, TakeTerm)
    assert (take.write.term.number, take.write.term.token, take.write.old_revision) == (1, 5, 0)
    (lead,) = desk.term(1, 5)
    assert lead == Lead(take.write.term, 2) or isinstance(lead, Lead)
    assert desk.machine.standing is Standing.LEADING


def test_steps_are_taken_again_now_and_then_until_they_show(desk: Desk) -> None:
    desk.machine.session_opened(10, desk.now)
    assert desk.machine.time_passed(desk.now) == []
    desk.see(Kind.JOB, ("j",), None)
    assert desk.machine.time_passed(desk.now) == []
    desk.now_s = 0.3
    assert desk.machine.time_passed(desk.now) == [Join(10)]


def test_whoever_stands_below_goes_first_also_when_the_middle_one_dies(desk: Desk) -> None:
    desk.stands("1", 2, node="s2")
    desk.stands("2", 3, node="s3")
    desk.machine.session_opened(10, desk.now)
    assert desk.stands("a", 5) == []
    assert desk.gone("2") == []
    (take,) = desk.gone("1")
    assert isinstance(take, TakeTerm)


def test_its_own_key_deleted_by_hand(desk: Desk) -> None:
    desk.lead()
    (demote,) = desk.gone("a")
    assert isinstance(demote, Demote)
    desk.now_s = 1.0
    assert desk.machine.time_passed(desk.now) == [Join(10)]


def test_another_took_the_term(desk: Desk) -> None:
    desk.lead()
    effects = desk.term(2, 99)
    assert isinstance(effects[0], Demote)
    assert desk.machine.leading is None


def test_its_session_is_lost(desk: Desk) -> None:
    desk.lead()
    (demote,) = desk.machine.session_lost("expired")
    assert isinstance(demote, Demote)
    assert desk.machine.standing is Standing.OUT
    assert desk.machine.time_passed(desk.now) == []


def test_resigning(desk: Desk) -> None:
    desk.lead()
    demote, leave = desk.machine.resign("stops")
    assert isinstance(demote, Demote)
    assert leave == Leave(10, 5)
    desk.gone("a")
    desk.now_s = 100.0
    assert desk.machine.time_passed(desk.now) == []


def test_stepping_down_bars_it_for_a_while_and_leaves_until_that_shows(desk: Desk) -> None:
    desk.lead()
    demote, leave = desk.machine.step_down("its clock jumped", desk.now)
    assert isinstance(demote, Demote)
    assert leave == Leave(10, 5)
    assert desk.machine.barred_because == "its clock jumped"
    desk.now_s = 1.0
    assert desk.machine.time_passed(desk.now) == [Leave(10, 5)]
    desk.gone("a")
    desk.now_s = 4.0
    assert desk.machine.time_passed(desk.now) == []
    desk.now_s = 5.1
    assert desk.machine.time_passed(desk.now) == [Join(10)]


def test_a_term_given_up_is_not_taken_up_again(desk: Desk) -> None:
    """Its key is still there: what was in flight in that term may yet be committed."""
    desk.lead()
    desk.machine.step_down("stuck", desk.now)
    desk.now_s = 5.1
    (take,) = desk.machine.time_passed(desk.now)
    assert isinstance(take, TakeTerm)
    assert take.write.term.number == 2


def test_a_clock_far_from_the_median_of_three(desk: Desk) -> None:
    desk.lead()
    assert desk.stands("b", 8, node="s2", skew_s=60.0) == []
    demote, leave = desk.stands("c", 9, node="s3", skew_s=60.0)
    assert isinstance(demote, Demote)
    assert leave == Leave(10, 5)
    assert "behind" in desk.machine.barred_because


def test_of_two_nodes_nobody_can_tell_whose_clock_is_wrong(desk: Desk) -> None:
    desk.lead()
    assert desk.stands("b", 8, node="s2", skew_s=60.0) == []
    assert desk.machine.leading is not None


def test_what_a_listing_found_says_nothing_of_clocks(desk: Desk) -> None:
    desk.lead()
    clock = utc_of(START_MS - 3_600_000)
    for lease, node in (("b", "s2"), ("c", "s3")):
        record = Candidate(node=node, host="h", pid=1, since=clock, clock=clock, version="0")
        change = Change(
            kind=Kind.ELECTION, ids=(lease,), record=record, mod_revision=50, create_revision=50
        )
        desk.view.apply((change,), 50)
        assert desk.machine.view_changed((change,), False, desk.now) == []


def test_records_of_a_newer_schema(desk: Desk) -> None:
    desk.term(3, 1, least_schema=2)
    desk.machine.session_opened(10, desk.now)
    assert desk.stands("a", 5) == [Leave(10, 5)]
    assert "upgrade etcsched" in desk.machine.barred_because
    desk.gone("a")
    for _ in range(4):
        desk.now_s += RETRY_S
        assert desk.machine.time_passed(desk.now) == [], "it doesn't stand again to leave again"
        assert "upgrade etcsched" in desk.machine.barred_because
    assert desk.term(3, 1) == [Join(10)]
    assert desk.machine.barred_because == ""


def test_what_a_watch_makes_up_for_says_nothing_of_clocks(desk: Desk) -> None:
    """A minute of others' clocks at once."""
    desk.machine.session_opened(10, desk.now)
    desk.now_s += 60.0
    changes = []
    for number in range(10):
        clock = utc_of(START_MS + 6000 * number)
        record = Candidate(
            node=f"s{number}", host="h", pid=1, since=clock, clock=clock, version="0"
        )
        changes.append(
            Change(
                kind=Kind.ELECTION, ids=(f"{number + 100:x}",), record=record,
                mod_revision=number + 1, create_revision=number + 10,
            )
        )  # fmt: skip
    desk.view.apply(changes, 10)
    desk.machine.view_changed(tuple(changes), True, desk.now, 10)
    desk.machine.time_passed(desk.now)
    assert desk.machine.barred_because == ""


def test_a_term_that_was_deleted_by_hand(desk: Desk) -> None:
    """The next one is above those that were given up."""
    desk.machine.session_opened(10, desk.now)
    desk.stands("a", 5)
    desk.term(500, 5)
    assert desk.machine.leading is not None
    desk.see(Kind.TERM, (), None)
    (take,) = [e for e in desk.machine.time_passed(desk.now) if isinstance(e, TakeTerm)]
    assert take.write.term.number == 501
    effects = desk.see(Kind.TERM, (), take.write.term)
    assert any(isinstance(effect, Lead) for effect in effects)


def test_a_key_without_a_lease_before_its_own_is_named(desk: Desk) -> None:
    desk.stands("1", 2, node="by-hand", lease=0)
    desk.machine.session_opened(10, desk.now)
    assert desk.stands("a", 5) == []
    assert desk.machine.stuck_behind == ("1",)
    (take,) = desk.gone("1")
    assert isinstance(take, TakeTerm)
    assert not desk.machine.stuck_behind


def test_a_key_without_a_lease_behind_its_own_keeps_it_from_nothing(desk: Desk) -> None:
    desk.lead()
    desk.stands("1", 7, node="by-hand", lease=0)
    desk.stands("2", 8, node="s2")
    assert desk.machine.unleased == ("1",)
    assert not desk.machine.stuck_behind


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("lease", [0, 99])
def test_its_own_key_overwritten_by_hand_gets_its_lease_again(
    desk: Desk, leads: bool, lease: int
) -> None:
    """Else it outlives this node, and nobody leads any more."""
    if leads:
        desk.lead()
    else:
        desk.stands("1", 2, node="s2")
        desk.machine.session_opened(10, desk.now)
        desk.stands("a", 5)
    assert desk.stands("a", 5, lease=lease) == [Join(10)]
    assert not desk.machine.unleased
    assert desk.stands("a", 5) == []
    assert (desk.machine.standing is Standing.LEADING) is leads
