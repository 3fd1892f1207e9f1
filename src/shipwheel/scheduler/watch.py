"""What the watches say, brought into the table and the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from typing import Any

from shipwheel.api.clock import Clock
from shipwheel.api.meta import GroupVersionResource, Obj, is_being_deleted, key_of, name_of
from shipwheel.api.selectors import SelectorError
from shipwheel.client.client import Client
from shipwheel.client.informer import EventType, Handler, InformerFactory, drop_managed_fields
from shipwheel.client.resources import (
    CSI_DRIVERS,
    CSI_NODES,
    CSI_STORAGE_CAPACITIES,
    DEVICE_CLASSES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    SERVICES,
    STATEFUL_SETS,
    STORAGE_CLASSES,
    VOLUME_ATTACHMENTS,
)
from shipwheel.scheduler.events import Action, ClusterEvent, node_changes
from shipwheel.scheduler.listers import Listers
from shipwheel.scheduler.pods import TERMINAL, Shapes, amounts
from shipwheel.scheduler.queue import SchedulingQueue
from shipwheel.scheduler.slimming import Slimmer
from shipwheel.scheduler.table import NodeTable, PodEntry

_OTHERS: dict[str, tuple[GroupVersionResource, str]] = {
    "claims": (PERSISTENT_VOLUME_CLAIMS, "PersistentVolumeClaim"),
    "volumes": (PERSISTENT_VOLUMES, "PersistentVolume"),
    "storage_classes": (STORAGE_CLASSES, "StorageClass"),
    "csi_nodes": (CSI_NODES, "CSINode"),
    "csi_drivers": (CSI_DRIVERS, "CSIDriver"),
    "capacities": (CSI_STORAGE_CAPACITIES, "CSIStorageCapacity"),
    "attachments": (VOLUME_ATTACHMENTS, "VolumeAttachment"),
    "budgets": (POD_DISRUPTION_BUDGETS, "PodDisruptionBudget"),
    "resource_claims": (RESOURCE_CLAIMS, "ResourceClaim"),
    "resource_slices": (RESOURCE_SLICES, "ResourceSlice"),
    "device_classes": (DEVICE_CLASSES, "DeviceClass"),
}
_WORKLOADS: dict[str, tuple[GroupVersionResource, str]] = {
    "services": (SERVICES, "Service"),
    "replication_controllers": (REPLICATION_CONTROLLERS, "ReplicationController"),
    "replica_sets": (REPLICA_SETS, "ReplicaSet"),
    "stateful_sets": (STATEFUL_SETS, "StatefulSet"),
}

_DONE = {"ADDED": "Add", "MODIFIED": "Update", "DELETED": "Delete"}

LISTED = {"namespaces": NAMESPACES} | {field: resource for field, (resource, _) in (_OTHERS | _WORKLOADS).items()}
"""What `Listers` are copies of."""


class ClusterWatch:
    """Follows the cluster. `responsible` says whose pods are ours; `assumed` are keys of pods that were decided upon
    and are being bound."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        table: NodeTable,
        queue: SchedulingQueue,
        shapes: Shapes,
        listers: Listers,
        responsible: Container[str],
    ) -> None:
        self.assumed: dict[str, Obj] = {}
        self.nominated: dict[str, PodEntry] = {}
        self._table = table
        self._queue = queue
        self._shapes = shapes
        self._listers = listers
        self._responsible = responsible
        self.on_handled: Callable[[str, float], None] = lambda event, seconds: None
        """Is told how many seconds an event took."""
        self.informers = InformerFactory(client, clock, transform=drop_managed_fields)
        pods = InformerFactory(client, clock, transform=Slimmer())
        self.pod_informers = pods
        nodes = self.informers.informer(NODES)
        namespaces = self.informers.informer(NAMESPACES)
        listers.namespaces = namespaces
        namespaces.add_handler(self._measured(self._on_namespace, "Namespace"))
        nodes.add_handler(self._measured(self._on_node, "Node"))
        for field, (resource, kind) in (_OTHERS | _WORKLOADS).items():
            informer = self.informers.informer(resource)
            setattr(listers, field, informer)
            informer.add_handler(self._measured(self._handler(kind, is_workload=field in _WORKLOADS), kind))
        self.pods = pods.informer(PODS)
        self.pods.add_handler(self._measured(self._on_pod))

    def _measured(self, handle: Handler, resource: str = "") -> Handler:
        """The handler, with its time told. Without a resource it is for pods."""

        def measured(kind: EventType, new: Obj | None, old: Obj | None) -> None:
            started = time.perf_counter()
            handle(kind, new, old)
            about = resource or ("AssignedPod" if (new or old or {})["spec"].get("nodeName") else "UnschedulablePod")
            self.on_handled(about + _DONE[kind], time.perf_counter() - started)

        return measured

    # Nodes and others

    def _on_node(self, kind: str, new: Obj | None, old: Obj | None) -> None:
        if new is None:
            assert old is not None
            self._table.remove_node(name_of(old))
            self._queue.happened(ClusterEvent("Node", Action.DELETE, old))
            return
        self._table.set_node(new)
        action = Action.ADD if old is None else node_changes(old, new)
        if action:
            self._queue.happened(ClusterEvent("Node", action, old, new))

    def _on_namespace(self, kind: str, new: Obj | None, old: Obj | None) -> None:
        labels = [(each["metadata"].get("labels") if each else None) for each in (old, new)]
        if old is None or labels[0] != labels[1]:
            self._table.namespaces_changed()

    def _handler(self, resource: str, *, is_workload: bool) -> Handler:
        def handle(kind: str, new: Obj | None, old: Obj | None) -> None:
            if is_workload and (old is None or new is None or _selector(old) != _selector(new)):
                self._listers.workloads_version += 1
            action = Action.ADD if old is None else Action.DELETE if new is None else Action.UPDATE
            self._queue.happened(ClusterEvent(resource, action, old, new))

        return handle

    # Pods

    def _on_pod(self, kind: str, new: Obj | None, old: Obj | None) -> None:
        pod = new if new is not None else old
        assert pod is not None
        key = key_of(pod)
        if new is None or (new.get("status") or {}).get("phase") in TERMINAL:
            self._gone(key, pod)
        elif new["spec"].get("nodeName"):
            self._placed(key, new)
        elif is_being_deleted(new):
            self._queue.remove(key)
            self._give_up(key)
        elif key not in self.assumed and new["spec"].get("schedulerName", "default-scheduler") in self._responsible:
            self._waits(key, new, old)

    def _gone(self, key: str, pod: Obj) -> None:
        self._queue.remove(key)
        self.assumed.pop(key, None)
        entry = self._table.remove(key)
        self.nominated.pop(key, None)
        if entry is not None and entry.nominated:
            self.released(entry)
        elif entry is not None:
            self._queue.happened(ClusterEvent("AssignedPod", Action.DELETE, pod))

    def _placed(self, key: str, pod: Obj) -> None:
        self.nominated.pop(key, None)
        known = self._table.entries.get(key)
        shape = self._shape(pod)
        if shape is None:
            return
        node = pod["spec"]["nodeName"]
        was_assumed = self.assumed.pop(key, None) is not None
        same = (
            known is not None
            and not known.nominated
            and known.node == node
            and known.shape is shape
            and is_being_deleted(known.obj) == is_being_deleted(pod)
        )
        before = known.obj if known is not None else None
        if known is not None and same:
            self._table.renew(known, pod)
        else:
            self._table.add(PodEntry(key, pod, shape, node))
        if was_assumed or known is None or known.nominated:
            self._queue.remove(key)
            self._queue.happened(ClusterEvent("AssignedPod", Action.ADD, None, pod))
        elif not same and before is not None:
            action = _pod_changes(before, pod)
            if action:
                self._queue.happened(ClusterEvent("AssignedPod", action, before, pod))

    def _waits(self, key: str, new: Obj, old: Obj | None) -> None:
        if old is None or key not in self._queue:
            self._nominate(key, new)
            self._queue.add(new)
            return
        if _nominated(old) != _nominated(new):
            self._nominate(key, new)
        action = _pod_changes(old, new)
        event = ClusterEvent("UnschedulablePod", action, old, new) if action else None
        self._queue.update(new, event)

    # Nominated pods have a place in the table, so that others do not take it.

    def _nominate(self, key: str, pod: Obj) -> None:
        self.denominate(key)
        node = _nominated(pod)
        if node:
            self.nominate(key, pod, node)

    def nominate(self, key: str, pod: Obj, node: str) -> None:
        """Keep a place on a node for a pod."""
        shape = self._shape(pod)
        if shape is not None:
            entry = self.nominated[key] = PodEntry(key, pod, shape, node, nominated=True)
            self._table.add(entry)

    def _give_up(self, key: str) -> None:
        """A pod will not have what it was promised: others may."""
        entry = self.nominated.get(key)
        self.denominate(key)
        if entry is not None:
            self.released(entry)

    def released(self, entry: PodEntry) -> None:
        """A promise is none any more."""
        gone = {**entry.obj, "spec": {**entry.obj["spec"], "nodeName": entry.node}}
        self._queue.happened(ClusterEvent("AssignedPod", Action.DELETE, gone))

    def denominate(self, key: str) -> None:
        entry = self.nominated.pop(key, None)
        if entry is not None and self._table.entries.get(key) is entry:
            self._table.remove(key)

    def _shape(self, pod: Obj) -> Any:
        try:
            return self._shapes.of(pod)
        except SelectorError:
            return None  # the API server refuses such pods; who gets one in all the same is not counted


def _nominated(pod: Obj) -> str:
    return (pod.get("status") or {}).get("nominatedNodeName") or ""


def _selector(obj: Obj) -> Any:
    return (obj.get("spec") or {}).get("selector")


def _pod_changes(old: Obj, new: Obj) -> Action:
    """Which parts of a pod that scheduling depends on have changed."""
    found = Action(0)
    if (old["metadata"].get("labels") or {}) != (new["metadata"].get("labels") or {}):
        found |= Action.UPDATE_LABELS
    before, after = old["spec"], new["spec"]
    if before.get("tolerations") != after.get("tolerations"):
        found |= Action.UPDATE_TOLERATIONS
    if before.get("schedulingGates") != after.get("schedulingGates"):
        found |= Action.UPDATE_GATES
    if _asked(before) != _asked(after):
        found |= Action.SCALE_DOWN
    if _made_claims(old) != _made_claims(new):
        found |= Action.UPDATE_CLAIMS
    return found


def _made_claims(pod: Obj) -> Any:
    return (pod.get("status") or {}).get("resourceClaimStatuses") or []


def _asked(spec: Obj) -> list[dict[str, int]]:
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return [amounts((each.get("resources") or {}).get("requests")) for each in containers]
