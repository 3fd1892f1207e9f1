"""What the kubelet sees of the API server, and the events that it writes there.

It follows this node's pods, its own node, all services and the runtime classes. Without a client there is nothing to
see, and events go nowhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client
from shipwheel.client.events import EventKind, EventRecorder
from shipwheel.client.informer import Handler, Informer, InformerFactory, drop_managed_fields
from shipwheel.client.ratelimit import TokenBucket
from shipwheel.client.resources import NODES, PODS, RUNTIME_CLASSES, SERVICES
from shipwheel.kubelet import podspec

log = logging.getLogger(__name__)

_BY_UID = "uid"


class ApiView:
    def __init__(self, client: Client | None, clock: Clock, node_name: str, limit: TokenBucket | None = None) -> None:
        """`limit` is how often an event may be written."""
        self._node_name = node_name
        self.recorder: EventRecorder | None = None
        self._factory: InformerFactory | None = None
        self._pods: Informer | None = None
        self._services: Informer | None = None
        self._runtime_classes: Informer | None = None
        self._node: Informer | None = None
        self._pod_cidr = ""
        if client is None:
            return
        self.recorder = EventRecorder(client, clock, component="kubelet", host=node_name, limit=limit)
        self._factory = InformerFactory(client, clock)
        self._services = self._factory.informer(SERVICES)
        self._runtime_classes = self._factory.informer(RUNTIME_CLASSES)
        self._node = self._factory.informer(NODES, field_selector=f"metadata.name={node_name}")
        self._pods = Informer(
            client,
            PODS,
            field_selector=f"spec.nodeName={node_name}",
            indexers={_BY_UID: lambda pod: (pod["metadata"]["uid"],)},
            transform=drop_managed_fields,
            clock=clock,
        )

    async def run(self) -> None:
        """Follow everything but pods, and write events, until cancelled."""
        assert self._factory is not None and self.recorder is not None
        async with asyncio.TaskGroup() as group:
            group.create_task(self._factory.run(), name="informers")
            group.create_task(self.recorder.run(), name="events")

    async def follow_pods(self, on_pod: Handler) -> None:
        """Follow pods, once the rest is known: a container's environment names the services."""
        assert self._factory is not None and self._pods is not None
        await self._factory.wait_synced()
        self._pods.add_handler(on_pod)
        await self._pods.run()

    async def wait_pods(self) -> None:
        """Return when all pods of the node are known."""
        if self._pods is not None:
            await self._pods.wait_synced()

    def on_node(self, seen: Callable[[Obj], None]) -> None:
        """Tell of every state of this node's object."""
        if self._node is not None:
            self._node.add_handler(lambda kind, new, old: seen(new) if new is not None else None)

    def on_pod_cidr(self, use: Callable[[str], object]) -> None:
        """Tell which range pods get their addresses from, whenever it is another one."""

        def seen(node: Obj) -> None:
            spec = node.get("spec") or {}
            cidr = ",".join(spec.get("podCIDRs") or ()) or spec.get("podCIDR", "")
            if cidr and cidr != self._pod_cidr:
                self._pod_cidr = cidr
                use(cidr)

        self.on_node(seen)

    # What is there

    def pod(self, uid: str) -> Obj | None:
        return next(iter(self._pods.by_index(_BY_UID, uid)), None) if self._pods is not None else None

    def services(self) -> Sequence[Obj]:
        return self._services.list() if self._services is not None else ()

    def runtime_handler(self, pod: Obj) -> str:
        """The runtime's name of the pod's RuntimeClass; LookupError when there is no such class."""
        name = pod["spec"].get("runtimeClassName")
        if not name:
            return ""
        found = self._runtime_classes.get("", name) if self._runtime_classes is not None else None
        if found is None:
            raise LookupError(f'failed to get sandbox runtime: runtimeclass.node.k8s.io "{name}" not found')
        return found["handler"]

    # Events

    def record(
        self,
        pod: Obj,
        container: Obj | None,
        kind: str,
        reason: str,
        message: str,
        *,
        annotations: dict[str, str] | None = None,
    ) -> None:
        """Record an event about a pod, or one of its containers."""
        log.debug("%s %s: %s", podspec.describe(pod), reason, message)
        if self.recorder is not None:
            path = podspec.field_path(pod, container["name"]) if container is not None else ""
            about = {"apiVersion": "v1", "kind": "Pod", **pod}
            level: EventKind = "Warning" if kind == "Warning" else "Normal"
            self.recorder.event(about, level, reason, message, annotations=annotations, field_path=path)

    def record_node(self, kind: str, reason: str, message: str) -> None:
        """Record an event about the node. Its uid is its name there, as upstream has it."""
        if self.recorder is not None:
            name = self._node_name
            about = {"kind": "Node", "apiVersion": "v1", "name": name, "uid": name}
            self.recorder.event(about, "Warning" if kind == "Warning" else "Normal", reason, message)
