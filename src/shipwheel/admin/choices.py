"""What a new cluster is to be like, and whether this machine can have it.

Asked-for values count, then those the cluster was made with, then defaults; addresses and ports are chosen where
nothing else on the machine is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from itertools import count
from pathlib import Path

from shipwheel.admin import machine
from shipwheel.admin.errors import ClusterError, NotAble
from shipwheel.admin.layout import Layout, NodeSettings, RuntimeKind, Settings, StoreKind, clusters
from shipwheel.admin.ports import Claims
from shipwheel.api.names import is_dns1123_label

DEFAULT_PORT = 6443
CONTROL_PLANE_PORTS = {"controller-manager": 10257, "scheduler": 10259}
PROXY_PORTS = {"proxy-healthz": 10256, "proxy-metrics": 10249}
KUBELET_PORTS = {"kubelet": 10250, "kubelet-healthz": 10248}
ETCD_PORTS = {"etcd": 2379, "etcd-peer": 2380}
SERVICE_RANGES = tuple(f"10.{number}.0.0/16" for number in range(96, 112))
POD_RANGES = tuple(f"10.{number}.0.0/16" for number in range(244, 256))
WIDE_POD_RANGES = ("10.128.0.0/9", "100.64.0.0/10")
"""For thousands of nodes."""
NODE_MASK = 24
"""Each node's part of the pods' range."""
NODE_RANGES = tuple(f"10.112.{number}.0/24" for number in range(256))
MAX_NAME = 40
RESERVED = {
    *("admin", "controller-manager", "scheduler", "kube-proxy", "dns", "simulated-nodes"),
    *("kube-apiserver", "control-plane", "machine", "etcd", "supervisor"),
}
"""Names that files and processes of the cluster's own have."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `up` was asked for; None where the default, or what the cluster was made with, will do."""

    name: str = "default"
    data_dir: Path | None = None
    runtime: RuntimeKind | None = None
    store: StoreKind | None = None
    port: int | None = None
    """0: any free one."""
    nodes: int | None = None
    simulated_nodes: int | None = None
    stages: Path | None = None


def reconcile(settings: Settings, wanted: Wanted) -> Settings:
    """What a cluster was made with, if nothing else is asked for now."""
    for field in ("runtime", "store"):
        asked, made = getattr(wanted, field), getattr(settings, field)
        if asked is not None and asked != made:
            raise ClusterError(
                f'the cluster "{settings.name}" was made with --{field} {made}; '
                f"to have one with --{field} {asked}, take it down first, or choose another --name"
            )
    if wanted.port not in (None, 0, settings.port):
        settings = replace(settings, port=wanted.port or settings.port)
    if wanted.nodes is not None and wanted.nodes < len(settings.nodes):
        raise ClusterError(
            f'the cluster "{settings.name}" has {len(settings.nodes)} nodes; '
            "to take one away: shipwheel node remove NAME"
        )
    while wanted.nodes is not None and wanted.nodes > len(settings.nodes):
        settings = with_node(settings)
    return _with_simulated(settings, wanted)


def _with_simulated(settings: Settings, wanted: Wanted) -> Settings:
    """Raises `ClusterError` when the pods' addresses do not suffice for so many nodes."""
    if wanted.stages is not None:
        settings = replace(settings, stages=_checked(wanted.stages))
    if wanted.simulated_nodes is None:
        return settings
    if wanted.simulated_nodes < settings.simulated_nodes:
        raise ClusterError(
            f'the cluster "{settings.name}" has {settings.simulated_nodes} simulated nodes; '
            "to take some away: kubectl delete node NAME"
        )
    settings = replace(settings, simulated_nodes=wanted.simulated_nodes)
    if len(settings.nodes) + settings.simulated_nodes > _room(settings.pod_cidr):
        raise ClusterError(
            f'the cluster "{settings.name}" was made for at most {_room(settings.pod_cidr)} nodes; '
            "to have more, take it down first, or choose another --name"
        )
    return settings


def _room(pod_cidr: str) -> int:
    """How many nodes can have a range of pods."""
    return 1 << (NODE_MASK - ip_network(pod_cidr).prefixlen)


def _checked(stages: Path) -> str:
    """The file's full path, if it can be read. Raises `FlagError`."""
    from shipwheel.kubelet.simulated_nodes.config import read_stages

    read_stages(str(stages))
    return str(stages.resolve())


def with_node(settings: Settings, name: str = "") -> Settings:
    """With one node more. Raises `ClusterError`."""
    taken = {each.name for each in settings.nodes}
    name = name or next(f"node-{number}" for number in count(1) if f"node-{number}" not in taken)
    if name in taken:
        raise ClusterError(f'there is a node "{name}" already')
    if is_dns1123_label(name):
        raise ClusterError(f'"{name}" is no name for a node: use lower case letters, digits and "-"')
    if name in RESERVED:
        raise ClusterError(f'"{name}" is the name of one of the cluster\'s own components; choose another')
    return replace(settings, nodes=(*settings.nodes, NodeSettings(name, _node_address(settings))))


def _node_address(settings: Settings) -> str:
    """The first that is free; simulated nodes share the machine's."""
    if settings.runtime == "simulated":
        return ""
    taken = {settings.gateway, *(each.address for each in settings.nodes)}
    free = (str(each) for each in ip_network(settings.node_cidr).hosts() if str(each) not in taken)
    address = next(free, None)
    if address is None:
        raise ClusterError(f"no address is left in {settings.node_cidr}")
    return address


def new_settings(wanted: Wanted) -> Settings:
    """Those of a cluster that does not exist yet. Raises `ClusterError`, and `LookupError` when every range is in
    use."""
    _check_name(wanted.name)
    runtime = wanted.runtime or "containerd"
    port = DEFAULT_PORT if wanted.port is None else wanted.port
    settings = Settings(
        name=wanted.name,
        runtime=runtime,
        store=wanted.store or "sqlite",
        port=port or machine.free_port(0, bind_address(runtime)),
        address=own_address(),
    )
    pod_ranges = POD_RANGES
    if len(settings.nodes) + (wanted.simulated_nodes or 0) > _room(pod_ranges[0]):
        pod_ranges = WIDE_POD_RANGES
    settings = replace(settings, pod_cidr=pod_ranges[0])
    if runtime == "containerd":
        others, routed = [each for _, each in clusters()], machine.routed_networks()
        settings = replace(
            settings,
            service_cidr=machine.free_network(SERVICE_RANGES, [*routed, *(each.service_cidr for each in others)]),
            pod_cidr=machine.free_network(pod_ranges, [*routed, *(each.pod_cidr for each in others)]),
            node_cidr=machine.free_network(NODE_RANGES, [*routed, *(each.node_cidr for each in others)]),
        )
    if wanted.nodes is not None and wanted.nodes > 1:
        # Then none of them is this machine itself: they are all alike.
        settings = replace(settings, nodes=())
        for _ in range(wanted.nodes):
            settings = with_node(settings)
    return _with_simulated(settings, wanted)


def _check_name(name: str) -> None:
    plain = name.replace("-", "")
    if not (plain.isascii() and plain.isalnum() and name == name.lower() and len(name) <= MAX_NAME):
        raise ClusterError(f'"{name}" is no name for a cluster: use lower case letters, digits and "-"')


def check_machine(settings: Settings) -> None:
    """Raises `NotAble`. Programs in the system's own places are found from now on, whatever `PATH` was."""
    if settings.runtime == "containerd":
        from shipwheel.admin.containerd import default_cni_bin_dir

        missing = machine.missing_for_containers(default_cni_bin_dir())
        if missing:
            raise NotAble(missing)
        os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{machine.SYSTEM_PATH}"
    if settings.store == "etcd" and shutil.which("etcd") is None:
        raise NotAble([machine.Missing("etcd", "etcd-server")])


def check_port(settings: Settings) -> None:
    """Raises `ClusterError` when somebody else has the API server's port, and says who."""
    if machine.is_free(settings.port, bind_address(settings.runtime)):
        return
    owners = machine.port_owners(settings.port)
    by = " and ".join(f'process {each.pid} ("{each.command}")' for each in owners) or "another process"
    raise ClusterError(
        f"port {settings.port} is taken by {by}; free it, or choose another with --port (0: any that is free)"
    )


def check_ranges(layout: Layout, settings: Settings) -> None:
    """Raises `ClusterError` when another cluster that is up, or a route of this machine, has addresses of this one:
    its ranges were free when it was made, but others may have chosen them while it was down."""
    if settings.runtime != "containerd":
        return
    for other, theirs in clusters():
        if other.run != layout.run:
            check_overlap(settings, theirs)
    if layout.run.exists():
        # It was not taken down: the routes are its own.
        return
    for what, network in _ranges(settings).items():
        for each in machine.routed_networks():
            if ip_network(each).subnet_of(ip_network(network)):  # type: ignore[arg-type]
                raise ClusterError(
                    f"this machine has a route to {each}, which is in the cluster's range of {what} ({network}); "
                    f"{_anew(settings)}"
                )


def check_overlap(settings: Settings, theirs: Settings) -> None:
    """Raises `ClusterError` when two clusters have addresses in common."""
    for what, network in _ranges(settings).items():
        for whose, other in _ranges(theirs).items():
            if ip_network(network).overlaps(ip_network(other)):
                raise ClusterError(
                    f"the range of {what} {network} overlaps with that of {whose} ({other}) of the cluster "
                    f'"{theirs.name}", which is up; take that one down, or {_anew(settings)}'
                )


def _ranges(settings: Settings) -> dict[str, str]:
    return {"services": settings.service_cidr, "pods": settings.pod_cidr, "nodes": settings.node_cidr}


def _anew(settings: Settings) -> str:
    return (
        f'make the cluster "{settings.name}" anew, with ranges that are free: '
        f"shipwheel down --name {settings.name}, and up again"
    )


def choose_ports(settings: Settings, claims: Claims, keep: Mapping[str, int] | None = None) -> dict[str, int]:
    """The components' other ports: upstream's, or others where those are in use, claimed for them. Those to `keep`
    are in use by those components themselves."""
    chosen = dict(keep or {})
    wanted = CONTROL_PLANE_PORTS | (ETCD_PORTS if settings.store == "etcd" else {})
    if settings.runtime == "containerd":
        wanted |= PROXY_PORTS
    if settings.simulated_nodes:
        wanted |= {"simulated-nodes": KUBELET_PORTS["kubelet"]}
    for node in settings.nodes:
        if not node.address:
            wanted |= {port_name(purpose, node): port for purpose, port in KUBELET_PORTS.items()}
    for purpose, port in wanted.items():
        if purpose in chosen:
            continue
        preferred = settings.ports.get(purpose, port)
        chosen[purpose] = claims.port(preferred, "0.0.0.0", [settings.port, *chosen.values()])
    return chosen


def port_name(purpose: str, node: NodeSettings) -> str:
    """Under which `Settings.ports` has the port of a node that is on this machine itself."""
    return f"{node.name}/{purpose}"


def bind_address(runtime: RuntimeKind) -> str:
    """Pods reach the API server by the machine's address; where there are none, nobody else needs to."""
    return "0.0.0.0" if runtime == "containerd" else "127.0.0.1"


def own_address() -> str:
    """This machine's address as nodes and pods see it."""
    return machine.own_address()
