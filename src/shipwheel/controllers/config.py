"""The controller manager's configuration and its flags, with upstream's names and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from shipwheel.client.flags import LOG_FLAGS, Flag

_LEADER = "Leader election"
_SERVING = "Secure serving"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerManagerConfig:
    """Each field is the flag of its name; times are in seconds. Certificates and keys that flags name as files
    are here as PEM text."""

    controllers: tuple[str, ...] = ("*",)
    use_service_account_credentials: bool = False
    # Connections
    kubeconfig: str = ""
    kube_api_qps: float = 20
    kube_api_burst: int = 30
    bind_address: str = "0.0.0.0"
    secure_port: int = 10257
    tls_cert_file: str = ""
    tls_private_key_file: str = ""
    client_ca_file: str = ""
    authorization_always_allow_paths: tuple[str, ...] = ("/healthz", "/readyz", "/livez")
    # Leader election
    leader_elect: bool = True
    leader_elect_lease_duration: float = 15
    leader_elect_renew_deadline: float = 10
    leader_elect_retry_period: float = 2
    leader_elect_resource_name: str = "kube-controller-manager"
    leader_elect_resource_namespace: str = "kube-system"
    # Cluster
    cluster_name: str = "kubernetes"
    cluster_cidr: tuple[str, ...] = ()
    service_cluster_ip_range: tuple[str, ...] = ()
    allocate_node_cidrs: bool = False
    node_cidr_mask_size: int = 0
    node_cidr_mask_size_ipv4: int = 0
    node_cidr_mask_size_ipv6: int = 0
    # Identity
    root_ca: str = ""
    service_account_private_key: str = ""
    legacy_service_account_token_clean_up_period: float = 365 * 24 * 3600
    cluster_signing_certificates: Mapping[str, tuple[str, str]] | None = None
    """(certificate, key) by signer name; under the empty name those for all without their own."""
    cluster_signing_duration: float = 365 * 24 * 3600
    # Numbers of workers
    concurrent_deployment_syncs: int = 5
    concurrent_replica_set_syncs: int = 5
    concurrent_rc_syncs: int = 5
    concurrent_statefulset_syncs: int = 5
    concurrent_daemonset_syncs: int = 2
    concurrent_job_syncs: int = 5
    concurrent_cron_job_syncs: int = 5
    concurrent_endpoint_syncs: int = 5
    concurrent_service_endpoint_syncs: int = 5
    concurrent_namespace_syncs: int = 10
    concurrent_gc_syncs: int = 20
    concurrent_resource_quota_syncs: int = 5
    concurrent_serviceaccount_token_syncs: int = 5
    concurrent_ttl_after_finished_syncs: int = 5
    concurrent_ephemeralvolume_syncs: int = 5
    concurrent_horizontal_pod_autoscaler_syncs: int = 5
    mirroring_concurrent_service_endpoint_syncs: int = 5
    # Nodes
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
    pvclaimbinder_sync_period: float = 15
    attach_detach_reconcile_sync_period: float = 60
    disable_attach_detach_reconcile_sync: bool = False
    local_path_provisioner: str = ""
    """Directory on the nodes for the built-in provisioner of the default class; empty: there is none. Ours."""


_FILES = {
    "root-ca-file": "root_ca",
    "service-account-private-key-file": "service_account_private_key",
}
_SIGNERS = {
    "kube-apiserver-client": "kubernetes.io/kube-apiserver-client",
    "kubelet-client": "kubernetes.io/kube-apiserver-client-kubelet",
    "kubelet-serving": "kubernetes.io/kubelet-serving",
    "legacy-unknown": "kubernetes.io/legacy-unknown",
}
_CIDRS = ("cluster-cidr", "service-cluster-ip-range")

_HELP = {
    "controllers": (
        "A list of controllers to enable. '*' enables all on-by-default controllers, 'foo' enables the controller "
        "named 'foo', '-foo' disables the controller named 'foo'."
    ),
    "use-service-account-credentials": "If true, use individual service account credentials for each controller.",
    "kubeconfig": "Path to kubeconfig file with authorization and master location information.",
    "leader-elect": "Start a leader election client and gain leadership before executing the main loop.",
    "cluster-cidr": "CIDR Range for Pods in cluster. Only used when --allocate-node-cidrs=true.",
    "service-cluster-ip-range": "CIDR Range for Services in cluster. Only used when --allocate-node-cidrs=true.",
    "allocate-node-cidrs": "Should CIDRs for Pods be allocated and set on the nodes.",
    "secure-port": "The port on which to serve HTTPS. If 0, don't serve HTTPS at all.",
    "terminated-pod-gc-threshold": (
        "Number of terminated pods that can exist before the terminated pod garbage collector starts deleting "
        "them. If <= 0, it is disabled."
    ),
    "local-path-provisioner": "Directory on the nodes where volumes of the built-in local-path class are made.",
}
_DURATIONS = frozenset(
    {
        "leader-elect-lease-duration", "leader-elect-renew-deadline", "leader-elect-retry-period",
        "legacy-service-account-token-clean-up-period", "cluster-signing-duration", "node-monitor-period",
        "node-monitor-grace-period", "node-startup-grace-period", "endpoint-updates-batch-period",
        "endpointslice-updates-batch-period", "mirroring-endpointslice-updates-batch-period",
        "namespace-sync-period", "resource-quota-sync-period", "horizontal-pod-autoscaler-sync-period",
        "horizontal-pod-autoscaler-downscale-stabilization", "horizontal-pod-autoscaler-cpu-initialization-period",
        "horizontal-pod-autoscaler-initial-readiness-delay", "pvclaimbinder-sync-period",
        "attach-detach-reconcile-sync-period",
    }
)  # fmt: skip
_RENAMED = {
    "concurrent-replica-set-syncs": "concurrent-replicaset-syncs",
    "concurrent-rc-syncs": "concurrent-rc-syncs",
    "attach-detach-reconcile-sync-period": "attach-detach-reconcile-sync-period",
    "disable-attach-detach-reconcile-sync": "disable-attach-detach-reconcile-sync",
}
_NOT_FLAGS = frozenset(
    {
        "root_ca",
        "service_account_private_key",
        "cluster_signing_certificates",
        "namespace_deletion_grace_period",
    }
)


def _flag_name(field: str) -> str:
    name = field.replace("_", "-")
    return _RENAMED.get(name, name)


def _flag_of(field: str, default: Any) -> Flag:
    name = _flag_name(field)
    group = _LEADER if name.startswith("leader-elect") else ""
    text = _HELP.get(name, f"The {name.replace('-', ' ')}.")
    if name in _DURATIONS:
        return Flag(name, "duration", float(default), text, group=group)
    if name in _CIDRS:
        return Flag(name, "stringSlice", (), text)
    kind: Any = {bool: "bool", int: "int", float: "float", str: "string", tuple: "stringSlice"}[type(default)]
    return Flag(name, kind, default, text, group=_SERVING if name == "secure-port" else group)


def _flags() -> tuple[Flag, ...]:
    flags = [
        _flag_of(field.name, field.default) for field in fields(ControllerManagerConfig) if field.name not in _NOT_FLAGS
    ]
    flags += [
        Flag("root-ca-file", "string", "", "Published to every namespace as kube-root-ca.crt."),
        Flag(
            "service-account-private-key-file",
            "string",
            "",
            "PEM-encoded key used to sign service account tokens.",
        ),
        Flag(
            "cluster-signing-cert-file",
            "string",
            "",
            "PEM-encoded CA certificate used to issue certificates.",
        ),
        Flag("cluster-signing-key-file", "string", "", "PEM-encoded CA key used to issue certificates."),
    ]
    for part in _SIGNERS:
        for kind, what in (("cert", "certificate"), ("key", "key")):
            flags.append(
                Flag(
                    f"cluster-signing-{part}-{kind}-file",
                    "string",
                    "",
                    f"PEM-encoded CA {what} of this signer alone.",
                )
            )
    return (*flags, *LOG_FLAGS)


FLAGS: tuple[Flag, ...] = _flags()


def from_flags(values: Mapping[str, Any]) -> ControllerManagerConfig:
    """The configuration that flags mean; FileNotFoundError and ValueError for files that cannot be used."""
    settings = {
        field.name: values[_flag_name(field.name)]
        for field in fields(ControllerManagerConfig)
        if field.name not in _NOT_FLAGS
    }
    for flag, field_name in _FILES.items():
        settings[field_name] = _read(values[flag])
    settings["cluster_signing_certificates"] = _signers(values)
    return ControllerManagerConfig(**settings)


def _signers(values: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    signers: dict[str, tuple[str, str]] = {}
    for part, signer in {"": "", **_SIGNERS}.items():
        prefix = f"cluster-signing-{part}-" if part else "cluster-signing-"
        certificate, key = values[f"{prefix}cert-file"], values[f"{prefix}key-file"]
        if bool(certificate) != bool(key):
            raise ValueError(f"--{prefix}cert-file and --{prefix}key-file must be given together")
        if certificate:
            signers[signer] = (_read(certificate), _read(key))
    return signers


def _read(path: str) -> str:
    return Path(path).read_text() if path else ""
