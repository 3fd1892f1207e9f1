"""The scheduler's metrics, under upstream's names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from shipwheel.client.metrics import Metrics, exponential
from shipwheel.scheduler.framework import Meter
from shipwheel.scheduler.queue import QueueMeter, SchedulingQueue

if TYPE_CHECKING:
    from prometheus_client import Counter

    from shipwheel.scheduler.framework import Profile
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
        self._preemption_seconds = metrics.histogram(
            "scheduler_preemption_goroutines_duration_seconds",
            "[ALPHA] Duration in seconds for deleting the victims of a preemption.",
            exponential(0.01, 2, 20),
            ("result",),
        )
        self._preemption_runs = metrics.counter(
            "scheduler_preemption_goroutines_execution_total",
            "[ALPHA] Number of preemptions whose victims were deleted.",
            ("result",),
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
            "[BETA] The number of unschedulable pods broken down by plugin name.",
            ("plugin", "profile"),
        )
        self.flushed = metrics.counter(
            "scheduler_pod_scheduled_after_flush_total",
            "[ALPHA] Number of pods that were scheduled after they had waited for too long.",
        )
        self.goroutines = metrics.gauge("scheduler_goroutines", "[BETA] Number of bindings under way.", ("operation",))
        self.permit_wait = metrics.histogram(
            "scheduler_permit_wait_duration_seconds",
            "[BETA] Duration of waiting on permit.",
            exponential(0.001, 2, 15),
            ("result",),
        )

        self.points = metrics.histogram(
            "scheduler_framework_extension_point_duration_seconds",
            "[STABLE] Latency for running all plugins of a specific extension point.",
            exponential(0.0001, 2, 12),
            ("extension_point", "status", "profile"),
        )
        self.plugins = metrics.histogram(
            "scheduler_plugin_execution_duration_seconds",
            "[ALPHA] Duration for running a plugin at a specific extension point.",
            exponential(0.00001, 1.5, 20),
            ("plugin", "extension_point", "status"),
        )
        self.evaluations = metrics.counter(
            "scheduler_plugin_evaluation_total",
            "[BETA] Number of attempts to schedule pods by each plugin and the extension point (available only in "
            "PreFilter, Filter, PreScore, and Score).",
            ("plugin", "extension_point", "profile"),
        )
        self.hints = metrics.histogram(
            "scheduler_queueing_hint_execution_duration_seconds",
            "[ALPHA] Duration for running a queueing hint function of a plugin.",
            exponential(0.00001, 1.5, 20),
            ("plugin", "event", "hint"),
        )
        self.events = metrics.histogram(
            "scheduler_event_handling_duration_seconds",
            "[ALPHA] Event handling latency in seconds.",
            exponential(0.0001, 2, 12),
            ("event",),
        )
        self.in_flight = metrics.gauge(
            "scheduler_inflight_events",
            "[ALPHA] Number of events currently tracked in the scheduling queue.",
            ("event",),
        )

    def attempted(self, result: str, profile: str, seconds: float) -> None:
        """`scheduled`, `unschedulable` or `error`."""
        self.attempts.labels(result, profile).inc()
        self.attempt_seconds.labels(result, profile).observe(seconds)

    def preempted(self, result: str, seconds: float) -> None:
        """The victims of a preemption were deleted: `success` or `error`."""
        self._preemption_runs.labels(result).inc()
        self._preemption_seconds.labels(result).observe(seconds)

    def event_handled(self, event: str, seconds: float) -> None:
        """`event` as events are labelled: `NodeAdd`, `AssignedPodDelete`, ..."""
        self.events.labels(event).observe(seconds)

    def refresh(
        self, queue: SchedulingQueue, table: NodeTable, profiles: Iterable[Profile], *, assumed: int, binding: int
    ) -> None:
        """Bring up to date what is only counted when it is asked for."""
        for name, place in _QUEUES:
            self.pending.labels(name).set(queue.size(place))  # type: ignore[arg-type]
        self.cache_size.labels("nodes").set(table.count)
        self.cache_size.labels("pods").set(len(table.entries))
        self.cache_size.labels("assumed_pods").set(assumed)
        self.goroutines.labels("binding").set(binding)
        self.in_flight.clear()
        for event, number in queue.missed().items():
            self.in_flight.labels(event).set(number)
        self.unschedulable.clear()
        for (plugin, profile), number in queue.refused_by().items():
            self.unschedulable.labels(plugin, profile).set(number)
        for each in profiles:
            for (point, asked), times in each.reached.items():
                for asked_one in each.at(point)[:asked]:
                    shown = point[0].upper() + point[1:]
                    self.evaluations.labels(asked_one.name, shown, each.scheduler_name).inc(times)
            each.reached.clear()


class ProfileMeter(Meter):
    """The times of one profile."""

    def __init__(self, metrics: SchedulerMetrics, profile: str) -> None:
        self._points = metrics.points
        self._plugins = metrics.plugins
        self._profile = profile

    def point(self, point: str, status: str, seconds: float) -> None:
        self._points.labels(point, status, self._profile).observe(seconds)

    def plugin(self, plugin: str, point: str, status: str, seconds: float) -> None:
        self._plugins.labels(plugin, point, status).observe(seconds)


class PrometheusQueueMeter(QueueMeter):
    """What happens in the queue."""

    def __init__(self, metrics: SchedulerMetrics) -> None:
        self._incoming = metrics.incoming
        self._hints = metrics.hints
        self._known: dict[tuple[str, str], Counter] = {}

    def incoming(self, queue: str, event: str) -> None:
        counter = self._known.get((queue, event))
        if counter is None:
            counter = self._known[queue, event] = self._incoming.labels(queue, event)
        counter.inc()

    def hint(self, plugin: str, event: str, hint: str, seconds: float) -> None:
        self._hints.labels(plugin, event, hint).observe(seconds)
