"""A scheduler node's settings."""

from __future__ import annotations

from pathlib import Path

import msgspec

from etcsched.core.leader.context import Options
from etcsched.core.names import check_node_name
from etcsched.files import state_directory
from etcsched.keyspace.keys import DEFAULT_PREFIX
from etcsched.serving.address import Listen


class SchedulerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``UsageError`` names what is wrong in one line.

    ``session_ttl_s``: how long etcd keeps a node's place after its last sign of life.

    ``state_dir``: where it remembers how far the cluster had come; None: below the system's or the
    user's state.

    ``is_demo``: etcd is this command's own, so a version that may lose data is no harm.
    """

    node: str
    prefix: str = DEFAULT_PREFIX
    session_ttl_s: int = 10
    is_demo: bool = False
    allow_unfenced_auth: bool = False
    accept_restored_cluster: bool = False
    state_dir: Path | None = None
    options: Options = Options()
    listen: Listen | None = None

    def __post_init__(self) -> None:
        check_node_name("scheduler", self.node)

    @property
    def directory(self) -> Path:
        return self.state_dir or state_directory("scheduler", self.node)
