"""What the doctor makes of what etcd's members say."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from etcsched.operator.doctor.etcd import check_members, check_sizes
from etcsched.operator.doctor.finding import Finding, Level
from etcsched.ports import MemberStatus

MIB = 1 << 20
WELL = MemberStatus("e1:1", version="3.5.30", leader_id=7, db_size_bytes=MIB)
TOLD_LITTLE = replace(WELL, leader_id=None, db_size_bytes=None, revision=None)
TOLD_NOTHING = replace(TOLD_LITTLE, version="", alarms=None)
DOWN = MemberStatus("e2:1", error="connection refused")


@pytest.mark.parametrize(
    ("members", "levels"),
    [
        ([WELL], {"etcd e1:1": Level.OK}),
        ([TOLD_LITTLE], {"etcd e1:1": Level.OK}),
        ([TOLD_NOTHING], {"etcd e1:1": Level.WARNING, "etcd alarms": Level.WARNING}),
        ([WELL, DOWN], {"etcd e1:1": Level.OK, "etcd e2:1": Level.BAD}),
        ([DOWN], {"etcd e2:1": Level.BAD}),
        ([replace(WELL, leader_id=0)], {"etcd e1:1": Level.BAD}),
        ([replace(WELL, version="3.4.33")], {"etcd e1:1": Level.WARNING}),
        ([replace(WELL, version="3.4.34")], {"etcd e1:1": Level.OK}),
        ([replace(WELL, version="3.5.15")], {"etcd e1:1": Level.WARNING}),
        ([replace(WELL, version="3.3.27")], {"etcd e1:1": Level.BAD}),
        ([replace(TOLD_LITTLE, version="3.5.2")], {"etcd e1:1": Level.BAD}),
        (
            [TOLD_NOTHING, replace(WELL, endpoint="e3:1", alarms=("NOSPACE",))],
            {"etcd e1:1": Level.WARNING, "etcd e3:1": Level.OK, "etcd alarms": Level.BAD},
        ),
    ],
)
def test_members(members: list[MemberStatus], levels: dict[str, Level]) -> None:
    assert {finding.topic: finding.level for finding in check_members(members)} == levels


def test_a_release_that_is_too_old_is_named() -> None:
    (found,) = check_members([replace(WELL, version="3.3.27")])
    assert found.text == "is 3.3.27; etcsched needs 3.4 or later"
    assert found.advice == "upgrade etcd"


def test_sizes() -> None:
    assert check_sizes([DOWN]) == []
    (untold,) = check_sizes([TOLD_LITTLE, DOWN])
    assert (untold.level, untold.text) == (Level.OK, "not told to this user")
    (large,) = check_sizes([TOLD_LITTLE, replace(WELL, db_size_bytes=1900 * MIB)])
    assert large.level is Level.WARNING
    assert check_sizes([WELL]) == [
        Finding("etcd size", Level.OK, "1.0 MiB; the default quota is 2048 MiB")
    ]
