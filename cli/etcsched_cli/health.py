"""etcsched health: what a container's health check asks of the daemon beside it."""

from __future__ import annotations

import http.client
import os
from http import HTTPStatus
from pathlib import Path

import click
import msgspec

from etcsched.core.errors import EtcschedError
from etcsched.serving.address import AGENT_LISTEN, OFF, SCHEDULER_LISTEN, Address, read_token
from etcsched_cli.output import clean
from etcsched_cli.settings import Settings

_MOST_LINE_BYTES = 1 << 10
_DEFAULTS = {"scheduler": SCHEDULER_LISTEN, "agent": AGENT_LISTEN}


class _Place(msgspec.Struct, frozen=True):
    what: str
    address: Address
    token: str


class _NobodyThere(Exception):
    pass


@click.command(short_help="Ask this host's daemons whether they are well.")
@click.argument("daemon", type=click.Choice(["scheduler", "agent"]), required=False)
@click.option("--address", metavar="HOST:PORT", help="Where it listens, if it isn't told below.")
@click.option(
    "--listen-token-file",
    "token_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The token that it wants, with --address.",
)
@click.pass_obj
def health(
    settings: Settings, daemon: str | None, address: str | None, token_file: Path | None
) -> None:
    """Ask the scheduler and the agent of this host whether they are well: exit code 0, or 1 if one
    isn't or none answers. One line says more.

    They are looked for where ETCSCHED_SCHEDULER_LISTEN and ETCSCHED_AGENT_LISTEN say that they
    listen (and ..._LISTEN_TOKEN_FILE their tokens), else at their default addresses. Without
    DAEMON, one of the two is enough.

    \b
    etcsched health
    etcsched health agent
    etcsched health --address 127.0.0.1:7700
    """
    if address is not None:
        token = read_token(token_file) if token_file is not None else ""
        place = Address.parse(address, "--address").from_here
        places = [_Place(daemon or "daemon", place, token)]
    else:
        places = _places(daemon)
    if not places:
        raise EtcschedError("nothing of this host listens: its --listen is off")
    words: list[str] = []
    failures: list[str] = []
    nobody: list[str] = []
    for asked in places:
        try:
            is_well, line = _ask(asked, settings.timeout_s)
        except _NobodyThere:
            nobody.append(f"no {asked.what} at {asked.address}")
            continue
        (words if is_well else failures).append(line)
    if failures:
        raise EtcschedError("; ".join(failures))
    if not words:
        raise EtcschedError(", ".join(nobody) + ": start it, or name its --address")
    click.echo("; ".join(words))


def _places(daemon: str | None) -> list[_Place]:
    places = []
    for name, default in _DEFAULTS.items():
        variable = f"ETCSCHED_{name.upper()}_LISTEN"
        text = os.environ.get(variable) or default
        if daemon not in (None, name) or text == OFF:
            continue
        file = os.environ.get(f"{variable}_TOKEN_FILE")
        address = Address.parse(text, variable).from_here
        token = read_token(Path(file)) if file else ""
        places.append(_Place(name, address, token))
    return places


def _ask(place: _Place, timeout_s: float) -> tuple[bool, str]:
    """Whether it is well, and its line."""
    address = place.address
    connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)
    headers = {"Authorization": f"Bearer {place.token}"} if place.token else {}
    try:
        connection.request("GET", "/healthz", headers=headers)
        response = connection.getresponse()
        text = response.read(_MOST_LINE_BYTES).decode(errors="replace")
        line = clean(" ".join(text.split()))
    except ConnectionRefusedError:
        raise _NobodyThere from None
    except TimeoutError:
        return False, f"{place.what} at {address}: no answer within {timeout_s:g} s"
    except http.client.HTTPException:
        return False, f"{place.what} at {address}: what answers there isn't etcsched"
    except OSError as error:
        return False, f"{place.what} at {address}: {error.strerror or error}"
    finally:
        connection.close()
    if response.status in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE):
        return response.status == HTTPStatus.OK, line
    return False, f"{place.what} at {address}: {response.status} {line}"
