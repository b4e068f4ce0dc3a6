"""What both daemons tell Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from etcsched import __version__

__all__ = ["Gauges", "NodeMetrics"]

Labelled = dict[str, float]
"""Values by their label's."""

_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SLACK_S = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 30.0)
_BATCH = (1, 2, 5, 10, 20, 50, 100)


class Gauges(Collector):
    """Values that are looked up when somebody asks, by name: (help, label or "", how)."""

    def __init__(
        self, gauges: dict[str, tuple[str, str, Callable[[], float | Labelled | None]]]
    ) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, (help_, label, look) in self._gauges.items():
            family = GaugeMetricFamily(name, help_, labels=[label] if label else [])
            match look():
                case None:
                    pass
                case dict() as values:
                    for value, number in values.items():
                        family.add_metric([value], number)
                case number:
                    family.add_metric([], number)
            yield family


class NodeMetrics:
    """One a process. Names begin with ``etcsched_``; durations are seconds, sizes bytes."""

    def __init__(
        self, role: str, name: str, *, mono_s: Callable[[], float], session_deadline_s: float = 0.0
    ) -> None:
        self.registry = CollectorRegistry()
        self._mono_s = mono_s
        self._deadline_s = session_deadline_s
        ProcessCollector(registry=self.registry)
        info = Info("etcsched_node", "Which daemon this is.", registry=self.registry)
        info.info({"role": role, "name": name, "version": __version__})
        self._call_s = Histogram(
            "etcsched_etcd_call_seconds",
            "How long calls to etcd took, those included that failed.",
            ["call"],
            buckets=_LATENCY_S,
            registry=self.registry,
        )
        self._failures = Counter(
            "etcsched_etcd_call_failures",
            "Calls to etcd that ended in an error, or without an answer in time.",
            ["call"],
            registry=self.registry,
        )
        self._batch = Histogram(
            "etcsched_batch_writes",
            "Writes that went to etcd in one transaction.",
            buckets=_BATCH,
            registry=self.registry,
        )
        self._slack_s = Histogram(
            "etcsched_session_slack_seconds",
            "What was left of the session each time that etcd renewed it.",
            buckets=_SLACK_S,
            registry=self.registry,
        )
        self._sessions_lost = Counter(
            "etcsched_sessions_lost",
            "Sessions that ended though the daemon went on.",
            registry=self.registry,
        )
        # Finding a labelled child takes longer than observing.
        self._call_children: dict[str, Histogram] = {}
        self.add_gauges(
            {
                "etcsched_session_remaining_seconds": (
                    "Until the session ends, unless etcd renews it; 0: there is none.",
                    "",
                    lambda: max(self._deadline_s - self._mono_s(), 0.0),
                )
            }
        )

    def add_gauges(
        self, gauges: dict[str, tuple[str, str, Callable[[], float | Labelled | None]]]
    ) -> None:
        self.registry.register(Gauges(gauges))

    def text(self) -> bytes:
        """All of them as they are now, in Prometheus's text format."""
        return generate_latest(self.registry)

    def called(self, call: str, took_s: float, has_failed: bool) -> None:
        child = self._call_children.get(call)
        if child is None:
            child = self._call_children[call] = self._call_s.labels(call)
        child.observe(took_s)
        if has_failed:
            self._failures.labels(call).inc()

    def batch_sent(self, writes: int) -> None:
        self._batch.observe(writes)

    def session_opened(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s

    def session_renewed(self, deadline_s: float) -> None:
        self._slack_s.observe(self._deadline_s - self._mono_s())
        self._deadline_s = deadline_s

    def session_lost(self) -> None:
        self._sessions_lost.inc()
        self._deadline_s = 0.0
