"""The kubelet's settings: `KubeletConfiguration` files (v1beta1) and flags, upstream's names and defaults.

Each setting is declared once, below, with its place in the file and its flag. What upstream has and we do not is
listed in `UNSUPPORTED`: asking for its default is fine, asking for anything else is refused, as is every name that
nobody knows. A flag overrides the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.client.flags import LOG_FLAGS, Flag, Type, format_duration, parse_duration

GROUP = "kubelet.config.k8s.io"


class ConfigError(Exception):
    """The settings cannot be used; the message says which and why."""


def _setting(default: Any, kind: Type, *, file: str = "", flag: str = "", help: str = "") -> Any:
    """A setting: where it stands in the file (`authentication.anonymous.enabled`), and its flag."""
    metadata = {"kind": kind, "file": file, "flag": flag, "help": help}
    if isinstance(default, dict):
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

    # Pods

    static_pod_path: str = _setting(
        "",
        "string",
        file="staticPodPath",
        flag="pod-manifest-path",
        help=(
            "Path to the directory containing static pod files to run, or the path to "
            "a single static pod file."
        ),
    )
    static_pod_url: str = _setting(
        "",
        "string",
        file="staticPodURL",
        flag="manifest-url",
        help="URL for accessing additional Pod specifications to run",
    )
    static_pod_url_header: Mapping[str, Any] = _setting({}, "mapStringString", file="staticPodURLHeader")
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
        help=(
            "Resolver configuration file used as the basis for the container DNS resolution configuration."
        ),
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
    crash_loop_max_seconds: float = _setting(
        300.0, "duration", file="crashLoopBackOff.maxContainerRestartPeriod"
    )

    # Images

    serialize_image_pulls: bool = _setting(
        True,
        "bool",
        file="serializeImagePulls",
        flag="serialize-image-pulls",
        help="Pull images one at a time.",
    )
    max_parallel_image_pulls: int = _setting(0, "int", file="maxParallelImagePulls")
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
    single_process_oom_kill: bool | None = _setting(None, "bool", file="singleProcessOOMKill")
    fail_swap_on: bool = _setting(
        True,
        "bool",
        file="failSwapOn",
        flag="fail-swap-on",
        help="Makes the Kubelet fail to start if swap is enabled on the node.",
    )
    enable_controller_attach_detach: bool = _setting(
        True,
        "bool",
        file="enableControllerAttachDetach",
        flag="enable-controller-attach-detach",
        help=(
            "Enables the Attach/Detach controller to manage attachment/detachment of "
            "volumes scheduled to this node."
        ),
    )

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
            "The maximum number of images to report in Node.Status.Images. If -1 is "
            "specified, no cap will be applied."
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

    # Serving

    enable_server: bool = _setting(
        True, "bool", file="enableServer", flag="enable-server", help="Enable the Kubelet's server"
    )
    address: str = _setting(
        "0.0.0.0", "ip", file="address", flag="address", help="The IP address for the Kubelet to serve on"
    )
    port: int = _setting(10250, "int", file="port", flag="port", help="The port for the Kubelet to serve on.")
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
    enable_debugging_handlers: bool = _setting(
        True,
        "bool",
        file="enableDebuggingHandlers",
        flag="enable-debugging-handlers",
        help=("Enables server endpoints for log collection and local running of containers and commands."),
    )
    streaming_idle_timeout: float = _setting(
        14400.0,
        "duration",
        file="streamingConnectionIdleTimeout",
        flag="streaming-connection-idle-timeout",
        help=(
            "Maximum time a streaming connection can be idle before the connection is automatically closed."
        ),
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


_SETTINGS = {each.name: each for each in dataclasses.fields(KubeletConfig)}
_BY_FILE = {each.metadata["file"]: each for each in _SETTINGS.values() if each.metadata["file"]}
_BY_FLAG = {each.metadata["flag"]: each for each in _SETTINGS.values() if each.metadata["flag"]}


def _flag(setting: dataclasses.Field[Any]) -> Flag:
    default = setting.default
    if default is dataclasses.MISSING:
        default = {}
    name: str = setting.metadata["flag"]
    return Flag(name, setting.metadata["kind"], default, setting.metadata["help"])


FLAGS: tuple[Flag, ...] = (
    Flag("config", "string", "", "The Kubelet will load its initial configuration from this file."),
    Flag("config-dir", "string", "", "Path to a directory with drop-ins (*.conf) that override the file."),
    *(_flag(each) for each in _BY_FLAG.values()),
    *LOG_FLAGS,
)

UNSUPPORTED: Mapping[str, Any] = {
    "bootstrapKubeconfig": "",
    "cpuManagerPolicy": "none",
    "memoryManagerPolicy": "None",
    "topologyManagerPolicy": "none",
    "topologyManagerScope": "container",
    "cgroupDriver": "cgroupfs",
    "enforceNodeAllocatable": ["pods"],
    "configMapAndSecretChangeDetectionStrategy": "Watch",
    "readOnlyPort": 0,
    "rotateCertificates": False,
    "serverTLSBootstrap": False,
    "hairpinMode": "promiscuous-bridge",
    "contentType": "application/json",
    "enableProfilingHandler": True,
    "enableDebugFlagsHandler": True,
    "enableSystemLogHandler": True,
    "makeIPTablesUtilChains": True,
    "localStorageCapacityIsolation": True,
    "registryPullQPS": 5,
    "registryBurst": 10,
    "eventRecordQPS": 50,
    "eventBurst": 100,
    "oomScoreAdj": -999,
    "failCgroupV1": False,
    "runtimeRequestTimeout": "2m0s",
    "volumePluginDir": "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/",
}
"""What upstream's file has and we do not, with upstream's default (or what we do instead)."""


def from_flags(values: Mapping[str, Any], given: Iterable[str] = ()) -> KubeletConfig:
    """The settings of a command line, and of the file that `--config` names. ConfigError when a file is wrong."""
    config = KubeletConfig()
    if values.get("config"):
        config = load(Path(values["config"]), config)
    if values.get("config-dir"):
        for file in sorted(Path(values["config-dir"]).glob("*.conf")):
            config = load(file, config)
    chosen = set(given) or {name for name in values if name in _BY_FLAG}
    changes = {
        _BY_FLAG[name].name: _from_flag(_BY_FLAG[name], value)
        for name, value in values.items()
        if name in _BY_FLAG and name in chosen
    }
    return dataclasses.replace(config, **changes)


def _from_flag(setting: dataclasses.Field[Any], value: Any) -> Any:
    if setting.name == "register_with_taints":
        return tuple(_taint(each) for each in value)
    return tuple(value) if isinstance(value, list) else value


def _taint(text: str) -> Obj:
    """`key=value:effect`."""
    if not isinstance(text, str):
        return text
    key_value, _, effect = text.rpartition(":")
    key, _, value = key_value.partition("=")
    if not key or effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
        raise ConfigError(f'invalid taint spec: {text}, invalid taint effect: "{effect}"')
    taint = {"key": key, "effect": effect}
    return {**taint, "value": value} if value else taint


def load(path: Path, base: KubeletConfig | None = None) -> KubeletConfig:
    """Read a KubeletConfiguration file over `base`; relative paths in it are relative to it."""
    import yaml

    try:
        obj = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f'failed to read kubelet config file "{path}", error: {error.strerror}') from error
    except yaml.YAMLError as error:
        raise ConfigError(f"failed to load kubelet config file, path: {path}, error: {error}") from error
    if not isinstance(obj, dict):
        raise ConfigError(f"failed to load kubelet config file, path: {path}, error: it is no object")
    try:
        return from_object(obj, base, directory=path.parent)
    except ConfigError as error:
        raise ConfigError(f"failed to load kubelet config file, path: {path}, error: {error}") from error


def from_object(
    obj: Obj, base: KubeletConfig | None = None, *, directory: Path | None = None
) -> KubeletConfig:
    kind, version = obj.get("kind"), obj.get("apiVersion")
    if kind != "KubeletConfiguration" or version != f"{GROUP}/v1beta1":
        raise ConfigError(f'no kind "{kind}" is registered for version "{version}"')
    changes: dict[str, Any] = {}
    unknown: list[str] = []
    for place, value in _leaves(obj):
        if place in ("kind", "apiVersion"):
            continue
        setting = _BY_FILE.get(place)
        if setting is not None:
            changes[setting.name] = _from_file(setting, place, value, directory)
        elif place in UNSUPPORTED:
            if value != UNSUPPORTED[place]:
                shown = UNSUPPORTED[place]
                raise ConfigError(f"{place}: Unsupported value: {value!r}: only {shown!r} is supported")
        else:
            unknown.append(f'unknown field "{place}"')
    if unknown:
        raise ConfigError(f"strict decoding error: {', '.join(unknown)}")
    return dataclasses.replace(base or KubeletConfig(), **changes)


def to_object(config: KubeletConfig) -> Obj:
    """The settings as a KubeletConfiguration."""
    obj: Obj = {"kind": "KubeletConfiguration", "apiVersion": f"{GROUP}/v1beta1"}
    for place, setting in _BY_FILE.items():
        value = getattr(config, setting.name)
        if value is None:
            continue
        if setting.metadata["kind"] == "duration":
            value = format_duration(value)
        elif isinstance(value, tuple):
            value = list(value)
        *parents, name = place.split(".")
        part = obj
        for parent in parents:
            part = part.setdefault(parent, {})
        part[name] = value
    return obj


def _leaves(obj: Obj, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(path, value) of everything that is set; maps that are values themselves are not taken apart."""
    for key, value in obj.items():
        place = f"{prefix}{key}"
        if value is None:
            continue
        if isinstance(value, dict) and place not in _BY_FILE and place not in UNSUPPORTED:
            yield from _leaves(value, f"{place}.")
        else:
            yield place, value


def _from_file(setting: dataclasses.Field[Any], place: str, value: Any, directory: Path | None) -> Any:
    kind = setting.metadata["kind"]
    try:
        match kind:
            case "duration":
                return _seconds(value)
            case "int" if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError("it is no whole number")
            case "bool" if not isinstance(value, bool):
                raise ValueError("it is neither true nor false")
            case "string" | "ip" if not isinstance(value, str):
                raise ValueError("it is no string")
            case "stringSlice":
                return tuple(value)
            case "mapStringString":
                return {
                    str(key): each if isinstance(each, list) else str(each) for key, each in value.items()
                }
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{place}: Invalid value: {value!r}: {error}") from error
    is_path = setting.name in ("static_pod_path", "tls_cert_file", "tls_private_key_file", "client_ca_file")
    if is_path and value and directory is not None:
        return str(directory / value)
    return value


def _seconds(value: Any) -> float:
    """Go's `1h30m`, `20s`, `100ms`."""
    return parse_duration(str(value)) if value != 0 else 0.0


def validate(config: KubeletConfig) -> None:
    """ConfigError for what does not go together, in upstream's words."""
    problems = []
    if not 0 <= config.image_gc_high <= 100:
        problems.append(
            f"imageGCHighThresholdPercent (--image-gc-high-threshold) {config.image_gc_high} must be between 0 and 100, "
            "inclusive"
        )
    if not 0 <= config.image_gc_low <= 100:
        problems.append(
            f"imageGCLowThresholdPercent (--image-gc-low-threshold) {config.image_gc_low} must be between 0 and 100, "
            "inclusive"
        )
    if config.image_gc_low >= config.image_gc_high:
        problems.append(
            f"imageGCLowThresholdPercent (--image-gc-low-threshold) {config.image_gc_low} must be less than "
            f"imageGCHighThresholdPercent (--image-gc-high-threshold) {config.image_gc_high}"
        )
    if config.max_pods < 0:
        problems.append(f"maxPods (--max-pods) {config.max_pods} must not be a negative number")
    if config.node_lease_duration_seconds <= 0:
        problems.append("nodeLeaseDurationSeconds must be greater than 0")
    if not 0 < config.port < 65536:
        problems.append(f"port (--port) {config.port} must be between 1 and 65535, inclusive")
    if not 0 <= config.healthz_port < 65536:
        problems.append(
            f"healthzPort (--healthz-port) {config.healthz_port} must be between 1 and 65535, inclusive"
        )
    if config.serialize_image_pulls and config.max_parallel_image_pulls > 1:
        problems.append(
            f"maxParallelImagePulls {config.max_parallel_image_pulls} cannot be larger than 1 unless "
            "SerializeImagePulls (--serialize-image-pulls) set to false"
        )
    if config.authorization_mode not in ("Webhook", "AlwaysAllow"):
        problems.append(f"unknown authorization-mode {config.authorization_mode}")
    if problems:
        raise ConfigError(
            f"failed to validate kubelet configuration, error: [invalid configuration: {', '.join(problems)}]"
        )
