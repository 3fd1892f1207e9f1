"""What can be set about simulated nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shipwheel.api import quantity
from shipwheel.api.meta import Obj
from shipwheel.client.flags import LOG_FLAGS, Flag, FlagError
from shipwheel.kubelet.config import parse_taint
from shipwheel.kubelet.simulated_nodes.stages import Stages, StagesError, parse


@dataclass(frozen=True, slots=True)
class Config:
    """Durations are seconds."""

    kubeconfig: str = ""
    kube_api_qps: float = -1.0
    kube_api_burst: int = 0
    nodes: int = 0
    """How many to register; others that bear the label are looked after all the same."""
    name_prefix: str = "simulated-"
    node_ip: str = ""
    """What all of them say their address is."""
    cpus: int = 32
    memory: int = 256 << 30
    max_pods: int = 110
    taints: tuple[Obj, ...] = ()
    stages: Stages = field(default_factory=Stages)
    lease_duration: int = 40
    heartbeat: float = 20.0
    """Between two renewals of a lease."""
    status_period: float = 300.0
    address: str = "0.0.0.0"
    port: int = 10250
    """0: serve nothing."""
    cert_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""


_DEFAULT = Config()

FLAGS: tuple[Flag, ...] = (
    Flag("kubeconfig", "string", "", "Path to the kubeconfig file that says how to reach the API server."),
    Flag("kube-api-qps", "float", _DEFAULT.kube_api_qps, "Requests a second to the API server; -1: no limit."),
    Flag("kube-api-burst", "int", _DEFAULT.kube_api_burst, "How many of them may come at once."),
    Flag("nodes", "int", _DEFAULT.nodes, "How many nodes to register."),
    Flag("name-prefix", "string", _DEFAULT.name_prefix, "What their names begin with."),
    Flag("node-ip", "ip", "", "The address that they all give as theirs: where this process can be reached."),
    Flag("node-cpus", "int", _DEFAULT.cpus, "CPUs of each node."),
    Flag("node-memory", "string", "256Gi", "Memory of each node."),
    Flag("max-pods", "int", _DEFAULT.max_pods, "Pods that can run on each node."),
    Flag("register-with-taints", "stringSlice", (), "Taints of each node: <key>=<value>:<effect>."),
    Flag("stages", "string", "", "File that declares what happens to pods, and when."),
    Flag("node-lease-duration-seconds", "int", _DEFAULT.lease_duration, "How long a node's lease is good for."),
    Flag("heartbeat-interval", "duration", _DEFAULT.heartbeat, "How often each lease is renewed."),
    Flag("node-status-report-frequency", "duration", _DEFAULT.status_period, "How often each status is written."),
    Flag("address", "ip", _DEFAULT.address, "Where to serve the kubelets' API."),
    Flag("port", "int", _DEFAULT.port, "The port to serve it on; 0: not at all."),
    Flag("tls-cert-file", "string", "", "File with the serving certificate."),
    Flag("tls-private-key-file", "string", "", "File with its key."),
    Flag("client-ca-file", "string", "", "File with the authorities of client certificates."),
    *LOG_FLAGS,
)


def from_flags(values: Mapping[str, Any]) -> Config:
    """Raises `FlagError`."""
    if values["port"] and not (values["tls-cert-file"] and values["tls-private-key-file"]):
        raise FlagError("--tls-cert-file and --tls-private-key-file are needed to serve; or use --port=0")
    try:
        memory = quantity.value(values["node-memory"])
        taints = tuple(parse_taint(each) for each in values["register-with-taints"])
    except ValueError as error:
        raise FlagError(str(error)) from error
    return Config(
        kubeconfig=values["kubeconfig"],
        kube_api_qps=values["kube-api-qps"],
        kube_api_burst=values["kube-api-burst"],
        nodes=values["nodes"],
        name_prefix=values["name-prefix"],
        node_ip=values["node-ip"],
        cpus=values["node-cpus"],
        memory=memory,
        max_pods=values["max-pods"],
        taints=taints,
        stages=read_stages(values["stages"]),
        lease_duration=values["node-lease-duration-seconds"],
        heartbeat=values["heartbeat-interval"],
        status_period=values["node-status-report-frequency"],
        address=values["address"],
        port=values["port"],
        cert_file=values["tls-cert-file"],
        key_file=values["tls-private-key-file"],
        client_ca_file=values["client-ca-file"],
    )


def read_stages(path: str) -> Stages:
    """Those that a file declares; none without a path. Raises `FlagError`."""
    if not path:
        return Stages()
    try:
        return parse(Path(path).read_text())
    except (OSError, UnicodeDecodeError, StagesError) as error:
        raise FlagError(f"--stages: {path}: {error}") from error
