"""What the managers count and time, under upstream's names."""

from __future__ import annotations

from shipwheel.client.metrics import Metrics, exponential
from shipwheel.kubelet.measures import SECONDS

_ALIGNED = ("scope", "boundary")
_CLAIM_SECONDS = exponential(0.1, 400 ** (1 / 14), 15)
_POD_RESOURCES = ("server_api_version",)


class ManagerMetrics:
    def __init__(self, metrics: Metrics) -> None:
        counter, gauge, histogram = metrics.counter, metrics.gauge, metrics.histogram
        self.registrations = counter(
            "kubelet_device_plugin_registration_total",
            "[ALPHA] Cumulative number of device plugin registrations. Broken down by resource name.",
            ("resource_name",),
        )
        self.allocation_duration = histogram(
            "kubelet_device_plugin_alloc_duration_seconds",
            "[ALPHA] Duration in seconds to serve a device plugin Allocation request. Broken down by resource name.",
            SECONDS,
            ("resource_name",),
        )
        self.cpu_requests = counter(
            "kubelet_cpu_manager_pinning_requests_total",
            "[ALPHA] The number of cpu core allocations which required pinning.",
        )
        self.cpu_errors = counter(
            "kubelet_cpu_manager_pinning_errors_total",
            "[ALPHA] The number of cpu core allocations which required pinning failed.",
        )
        self.cpu_shared = gauge(
            "kubelet_cpu_manager_shared_pool_size_millicores",
            "[ALPHA] The size of the shared CPU pool for non-guaranteed QoS pods, in millicores.",
        )
        self.cpu_exclusive = gauge(
            "kubelet_cpu_manager_exclusive_cpu_allocation_count",
            "[ALPHA] The total number of CPUs exclusively allocated to containers running on this node",
        )
        self.cpu_per_numa = gauge(
            "kubelet_cpu_manager_allocation_per_numa",
            "[ALPHA] Number of CPUs allocated per NUMA node",
            ("numa_node",),
        )
        self.memory_requests = counter(
            "kubelet_memory_manager_pinning_requests_total",
            "[ALPHA] The number of memory pages allocations which required pinning.",
        )
        self.memory_errors = counter(
            "kubelet_memory_manager_pinning_errors_total",
            "[ALPHA] The number of memory pages allocations which required pinning that failed.",
        )
        # These two have no `_total` at their ends, which a counter of the library would be given.
        self.aligned = gauge(
            "kubelet_container_aligned_compute_resources_count",
            "[ALPHA] Cumulative number of aligned compute resources allocated to containers by alignment type.",
            _ALIGNED,
        )
        self.unaligned = gauge(
            "kubelet_container_aligned_compute_resources_failure_count",
            "[ALPHA] Cumulative number of failures to allocate aligned compute resources to containers by alignment "
            "type.",
            _ALIGNED,
        )
        self.topology_requests = counter(
            "kubelet_topology_manager_admission_requests_total",
            "[ALPHA] The number of admission requests where resources have to be aligned.",
        )
        self.topology_errors = counter(
            "kubelet_topology_manager_admission_errors_total",
            "[ALPHA] The number of admission request failures where resources could not be aligned.",
        )
        self.topology_duration = histogram(
            "kubelet_topology_manager_admission_duration_ms",
            "[ALPHA] Duration in milliseconds to serve a pod admission request.",
            exponential(0.05, 2, 15),
        )
        self.claims_duration = histogram(
            "dra_operations_duration_seconds",
            "[ALPHA] Latency histogram in seconds for the duration of handling all ResourceClaims referenced by a pod "
            "when the pod starts or stops. Identified by the name of the operation (PrepareResources or "
            "UnprepareResources) and separated by the success of the operation. The number of failed operations is "
            "provided through the histogram's overall count.",
            _CLAIM_SECONDS,
            ("operation_name", "is_error"),
        )
        self.claim_calls = histogram(
            "dra_grpc_operations_duration_seconds",
            "[ALPHA] Duration in seconds of the DRA gRPC operations",
            _CLAIM_SECONDS,
            ("driver_name", "method_name", "grpc_status_code"),
        )
        self.claims_in_use = gauge(
            "dra_resource_claims_in_use",
            "[ALPHA] The number of ResourceClaims that are currently in use on the node, by driver name "
            "(driver_name label value) and across all drivers (special value <any> for driver_name). Note that the "
            "sum of all by-driver counts is not the total number of in-use ResourceClaims because the same "
            "ResourceClaim might use devices from different drivers. Instead, use the count for the <any> driver_name.",
            ("driver_name",),
        )
        self.pod_resources = counter(
            "kubelet_pod_resources_endpoint_requests_total",
            "[ALPHA] Cumulative number of requests to the PodResource endpoint. Broken down by server api version.",
            _POD_RESOURCES,
        )
        self.pod_resources_calls = {
            method: gauge(
                f"kubelet_pod_resources_endpoint_requests_{name}",
                f"[ALPHA] Number of requests to the PodResource {method} endpoint. Broken down by server api version.",
                _POD_RESOURCES,
            )
            for method, name in (
                ("List", "list"),
                ("GetAllocatableResources", "get_allocatable"),
                ("Get", "get"),
            )
        }
        self.pod_resources_errors = {
            method: gauge(
                f"kubelet_pod_resources_endpoint_errors_{name}",
                f"[ALPHA] Number of requests to the PodResource {method} endpoint which returned error. Broken down by "
                "server api version.",
                _POD_RESOURCES,
            )
            for method, name in (
                ("List", "list"),
                ("GetAllocatableResources", "get_allocatable"),
                ("Get", "get"),
            )
        }
