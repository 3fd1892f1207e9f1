"""The controller manager's configuration, with upstream's names and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.client import features, serving_flags
from shipwheel.client.fixed_flags import Fixed, check
from shipwheel.client.flags import LOG_FLAGS, Flag
from shipwheel.client.serving import ServingConfig
from shipwheel.controllers.flags import SECTIONS

NAME = "kube-controller-manager"

_YEAR = 365 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerManagerConfig:
    """Each field is the flag of its name; times are in seconds. Certificates, keys and pod templates that flags
    name as files are here by their contents."""

    # Generic
    controllers: tuple[str, ...] = ("*",)
    kubeconfig: str = ""
    master: str = ""
    kube_api_qps: float = 20
    kube_api_burst: int = 30
    use_service_account_credentials: bool = False
    cluster_name: str = "kubernetes"
    cluster_cidr: tuple[str, ...] = ()
    service_cluster_ip_range: tuple[str, ...] = ()
    allocate_node_cidrs: bool = False
    # Leader election
    leader_elect: bool = True
    leader_elect_lease_duration: float = 15
    leader_elect_renew_deadline: float = 10
    leader_elect_retry_period: float = 2
    leader_elect_resource_name: str = "kube-controller-manager"
    leader_elect_resource_namespace: str = "kube-system"
    # Serving
    serving: ServingConfig = field(default_factory=lambda: ServingConfig(port=10257, name=NAME))
    disabled_metrics: tuple[str, ...] = ()
    # Identity
    root_ca: str = ""
    service_account_private_key: str = ""
    legacy_service_account_token_clean_up_period: float = _YEAR
    cluster_signing_certificates: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """(certificate, key) by signer name; under the empty name those for all without their own."""
    cluster_signing_duration: float = _YEAR
    # Numbers of workers
    concurrent_deployment_syncs: int = 5
    concurrent_replicaset_syncs: int = 5
    concurrent_rc_syncs: int = 5
    concurrent_statefulset_syncs: int = 5
    concurrent_daemonset_syncs: int = 2
    concurrent_job_syncs: int = 5
    concurrent_cron_job_syncs: int = 5
    concurrent_ttl_after_finished_syncs: int = 5
    concurrent_endpoint_syncs: int = 5
    concurrent_service_endpoint_syncs: int = 5
    mirroring_concurrent_service_endpoint_syncs: int = 5
    concurrent_namespace_syncs: int = 10
    concurrent_gc_syncs: int = 20
    concurrent_resource_quota_syncs: int = 5
    concurrent_serviceaccount_token_syncs: int = 5
    concurrent_horizontal_pod_autoscaler_syncs: int = 5
    concurrent_ephemeralvolume_syncs: int = 5
    concurrent_resourceclaim_syncs: int = 50
    concurrent_device_taint_eviction_syncs: int = 50
    concurrent_validating_admission_policy_status_syncs: int = 5
    # Nodes
    node_cidr_mask_size: int = 0
    node_cidr_mask_size_ipv4: int = 0
    node_cidr_mask_size_ipv6: int = 0
    node_monitor_period: float = 5
    node_monitor_grace_period: float = 50
    node_startup_grace_period: float = 60
    node_eviction_rate: float = 0.1
    secondary_node_eviction_rate: float = 0.01
    large_cluster_size_threshold: int = 50
    unhealthy_zone_threshold: float = 0.55
    terminated_pod_gc_threshold: int = 12500
    # Services
    endpoint_updates_batch_period: float = 0
    endpointslice_updates_batch_period: float = 0
    max_endpoints_per_slice: int = 100
    mirroring_endpointslice_updates_batch_period: float = 0
    mirroring_max_endpoints_per_subset: int = 1000
    # Housekeeping
    enable_garbage_collector: bool = True
    namespace_deletion_grace_period: float = 0
    """Not a flag: how long other API servers may need to learn that a namespace is being deleted."""
    namespace_sync_period: float = 300
    resource_quota_sync_period: float = 300
    # Autoscaling
    horizontal_pod_autoscaler_sync_period: float = 15
    horizontal_pod_autoscaler_downscale_stabilization: float = 300
    horizontal_pod_autoscaler_tolerance: float = 0.1
    horizontal_pod_autoscaler_cpu_initialization_period: float = 300
    horizontal_pod_autoscaler_initial_readiness_delay: float = 30
    # Storage
    attach_detach_reconcile_sync_period: float = 60
    disable_attach_detach_reconcile_sync: bool = False
    disable_force_detach_on_timeout: bool = False
    pvclaimbinder_sync_period: float = 15
    enable_dynamic_provisioning: bool = True
    pv_recycler_pod_nfs: Obj | None = None
    """None: the pod that comes with it."""
    pv_recycler_minimum_timeout_nfs: int = 300
    pv_recycler_increment_timeout_nfs: int = 30
    pv_recycler_pod_hostpath: Obj | None = None
    pv_recycler_minimum_timeout_hostpath: int = 60
    pv_recycler_timeout_increment_hostpath: int = 30
    local_path_provisioner: str = ""
    local_path_helper_image: str = "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6"
    local_path_helper_tools: tuple[str, ...] = ()


_SIGNERS = {
    "": "",
    "kube-apiserver-client-": "kubernetes.io/kube-apiserver-client",
    "kubelet-client-": "kubernetes.io/kube-apiserver-client-kubelet",
    "kubelet-serving-": "kubernetes.io/kubelet-serving",
    "legacy-unknown-": "kubernetes.io/legacy-unknown",
}
_NO_CLOUD = "there is no cloud provider in it"
_FIXED = (
    *serving_flags.FIXED,
    Fixed("", "cidr-allocator-type", "string", "RangeAllocator"),
    Fixed("", "cloud-config", "string", ""),
    Fixed("", "cloud-provider", "string", "", also=("external",)),
    Fixed("", "concurrent-service-syncs", "int", 1, moot=_NO_CLOUD),
    Fixed("", "configure-cloud-routes", "bool", True, moot=_NO_CLOUD),
    Fixed("", "route-reconciliation-period", "duration", "10s", moot=_NO_CLOUD),
    Fixed("", "external-cloud-volume-plugin", "string", ""),
    Fixed("", "controller-shutdown-timeout", "duration", "10s", moot="controllers end as soon as they are told to"),
    Fixed("", "controller-start-interval", "duration", "0s"),
    Fixed("", "enable-hostpath-provisioner", "bool", False),
    Fixed("", "enable-leader-migration", "bool", False),
    Fixed("", "leader-migration-config", "string", ""),
    Fixed("", "flex-volume-plugin-dir", "string", "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/"),
    Fixed("", "min-resync-period", "duration", "12h0m0s", moot="nothing is synced anew but what has changed"),
    Fixed("", "unsupported-kube-api-over-localhost", "bool", False),
)
_DEFAULTS: dict[str, Any] = {each.name: each.default for each in fields(ControllerManagerConfig)}

FLAGS: tuple[Flag, ...] = (
    *(
        Flag(name, kind, _DEFAULTS.get(name.replace("-", "_"), ""), text, group=section)
        for section, rows in SECTIONS.items()
        for name, kind, text in rows
    ),
    *serving_flags.flags(10257),
    *(each.as_flag() for each in _FIXED if each not in serving_flags.FIXED),
    *LOG_FLAGS,
)


def from_flags(values: Mapping[str, Any]) -> ControllerManagerConfig:
    """The configuration that flags mean. OSError for files that cannot be read, ValueError for what cannot be."""
    check(_FIXED, values)
    features.check(values["feature-gates"])
    settings = {
        field_name: values[name]
        for name in values
        if (field_name := name.replace("-", "_")) in _DEFAULTS
    }  # fmt: skip
    settings["serving"] = serving_flags.from_flags(values, NAME)
    settings["root_ca"] = _read(values["root-ca-file"])
    settings["service_account_private_key"] = _read(values["service-account-private-key-file"])
    settings["cluster_signing_certificates"] = _signers(values)
    for kind in ("nfs", "hostpath"):
        settings[f"pv_recycler_pod_{kind}"] = _pod(values[f"pv-recycler-pod-template-filepath-{kind}"])
    config = ControllerManagerConfig(**settings)
    _check(config)
    return config


def _check(config: ControllerManagerConfig) -> None:
    if not config.leader_elect:
        return
    if config.leader_elect_lease_duration <= config.leader_elect_renew_deadline:
        raise ValueError("leaderElection: LeaseDuration must be greater than RenewDeadline")
    if config.leader_elect_renew_deadline <= 1.2 * config.leader_elect_retry_period:
        raise ValueError("leaderElection: RenewDeadline must be greater than RetryPeriod * JitterFactor")


def _signers(values: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    signers: dict[str, tuple[str, str]] = {}
    for part, signer in _SIGNERS.items():
        certificate = values[f"cluster-signing-{part}cert-file"]
        key = values[f"cluster-signing-{part}key-file"]
        if bool(certificate) != bool(key):
            raise ValueError(f"--cluster-signing-{part}cert-file and its key-file must be given together")
        if certificate:
            signers[signer] = (_read(certificate), _read(key))
    if "" in signers and len(signers) > 1:
        raise ValueError("--cluster-signing-cert-file and signers' own files cannot be given together")
    return signers


def _read(path: str) -> str:
    return Path(path).read_text() if path else ""


def _pod(path: str) -> Obj | None:
    """A pod from a manifest; its first volume is replaced by the one to empty."""
    if not path:
        return None
    import yaml

    pod = yaml.safe_load(_read(path))
    if not isinstance(pod, dict) or not (pod.get("spec") or {}).get("volumes"):
        raise ValueError("does not contain any volume(s)")
    pod.setdefault("metadata", {}).setdefault("namespace", "default")
    return pod
