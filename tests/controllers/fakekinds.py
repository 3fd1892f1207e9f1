"""The kinds that the fake API serves, with the few defaults that controllers take for granted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client import resources as r


@dataclass(frozen=True, slots=True)
class FakeKind:
    kind: str
    namespaced: bool = True
    has_status: bool = True
    default: Callable[[Obj], None] = lambda obj: None


def _namespace(obj: Obj) -> None:
    obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    obj.setdefault("status", {}).setdefault("phase", "Active")


def _pod(obj: Obj) -> None:
    obj["spec"].setdefault("restartPolicy", "Always")
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def _replicated(obj: Obj) -> None:
    obj["spec"].setdefault("replicas", 1)


def _deployment(obj: Obj) -> None:
    _replicated(obj)
    spec = obj["spec"]
    spec.setdefault(
        "strategy", {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    )
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


KINDS: dict[GroupVersionResource, FakeKind] = {
    r.NAMESPACES: FakeKind("Namespace", namespaced=False, default=_namespace),
    r.NODES: FakeKind("Node", namespaced=False),
    r.PODS: FakeKind("Pod", default=_pod),
    r.SERVICES: FakeKind("Service"),
    r.ENDPOINTS: FakeKind("Endpoints", has_status=False),
    r.EVENTS: FakeKind("Event", has_status=False),
    r.CONFIG_MAPS: FakeKind("ConfigMap", has_status=False),
    r.SECRETS: FakeKind("Secret", has_status=False),
    r.SERVICE_ACCOUNTS: FakeKind("ServiceAccount", has_status=False),
    r.RESOURCE_QUOTAS: FakeKind("ResourceQuota"),
    r.REPLICATION_CONTROLLERS: FakeKind("ReplicationController", default=_replicated),
    r.PERSISTENT_VOLUMES: FakeKind("PersistentVolume", namespaced=False),
    r.PERSISTENT_VOLUME_CLAIMS: FakeKind("PersistentVolumeClaim"),
    r.DEPLOYMENTS: FakeKind("Deployment", default=_deployment),
    r.REPLICA_SETS: FakeKind("ReplicaSet", default=_replicated),
    r.STATEFUL_SETS: FakeKind("StatefulSet", default=_replicated),
    r.DAEMON_SETS: FakeKind("DaemonSet"),
    r.CONTROLLER_REVISIONS: FakeKind("ControllerRevision", has_status=False),
    r.JOBS: FakeKind("Job"),
    r.CRON_JOBS: FakeKind("CronJob"),
    r.LEASES: FakeKind("Lease", has_status=False),
    r.ENDPOINT_SLICES: FakeKind("EndpointSlice", has_status=False),
    r.POD_DISRUPTION_BUDGETS: FakeKind("PodDisruptionBudget"),
    r.HORIZONTAL_POD_AUTOSCALERS: FakeKind("HorizontalPodAutoscaler"),
    r.STORAGE_CLASSES: FakeKind("StorageClass", namespaced=False, has_status=False),
    r.VOLUME_ATTACHMENTS: FakeKind("VolumeAttachment", namespaced=False),
    r.VOLUME_ATTRIBUTES_CLASSES: FakeKind("VolumeAttributesClass", namespaced=False, has_status=False),
    r.CSI_NODES: FakeKind("CSINode", namespaced=False, has_status=False),
    r.CSI_DRIVERS: FakeKind("CSIDriver", namespaced=False, has_status=False),
    r.CLUSTER_ROLES: FakeKind("ClusterRole", namespaced=False, has_status=False),
    r.CERTIFICATE_SIGNING_REQUESTS: FakeKind("CertificateSigningRequest", namespaced=False),
    r.RESOURCE_CLAIMS: FakeKind("ResourceClaim"),
    r.RESOURCE_CLAIM_TEMPLATES: FakeKind("ResourceClaimTemplate", has_status=False),
    r.RESOURCE_SLICES: FakeKind("ResourceSlice", namespaced=False, has_status=False),
    r.STORAGE_VERSIONS: FakeKind("StorageVersion", namespaced=False),
    r.VALIDATING_ADMISSION_POLICIES: FakeKind("ValidatingAdmissionPolicy", namespaced=False),
    r.IP_ADDRESSES: FakeKind("IPAddress", namespaced=False, has_status=False),
    r.SERVICE_CIDRS: FakeKind("ServiceCIDR", namespaced=False),
}
