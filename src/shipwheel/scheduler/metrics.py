"""The scheduler's metrics, under upstream's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shipwheel.client.metrics import Metrics, exponential

if TYPE_CHECKING:
    from shipwheel.scheduler.queue import SchedulingQueue
    from shipwheel.scheduler.table import NodeTable

_QUEUES = (("active", "active"), ("backoff", "backoff"), ("unschedulable", "unschedulable"), ("gated", "gated"))


class SchedulerMetrics:
    """`scheduler_*`."""

    def __init__(self, metrics: Metrics) -> None:
        by_result = ("result", "profile")
        self.attempts = metrics.counter(
            "scheduler_schedule_attempts_total",
            "[STABLE] Number of attempts to schedule pods, by the result.",
            by_result,
        )
        self.attempt_seconds = metrics.histogram(
            "scheduler_scheduling_attempt_duration_seconds",
            "[STABLE] Scheduling attempt latency in seconds (scheduling algorithm + binding)",
            exponential(0.001, 2, 15),
            by_result,
        )
        self.algorithm_seconds = metrics.histogram(
            "scheduler_scheduling_algorithm_duration_seconds",
            "[ALPHA] Scheduling algorithm latency in seconds",
            exponential(0.001, 2, 15),
        )
        self.sli_seconds = metrics.histogram(
            "scheduler_pod_scheduling_sli_duration_seconds",
            "[BETA] E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue.",
            exponential(0.01, 2, 20),
            ("attempts",),
        )
        self.tries = metrics.histogram(
            "scheduler_pod_scheduling_attempts",
            "[STABLE] Number of attempts to successfully schedule a pod.",
            exponential(1, 2, 5),
        )
        self.victims = metrics.histogram(
            "scheduler_preemption_victims", "[STABLE] Number of selected preemption victims", exponential(1, 2, 7)
        )
        self.preemptions = metrics.counter(
            "scheduler_preemption_attempts_total", "[STABLE] Total preemption attempts in the cluster till now"
        )
        self.pending = metrics.gauge(
            "scheduler_pending_pods", "[STABLE] Number of pending pods, by the queue type.", ("queue",)
        )
        self.incoming = metrics.counter(
            "scheduler_queue_incoming_pods_total",
            "[STABLE] Number of pods added to scheduling queues by event and queue type.",
            ("queue", "event"),
        )
        self.cache_size = metrics.gauge(
            "scheduler_cache_size",
            "[ALPHA] Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
            ("type",),
        )
        self.unschedulable = metrics.gauge(
            "scheduler_unschedulable_pods",
            "[ALPHA] The number of unschedulable pods broken down by plugin name.",
            ("plugin", "profile"),
        )
        self.flushed = metrics.counter(
            "scheduler_pod_scheduled_after_flush_total",
            "[ALPHA] Number of pods that were scheduled after they had waited for too long.",
        )
        self.goroutines = metrics.gauge("scheduler_goroutines", "[ALPHA] Number of bindings under way.", ("operation",))
        self.permit_wait = metrics.histogram(
            "scheduler_permit_wait_duration_seconds",
            "[ALPHA] Duration of waiting on permit.",
            exponential(0.001, 2, 15),
            ("result",),
        )

        self.points = metrics.histogram(
            "scheduler_framework_extension_point_duration_seconds",
            "[STABLE] Latency for running all plugins of a specific extension point.",
            exponential(0.0001, 2, 12),
            ("extension_point", "status", "profile"),
        )
        self.in_flight = metrics.gauge(
            "scheduler_inflight_events",
            "[ALPHA] Number of events currently tracked in the scheduling queue.",
            ("event",),
        )

    def observer(self, profile: str) -> Callable[[str, str, float], None]:
        """What measures the extension points of a profile."""
        known: dict[tuple[str, str], Any] = {}

        def observe(point: str, status: str, seconds: float) -> None:
            series = known.get((point, status))
            if series is None:
                series = known[point, status] = self.points.labels(point, status, profile)
            series.observe(seconds)

        return observe

    def attempted(self, result: str, profile: str, seconds: float) -> None:
        """`scheduled`, `unschedulable` or `error`."""
        self.attempts.labels(result, profile).inc()
        self.attempt_seconds.labels(result, profile).observe(seconds)

    def refresh(self, queue: SchedulingQueue, table: NodeTable, assumed: int) -> None:
        """Bring the gauges up to date."""
        for name, place in _QUEUES:
            self.pending.labels(name).set(queue.size(place))  # type: ignore[arg-type]
        self.cache_size.labels("nodes").set(table.count)
        self.cache_size.labels("pods").set(len(table.entries))
        self.cache_size.labels("assumed_pods").set(assumed)
        self.in_flight.clear()
        for event, number in queue.missed().items():
            self.in_flight.labels(event).set(number)
        self.unschedulable.clear()
        for (plugin, profile), number in queue.refused_by().items():
            self.unschedulable.labels(plugin, profile).set(number)
