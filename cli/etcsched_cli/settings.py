"""What the global options, the environment and the configuration file say together."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from click.core import ParameterSource

from etcsched.core.errors import UsageError
from etcsched.operator.ids import ENTROPY_BYTES
from etcsched_cli.config_file import PASSWORD

if TYPE_CHECKING:
    from etcsched.etcd.config import EtcdConfig
    from etcsched.ports import Etcd

__all__ = ["Environment", "Settings"]

_ENDPOINTS: Final = "ETCSCHED_ENDPOINTS"


def open_client(config: EtcdConfig, timeout_s: float) -> Etcd:
    from etcsched_cli.client import PatientClient

    return PatientClient(config, timeout_s)


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What a command takes from outside; tests give their own as click's ``obj``."""

    open_etcd: Callable[[EtcdConfig, float], Etcd] = open_client
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    entropy: Callable[[], bytes] = lambda: os.urandom(ENTROPY_BYTES)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """``endpoints`` empty: the environment says so, and what needs a cluster refuses that, since
    click's default would be this machine's. ``password`` None: not given. ``timeout_s`` bounds one
    answer."""

    environment: Environment
    endpoints: tuple[str, ...]
    prefix: str
    cacert: str | None
    cert: str | None
    key: str | None
    user: str | None
    password: str | None
    timeout_s: float

    @staticmethod
    def of(ctx: click.Context, options: dict[str, Any]) -> Settings:
        from etcsched.core.durations import parse_duration_s

        endpoints = tuple(part.strip() for part in options["endpoints"].split(",") if part.strip())
        if _is_emptied(ctx):
            endpoints = ()
        elif not endpoints:
            raise UsageError("--endpoints: is empty; name at least one as host:port")
        user, colon, password = (options["user"] or "").partition(":")
        try:
            timeout_s = parse_duration_s(options["timeout"])
        except ValueError as error:
            raise UsageError(f"--timeout: {error}") from None
        if not timeout_s:
            raise UsageError("--timeout: must be longer than 0s")
        return Settings(
            environment=ctx.obj if isinstance(ctx.obj, Environment) else Environment(),
            endpoints=endpoints,
            prefix=options["prefix"],
            cacert=options["cacert"],
            cert=options["cert"],
            key=options["key"],
            user=user or None,
            password=password
            if colon
            else os.environ.get("ETCSCHED_PASSWORD", ctx.meta.get(PASSWORD)),
            timeout_s=timeout_s,
        )

    def etcd_config(self) -> EtcdConfig:
        """``UsageError`` names what is wrong. Asks for a missing password on a terminal."""
        from etcsched.etcd.config import EtcdConfig

        if not self.endpoints:
            raise UsageError(
                f"{_ENDPOINTS}: is set, but empty; name at least one as host:port, or unset it"
            )
        password = self.password if self.user else None
        if self.user and password is None:
            if not sys.stdin.isatty():
                raise UsageError(f"--user {self.user}: has no password; set ETCSCHED_PASSWORD")
            password = click.prompt(f"Password of {self.user}", hide_input=True, err=True)
        return EtcdConfig(
            endpoints=self.endpoints,
            ca_cert=_path(self.cacert),
            cert=_path(self.cert),
            key=_path(self.key),
            user=self.user,
            password=password,
            dial_timeout_s=min(self.timeout_s, 2.0),
        )

    @property
    def operator(self) -> str:
        """Who asks, for records: user@host."""
        import getpass
        import socket

        try:
            user = getpass.getuser()
        except (ImportError, KeyError, OSError):  # a container's user may have no name
            user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
        who = f"{user}@{socket.gethostname()}"
        return who.encode(errors="replace").decode()  # A name needn't be text, a record is.


def _is_emptied(ctx: click.Context) -> bool:
    """click takes an empty variable for none."""
    is_overruled = ctx.get_parameter_source("endpoints") is ParameterSource.COMMANDLINE
    return not is_overruled and not os.environ.get(_ENDPOINTS, "x").replace(",", " ").strip()


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None
