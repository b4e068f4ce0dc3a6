"""Reading apt's sources and listings, in both of their formats."""

from __future__ import annotations

from pathlib import Path

from tests.support.fetch_etcd import apt_mirrors, parse_stanzas

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
