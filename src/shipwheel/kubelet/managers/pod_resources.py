"""What monitoring agents ask the kubelet for at a socket of its own: which container has which devices, CPUs and memory
(`PodResourcesLister`, v1).

https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from shipwheel.api.meta import Obj
from shipwheel.client.grpc.channel import GrpcError
from shipwheel.client.grpc.server import GrpcServer, Method
from shipwheel.kubelet import podspec
from shipwheel.kubelet.managers.device_plugins import serve
from shipwheel.kubelet.managers.manager import ResourceManagers
from shipwheel.kubelet.managers.measures import ManagerMetrics
from shipwheel.kubelet.managers.memory_manager import Block
from shipwheel.kubelet.managers.tables import pod_resources_messages
from shipwheel.kubelet.services import ClaimFault

SOCKET = "kubelet.sock"


class PodResources:
    """`pods` are those that hold resources."""

    def __init__(
        self,
        directory: Path,
        managers: ResourceManagers,
        measures: ManagerMetrics,
        pods: Callable[[], Sequence[Obj]],
    ) -> None:
        self._directory = directory
        self._managers = managers
        self._measures = measures
        self._pods = pods

    async def run(self) -> None:
        """Serve until cancelled."""
        tables = pod_resources_messages()
        calls = {
            "List": (self._list, "ListPodResourcesRequest", "ListPodResourcesResponse"),
            "Get": (self._get, "GetPodResourcesRequest", "GetPodResourcesResponse"),
            "GetAllocatableResources": (
                self._allocatable,
                "AllocatableResourcesRequest",
                "AllocatableResourcesResponse",
            ),
        }
        server = GrpcServer(
            {
                f"/v1.PodResourcesLister/{name}": Method(tables[request], tables[response], handle)
                for name, (handle, request, response) in calls.items()
            }
        )
        await serve(self._directory / SOCKET, server)

    def _count(self, method: str) -> None:
        self._measures.pod_resources.labels("v1").inc()
        self._measures.pod_resources_calls[method].labels("v1").inc()

    async def _list(self, request: Obj) -> Obj:
        self._count("List")
        return {"pod_resources": [self._of_pod(pod) for pod in self._pods()]}

    async def _get(self, request: Obj) -> Obj:
        self._count("Get")
        name, namespace = request.get("pod_name", ""), request.get("pod_namespace", "")
        for pod in self._pods():
            if (pod["metadata"].get("namespace", ""), pod["metadata"]["name"]) == (namespace, name):
                return {"pod_resources": self._of_pod(pod)}
        self._measures.pod_resources_errors["Get"].labels("v1").inc()
        raise GrpcError("UNKNOWN", f"pod {name} in namespace {namespace} not found")

    async def _allocatable(self, request: Obj) -> Obj:
        self._count("GetAllocatableResources")
        managers = self._managers
        devices = [
            _devices(resource, [each.id], each.nodes)
            for resource, listed in managers.devices.allocatable().items()
            for each in listed
        ]
        return {
            "devices": devices,
            "cpu_ids": sorted(managers.cpus.allocatable),
            "memory": [_memory(each) for each in managers.memory.allocatable],
        }

    def _of_pod(self, pod: Obj) -> Obj:
        meta = pod["metadata"]
        containers = [*podspec.sidecars(pod), *podspec.containers(pod)]
        return {
            "name": meta["name"],
            "namespace": meta.get("namespace", ""),
            "containers": [self._of_container(pod, each) for each in containers],
        }

    def _of_container(self, pod: Obj, container: Obj) -> Obj:
        uid, name = pod["metadata"]["uid"], container["name"]
        devices = [
            _devices(resource, [each], nodes)
            for resource, given in self._managers.devices.of_container(uid, name).items()
            for each, nodes in given.nodes.items()
        ]
        return {
            "name": name,
            "devices": devices,
            "cpu_ids": sorted(self._managers.cpus.exclusive(uid, name)),
            "memory": [_memory(each) for each in self._managers.memory.blocks(uid, name)],
            "dynamic_resources": self._claims(pod, container),
        }

    def _claims(self, pod: Obj, container: Obj) -> list[Obj]:
        try:
            found = self._managers.claims.devices_of(pod, container)
        except ClaimFault:
            return []
        grouped: dict[tuple[str, str], list[Obj]] = {}
        for claim, driver, device in found:
            shown: Obj = {
                "cdi_devices": [{"name": each} for each in device.cdi],
                "driver_name": driver,
                "pool_name": device.pool,
                "device_name": device.name,
            }
            if device.share:
                shown["share_id"] = device.share
            grouped.setdefault(claim.key, []).append(shown)
        return [
            {"claim_name": name, "claim_namespace": namespace, "claim_resources": resources}
            for (namespace, name), resources in grouped.items()
        ]


def _devices(resource: str, ids: Sequence[str], nodes: Iterable[int]) -> Obj:
    found: Obj = {"resource_name": resource, "device_ids": list(ids)}
    return {**found, "topology": _topology(nodes)} if nodes else found


def _memory(block: Block) -> Obj:
    return {"memory_type": block.kind, "size": block.size, "topology": _topology(block.nodes)}


def _topology(nodes: Iterable[int]) -> Mapping[str, list[Obj]]:
    return {"nodes": [{"ID": each} for each in nodes]}
