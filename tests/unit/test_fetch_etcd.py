"""Reading apt's sources and listings, in both of their formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from etcsched.etcd.binaries import EtcdBinary
from tests.support import fetch_etcd
from tests.support.fetch_etcd import CannotFetch, apt_mirrors, fetch_if_needed, parse_stanzas

DEB822 = """\
# a comment
Types: deb
URIs: http://mirror.example/archive/debian/20260101T000000Z/
Suites: stable stable-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .

Types: deb-src
URIs: http://sources.example/debian

Enabled: no
Types: deb
URIs: http://off.example/debian
"""
ONE_LINE = """\
# deb http://comment.example/debian stable main
deb [arch=amd64 signed-by=/key.gpg] https://other.example/debian stable main contrib # why not
deb-src http://sources.example/debian stable main
deb cdrom:[disc]/ stable main
deb http://mirror.example/archive/debian/20260101T000000Z stable main
"""


def test_mirrors_of_both_formats(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "off.list.disabled").write_text("deb http://no.example/ a b")
    assert apt_mirrors(tmp_path) == [
        "https://other.example/debian",
        "http://mirror.example/archive/debian/20260101T000000Z",
    ]


def test_no_sources_no_mirrors(tmp_path: Path) -> None:
    assert apt_mirrors(tmp_path) == []


def test_continuation_lines_belong_to_their_field() -> None:
    stanzas = list(parse_stanzas("A: 1\n 2\nB:\n 3\n\n\nA: 4\n"))
    assert stanzas == [{"A": "1 2", "B": " 3"}, {"A": "4"}]


@pytest.fixture
def etcds(monkeypatch: pytest.MonkeyPatch) -> list[EtcdBinary]:
    """What is on the machine; the mirrors have nothing."""
    here = [EtcdBinary(path=Path("etcd"), version="3.4.23")]

    def fetch(suites: Sequence[str]) -> None:
        raise CannotFetch(f"no etcd-server for {', '.join(suites)}")

    monkeypatch.delenv(fetch_etcd.CHOICE_VARIABLE, raising=False)
    monkeypatch.setattr(fetch_etcd, "local_etcds", lambda: here)
    monkeypatch.setattr(fetch_etcd, "fetch", fetch)
    return here


def test_what_is_skipped_is_said(
    etcds: list[EtcdBinary], capsys: pytest.CaptureFixture[str]
) -> None:
    fetch_if_needed(["sid"], must=False)
    (line,) = capsys.readouterr().out.splitlines()
    assert "need etcd 3.5.30 or later (no etcd-server for sid)" in line
    assert "will be skipped" in line
    assert "make test-etcds" in line


def test_nothing_is_skipped_under_ci(etcds: list[EtcdBinary]) -> None:
    with pytest.raises(CannotFetch, match="under CI they may not be skipped"):
        fetch_if_needed(["sid"], must=True)


def test_nothing_is_fetched_where_one_is_here(etcds: list[EtcdBinary]) -> None:
    etcds.append(EtcdBinary(path=Path("etcd"), version="3.5.30"))
    fetch_if_needed(["sid"], must=True)
