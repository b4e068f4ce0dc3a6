"""Where a job's fields about its agents contradict each other."""

from __future__ import annotations

from typing import Any, Final

from etcsched.core.states import HostsFor, Lifecycle, Placement
from etcsched.jobfile.nodes import FieldError, Value

__all__ = ["check_hosts"]

_NEEDS_HOSTS: Final = (
    "placement: fixed_priority takes the job's hosts in their order; give it hosts"
)
_BINDS_NOTHING: Final = "hosts_for says which runs hosts and require bind, and it has neither"
_ONCE: Final = (Lifecycle.CLUSTER_STARTUP, Lifecycle.CLUSTER_SHUTDOWN, Lifecycle.CLUSTER_BOTH)
_RUNS_ONCE: Final = (
    "ticks run on each agent, and it has no schedule: what is begun with the cluster, or ends with "
    "it, runs once; take lifecycle: host_startup, host_shutdown or host_both, or no per_host"
)
_CHOOSES_NOTHING: Final = "there is nothing to choose: per_host runs on every agent that may run it"


def check_hosts(own: dict[str, Value], defaults: dict[str, Value], read: dict[str, Any]) -> None:
    """``own`` and ``defaults`` are what is written, ``read`` what was made of it."""
    if read.get("placement") is Placement.FIXED_PRIORITY and not read.get("hosts"):
        raise FieldError({**defaults, **own}["placement"], _NEEDS_HOSTS)
    if read.get("per_host"):
        for name in ("placement", "prefer"):
            if name in own:
                raise FieldError(own[name], _CHOOSES_NOTHING)
        written = {**defaults, **own}
        if read.get("lifecycle") in _ONCE and not written.keys() & {"schedule", "windows"}:
            raise FieldError(written["per_host"], _RUNS_ONCE)
    has_any = read.get("hosts") or read.get("require")
    if "hosts_for" in own and read.get("hosts_for") is HostsFor.SCHEDULED and not has_any:
        raise FieldError(own["hosts_for"], _BINDS_NOTHING)
