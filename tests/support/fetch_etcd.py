"""Fetch the etcd servers of Debian's other suites, to run the tests against several versions.

``python -m tests.support.fetch_etcd`` (``make test-etcds``) takes the mirrors that this machine's
apt already uses, looks up ``etcd-server`` in each suite, and keeps its binary as
``.cache/etcd/<version>/etcd``. Nothing is installed. A package is checked against the SHA-256 of
the mirror's own listing; the listing's signature isn't checked, so this is for tests only.

With ``--needed`` (``make test``) it fetches nothing where an etcd that holds roles is here already,
and where none can be had it says what is then skipped; under CI that is a failure.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path

import msgspec

from etcsched.core.errors import EtcschedError
from etcsched.etcd.binaries import EtcdBinary, find_etcd, probe_etcd

CACHE_DIR = Path(__file__).resolve().parents[2] / ".cache" / "etcd"
SUITES = ("trixie", "sid")
PACKAGE = "etcd-server"
DOWNLOAD_TIMEOUT_S = 120
CHOICE_VARIABLE = "ETCSCHED_TEST_ETCD"
LEAST_FOR_ROLES = (3, 5, 30)
"""Before, roles don't hold for nested transactions (3.4.44 would do too)."""


class CannotFetch(EtcschedError):
    """One line: what can't be had here, and why."""


def local_etcds() -> list[EtcdBinary]:
    """The one on PATH and those fetched, one of each version, oldest first."""
    fetched = (probe_etcd(path) for path in sorted(CACHE_DIR.glob("*/etcd")))
    found = {binary.version: binary for binary in (find_etcd(), *fetched) if binary}
    return sorted(found.values(), key=lambda binary: binary.version_tuple)


def holds_roles(binary: EtcdBinary) -> bool:
    return binary.version_tuple >= LEAST_FOR_ROLES


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One suite's etcd-server; ``version`` is etcd's own, without Debian's revision."""

    version: str
    url: str
    sha256: str


def parse_stanzas(text: str) -> Iterator[dict[str, str]]:
    """The stanzas of a deb822 file (sources, Packages), continuation lines joined by blanks."""
    stanza: dict[str, str] = {}
    field = ""
    for line in (*text.splitlines(), ""):
        if line.startswith("#"):
            continue
        if not line.strip():
            if stanza:
                yield stanza
            stanza, field = {}, ""
        elif line[0] in " \t":
            stanza[field] += " " + line.strip()
        else:
            field, _, value = line.partition(":")
            stanza[field] = value.strip()


def mirrors_of_sources(text: str) -> Iterator[str]:
    """The addresses in a ``.sources`` file."""
    for stanza in parse_stanzas(text):
        if stanza.get("Enabled", "yes") != "no" and "deb" in stanza.get("Types", "").split():
            yield from stanza.get("URIs", "").split()


def mirrors_of_list(text: str) -> Iterator[str]:
    """The addresses in a one-line-style ``.list`` file: ``deb [options] address suite ...``."""
    for line in text.splitlines():
        kind, _, rest = line.partition("#")[0].strip().partition(" ")
        if kind == "deb":
            rest = rest.strip()
            if rest.startswith("["):
                rest = rest.partition("]")[2]
            yield from rest.split()[:1]


def apt_mirrors(apt_dir: Path = Path("/etc/apt")) -> list[str]:
    """Each address once, in apt's order; third parties' fail later by having no such suite."""
    found: dict[str, None] = {}
    files = [apt_dir / "sources.list"]
    for pattern in ("*.list", "*.sources"):
        files += sorted((apt_dir / "sources.list.d").glob(pattern))
    for path in files:
        if path.is_file():
            parse = mirrors_of_sources if path.suffix == ".sources" else mirrors_of_list
            for url in parse(path.read_text()):
                if url.partition(":")[0] in {"http", "https", "file"}:
                    found[url.rstrip("/")] = None
    return list(found)


def download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as response:
        body: bytes = response.read()
        return body


def find_package(mirror: str, suite: str, architecture: str) -> Package | None:
    """None where this mirror doesn't have the suite, or the suite not the package."""
    listing = f"{mirror}/dists/{suite}/main/binary-{architecture}/Packages.xz"
    try:
        text = lzma.decompress(download(listing)).decode()
    except (OSError, HTTPException, lzma.LZMAError):
        return None
    start = text.find(f"Package: {PACKAGE}\n")
    if start < 0:
        return None
    stanza = next(parse_stanzas(text[start : text.find("\n\n", start)]))
    version = stanza["Version"].rpartition(":")[2].partition("-")[0].partition("+")[0]
    return Package(version=version, url=f"{mirror}/{stanza['Filename']}", sha256=stanza["SHA256"])


def unpack(package: Package, target: Path) -> None:
    """Put the package's etcd at ``target``, whole or not at all."""
    try:
        archive = download(package.url)
    except (OSError, HTTPException) as error:
        raise CannotFetch(f"{package.url}: {error}") from None
    if hashlib.sha256(archive).hexdigest() != package.sha256:
        raise CannotFetch(f"{package.url}: its SHA-256 isn't the one in the mirror's listing")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        deb = Path(scratch, "etcd.deb")
        deb.write_bytes(archive)
        subprocess.run(["dpkg", "-x", str(deb), f"{scratch}/root"], check=True)
        shutil.move(f"{scratch}/root/usr/bin/etcd", f"{scratch}/etcd")
        os.replace(f"{scratch}/etcd", target)


def fetch(suites: Sequence[str]) -> None:
    """Each suite's etcd into the cache; ``CannotFetch`` after the others have been fetched."""
    if shutil.which("dpkg") is None:
        raise CannotFetch("only on Debian and its kin: there is no dpkg here")
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    mirrors = apt_mirrors()
    missing = []
    for suite in suites:
        found = (find_package(mirror, suite, architecture) for mirror in mirrors)
        package = next(filter(None, found), None)
        if package is None:
            missing.append(suite)
            continue
        target = CACHE_DIR / package.version / "etcd"
        if not target.exists():
            unpack(package, target)
        print(f"{suite}: etcd {package.version} is {target}")
    if missing:
        raise CannotFetch(
            f"no {PACKAGE} for {', '.join(missing)} on apt's mirrors ({', '.join(mirrors)})"
        )


def fetch_if_needed(suites: Sequence[str], *, must: bool) -> None:
    """``must``: to go without is a failure (``CannotFetch``), not a remark."""
    if os.environ.get(CHOICE_VARIABLE) or any(map(holds_roles, local_etcds())):
        return
    why = ""
    try:
        fetch(suites)
    except CannotFetch as error:
        why = f" ({error})"
    if any(map(holds_roles, local_etcds())):
        return
    least = ".".join(map(str, LEAST_FOR_ROLES))
    text = f"tests of roles (tests/e2e/test_roles.py) need etcd {least} or later{why}"
    if must:
        raise CannotFetch(f"{text}; under CI they may not be skipped")
    print(f"fetch_etcd: {text}: they will be skipped; put one on PATH, or try make test-etcds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("suites", nargs="*", default=SUITES, help="Debian suites (%(default)s)")
    parser.add_argument(
        "--needed", action="store_true", help="only where no etcd is here that holds roles"
    )
    options = parser.parse_args()
    try:
        if options.needed:
            fetch_if_needed(options.suites, must=is_ci())
        else:
            fetch(options.suites)
    except CannotFetch as error:
        sys.exit(f"fetch_etcd: {error}")


def is_ci() -> bool:
    return os.environ.get("CI", "").lower() == "true"


if __name__ == "__main__":
    main()
