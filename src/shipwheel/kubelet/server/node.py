"""What the server needs of the kubelet it speaks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.client.metrics import Metrics
from shipwheel.kubelet.measures import ServerMetrics
from shipwheel.kubelet.observed import CONTAINER_NAME, POD_UID
from shipwheel.kubelet.runtime.base import Container, Runtime
from shipwheel.kubelet.server.sampling import Sampler


class Pods(Protocol):
    """The pods of this node, with the statuses the kubelet has made for them."""

    def all(self) -> Sequence[Obj]: ...

    def find(self, namespace: str, name: str) -> Obj | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedNode:
    name: str
    pods: Pods
    runtime: Runtime
    clock: Clock
    healthz: Callable[[], str] = lambda: ""
    """What is wrong with the kubelet; empty when nothing is."""
    configz: Callable[[], Mapping[str, Obj]] = dict
    """Configurations by name: `kubeletconfig`."""
    metrics: Sequence[Callable[[], bytes]] = field(default_factory=tuple)
    """Expositions that together are `/metrics`."""
    probe_metrics: Callable[[], bytes] = lambda: b""
    measures: ServerMetrics = field(default_factory=lambda: ServerMetrics(Metrics(process=False)))
    sampler: Sampler
    cpus: int = 1
    log_directory: str = "/var/log"
    """What `/logs/` shows."""
    debugging: bool = True
    """Whether logs, commands and streams are served, and not only health, metrics and configuration."""
    system_logs: bool = True
    """Whether `/logs/` is."""
    root_directory: str = "/var/lib/kubelet"


async def running_id(runtime: Runtime, pod: Obj, name: str) -> str:
    """The id of a pod's container: the running one by its status, else the last one made; empty when there is none."""
    status = pod.get("status") or {}
    for field_name in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for each in status.get(field_name) or ():
            if each["name"] == name and "running" in (each.get("state") or {}):
                return each.get("containerID", "").rpartition("//")[2]
    newest = await _newest_container(runtime, pod["metadata"]["uid"], name)
    return newest.id if newest is not None else ""


async def _newest_container(runtime: Runtime, uid: str, name: str) -> Container | None:
    """The last container made for a pod's container, running or not."""
    found = [
        each
        for each in await runtime.containers()
        if each.labels.get(POD_UID) == uid and each.labels.get(CONTAINER_NAME) == name
    ]
    return max(found, key=lambda each: each.created_at, default=None)


async def ready_sandbox(runtime: Runtime, uid: str) -> str | None:
    """The id of the pod's sandbox, if it has one that is up."""
    found = [each for each in await runtime.sandboxes() if each.uid == uid and each.ready]
    newest = max(found, key=lambda each: each.created_at, default=None)
    return newest.id if newest else None
