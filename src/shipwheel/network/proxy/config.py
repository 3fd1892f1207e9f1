"""What can be set about the service proxy: upstream's flags and its KubeProxyConfiguration file.

`--proxy-mode` knows `nftables` alone; the other modes' settings are refused as unknown flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from shipwheel.client.flags import LOG_FLAGS, Flag, FlagError, parse_duration

DetectLocalMode = Literal["", "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"]
API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"


@dataclass(frozen=True, slots=True)
class Config:
    """Durations are seconds; addresses of servers are `host:port`, empty for none."""

    node_name: str
    kubeconfig: str = ""
    master: str = ""
    qps: float = 5.0
    burst: int = 10
    bind_address: str = "0.0.0.0"
    """The node's own address, if it is not that of its Node object."""
    healthz_bind_address: str = "0.0.0.0:10256"
    metrics_bind_address: str = "127.0.0.1:10249"
    detect_local_mode: DetectLocalMode = ""
    cluster_cidrs: tuple[str, ...] = ()
    bridge_interface: str = ""
    interface_prefix: str = ""
    masquerade_all: bool = False
    masquerade_bit: int = 14
    node_port_addresses: tuple[str, ...] = ()
    """CIDRs, or `primary`; empty: all."""
    min_sync_period: float = 1.0
    sync_period: float = 30.0
    conntrack_max_per_core: int = 32768
    conntrack_min: int = 131072
    conntrack_tcp_established_timeout: float = 86400.0
    conntrack_tcp_close_wait_timeout: float = 3600.0
    conntrack_tcp_be_liberal: bool = False
    conntrack_udp_timeout: float = 0.0
    conntrack_udp_stream_timeout: float = 0.0
    table: str = "kube-proxy"
    """The name of our nftables tables; proxies of several clusters on one machine keep apart by it."""
    cleanup: bool = False
    """Remove the rules and end."""


_DEFAULT = Config(node_name="")

FLAGS: tuple[Flag, ...] = (
    Flag("config", "string", "", "The path to the configuration file."),
    Flag(
        "kubeconfig",
        "string",
        "",
        "Path to kubeconfig file with authorization information (the master location can be overridden by the "
        "master flag).",
    ),
    Flag("master", "string", "", "The address of the Kubernetes API server (overrides any value in kubeconfig)"),
    Flag("kube-api-qps", "float", _DEFAULT.qps, "QPS to use while talking with kubernetes apiserver"),
    Flag("kube-api-burst", "int", _DEFAULT.burst, "Burst to use while talking with kubernetes apiserver"),
    Flag(
        "hostname-override",
        "string",
        "",
        "The name of the Node that kube-proxy is running on, if it is not the hostname.",
    ),
    Flag("bind-address", "ip", _DEFAULT.bind_address, "The node's primary IP, if it is not the Node object's."),
    Flag(
        "healthz-bind-address",
        "string",
        _DEFAULT.healthz_bind_address,
        "The IP address and port for the health check server to serve on; empty to disable.",
    ),
    Flag(
        "metrics-bind-address",
        "string",
        _DEFAULT.metrics_bind_address,
        "The IP address and port for the metrics server to serve on; empty to disable.",
    ),
    Flag("cleanup", "bool", False, "If true cleanup nftables rules and exit."),
    Flag("proxy-mode", "string", "nftables", "Which proxy mode to use: 'nftables'."),
    Flag(
        "detect-local-mode",
        "string",
        "",
        "Mode to use to detect local traffic: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix.",
    ),
    Flag("cluster-cidr", "string", "", "The CIDR range of the pods in the cluster, for the mode ClusterCIDR."),
    Flag("pod-bridge-interface", "string", "", "The bridge of the pods, for the mode BridgeInterface."),
    Flag(
        "pod-interface-name-prefix",
        "string",
        "",
        "What the names of pods' interfaces begin with, for the mode InterfaceNamePrefix.",
    ),
    Flag("masquerade-all", "bool", False, "SNAT all traffic sent via Service cluster IPs."),
    Flag(
        "nodeport-addresses",
        "stringSlice",
        (),
        "CIDR ranges of the node IPs on which NodePorts answer, or 'primary'; unset: all local IPs.",
    ),
    Flag("conntrack-max-per-core", "int", _DEFAULT.conntrack_max_per_core,
         "Maximum number of NAT connections to track per CPU core (0 to leave the limit as-is and ignore "
         "conntrack-min)."),
    Flag("conntrack-min", "int", _DEFAULT.conntrack_min,
         "Minimum number of conntrack entries to allocate, regardless of conntrack-max-per-core."),
    Flag("conntrack-tcp-timeout-established", "duration", _DEFAULT.conntrack_tcp_established_timeout,
         "Idle timeout for established TCP connections (0 to leave as-is)"),
    Flag("conntrack-tcp-timeout-close-wait", "duration", _DEFAULT.conntrack_tcp_close_wait_timeout,
         "NAT timeout for TCP connections in the CLOSE_WAIT state"),
    Flag("conntrack-tcp-be-liberal", "bool", False,
         "Enable liberal mode for tracking TCP packets by setting nf_conntrack_tcp_be_liberal to 1"),
    Flag("conntrack-udp-timeout", "duration", 0.0,
         "Idle timeout for UNREPLIED UDP connections (0 to leave as-is)"),
    Flag("conntrack-udp-timeout-stream", "duration", 0.0,
         "Idle timeout for ASSURED UDP connections (0 to leave as-is)"),
    *LOG_FLAGS,
)  # fmt: skip


def from_flags(values: Mapping[str, Any]) -> Config:
    """The configuration that a command line asks for. As upstream has it, a file given by `--config` counts
    instead of every other flag but `--hostname-override` and `--cleanup`. Raises `FlagError`."""
    if values["config"]:
        base = _from_file(values["config"])
    else:
        base = Config(
            node_name="",
            kubeconfig=values["kubeconfig"],
            qps=values["kube-api-qps"],
            burst=values["kube-api-burst"],
            bind_address=values["bind-address"],
            healthz_bind_address=values["healthz-bind-address"],
            metrics_bind_address=values["metrics-bind-address"],
            detect_local_mode=values["detect-local-mode"],
            cluster_cidrs=_words(values["cluster-cidr"]),
            bridge_interface=values["pod-bridge-interface"],
            interface_prefix=values["pod-interface-name-prefix"],
            masquerade_all=values["masquerade-all"],
            node_port_addresses=values["nodeport-addresses"],
            conntrack_max_per_core=values["conntrack-max-per-core"],
            conntrack_min=values["conntrack-min"],
            conntrack_tcp_established_timeout=values["conntrack-tcp-timeout-established"],
            conntrack_tcp_close_wait_timeout=values["conntrack-tcp-timeout-close-wait"],
            conntrack_tcp_be_liberal=values["conntrack-tcp-be-liberal"],
            conntrack_udp_timeout=values["conntrack-udp-timeout"],
            conntrack_udp_stream_timeout=values["conntrack-udp-timeout-stream"],
        )
        _check_mode(values["proxy-mode"])
    name = values["hostname-override"] or base.node_name or _hostname()
    return _checked(replace(base, node_name=name, master=values["master"], cleanup=values["cleanup"]))


def _from_file(path: str) -> Config:
    import yaml

    try:
        with open(path) as stream:
            document = yaml.safe_load(stream) or {}
    except OSError as error:
        raise FlagError(f"open {path}: {(error.strerror or '').lower()}") from error
    except yaml.YAMLError as error:
        raise FlagError(f"couldn't load the configuration file {path}: {error}") from error
    if document.get("apiVersion") != API_VERSION or document.get("kind") != "KubeProxyConfiguration":
        raise FlagError(
            f'no kind "{document.get("kind", "")}" is registered for version "{document.get("apiVersion", "")}"'
        )
    return from_document(document)


def from_document(document: Mapping[str, Any]) -> Config:
    """A KubeProxyConfiguration (v1alpha1), as decoded. Raises `FlagError` for a field that is unknown, or that
    belongs to a mode we do not have."""
    unknown = sorted(set(document) - _FIELDS)
    if unknown:
        raise FlagError(f'strict decoding error: unknown field "{unknown[0]}"')
    _check_mode(document.get("mode") or "nftables")
    connection = document.get("clientConnection") or {}
    tables = document.get("nftables") or {}
    detect = document.get("detectLocal") or {}
    conntrack = document.get("conntrack") or {}

    def seconds(value: Any, default: float) -> float:
        return default if value in (None, "", 0) else parse_duration(str(value))

    return Config(
        node_name=document.get("hostnameOverride") or "",
        kubeconfig=connection.get("kubeconfig") or "",
        qps=connection.get("qps") or _DEFAULT.qps,
        burst=connection.get("burst") or _DEFAULT.burst,
        bind_address=document.get("bindAddress") or _DEFAULT.bind_address,
        healthz_bind_address=_with_port(document.get("healthzBindAddress"), _DEFAULT.healthz_bind_address),
        metrics_bind_address=_with_port(document.get("metricsBindAddress"), _DEFAULT.metrics_bind_address),
        detect_local_mode=document.get("detectLocalMode") or "",
        cluster_cidrs=_words(document.get("clusterCIDR") or ""),
        bridge_interface=detect.get("bridgeInterface") or "",
        interface_prefix=detect.get("interfaceNamePrefix") or "",
        masquerade_all=bool(tables.get("masqueradeAll")),
        masquerade_bit=_DEFAULT.masquerade_bit if tables.get("masqueradeBit") is None else tables["masqueradeBit"],
        node_port_addresses=tuple(document.get("nodePortAddresses") or ()),
        min_sync_period=seconds(tables.get("minSyncPeriod"), _DEFAULT.min_sync_period),
        sync_period=seconds(tables.get("syncPeriod"), _DEFAULT.sync_period),
        conntrack_max_per_core=conntrack.get("maxPerCore", _DEFAULT.conntrack_max_per_core),
        conntrack_min=conntrack.get("min", _DEFAULT.conntrack_min),
        conntrack_tcp_established_timeout=_duration_or(
            conntrack.get("tcpEstablishedTimeout"), _DEFAULT.conntrack_tcp_established_timeout
        ),
        conntrack_tcp_close_wait_timeout=_duration_or(
            conntrack.get("tcpCloseWaitTimeout"), _DEFAULT.conntrack_tcp_close_wait_timeout
        ),
        conntrack_tcp_be_liberal=bool(conntrack.get("tcpBeLiberal")),
        conntrack_udp_timeout=_duration_or(conntrack.get("udpTimeout"), 0.0),
        conntrack_udp_stream_timeout=_duration_or(conntrack.get("udpStreamTimeout"), 0.0),
    )


_FIELDS = {
    "apiVersion", "kind", "clientConnection", "hostnameOverride", "bindAddress", "healthzBindAddress",
    "metricsBindAddress", "mode", "nftables", "detectLocalMode", "detectLocal", "clusterCIDR",
    "nodePortAddresses", "conntrack",
}  # fmt: skip


def _checked(config: Config) -> Config:
    modes = ("", "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")
    if config.detect_local_mode not in modes:
        supported = ", ".join(f'"{each}"' for each in modes[1:])
        raise FlagError(
            f'KubeProxyConfiguration.DetectLocalMode: Unsupported value: "{config.detect_local_mode}": '
            f"supported values: {supported}"
        )
    if not 0 <= config.masquerade_bit <= 31:
        raise FlagError(
            f"KubeProxyConfiguration.NFTables.MasqueradeBit: Invalid value: {config.masquerade_bit}: "
            "must be within the range [0, 31]"
        )
    return config


def _check_mode(mode: str) -> None:
    if mode != "nftables":
        raise FlagError(f'KubeProxyConfiguration.Mode: Unsupported value: "{mode}": supported values: "nftables"')


def _with_port(address: str | None, default: str) -> str:
    """The address, with the default's port where it has none."""
    if not address:
        return default
    host, colon, port = address.rpartition(":")
    return address if colon and port.isdigit() and host else f"{address}:{default.rpartition(':')[2]}"


def _duration_or(value: Any, default: float) -> float:
    return default if value is None else parse_duration(str(value))


def _words(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


def _hostname() -> str:
    import socket

    return socket.gethostname().strip().lower()
