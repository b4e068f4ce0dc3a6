"""What a scheduler says of others of its name."""

from __future__ import annotations

import pytest

from etcsched.keyspace.keys import Keys
from etcsched.scheduler.complaints import ElectionComplaints
from tests.unit.core.test_candidate import Desk

TTL_S = 10
ANOTHER = "another scheduler of this name runs on host h as process 1 "


class Scene(Desk):
    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        super().__init__()
        self._log = log
        self.complaints = ElectionComplaints(self.machine, Keys(), TTL_S)
        self.machine.session_opened(10, self.now)

    def says(self, *, at_s: float) -> str:
        self._log.clear()
        self.complaints.time_passed(at_s)
        return self._log.text


@pytest.fixture
def scene(caplog: pytest.LogCaptureFixture) -> Scene:
    return Scene(caplog)


def test_one_that_comes_is_named_at_once_and_then_once_a_minute(scene: Scene) -> None:
    scene.stands("a", 5)
    assert scene.says(at_s=0.0) == ""
    scene.stands("b", 7)
    assert ANOTHER in scene.says(at_s=1.0)
    assert scene.complaints.remark
    assert scene.says(at_s=60.0) == ""
    assert ANOTHER in scene.says(at_s=61.0)
    scene.gone("b")
    assert scene.says(at_s=200.0) == ""
    assert not scene.complaints.remark


def test_one_that_was_there_may_be_its_own_session_before(scene: Scene) -> None:
    scene.stands("1", 2)
    scene.stands("a", 5)
    assert scene.says(at_s=0.0) == ""
    assert scene.says(at_s=19.0) == ""
    assert ANOTHER in scene.says(at_s=20.0)


def test_its_own_key_is_none_of_another_while_it_is_cut_off(scene: Scene) -> None:
    """It doesn't see it go, and the lease lasts for its time once etcd is back."""
    scene.stands("a", 5)
    scene.machine.session_lost("etcd is away")
    assert scene.says(at_s=0.0) + scene.says(at_s=300.0) == ""
    scene.machine.session_opened(11, scene.now)
    assert scene.says(at_s=301.0) + scene.says(at_s=320.0) == ""
    scene.stands("b", 9)
    assert scene.says(at_s=320.5) == ""
    scene.gone("a")
    assert scene.says(at_s=400.0) == ""
    assert not scene.complaints.remark


def test_before_it_stands_itself_nothing_is_certain(scene: Scene) -> None:
    scene.stands("1", 2)
    assert scene.says(at_s=0.0) == ""
    assert ANOTHER in scene.says(at_s=20.0)


def test_others_have_other_names(scene: Scene) -> None:
    scene.stands("a", 5)
    scene.stands("b", 7, node="s2")
    assert scene.says(at_s=0.0) + scene.says(at_s=100.0) == ""


def test_what_has_no_lease_is_no_scheduler(scene: Scene) -> None:
    scene.stands("a", 5)
    scene.stands("1", 7, lease=0)
    said = scene.says(at_s=0.0)
    assert "another scheduler" not in said
    assert "delete it: etcdctl del /etcsched/v1/election/1\n" in said
