"""The kubelet's settings, each declared once: its name and default, its place in the file, its flag.

Names and defaults are upstream's (`KubeletConfiguration` v1beta1). How they are read is `config`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from shipwheel.api.meta import Obj
from shipwheel.client.flags import Type
from shipwheel.kubelet.thresholds import HARD_DEFAULTS

Kind = Type | Literal["thresholds", "headers", "memory"]
"""`thresholds` are `signal<amount,...` on a command line, `headers` are `name:value,...`; in the file both are maps.
`memory` of NUMA nodes is `0:memory=1Gi,...;1:...`, and a list in the file."""


def _setting(default: Any, kind: Kind, *, file: str = "", flag: str = "", help: str = "") -> Any:
    """A setting: where it stands in the file (`authentication.anonymous.enabled`), and its flag."""
    metadata = {"kind": kind, "file": file, "flag": flag, "help": help}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class KubeletConfig:
    """Durations are seconds."""

    # Where and who

    kubeconfig: str = _setting(
        "",
        "string",
        flag="kubeconfig",
        help=(
            "Path to a kubeconfig file, specifying how to connect to the API server. "
            "Without it the kubelet runs static pods only."
        ),
    )
    bootstrap_kubeconfig: str = _setting(
        "",
        "string",
        flag="bootstrap-kubeconfig",
        help=(
            "Path to a kubeconfig file that will be used to get client certificate for kubelet, if the file "
            "specified by --kubeconfig does not exist."
        ),
    )
    hostname_override: str = _setting(
        "",
        "string",
        flag="hostname-override",
        help=("If non-empty, will use this string as identification instead of the actual hostname."),
    )
    node_ip: str = _setting(
        "",
        "string",
        flag="node-ip",
        help="IP address (or comma-separated dual-stack IP addresses) of the node.",
    )
    root_dir: str = _setting(
        "/var/lib/kubelet",
        "string",
        flag="root-dir",
        help="Directory path for managing kubelet files (volume mounts,etc).",
    )
    cert_dir: str = _setting(
        "/var/lib/kubelet/pki",
        "string",
        flag="cert-dir",
        help="The directory where the TLS certs are located.",
    )
    pod_logs_dir: str = _setting("/var/log/pods", "string", file="podLogsDir")
    container_logs_dir: str = _setting(
        "/var/log/containers",
        "string",
        flag="container-logs-dir",
        help="Where to link the logs of containers for collectors; empty for nowhere.",
    )
    node_labels: Mapping[str, str] = _setting(
        {},
        "mapStringString",
        flag="node-labels",
        help="Labels to add when registering the node in the cluster.",
    )
    provider_id: str = _setting(
        "",
        "string",
        file="providerID",
        flag="provider-id",
        help=("Unique identifier for identifying the node in a machine database, i.e cloudprovider"),
    )
    cloud_provider: str = _setting(
        "",
        "string",
        flag="cloud-provider",
        help="Set to 'external' where a cloud controller manager initializes nodes.",
    )
    register_node: bool = _setting(
        True, "bool", file="registerNode", flag="register-node", help="Register the node with the apiserver."
    )
    register_with_taints: tuple[Obj, ...] = _setting(
        (),
        "stringSlice",
        file="registerWithTaints",
        flag="register-with-taints",
        help=('Register the node with the given list of taints (comma separated "<key>=<value>:<effect>").'),
    )
    container_runtime_endpoint: str = _setting(
        "unix:///run/containerd/containerd.sock",
        "string",
        file="containerRuntimeEndpoint",
        flag="container-runtime-endpoint",
        help=("The endpoint of container runtime service; `simulated` for pods without processes."),
    )
    image_service_endpoint: str = _setting(
        "",
        "string",
        file="imageServiceEndpoint",
        flag="image-service-endpoint",
        help=(
            "The endpoint of container image service. If not specified, it will be the "
            "same with --container-runtime-endpoint."
        ),
    )

    runtime_request_timeout: float = _setting(
        120.0,
        "duration",
        file="runtimeRequestTimeout",
        flag="runtime-request-timeout",
        help="Timeout of all runtime requests except long running request - pull, logs, exec and attach.",
    )
    feature_gates: Mapping[str, bool] = _setting(
        {},
        "mapStringBool",
        file="featureGates",
        flag="feature-gates",
        help="A set of key=value pairs that describe feature gates for alpha/experimental features.",
    )

    # The process itself

    oom_score_adj: int = _setting(
        -999,
        "int",
        file="oomScoreAdj",
        flag="oom-score-adj",
        help="The oom-score-adj value for kubelet process. Values must be within the range [-1000, 1000].",
    )
    max_open_files: int = _setting(
        1000000,
        "int",
        file="maxOpenFiles",
        flag="max-open-files",
        help="Number of files that can be opened by Kubelet process.",
    )
    fail_cgroup_v1: bool = _setting(
        False,
        "bool",
        file="failCgroupV1",
        flag="fail-cgroupv1",
        help="Prevent the kubelet from starting on the host using cgroup v1.",
    )

    # Pods

    static_pod_path: str = _setting(
        "",
        "string",
        file="staticPodPath",
        flag="pod-manifest-path",
        help=("Path to the directory containing static pod files to run, or the path to a single static pod file."),
    )
    static_pod_url: str = _setting(
        "",
        "string",
        file="staticPodURL",
        flag="manifest-url",
        help="URL for accessing additional Pod specifications to run",
    )
    static_pod_url_header: Mapping[str, Any] = _setting(
        {},
        "headers",
        file="staticPodURLHeader",
        flag="manifest-url-header",
        help="Comma-separated list of HTTP headers to use when accessing the url provided to --manifest-url.",
    )
    file_check_frequency: float = _setting(
        20.0,
        "duration",
        file="fileCheckFrequency",
        flag="file-check-frequency",
        help="Duration between checking config files for new data",
    )
    http_check_frequency: float = _setting(
        20.0,
        "duration",
        file="httpCheckFrequency",
        flag="http-check-frequency",
        help="Duration between checking http for new data",
    )
    sync_frequency: float = _setting(
        60.0,
        "duration",
        file="syncFrequency",
        flag="sync-frequency",
        help="Max period between synchronizing running containers and config",
    )
    max_pods: int = _setting(
        110, "int", file="maxPods", flag="max-pods", help="Number of Pods that can run on this Kubelet."
    )
    pods_per_core: int = _setting(
        0,
        "int",
        file="podsPerCore",
        flag="pods-per-core",
        help=("Number of Pods per core that can run on this Kubelet; 0 disables this limit."),
    )
    pod_pids_limit: int = _setting(
        -1,
        "int",
        file="podPidsLimit",
        flag="pod-max-pids",
        help="Set the maximum number of processes per pod; -1 is no limit.",
    )
    pod_cidr: str = _setting(
        "",
        "string",
        file="podCIDR",
        flag="pod-cidr",
        help="The CIDR to use for pod IP addresses, only used in standalone mode.",
    )
    cluster_dns: tuple[str, ...] = _setting(
        (),
        "stringSlice",
        file="clusterDNS",
        flag="cluster-dns",
        help="Comma-separated list of DNS server IP address.",
    )
    cluster_domain: str = _setting(
        "", "string", file="clusterDomain", flag="cluster-domain", help="Domain for this cluster."
    )
    resolv_conf: str = _setting(
        "/etc/resolv.conf",
        "string",
        file="resolvConf",
        flag="resolv-conf",
        help=("Resolver configuration file used as the basis for the container DNS resolution configuration."),
    )
    allowed_unsafe_sysctls: tuple[str, ...] = _setting(
        (),
        "stringSlice",
        file="allowedUnsafeSysctls",
        flag="allowed-unsafe-sysctls",
        help=("Comma-separated whitelist of unsafe sysctls or unsafe sysctl patterns (ending in *)."),
    )
    seccomp_default: bool = _setting(
        False,
        "bool",
        file="seccompDefault",
        flag="seccomp-default",
        help=("Enable the use of `RuntimeDefault` as the default seccomp profile for all workloads."),
    )
    user_namespace_ids_per_pod: int = _setting(65536, "int", file="userNamespaces.idsPerPod")
    crash_loop_max_seconds: float = _setting(300.0, "duration", file="crashLoopBackOff.maxContainerRestartPeriod")

    # Images

    serialize_image_pulls: bool = _setting(
        True,
        "bool",
        file="serializeImagePulls",
        flag="serialize-image-pulls",
        help="Pull images one at a time.",
    )
    max_parallel_image_pulls: int = _setting(0, "int", file="maxParallelImagePulls")
    registry_pull_qps: int = _setting(
        5,
        "int",
        file="registryPullQPS",
        flag="registry-qps",
        help="If > 0, limit registry pull QPS to this value. If 0, unlimited.",
    )
    registry_burst: int = _setting(
        10,
        "int",
        file="registryBurst",
        flag="registry-burst",
        help="Maximum size of a bursty pulls. Only used if --registry-qps > 0.",
    )
    image_pull_verification: str = _setting(
        "NeverVerifyPreloadedImages", "string", file="imagePullCredentialsVerificationPolicy"
    )
    preloaded_images: tuple[str, ...] = _setting((), "stringSlice", file="preloadedImagesVerificationAllowlist")
    image_credential_provider_config: str = _setting(
        "",
        "string",
        flag="image-credential-provider-config",
        help="Path to a credential provider plugin config file (JSON/YAML/YML).",
    )
    image_credential_provider_bin_dir: str = _setting(
        "",
        "string",
        flag="image-credential-provider-bin-dir",
        help="The path to the directory where credential provider plugin binaries are located.",
    )
    image_minimum_gc_age: float = _setting(
        120.0,
        "duration",
        file="imageMinimumGCAge",
        flag="minimum-image-ttl-duration",
        help="Minimum age for an unused image before it is garbage collected.",
    )
    image_maximum_gc_age: float = _setting(0.0, "duration", file="imageMaximumGCAge")
    image_gc_high: int = _setting(
        85,
        "int",
        file="imageGCHighThresholdPercent",
        flag="image-gc-high-threshold",
        help=("The percent of disk usage after which image garbage collection is always run."),
    )
    image_gc_low: int = _setting(
        80,
        "int",
        file="imageGCLowThresholdPercent",
        flag="image-gc-low-threshold",
        help=("The percent of disk usage before which image garbage collection is never run."),
    )

    # Resources

    cgroup_root: str = _setting(
        "", "string", file="cgroupRoot", flag="cgroup-root", help="Optional root cgroup to use for pods."
    )
    cgroups_per_qos: bool = _setting(
        True,
        "bool",
        file="cgroupsPerQOS",
        flag="cgroups-per-qos",
        help=("Enable creation of QoS cgroup hierarchy, if true top level QoS and pod cgroups are created."),
    )
    cpu_cfs_quota: bool = _setting(
        True,
        "bool",
        file="cpuCFSQuota",
        flag="cpu-cfs-quota",
        help="Enable CPU CFS quota enforcement for containers that specify CPU limits",
    )
    cpu_cfs_quota_period: float = _setting(
        0.1,
        "duration",
        file="cpuCFSQuotaPeriod",
        flag="cpu-cfs-quota-period",
        help="Sets CPU CFS quota period value, cpu.cfs_period_us",
    )
    system_reserved: Mapping[str, str] = _setting(
        {},
        "mapStringString",
        file="systemReserved",
        flag="system-reserved",
        help=(
            "A set of ResourceName=ResourceQuantity pairs that describe resources "
            "reserved for non-kubernetes components."
        ),
    )
    kube_reserved: Mapping[str, str] = _setting(
        {},
        "mapStringString",
        file="kubeReserved",
        flag="kube-reserved",
        help=(
            "A set of ResourceName=ResourceQuantity pairs that describe resources "
            "reserved for kubernetes system components."
        ),
    )
    reserved_system_cpus: str = _setting(
        "",
        "string",
        file="reservedSystemCPUs",
        flag="reserved-cpus",
        help=(
            "A comma-separated list of CPUs or CPU ranges that are reserved for system and kubernetes usage; it "
            "overrides the cpu of --system-reserved and --kube-reserved."
        ),
    )
    enforce_node_allocatable: tuple[str, ...] = _setting(
        ("pods",),
        "stringSlice",
        file="enforceNodeAllocatable",
        flag="enforce-node-allocatable",
        help=(
            "The levels of node allocatable enforcement: 'none', 'pods', 'system-reserved', 'kube-reserved', "
            "'system-reserved-compressible' and 'kube-reserved-compressible'."
        ),
    )
    system_reserved_cgroup: str = _setting(
        "",
        "string",
        file="systemReservedCgroup",
        flag="system-reserved-cgroup",
        help="The cgroup of non-kubernetes components that --system-reserved is enforced on.",
    )
    kube_reserved_cgroup: str = _setting(
        "",
        "string",
        file="kubeReservedCgroup",
        flag="kube-reserved-cgroup",
        help="The cgroup of kubernetes components that --kube-reserved is enforced on.",
    )
    cpu_manager_policy: str = _setting(
        "none",
        "string",
        file="cpuManagerPolicy",
        flag="cpu-manager-policy",
        help="The CPU manager policy to use: 'none' or 'static'.",
    )
    cpu_manager_policy_options: Mapping[str, str] = _setting(
        {},
        "mapStringString",
        file="cpuManagerPolicyOptions",
        flag="cpu-manager-policy-options",
        help="A set of key=value CPU manager policy options to fine tune its behaviour.",
    )
    cpu_manager_reconcile_period: float = _setting(
        10.0,
        "duration",
        file="cpuManagerReconcilePeriod",
        flag="cpu-manager-reconcile-period",
        help="How often running containers are moved to the CPUs that they may use.",
    )
    memory_manager_policy: str = _setting(
        "None",
        "string",
        file="memoryManagerPolicy",
        flag="memory-manager-policy",
        help="The memory manager policy to use: 'None' or 'Static'.",
    )
    reserved_memory: tuple[Obj, ...] = _setting(
        (),
        "memory",
        file="reservedMemory",
        flag="reserved-memory",
        help="Memory reservations of NUMA nodes (e.g. '0:memory=1Gi,hugepages-1Gi=2Gi;1:memory=2Gi').",
    )
    topology_manager_policy: str = _setting(
        "none",
        "string",
        file="topologyManagerPolicy",
        flag="topology-manager-policy",
        help="The topology manager policy: 'none', 'best-effort', 'restricted' or 'single-numa-node'.",
    )
    topology_manager_scope: str = _setting(
        "container",
        "string",
        file="topologyManagerScope",
        flag="topology-manager-scope",
        help="The scope in which resources are aligned: 'container' or 'pod'.",
    )
    topology_manager_policy_options: Mapping[str, str] = _setting(
        {},
        "mapStringString",
        file="topologyManagerPolicyOptions",
        flag="topology-manager-policy-options",
        help="A set of key=value topology manager policy options to fine tune its behaviour.",
    )
    swap_behavior: str = _setting("", "string", file="memorySwap.swapBehavior")
    local_storage_isolation: bool = _setting(
        True,
        "bool",
        file="localStorageCapacityIsolation",
        flag="local-storage-capacity-isolation",
        help="Whether local ephemeral storage is a resource of its own, with requests and limits.",
    )
    volume_stats_period: float = _setting(
        60.0,
        "duration",
        file="volumeStatsAggPeriod",
        flag="volume-stats-agg-period",
        help="How often the disk usage of volumes is calculated; negative for never.",
    )
    single_process_oom_kill: bool | None = _setting(None, "bool", file="singleProcessOOMKill")
    fail_swap_on: bool = _setting(
        True,
        "bool",
        file="failSwapOn",
        flag="fail-swap-on",
        help="Makes the Kubelet fail to start if swap is enabled on the node.",
    )
    protect_kernel_defaults: bool = _setting(
        False,
        "bool",
        file="protectKernelDefaults",
        flag="protect-kernel-defaults",
        help="Do not start where kernel settings differ from those that a kubelet counts on.",
    )
    enable_controller_attach_detach: bool = _setting(
        True,
        "bool",
        file="enableControllerAttachDetach",
        flag="enable-controller-attach-detach",
        help=(
            "Enables the Attach/Detach controller to manage attachment/detachment of volumes scheduled to this node."
        ),
    )

    # Pressure

    eviction_hard: Mapping[str, str] = _setting(
        HARD_DEFAULTS,
        "thresholds",
        file="evictionHard",
        flag="eviction-hard",
        help="A set of eviction thresholds (e.g. memory.available<1Gi) that if met would trigger a pod eviction.",
    )
    eviction_soft: Mapping[str, str] = _setting(
        {},
        "thresholds",
        file="evictionSoft",
        flag="eviction-soft",
        help=(
            "A set of eviction thresholds (e.g. memory.available<1.5Gi) that if met over a corresponding grace "
            "period would trigger a pod eviction."
        ),
    )
    eviction_soft_grace_period: Mapping[str, str] = _setting(
        {},
        "mapStringString",
        file="evictionSoftGracePeriod",
        flag="eviction-soft-grace-period",
        help=(
            "A set of eviction grace periods (e.g. memory.available=1m30s) that correspond to how long a soft "
            "eviction threshold must hold before triggering a pod eviction."
        ),
    )
    eviction_minimum_reclaim: Mapping[str, str] = _setting(
        {},
        "mapStringString",
        file="evictionMinimumReclaim",
        flag="eviction-minimum-reclaim",
        help=(
            "A set of minimum reclaims (e.g. imagefs.available=2Gi) that describes the minimum amount of resource "
            "the kubelet will reclaim when performing a pod eviction if that resource is under pressure."
        ),
    )
    eviction_pressure_transition_period: float = _setting(
        300.0,
        "duration",
        file="evictionPressureTransitionPeriod",
        flag="eviction-pressure-transition-period",
        help=("Duration for which the kubelet has to wait before transitioning out of an eviction pressure condition."),
    )
    eviction_max_pod_grace_period: int = _setting(
        0,
        "int",
        file="evictionMaxPodGracePeriod",
        flag="eviction-max-pod-grace-period",
        help=(
            "Maximum allowed grace period (in seconds) to use when terminating pods in response to a soft eviction "
            "threshold being met."
        ),
    )
    merge_default_eviction_settings: bool = _setting(False, "bool", file="mergeDefaultEvictionSettings")

    # Status

    node_status_update_frequency: float = _setting(
        10.0,
        "duration",
        file="nodeStatusUpdateFrequency",
        flag="node-status-update-frequency",
        help="Specifies how often kubelet posts node status to master.",
    )
    node_status_report_frequency: float = _setting(300.0, "duration", file="nodeStatusReportFrequency")
    node_lease_duration_seconds: int = _setting(40, "int", file="nodeLeaseDurationSeconds")
    node_status_max_images: int = _setting(
        50,
        "int",
        file="nodeStatusMaxImages",
        flag="node-status-max-images",
        help=(
            "The maximum number of images to report in Node.Status.Images. If -1 is specified, no cap will be applied."
        ),
    )
    kube_api_qps: int = _setting(
        50,
        "int",
        file="kubeAPIQPS",
        flag="kube-api-qps",
        help="QPS to use while talking with kubernetes apiserver.",
    )
    kube_api_burst: int = _setting(
        100,
        "int",
        file="kubeAPIBurst",
        flag="kube-api-burst",
        help="Burst to use while talking with kubernetes apiserver.",
    )

    # The end

    shutdown_grace_period: float = _setting(0.0, "duration", file="shutdownGracePeriod")
    shutdown_grace_period_critical_pods: float = _setting(0.0, "duration", file="shutdownGracePeriodCriticalPods")
    shutdown_grace_period_by_pod_priority: tuple[Obj, ...] = _setting(
        (), "stringSlice", file="shutdownGracePeriodByPodPriority"
    )

    event_record_qps: int = _setting(
        50,
        "int",
        file="eventRecordQPS",
        flag="event-qps",
        help="QPS to limit event creations. The number must be >= 0.",
    )
    event_burst: int = _setting(
        100,
        "int",
        file="eventBurst",
        flag="event-burst",
        help="Maximum size of a bursty event records. The number must be >= 0.",
    )

    # Serving

    enable_server: bool = _setting(
        True, "bool", file="enableServer", flag="enable-server", help="Enable the Kubelet's server"
    )
    address: str = _setting(
        "0.0.0.0", "ip", file="address", flag="address", help="The IP address for the Kubelet to serve on"
    )
    port: int = _setting(10250, "int", file="port", flag="port", help="The port for the Kubelet to serve on.")
    enable_debugging_handlers: bool = _setting(
        True,
        "bool",
        file="enableDebuggingHandlers",
        flag="enable-debugging-handlers",
        help="Enables server endpoints for log collection and local running of containers and commands",
    )
    enable_system_log_handler: bool = _setting(True, "bool", file="enableSystemLogHandler")
    healthz_port: int = _setting(
        10248,
        "int",
        file="healthzPort",
        flag="healthz-port",
        help="The port of the localhost healthz endpoint (set to 0 to disable)",
    )
    healthz_bind_address: str = _setting(
        "127.0.0.1",
        "ip",
        file="healthzBindAddress",
        flag="healthz-bind-address",
        help="The IP address for the healthz server to serve on",
    )
    tls_cert_file: str = _setting(
        "",
        "string",
        file="tlsCertFile",
        flag="tls-cert-file",
        help="File containing x509 Certificate used for serving HTTPS.",
    )
    tls_private_key_file: str = _setting(
        "",
        "string",
        file="tlsPrivateKeyFile",
        flag="tls-private-key-file",
        help="File containing x509 private key matching --tls-cert-file.",
    )
    tls_cipher_suites: tuple[str, ...] = _setting(
        (),
        "stringSlice",
        file="tlsCipherSuites",
        flag="tls-cipher-suites",
        help="Comma-separated list of cipher suites for the server.",
    )
    tls_min_version: str = _setting(
        "",
        "string",
        file="tlsMinVersion",
        flag="tls-min-version",
        help="Minimum TLS version supported. Possible values: VersionTLS12, VersionTLS13",
    )
    rotate_certificates: bool = _setting(
        False,
        "bool",
        file="rotateCertificates",
        flag="rotate-certificates",
        help="Auto rotate the kubelet client certificates when the certificate expiration approaches.",
    )
    server_tls_bootstrap: bool = _setting(
        False,
        "bool",
        file="serverTLSBootstrap",
        flag="rotate-server-certificates",
        help="Request the serving certificate from the kube-apiserver, and renew it in time.",
    )
    client_ca_file: str = _setting(
        "",
        "string",
        file="authentication.x509.clientCAFile",
        flag="client-ca-file",
        help=(
            "If set, any request presenting a client certificate signed by one of the "
            "authorities in the client-ca-file is authenticated."
        ),
    )
    anonymous_auth: bool = _setting(
        False,
        "bool",
        file="authentication.anonymous.enabled",
        flag="anonymous-auth",
        help="Enables anonymous requests to the Kubelet server.",
    )
    webhook_auth: bool = _setting(
        True,
        "bool",
        file="authentication.webhook.enabled",
        flag="authentication-token-webhook",
        help="Use the TokenReview API to determine authentication for bearer tokens.",
    )
    webhook_auth_cache_ttl: float = _setting(
        120.0,
        "duration",
        file="authentication.webhook.cacheTTL",
        flag="authentication-token-webhook-cache-ttl",
        help="The duration to cache responses from the webhook token authenticator.",
    )
    authorization_mode: str = _setting(
        "Webhook",
        "string",
        file="authorization.mode",
        flag="authorization-mode",
        help=("Authorization mode for Kubelet server. Valid options are AlwaysAllow or Webhook."),
    )
    authorized_cache_ttl: float = _setting(
        300.0,
        "duration",
        file="authorization.webhook.cacheAuthorizedTTL",
        flag="authorization-webhook-cache-authorized-ttl",
        help="The duration to cache 'authorized' responses from the webhook authorizer.",
    )
    unauthorized_cache_ttl: float = _setting(
        30.0,
        "duration",
        file="authorization.webhook.cacheUnauthorizedTTL",
        flag="authorization-webhook-cache-unauthorized-ttl",
        help=("The duration to cache 'unauthorized' responses from the webhook authorizer."),
    )
    container_log_max_size: str = _setting(
        "10Mi",
        "string",
        file="containerLogMaxSize",
        flag="container-log-max-size",
        help=("Set the maximum size (e.g. 10Mi) of container log file before it is rotated."),
    )
    container_log_max_files: int = _setting(
        5,
        "int",
        file="containerLogMaxFiles",
        flag="container-log-max-files",
        help=("Set the maximum number of container log files that can be present for a container."),
    )
    container_log_max_workers: int = _setting(1, "int", file="containerLogMaxWorkers")
    container_log_monitor_interval: float = _setting(10.0, "duration", file="containerLogMonitorInterval")

    # What every component's configuration tells of its client

    @property
    def master(self) -> str:
        return ""

    @property
    def qps(self) -> float:
        return self.kube_api_qps

    @property
    def burst(self) -> int:
        return self.kube_api_burst
