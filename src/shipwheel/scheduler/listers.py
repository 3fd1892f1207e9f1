"""Whatever else of the cluster some rules look at: copies that the informers keep, or a test fills."""

from __future__ import annotations

from dataclasses import dataclass, field

from shipwheel.api.meta import Obj
from shipwheel.client.informer import Store
from shipwheel.scheduler.pods import Labels


@dataclass(slots=True)
class Listers:
    """Each is a `Store`, by namespace and name."""

    namespaces: Store = field(default_factory=Store)
    services: Store = field(default_factory=Store)
    replication_controllers: Store = field(default_factory=Store)
    replica_sets: Store = field(default_factory=Store)
    stateful_sets: Store = field(default_factory=Store)
    claims: Store = field(default_factory=Store)
    volumes: Store = field(default_factory=Store)
    storage_classes: Store = field(default_factory=Store)
    csi_nodes: Store = field(default_factory=Store)
    csi_drivers: Store = field(default_factory=Store)
    capacities: Store = field(default_factory=Store)
    attachments: Store = field(default_factory=Store)
    budgets: Store = field(default_factory=Store)
    resource_claims: Store = field(default_factory=Store)
    resource_slices: Store = field(default_factory=Store)
    device_classes: Store = field(default_factory=Store)
    workloads_version: int = 0
    """Changes when a selector of a service or workload does."""

    def namespace_labels(self, name: str) -> Labels:
        namespace = self.namespaces.get("", name)
        return (namespace["metadata"].get("labels") or {}) if namespace else {}

    def owner(self, namespace: str, kind: str, name: str) -> Obj | None:
        """A workload that pods are spread by."""
        store = {
            "ReplicationController": self.replication_controllers,
            "ReplicaSet": self.replica_sets,
            "StatefulSet": self.stateful_sets,
        }.get(kind)
        return store.get(namespace, name) if store is not None else None
