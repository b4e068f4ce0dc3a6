"""An agent's settings, checked on construction, and what follows from them."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

import msgspec

from etcsched.core.agent.users import ANY_BUT_ROOT
from etcsched.core.errors import UsageError
from etcsched.core.names import check_node_name
from etcsched.files import state_directory
from etcsched.keyspace.keys import DEFAULT_PREFIX
from etcsched.serving.address import Address, Listen

_TAKEOVER_S = 3.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FROM_OWN_ENVIRONMENT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ")


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``UsageError`` names what is wrong in one line.

    ``id`` empty: the host's name. ``slots`` 0: four a processor. ``state_dir`` None: below
    /var/lib (root) or ~/.local/state; one for each id.

    ``users``: those whom jobs may name; only root can have any but itself. Empty: of an agent that
    runs as root everyone but root, else itself. ``default_user`` is whom a job without a user runs
    as; empty: of an agent that runs as root nobody, so that such a job is declined.

    ``output_listen`` is where output is served (None: nowhere), ``output_address`` what others
    reach it by; empty: found out, and the port is the one it listens on. ``output_port_may_vary``:
    where that port is taken, any other will do.

    ``output_cap_bytes`` is kept of one attempt's output, ``output_keep_bytes`` and
    ``output_keep_s`` of all. ``isolate`` (root only): a PID namespace around all attempts.
    """

    id: str = ""
    slots: int = 0
    labels: dict[str, str] = {}
    users: tuple[str, ...] = ()
    default_user: str = ""
    prefix: str = DEFAULT_PREFIX
    state_dir: Path | None = None
    session_ttl_s: int = 10
    stop_timeout_s: float = 60.0
    shutdown_timeout_s: float = 60.0
    output_cap_bytes: int = 16 << 20
    output_keep_bytes: int = 1 << 30
    output_keep_s: float = 7 * 86400.0
    isolate: bool = False
    use_cgroup: bool = True
    accept_restored_cluster: bool = False
    is_demo: bool = False
    allow_unfenced_auth: bool = False
    listen: Listen | None = None
    output_listen: Address | None = None
    output_port_may_vary: bool = False
    output_address: str = ""

    def __post_init__(self) -> None:
        check_node_name("agent", self.agent_id)
        if self.slots < 0:
            raise UsageError(f"{self.slots} slots: an agent has at least 1")
        if os.geteuid() != 0:
            others = {*self.users, self.default_user} - {"", own_user()}
            if others:
                raise UsageError(
                    f"only an agent that runs as root can run jobs as {', '.join(sorted(others))}"
                )
        elif self.default_user and self.users and self.default_user not in self.users:
            raise UsageError(f"default user {self.default_user} isn't among the allowed users")

    @property
    def agent_id(self) -> str:
        return self.id or socket.gethostname()

    @property
    def leader_wait_s(self) -> float:
        """A leader that has died has a successor by then, if schedulers have the same TTL."""
        return self.session_ttl_s + _TAKEOVER_S

    @property
    def slot_count(self) -> int:
        return self.slots or 4 * (os.cpu_count() or 1)

    @property
    def allowed_users(self) -> tuple[str, ...]:
        """As a presence says it (``core.agent.users``)."""
        if os.geteuid() != 0:
            return (own_user(),)
        if self.users:
            return self.users
        return (ANY_BUT_ROOT, *((self.default_user,) if self.default_user else ()))

    @property
    def effective_default_user(self) -> str:
        return self.default_user or ("" if os.geteuid() == 0 else own_user())

    @property
    def directory(self) -> Path:
        if self.state_dir is not None:
            return self.state_dir.absolute()
        return state_directory("agent", self.agent_id)


def own_user() -> str:
    """Its number where it has no name, as in many containers."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def base_environment() -> dict[str, str]:
    """What every process sees of the agent's own environment: little, and never its secrets."""
    found = {name: os.environ[name] for name in _FROM_OWN_ENVIRONMENT if name in os.environ}
    found.setdefault("PATH", _PATH)
    return found
