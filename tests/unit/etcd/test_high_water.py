"""What a node remembers of its cluster's revision, and what it refuses because of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcsched.core.errors import ClusterRestored, UsageError
from etcsched.etcd.high_water import HighWater


def test_the_highest_revision_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "new" / "revision"
    first = HighWater(path)
    first.saw(42)
    first.saw(41)
    first.write()
    assert HighWater(path).revision == 42


def test_it_is_on_disk_before_it_takes_the_place_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut may leave an empty file, which has seen nothing."""
    path = tmp_path / "revision"
    synced: list[str] = []
    monkeypatch.setattr("etcsched.files.os.fsync", lambda _: synced.append(path.read_text()))
    path.write_text("7\n")
    mark = HighWater(path)
    mark.saw(42)
    mark.write()
    assert synced == ["7\n", "42\n"]  # The new file, then the directory that names it.


def test_a_lower_revision_is_refused_and_names_the_way_out(tmp_path: Path) -> None:
    mark = HighWater(tmp_path / "revision")
    mark.saw(42)
    mark.check(42, who="agent a", accept_restored=False)
    with pytest.raises(ClusterRestored, match=r"agent a has seen 42.*--accept-restored"):
        mark.check(41, who="agent a", accept_restored=False)


def test_what_is_seen_while_a_read_is_on_its_way_says_nothing() -> None:
    mark = HighWater(None)
    mark.saw(40)
    seen = mark.revision
    mark.saw(42)
    mark.check(41, who="agent a", accept_restored=False, seen=seen)
    with pytest.raises(ClusterRestored, match="has seen 40"):
        mark.check(39, who="agent a", accept_restored=False, seen=seen)


def test_an_accepted_restore_counts_from_there(tmp_path: Path) -> None:
    mark = HighWater(tmp_path / "revision")
    mark.saw(42)
    mark.check(7, who="agent a", accept_restored=True)
    mark.check(7, who="agent a", accept_restored=False)
    mark.write()
    assert HighWater(tmp_path / "revision").revision == 7


@pytest.mark.parametrize("content", ["", "nonsense"])
def test_what_cannot_be_read_is_nothing_seen(tmp_path: Path, content: str) -> None:
    (tmp_path / "revision").write_text(content)
    assert HighWater(tmp_path / "revision").revision == 0


def test_a_place_that_takes_nothing_is_refused(tmp_path: Path) -> None:
    HighWater(tmp_path / "new" / "revision").prepare()
    HighWater(None).prepare()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="can't be written: File exists; name another"):
        HighWater(tmp_path / "file" / "revision").prepare()


def test_without_a_path_it_lives_as_long_as_the_process() -> None:
    mark = HighWater(None)
    mark.saw(5)
    mark.write()
    assert mark.revision == 5
