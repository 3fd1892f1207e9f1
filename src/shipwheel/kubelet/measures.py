"""What the kubelet counts and times, under upstream's names (`kubelet_*`, `prober_*`).

Counters and durations are noted where things happen; how many pods and containers there are is looked up when somebody
asks for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from shipwheel.api.clock import Clock
from shipwheel.client.metrics import Metrics, exponential
from shipwheel.kubelet.runtime.base import Runtime, RuntimeFault

if TYPE_CHECKING:
    from shipwheel.client.histogram import Histogram, Series

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STARTUP = (
    *(0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600),
)
_PULL = (1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600)
_IMAGE_SIZES = (
    (10, "10MB-100MB"), (100, "100MB-500MB"), (500, "500MB-1GB"), (1 << 10, "1GB-5GB"), (5 << 10, "5GB-10GB"),
    (10 << 10, "10GB-20GB"), (20 << 10, "20GB-30GB"), (30 << 10, "30GB-40GB"), (40 << 10, "40GB-60GB"),
    (60 << 10, "60GB-100GB"), (100 << 10, "GT100GB"),
)  # fmt: skip
"""(more than so many MiB, label)"""
OPERATIONS = {
    "info": "version",
    "status": "status",
    "set_pod_cidr": "update_runtime_config",
    "run_sandbox": "run_podsandbox",
    "stop_sandbox": "stop_podsandbox",
    "remove_sandbox": "remove_podsandbox",
    "sandboxes": "list_podsandbox",
    "sandbox_status": "podsandbox_status",
    "create_container": "create_container",
    "start_container": "start_container",
    "stop_container": "stop_container",
    "remove_container": "remove_container",
    "containers": "list_containers",
    "container_status": "container_status",
    "update_resources": "update_container",
    "reopen_log": "reopen_container_log",
    "exec_sync": "exec_sync",
    "exec_url": "exec",
    "attach_url": "attach",
    "port_forward_url": "port_forward",
    "usage": "list_container_stats",
    "checkpoint": "checkpoint_container",
    "pull_image": "pull_image",
    "images": "list_images",
    "image_status": "image_status",
    "remove_image": "remove_image",
    "image_filesystems": "image_fs_info",
}
"""What upstream calls a runtime's methods."""


class KubeletMetrics:
    def __init__(self, metrics: Metrics) -> None:
        counter, gauge, histogram = metrics.counter, metrics.gauge, metrics.histogram
        self.node_name = gauge("kubelet_node_name", "[ALPHA] The node's name. The count is always 1.", ("node",))
        self.worker_duration = histogram(
            "kubelet_pod_worker_duration_seconds",
            "[ALPHA] Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
            SECONDS,
            ("operation_type",),
        )
        self.worker_start_duration = histogram(
            "kubelet_pod_worker_start_duration_seconds",
            "[ALPHA] Duration in seconds from kubelet seeing a pod to starting a worker.",
            SECONDS,
        )
        self.containers_per_pod = histogram(
            "kubelet_containers_per_pod_count", "[ALPHA] The number of containers per pod.", exponential(1, 2, 5)
        )
        self.cgroup_duration = histogram(
            "kubelet_cgroup_manager_duration_seconds",
            "[ALPHA] Duration in seconds for cgroup manager operations. Broken down by method.",
            SECONDS,
            ("operation_type",),
        )
        self.cgroup_version = gauge("kubelet_cgroup_version", "[ALPHA] cgroup version on the hosts.")
        self.sandbox_duration = histogram(
            "kubelet_run_podsandbox_duration_seconds",
            "[ALPHA] Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler.",
            SECONDS,
            ("runtime_handler",),
        )
        self.sandbox_errors = counter(
            "kubelet_run_podsandbox_errors_total",
            "[ALPHA] Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler.",
            ("runtime_handler",),
        )
        self.start_duration = histogram(
            "kubelet_pod_start_duration_seconds",
            "[ALPHA] Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
            _STARTUP,
        )
        self.start_total_duration = histogram(
            "kubelet_pod_start_total_duration_seconds",
            "[ALPHA] Duration in seconds to start a pod since creation, including time to pull images and run init "
            "containers, measured from pod creation timestamp to when all its containers are reported as started "
            "and observed via watch",
            _STARTUP,
        )
        self.status_duration = histogram(
            "kubelet_pod_status_sync_duration_seconds",
            "[ALPHA] Duration in seconds to sync a pod status update. Measures time from detection of a change to pod "
            "status until the API is successfully updated for that pod, even if multiple intevening changes to pod "
            "status occur.",
            (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 20, 30, 45, 60),
        )
        self.relist_duration = histogram(
            "kubelet_pleg_relist_duration_seconds", "[ALPHA] Duration in seconds for relisting pods in PLEG.", SECONDS
        )
        self.relist_interval = histogram(
            "kubelet_pleg_relist_interval_seconds",
            "[ALPHA] Interval in seconds between relisting in PLEG.",
            SECONDS,
        )
        self.last_seen = gauge(
            "kubelet_pleg_last_seen_seconds", "[ALPHA] Timestamp in seconds when PLEG was last seen active."
        )
        self.operations = counter(
            "kubelet_runtime_operations_total",
            "[ALPHA] Cumulative number of runtime operations by operation type.",
            ("operation_type",),
        )
        self.operation_duration = histogram(
            "kubelet_runtime_operations_duration_seconds",
            "[ALPHA] Duration in seconds of runtime operations. Broken down by operation type.",
            exponential(0.005, 2.5, 14),
            ("operation_type",),
        )
        self.operation_errors = counter(
            "kubelet_runtime_operations_errors_total",
            "[ALPHA] Cumulative number of runtime operation errors by operation type.",
            ("operation_type",),
        )
        self.shutdown_start = gauge(
            "kubelet_graceful_shutdown_start_time_seconds",
            "[ALPHA] Last graceful shutdown start time since unix epoch in seconds",
        )
        self.shutdown_end = gauge(
            "kubelet_graceful_shutdown_end_time_seconds",
            "[ALPHA] Last graceful shutdown end time since unix epoch in seconds",
        )
        # These two have no `_total` at their ends, which a counter of the library would be given.
        self.evictions = gauge(
            "kubelet_evictions",
            "[ALPHA] Cumulative number of pod evictions by eviction signal",
            ("eviction_signal",),
        )
        self.eviction_age = histogram(
            "kubelet_eviction_stats_age_seconds",
            "[ALPHA] Time between when stats are collected, and when pod is evicted based on those stats by eviction "
            "signal",
            SECONDS,
            ("eviction_signal",),
        )
        self.preemptions = gauge(
            "kubelet_preemptions",
            "[ALPHA] Cumulative number of pod preemptions by preemption resource",
            ("preemption_signal",),
        )
        self.rejections = counter(
            "kubelet_admission_rejections_total",
            "[ALPHA] Cumulative number pod admission rejections by the Kubelet.",
            ("reason",),
        )
        self.started_containers = counter(
            "kubelet_started_containers_total",
            "[ALPHA] Cumulative number of containers started",
            ("container_type",),
        )
        self.start_errors = counter(
            "kubelet_started_containers_errors_total",
            "[ALPHA] Cumulative number of errors when starting containers",
            ("container_type", "code"),
        )
        self.started_pods = counter("kubelet_started_pods_total", "[ALPHA] Cumulative number of pods started")
        self.pod_errors = counter(
            "kubelet_started_pods_errors_total", "[ALPHA] Cumulative number of errors when starting pods"
        )
        self.orphans = counter(
            "kubelet_orphaned_runtime_pods_total",
            "[ALPHA] Number of pods that have been detected in the container runtime without being already known to "
            "the pod worker. This typically indicates the kubelet was restarted while a pod was force deleted in the "
            "API or in the local configuration, which is unusual.",
        )
        self.pull_duration = histogram(
            "kubelet_image_pull_duration_seconds",
            "[ALPHA] Duration in seconds to pull an image.",
            _PULL,
            ("image_size_in_bytes",),
        )
        self.collected_images = counter(
            "kubelet_image_garbage_collected_total",
            "[ALPHA] Total number of images garbage collected by the kubelet, whether through disk usage or image age.",
            ("reason",),
        )
        self.running_pods = gauge("kubelet_running_pods", "[ALPHA] Number of pods that have a running pod sandbox")
        self.running_containers = gauge(
            "kubelet_running_containers", "[ALPHA] Number of containers currently running", ("container_state",)
        )
        self.desired_pods = gauge(
            "kubelet_desired_pods",
            "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not from "
            "the apiserver.",
            ("static",),
        )
        self.active_pods = gauge(
            "kubelet_active_pods",
            "[ALPHA] The number of pods the kubelet considers active and which are being considered when admitting new "
            "pods. static is true if the pod is not from the apiserver.",
            ("static",),
        )
        self.mirror_pods = gauge(
            "kubelet_mirror_pods",
            "[ALPHA] The number of mirror pods the kubelet will try to create (one per admitted static pod)",
        )
        self.working_pods = gauge(
            "kubelet_working_pods",
            "[ALPHA] Number of pods the kubelet is actually running, broken down by lifecycle phase, whether the pod "
            "is desired, orphaned, or runtime only (also orphaned), and whether the pod is static. An orphaned pod has "
            "been removed from local configuration or force deleted in the API and consumes resources that are not "
            "otherwise visible.",
            ("lifecycle", "config", "static"),
        )
        self.pending_resizes = gauge(
            "kubelet_pod_pending_resizes", "[ALPHA] Number of pending resizes for pods.", ("reason",)
        )
        self.resizes_in_progress = gauge(
            "kubelet_pod_in_progress_resizes", "[ALPHA] Number of in-progress resizes for pods."
        )
        self.ephemeral_containers = gauge(
            "kubelet_managed_ephemeral_containers",
            "[ALPHA] Current number of ephemeral containers in pods managed by this kubelet.",
        )


class ServerMetrics:
    """What the kubelet's own server is asked for."""

    def __init__(self, metrics: Metrics) -> None:
        labels = ("method", "path", "server_type", "long_running")
        self.requests = metrics.counter(
            "kubelet_http_requests_total",
            "[ALPHA] Number of the http requests received since the server started",
            labels,
        )
        self.in_flight = metrics.gauge(
            "kubelet_http_inflight_requests", "[ALPHA] Number of the inflight http requests", labels
        )
        self.duration = metrics.histogram(
            "kubelet_http_requests_duration_seconds",
            "[ALPHA] Duration in seconds to serve http requests",
            SECONDS,
            labels,
        )


class ProbeMetrics:
    """These are told at an address of their own (`/metrics/probes`)."""

    def __init__(self, metrics: Metrics) -> None:
        self.total = metrics.counter(
            "prober_probe_total",
            "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
            ("probe_type", "result", "container", "pod", "namespace", "pod_uid"),
        )
        self.duration = metrics.histogram(
            "prober_probe_duration_seconds",
            "[ALPHA] Duration in seconds for a probe response.",
            SECONDS,
            ("probe_type", "container", "pod", "namespace"),
        )


@contextmanager
def timing(histogram: Histogram | Series, clock: Clock) -> Iterator[None]:
    """Observe how long what is done inside takes."""
    began = clock.monotonic()
    try:
        yield
    finally:
        histogram.observe(clock.monotonic() - began)


def image_size_bucket(size: int) -> str:
    """The label of an image of so many bytes; 0 is not known."""
    if not size:
        return "N/A"
    found = "0-10MB"
    for megabytes, name in _IMAGE_SIZES:
        if size > megabytes * 1024 * 1024:
            found = name
    return found


def measured(runtime: Runtime, metrics: KubeletMetrics, clock: Clock) -> Runtime:
    """The same runtime, each of whose operations is counted and timed."""
    return cast(Runtime, _Measured(runtime, metrics, clock))


class _Measured:
    def __init__(self, runtime: Runtime, metrics: KubeletMetrics, clock: Clock) -> None:
        self._runtime = runtime
        self._metrics = metrics
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._runtime, name)
        operation = OPERATIONS.get(name)
        if operation is None or not inspect.iscoroutinefunction(method):
            return method
        wrapped = self._wrap(name, operation)
        # From now on it is found without asking.
        self.__dict__[name] = wrapped
        return wrapped

    def _wrap(self, name: str, operation: str) -> Callable[..., Any]:
        total = self._metrics.operations.labels(operation)
        duration = self._metrics.operation_duration.labels(operation)
        errors = self._metrics.operation_errors

        async def call(*args: Any, **options: Any) -> Any:
            total.inc()
            try:
                with timing(duration, self._clock):
                    return await getattr(self._runtime, name)(*args, **options)
            except RuntimeFault:
                errors.labels(operation).inc()
                raise

        return call
