"""What both daemons tell Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from etcsched import __version__

__all__ = ["Gauges", "Histogram", "NodeMetrics"]

Labelled = dict[str, float]
"""Values by their label's."""

_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SLACK_S = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 30.0)
_BATCH = (1, 2, 5, 10, 20, 50, 100)


# They are a second series for each counter, which Prometheus has no use for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Histogram(Collector):
    """Counted in the event loop alone, so that it needs no lock: prometheus_client's own takes five
    times as long, which a leader at thousands of runs a second feels. ``label`` "": there is none.
    """

    def __init__(
        self,
        name: str,
        help_: str,
        buckets: Sequence[float],
        registry: CollectorRegistry,
        label: str = "",
    ) -> None:
        """``buckets`` are their upper bounds, ascending."""
        self._name = name
        self._help = help_
        self._bounds = tuple(float(bound) for bound in buckets)
        self._label = label
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        if not label:
            self._begin("")
        registry.register(self)

    def observe(self, value: float, label: str = "") -> None:
        if label not in self._counts:
            self._begin(label)
        self._counts[label][bisect_left(self._bounds, value)] += 1
        self._sums[label] += value

    def _begin(self, label: str) -> None:
        self._counts[label] = [0] * (len(self._bounds) + 1)
        self._sums[label] = 0.0

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily(
            self._name, self._help, labels=[self._label] if self._label else []
        )
        names = [*map(str, self._bounds), "+Inf"]
        for label, counts in self._counts.items():
            buckets = list(zip(names, accumulate(counts), strict=True))
            family.add_metric([label] if self._label else [], buckets, self._sums[label])
        yield family


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
            _LATENCY_S,
            self.registry,
            label="call",
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
            _BATCH,
            self.registry,
        )
        self._slack_s = Histogram(
            "etcsched_session_slack_seconds",
            "What was left of the session each time that etcd renewed it.",
            _SLACK_S,
            self.registry,
        )
        self._sessions_lost = Counter(
            "etcsched_sessions_lost",
            "Sessions that ended though the daemon went on.",
            registry=self.registry,
        )
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
        self._call_s.observe(took_s, call)
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
