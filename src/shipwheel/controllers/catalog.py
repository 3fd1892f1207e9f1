"""The controllers there are, and which of them to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from shipwheel.api.meta import GroupVersionResource
from shipwheel.client.resources import (
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    SERVICE_CIDRS,
    STORAGE_VERSIONS,
    VALIDATING_ADMISSION_POLICIES,
)
from shipwheel.controllers.admission_policy_status import AdmissionPolicyStatusController
from shipwheel.controllers.autoscaler import HorizontalPodAutoscalerController
from shipwheel.controllers.bootstrap import BootstrapSigner, TokenCleaner
from shipwheel.controllers.certificates import CsrApprover, CsrCleaner, CsrSigner
from shipwheel.controllers.clusterrole_aggregation import ClusterRoleAggregationController
from shipwheel.controllers.config import ControllerManagerConfig
from shipwheel.controllers.cronjob import CronJobController
from shipwheel.controllers.daemonset import DaemonSetController
from shipwheel.controllers.deployment import DeploymentController
from shipwheel.controllers.devices import DeviceTaintEvictionController, ResourceClaimController
from shipwheel.controllers.disruption import DisruptionController
from shipwheel.controllers.endpoints import EndpointsController
from shipwheel.controllers.endpointslice import EndpointSliceController
from shipwheel.controllers.endpointslice_mirroring import EndpointSliceMirroringController
from shipwheel.controllers.framework import Context, Controller
from shipwheel.controllers.garbage_collector import GarbageCollector
from shipwheel.controllers.job import JobController
from shipwheel.controllers.namespace import NamespaceController
from shipwheel.controllers.node_ipam import NodeIpamController
from shipwheel.controllers.node_lifecycle import NodeLifecycleController
from shipwheel.controllers.node_ttl import NodeTtlController
from shipwheel.controllers.pod_gc import PodGarbageCollector
from shipwheel.controllers.replicaset import ReplicaSetController, ReplicationControllerController
from shipwheel.controllers.resource_quota import ResourceQuotaController
from shipwheel.controllers.root_ca import RootCaPublisher
from shipwheel.controllers.service_cidr import ServiceCidrController
from shipwheel.controllers.serviceaccount import ServiceAccountController
from shipwheel.controllers.serviceaccount_tokens import LegacyTokenCleaner, ServiceAccountTokenController
from shipwheel.controllers.statefulset import StatefulSetController
from shipwheel.controllers.storage_versions import StorageVersionGarbageCollector
from shipwheel.controllers.taint_eviction import TaintEvictionController
from shipwheel.controllers.ttl_after_finished import TtlAfterFinishedController
from shipwheel.controllers.volumes import (
    AttachDetachController,
    AttributesClassProtection,
    ClaimProtection,
    EphemeralVolumeController,
    ExpandController,
    VolumeBinder,
    VolumeProtection,
)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A controller as `--controllers` knows it."""

    name: str
    alias: str
    make: Callable[[Context], Controller]
    account: str = ""
    """Its service account in kube-system; empty: it acts as the manager itself."""
    source: str = ""
    """The component that its events name; empty: its name."""
    by_default: bool = True
    uses: GroupVersionResource | None = None
    """A resource that not every API server has; without it the controller is left out."""
    needs: Callable[[ControllerManagerConfig], bool] = lambda config: True
    """Whether it can do its work with this configuration; one that cannot is left out."""


_D = Descriptor

CONTROLLERS: tuple[Descriptor, ...] = (
    # First, because it is what lets others act as service accounts of the old kind.
    _D(
        "serviceaccount-token-controller",
        "serviceaccount-token",
        ServiceAccountTokenController,
        needs=lambda config: bool(config.service_account_private_key),
    ),
    _D("serviceaccount-controller", "serviceaccount", ServiceAccountController, "service-account-controller"),
    _D(
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
        LegacyTokenCleaner,
        "legacy-service-account-token-cleaner",
    ),
    _D(
        "root-ca-certificate-publisher-controller",
        "root-ca-cert-publisher",
        RootCaPublisher,
        "root-ca-cert-publisher",
        needs=lambda config: bool(config.root_ca),
    ),
    _D("namespace-controller", "namespace", NamespaceController, "namespace-controller"),
    # Workloads
    _D("deployment-controller", "deployment", DeploymentController, "deployment-controller"),
    _D("replicaset-controller", "replicaset", ReplicaSetController, "replicaset-controller"),
    _D(
        "replicationcontroller-controller",
        "replicationcontroller",
        ReplicationControllerController,
        "replication-controller",
        "replication-controller",
    ),
    _D("statefulset-controller", "statefulset", StatefulSetController, "statefulset-controller"),
    _D("daemonset-controller", "daemonset", DaemonSetController, "daemon-set-controller"),
    _D("job-controller", "job", JobController, "job-controller"),
    _D("cronjob-controller", "cronjob", CronJobController, "cronjob-controller"),
    _D(
        "ttl-after-finished-controller",
        "ttl-after-finished",
        TtlAfterFinishedController,
        "ttl-after-finished-controller",
    ),
    _D("disruption-controller", "disruption", DisruptionController, "disruption-controller", "controllermanager"),
    _D(
        "horizontal-pod-autoscaler-controller",
        "horizontalpodautoscaling",
        HorizontalPodAutoscalerController,
        "horizontal-pod-autoscaler",
        "horizontal-pod-autoscaler",
    ),
    # Services
    _D(
        "endpointslice-controller",
        "endpointslice",
        EndpointSliceController,
        "endpointslice-controller",
        "endpoint-slice-controller",
    ),
    _D("endpoints-controller", "endpoint", EndpointsController, "endpoint-controller", "endpoint-controller"),
    _D(
        "endpointslice-mirroring-controller",
        "endpointslicemirroring",
        EndpointSliceMirroringController,
        "endpointslicemirroring-controller",
        "endpoint-slice-mirroring-controller",
    ),
    _D(
        "service-cidr-controller",
        "",
        ServiceCidrController,
        "service-cidrs-controller",
        uses=SERVICE_CIDRS,
    ),
    # Nodes and pods
    _D(
        "node-lifecycle-controller",
        "nodelifecycle",
        NodeLifecycleController,
        "node-controller",
        "node-controller",
    ),
    _D("taint-eviction-controller", "", TaintEvictionController, "node-controller"),
    _D("ttl-controller", "ttl", NodeTtlController, "ttl-controller"),
    _D(
        "node-ipam-controller",
        "nodeipam",
        NodeIpamController,
        "node-controller",
        "cidrAllocator",
        needs=lambda config: config.allocate_node_cidrs,
    ),
    _D("pod-garbage-collector-controller", "podgc", PodGarbageCollector, "pod-garbage-collector"),
    _D("resourcequota-controller", "resourcequota", ResourceQuotaController, "resourcequota-controller"),
    # Storage
    _D(
        "persistentvolume-binder-controller",
        "persistentvolume-binder",
        VolumeBinder,
        "persistent-volume-binder",
        "persistentvolume-controller",
    ),
    _D(
        "persistentvolume-attach-detach-controller",
        "attachdetach",
        AttachDetachController,
        "attachdetach-controller",
        "attachdetach-controller",
    ),
    _D(
        "persistentvolume-expander-controller",
        "persistentvolume-expander",
        ExpandController,
        "expand-controller",
        "volume_expand",
    ),
    _D(
        "persistentvolumeclaim-protection-controller",
        "pvc-protection",
        ClaimProtection,
        "pvc-protection-controller",
    ),
    _D(
        "persistentvolume-protection-controller",
        "pv-protection",
        VolumeProtection,
        "pv-protection-controller",
    ),
    _D(
        "volumeattributesclass-protection-controller",
        "",
        AttributesClassProtection,
        "volumeattributesclass-protection-controller",
    ),
    _D(
        "ephemeral-volume-controller",
        "ephemeral-volume",
        EphemeralVolumeController,
        "ephemeral-volume-controller",
        "ephemeral_volume",
    ),
    # Devices
    _D(
        "resourceclaim-controller",
        "resource-claim-controller",
        ResourceClaimController,
        "resource-claim-controller",
        "resource_claim",
        uses=RESOURCE_CLAIMS,
    ),
    _D(
        "device-taint-eviction-controller",
        "",
        DeviceTaintEvictionController,
        "device-taint-eviction-controller",
        uses=RESOURCE_SLICES,
    ),
    # Identity
    _D(
        "clusterrole-aggregation-controller",
        "clusterrole-aggregation",
        ClusterRoleAggregationController,
        "clusterrole-aggregation-controller",
    ),
    _D(
        "certificatesigningrequest-signing-controller",
        "csrsigning",
        CsrSigner,
        "certificate-controller",
        needs=lambda config: bool(config.cluster_signing_certificates),
    ),
    _D("certificatesigningrequest-approving-controller", "csrapproving", CsrApprover, "certificate-controller"),
    _D("certificatesigningrequest-cleaner-controller", "csrcleaner", CsrCleaner, "certificate-controller"),
    _D("bootstrap-signer-controller", "bootstrapsigner", BootstrapSigner, "bootstrap-signer", by_default=False),
    _D("token-cleaner-controller", "tokencleaner", TokenCleaner, "token-cleaner", by_default=False),
    # Housekeeping
    _D(
        "storageversion-garbage-collector-controller",
        "storage-version-gc",
        StorageVersionGarbageCollector,
        "storage-version-garbage-collector",
        uses=STORAGE_VERSIONS,
    ),
    _D(
        "validatingadmissionpolicy-status-controller",
        "",
        AdmissionPolicyStatusController,
        "validatingadmissionpolicy-status-controller",
        uses=VALIDATING_ADMISSION_POLICIES,
    ),
    # Last, so that it finds the informers that the others share.
    _D("garbage-collector-controller", "garbagecollector", GarbageCollector, "generic-garbage-collector"),
)


_CLOUD = "there is no cloud provider"
_GATED = "it is disabled by a feature gate"
ABSENT: dict[str, str] = {
    "service-lb-controller": _CLOUD,
    "service": _CLOUD,
    "node-route-controller": _CLOUD,
    "route": _CLOUD,
    "cloud-node-lifecycle-controller": _CLOUD,
    "cloud-node-lifecycle": _CLOUD,
    "kube-apiserver-serving-clustertrustbundle-publisher-controller": _GATED,
    "podcertificaterequest-cleaner-controller": _GATED,
    "podgroup-protection-controller": _GATED,
    "resourcepoolstatusrequest-controller": _GATED,
    "storage-version-migrator-controller": _GATED,
    "svm": _GATED,
}
"""Names that upstream knows but does not run by itself either, and why."""


def select(wanted: Sequence[str], known: Iterable[Descriptor] = CONTROLLERS) -> list[Descriptor]:
    """The controllers that `--controllers` asks for; ValueError for a name that there is none of.

    `foo` is on, `-foo` is off, `*` is all that are on by default; the first that says something about a
    controller counts, by its name or its older alias.
    """
    known = list(known)
    names = {name for each in known for name in (each.name, each.alias) if name}
    names |= ABSENT.keys()
    unknown = [name for name in wanted if name != "*" and name.removeprefix("-") not in names]
    if unknown:
        raise ValueError(f'"{unknown[0]}" is not in the list of known controllers')
    return [each for each in known if _is_on(each, wanted)]


def _is_on(descriptor: Descriptor, wanted: Sequence[str]) -> bool:
    own = {descriptor.name, descriptor.alias} - {""}
    for name in wanted:
        if name in own:
            return True
        if name.removeprefix("-") in own:
            return False
    return "*" in wanted and descriptor.by_default
