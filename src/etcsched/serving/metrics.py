"""What both daemons tell Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Info, ProcessCollector, generate_latest

from etcsched import __version__

__all__ = ["NodeMetrics"]


class NodeMetrics:
    """One a process. Names begin with ``etcsched_``; durations are seconds, sizes bytes."""

    def __init__(self, role: str, name: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        info = Info("etcsched_node", "Which daemon this is.", registry=self.registry)
        info.info({"role": role, "name": name, "version": __version__})

    def text(self) -> bytes:
        """All of them as they are now, in Prometheus's text format."""
        return generate_latest(self.registry)
