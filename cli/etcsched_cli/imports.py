"""etcsched import: job files from what other schedulers have."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from etcsched.core.errors import UsageError
from etcsched.files import STDIN, decoded, read_text
from etcsched.jobfile.reading import read_file
from etcsched_cli.settings import Settings

__all__ = ["import_"]

_SYSTEM: Final = ("/etc/crontab", "/etc/cron.d")
_TIMEOUT_S: Final = 10.0
_MAX_BYTES: Final = 4 << 20


@click.group("import", short_help="Turn crontabs into job files.")
def import_() -> None:
    """Turn what other schedulers have into job files. Nothing is applied."""


@import_.command()
@click.argument("files", nargs=-1, metavar="[FILE...]")
@click.option("--system", is_flag=True, help="Each entry names its user, as /etc/crontab does.")
@click.option("--user", metavar="USER", help="Whose crontab it is.  [default: with no FILE, you]")
@click.option("--host", metavar="AGENT", default="", help="Keep the jobs on this agent.")
@click.option("--timezone", metavar="ZONE", help="Cron's zone.  [default: this machine's]")
@click.option("--output", "-o", metavar="FILE", help="Write there, not to standard output.")
@click.pass_context
def crontab(
    ctx: click.Context,
    files: tuple[str, ...],
    system: bool,
    user: str | None,
    host: str,
    timezone: str | None,
    output: str | None,
) -> None:
    """Print a job file that does what crontabs do: your own (crontab -l), with --system
    /etc/crontab and /etc/cron.d, or FILEs (- for stdin).

    What is different then, and what couldn't be carried over, is said on standard error; exit code
    1 if an entry is missing.

    \b
    etcsched import crontab > jobs/mine.yaml
    etcsched import crontab --system --host host-a -o jobs/host-a.yaml
    """
    from etcsched.jobfile.crontab import read_crontab
    from etcsched.jobfile.exporting import to_yaml
    from etcsched.jobfile.from_crontab import flaw_of, import_crontabs

    settings: Settings = ctx.obj
    if system and user:
        raise UsageError("--user: with --system each entry names its own")
    for option, field, given in (
        ("--host", "hosts", host),
        ("--user", "user", user),
        ("--timezone", "timezone", timezone),
    ):
        flaw = flaw_of(field, given) if given else ""
        if flaw:
            raise UsageError(f"{option}: {flaw}")
    if output is not None and Path(output).exists():
        raise UsageError(f"{output}: is there already; choose another name")
    if not files and not system:
        texts = [("crontab", _own())]
        user = user or _me()
    else:
        texts = _read(files or tuple(path for path in _SYSTEM if Path(path).exists()))
    of_system = {name for name, _ in texts if system or (files and _is_system(name))}
    if user and of_system:
        raise UsageError(f"--user: in {min(of_system)} each entry names its own")
    zone, zone_note = (timezone, "") if timezone else _local_zone()
    found = import_crontabs(
        [read_crontab(name, text, is_system=name in of_system) for name, text in texts],
        timezone=zone,
        user=user or "",
        host=host,
        now_ms=settings.environment.now_ms(),
    )
    if not found.document and not found.left_out:
        raise UsageError(f"{', '.join(name for name, _ in texts) or _SYSTEM[0]}: no entries")
    text = f"# from {', '.join(name for name, _ in texts)}; cron's zone: {zone}\n"
    text += to_yaml(found.document) if found.document else ""
    if output is not None:
        with Path(output).open("x", encoding="utf-8") as file:
            file.write(text)
    else:
        click.echo(text, nl=False)
    for note in [*filter(None, [zone_note]), *found.notes]:
        click.echo(f"note: {note}", err=True)
    for missing in found.left_out:
        click.echo(f"left out: {missing}", err=True)
    ctx.exit(1 if found.left_out else 0)


def _own() -> str:
    try:
        done = subprocess.run(
            ["crontab", "-l"], capture_output=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        raise UsageError(
            "crontab -l can't be run here; give a FILE, or - for standard input"
        ) from None
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise UsageError(f"crontab -l: {why or 'failed'}; give a FILE, or - for standard input")
    try:
        return decoded(done.stdout)
    except OSError as error:
        raise UsageError(f"crontab -l: can't be read: {error.strerror}") from None


def _me() -> str:
    try:
        from pwd import getpwuid

        return getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return ""


def _read(paths: Sequence[str]) -> list[tuple[str, str]]:
    """A directory stands for the files in it that cron reads: those without a dot in their name."""
    found = []
    for path in paths:
        names = [path]
        if path != STDIN and Path(path).is_dir():
            inside = sorted(entry for entry in Path(path).iterdir() if entry.is_file())
            names = [str(entry) for entry in inside if not {".", "~"} & {*entry.name}]
        found += [(name, read_file(name, _MAX_BYTES)) for name in names]
    return found


def _is_system(name: str) -> bool:
    """Whether --system goes without saying."""
    path = Path(name).absolute()
    return name != STDIN and any(path.is_relative_to(place) for place in _SYSTEM)


def _local_zone() -> tuple[str, str]:
    """This machine's zone, and what is to be said about it."""
    from etcsched.core.schedule import check_timezone

    candidates = [os.environ.get("TZ", "").lstrip(":")]
    with suppress(OSError):
        candidates.append(read_text("/etc/timezone", _MAX_BYTES).strip())
    candidates.append(str(Path("/etc/localtime").resolve()).rpartition("zoneinfo/")[2])
    for zone in candidates:
        if zone in ("", "Etc/UTC"):
            continue
        try:
            check_timezone(zone)
        except ValueError:
            continue
        return zone, ""
    if "Etc/UTC" in candidates:
        return "UTC", ""
    return "UTC", "this machine's zone isn't known, so times count as UTC's; see --timezone"
