"""Metrics with upstream's names, on prometheus-client: what all components have in common.

Every component has its own registry (several may live in one process), so nothing here is global. A component
makes one `Metrics`, hands parts of it to its client, queues and elector, and adds its own instruments to
`metrics.registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from shipwheel.client.histogram import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Instrument = TypeVar("Instrument")

disable_created_metrics()


def exponential(start: float, factor: float, count: int) -> tuple[float, ...]:
    """Upper bounds of buckets, each `factor` times the one before."""
    return tuple(start * factor**power for power in range(count))


class Metrics:
    """A component's registry, and the instruments that client, queues and leader election share in it.

    An instrument that is asked for by a name that there is already is that one: parts may share it. Those that are
    `disabled`, by their names, are not shown."""

    def __init__(self, *, process: bool = True, disabled: Collection[str] = ()) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._disabled = frozenset(disabled)
        self._made: dict[str, Any] = {}
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)

    def exposition(self) -> bytes:
        """The text that `/metrics` answers."""
        return generate_latest(self.registry)

    def counter(self, name: str, help: str, labels: tuple[str, ...] = ()) -> Counter:
        return self._once(name, lambda: Counter(name, help, labels, registry=self._shown(name)))

    def gauge(self, name: str, help: str, labels: tuple[str, ...] = ()) -> Gauge:
        return self._once(name, lambda: Gauge(name, help, labels, registry=self._shown(name)))

    def histogram(self, name: str, help: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Histogram:
        def make() -> Histogram:
            made = Histogram(name, help, labels, buckets)
            if registry := self._shown(name):
                registry.register(made)
            return made

        return self._once(name, make)

    def _shown(self, name: str) -> CollectorRegistry | None:
        """Where an instrument is registered; nowhere if it is disabled."""
        return None if name in self._disabled else self.registry

    def _once(self, name: str, make: Callable[[], Instrument]) -> Instrument:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    @cached_property
    def client(self) -> ClientMetrics:
        return ClientMetrics(self)

    @cached_property
    def queues(self) -> QueueMetrics:
        return QueueMetrics(self)

    @cached_property
    def election(self) -> ElectionMetrics:
        return ElectionMetrics(self)


class ClientMetrics:
    """`rest_client_*`."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests = metrics.counter(
            "rest_client_requests_total",
            "[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.",
            ("code", "method", "host"),
        )
        self._duration = metrics.histogram(
            "rest_client_request_duration_seconds",
            "[ALPHA] Request latency in seconds. Broken down by verb, and host.",
            (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0),
            ("verb", "host"),
        )
        self._answered: dict[tuple[int, str, str], Counter] = {}

    def answered(self, host: str, method: str, status: int, seconds: float) -> None:
        counter = self._answered.get((status, method, host))
        if counter is None:
            counter = self._answered[status, method, host] = self._requests.labels(str(status), method, host)
        counter.inc()
        self._duration.labels(method, host).observe(seconds)

    def failed(self, host: str, method: str) -> None:
        self._requests.labels("<error>", method, host).inc()


class QueueMetrics:
    """`workqueue_*`."""

    def __init__(self, metrics: Metrics) -> None:
        buckets = exponential(10e-9, 10, 10)
        name = ("name",)
        self.depth = metrics.gauge("workqueue_depth", "[BETA] Current depth of workqueue", name)
        self.adds = metrics.counter("workqueue_adds_total", "[BETA] Total number of adds handled by workqueue", name)
        self.latency = metrics.histogram(
            "workqueue_queue_duration_seconds",
            "[BETA] How long in seconds an item stays in workqueue before being requested.",
            buckets,
            name,
        )
        self.work = metrics.histogram(
            "workqueue_work_duration_seconds",
            "[BETA] How long in seconds processing an item from workqueue takes.",
            buckets,
            name,
        )
        self.unfinished = metrics.gauge(
            "workqueue_unfinished_work_seconds",
            "[BETA] How many seconds of work has done that is in progress and hasn't been observed by work_duration. "
            "Large values indicate stuck threads. One can deduce the number of stuck threads by observing the rate "
            "at which this increases.",
            name,
        )
        self.longest = metrics.gauge(
            "workqueue_longest_running_processor_seconds",
            "[BETA] How many seconds has the longest running processor for workqueue been running.",
            name,
        )
        self.retries = metrics.counter(
            "workqueue_retries_total", "[BETA] Total number of retries handled by workqueue", name
        )


class ElectionMetrics:
    """`leader_election_*`."""

    def __init__(self, metrics: Metrics) -> None:
        self.status = metrics.gauge(
            "leader_election_master_status",
            "[ALPHA] Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, "
            "1 indicates master. 'name' is the string used to identify the lease. Please make sure to group by name.",
            ("name",),
        )
        self.slow_path = metrics.counter(
            "leader_election_slowpath_total",
            "[ALPHA] Total number of slow path exercised in renewing leader leases. 'name' is the string used to "
            "identify the lease. Please make sure to group by name.",
            ("name",),
        )


class HealthMetrics:
    """What `/metrics/slis` answers: the results of the health checks that were asked for. In a registry of its own,
    so that it can be read often."""

    def __init__(self) -> None:
        self._metrics = Metrics(process=False)
        self._last = self._metrics.gauge(
            "kubernetes_healthcheck",
            "[STABLE] This metric records the result of a single healthcheck.",
            ("name", "type"),
        )
        self._total = self._metrics.counter(
            "kubernetes_healthchecks_total",
            "[STABLE] This metric records the results of all healthcheck.",
            ("name", "type", "status"),
        )

    def observe(self, check: str, kind: str, *, ok: bool) -> None:
        """A check, asked for by a path: `kind` is `healthz`, `livez` or `readyz`."""
        self._last.labels(check, kind).set(ok)
        self._total.labels(check, kind, "success" if ok else "error").inc()

    def exposition(self) -> bytes:
        return self._metrics.exposition()
