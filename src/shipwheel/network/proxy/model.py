"""What the proxy needs to know of Services and EndpointSlices, for one IP family.

Objects are read once, here; everything after this module works on these values.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from shipwheel.api.meta import Obj, labels_of, name_of, namespace_of

IPFamily = Literal["IPv4", "IPv6"]

PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
DEFAULT_AFFINITY_SECONDS = 10800


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one Service, and all the addresses it is reached under."""

    namespace: str
    name: str
    port_name: str
    protocol: str
    """`tcp`, `udp` or `sctp`."""
    cluster_ip: str
    port: int
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    """Who may use the load balancer's addresses; empty: everybody."""
    affinity_seconds: int = 0
    """How long a client stays with its endpoint; 0: no session affinity."""
    internal_local: bool = False
    external_local: bool = False
    health_check_node_port: int = 0

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}/{self.protocol}/{self.port_name}"

    @property
    def label(self) -> str:
        """As upstream's logs and comments name it: `default/web:http`."""
        base = f"{self.namespace}/{self.name}"
        return f"{base}:{self.port_name}" if self.port_name else base

    @property
    def externally_accessible(self) -> bool:
        return bool(self.node_port or self.external_ips or self.load_balancer_ips)

    @property
    def uses_cluster_endpoints(self) -> bool:
        """Even where the external policy is Local, traffic from this node may go anywhere."""
        return not self.internal_local or self.externally_accessible

    @property
    def uses_local_endpoints(self) -> bool:
        return self.internal_local or (self.external_local and self.externally_accessible)


@dataclass(frozen=True, slots=True)
class Endpoint:
    ip: str
    port: int
    local: bool = False
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zones: frozenset[str] = frozenset()
    """Zones that are advised to use it."""
    nodes: frozenset[str] = frozenset()
    """Nodes that are advised to use it."""

    @property
    def address(self) -> str:
        """`10.244.0.7:80`, `[fd00::7]:80`"""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


def is_ours(service: Obj) -> bool:
    """Whether the proxy has anything to do with a Service: not if it is headless, has no address, is a mere
    name, or is left to another proxy by its label."""
    spec = service["spec"]
    return (
        spec.get("type") != "ExternalName"
        and spec.get("clusterIP") not in (None, "", "None")
        and PROXY_NAME_LABEL not in labels_of(service)
    )


def service_ports(service: Obj, family: IPFamily) -> list[ServicePort]:
    """The ports of a Service that have an address of this family."""
    spec = service["spec"]
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP")]
    cluster_ip = next((each for each in addresses if each and family_of(each) == family), None)
    if not is_ours(service) or cluster_ip is None:
        return []
    kind = spec.get("type", "ClusterIP")
    external_ips = _of_family(spec.get("externalIPs") or (), family)
    accessible = kind in ("NodePort", "LoadBalancer") or bool(spec.get("externalIPs"))
    external_local = accessible and spec.get("externalTrafficPolicy") == "Local"
    needs_health_check = kind == "LoadBalancer" and external_local
    return [
        ServicePort(
            namespace=namespace_of(service),
            name=name_of(service),
            port_name=port.get("name", ""),
            protocol=port.get("protocol", "TCP").lower(),
            cluster_ip=cluster_ip,
            port=port["port"],
            node_port=port.get("nodePort", 0),
            external_ips=external_ips,
            load_balancer_ips=_load_balancer_ips(service, family),
            source_ranges=_source_ranges(spec, family),
            affinity_seconds=_affinity_seconds(spec),
            internal_local=spec.get("internalTrafficPolicy") == "Local",
            external_local=external_local,
            health_check_node_port=spec.get("healthCheckNodePort", 0) if needs_health_check else 0,
        )
        for port in spec.get("ports") or ()
    ]


def endpoints_by_port(slices: Iterable[Obj], family: IPFamily, node_name: str) -> dict[tuple[str, str], list[Endpoint]]:
    """The endpoints of one Service's slices: (port name, protocol) -> endpoints, ordered by address.

    An endpoint in two slices counts once; of two with the same address, one that is terminating gives way,
    because the address may have been given to another pod already.
    """
    found: dict[tuple[str, str], dict[tuple[str, int], Endpoint]] = {}
    for each in slices:
        if each.get("addressType") != family:
            continue
        for port in each.get("ports") or ():
            if not port.get("port"):
                continue
            members = found.setdefault((port.get("name") or "", port.get("protocol", "TCP").lower()), {})
            for raw in each.get("endpoints") or ():
                if not raw.get("addresses"):
                    continue
                endpoint = _endpoint(raw, port["port"], node_name)
                key = (endpoint.ip, endpoint.port)
                if key not in members or not endpoint.terminating:
                    members[key] = endpoint
    return {name: sorted(members.values(), key=lambda each: each.address) for name, members in found.items()}


def service_of_slice(slice_: Obj) -> str | None:
    """`namespace/name` of the Service an EndpointSlice belongs to."""
    name = labels_of(slice_).get(SERVICE_NAME_LABEL)
    return f"{namespace_of(slice_)}/{name}" if name else None


def family_of(address: str) -> IPFamily:
    return "IPv6" if ":" in address else "IPv4"


def _endpoint(raw: Obj, port: int, node_name: str) -> Endpoint:
    conditions = raw.get("conditions") or {}
    hints = raw.get("hints") or {}
    return Endpoint(
        ip=raw["addresses"][0],
        port=port,
        local=bool(node_name) and raw.get("nodeName") == node_name,
        ready=conditions.get("ready", True),
        serving=conditions.get("serving", True),
        terminating=conditions.get("terminating", False),
        zones=frozenset(each["name"] for each in hints.get("forZones") or ()),
        nodes=frozenset(each["name"] for each in hints.get("forNodes") or ()),
    )


def _load_balancer_ips(service: Obj, family: IPFamily) -> tuple[str, ...]:
    """Addresses the load balancer keeps as a packet's destination; in `Proxy` mode it does not."""
    status = (service.get("status") or {}).get("loadBalancer") or {}
    ingress = [
        each["ip"] for each in status.get("ingress") or () if each.get("ip") and each.get("ipMode", "VIP") == "VIP"
    ]
    return _of_family(ingress, family)


def _source_ranges(spec: Obj, family: IPFamily) -> tuple[str, ...]:
    """Without overlaps; one that holds every address is no restriction."""
    version = 6 if family == "IPv6" else 4
    networks = [ipaddress.ip_network(each.strip(), strict=False) for each in spec.get("loadBalancerSourceRanges") or ()]
    ours = [each for each in networks if each.version == version]
    if any(each.prefixlen == 0 for each in ours):
        return ()
    return tuple(str(each) for each in ipaddress.collapse_addresses(ours))  # type: ignore[type-var]


def _affinity_seconds(spec: Obj) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    client_ip = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return client_ip.get("timeoutSeconds") or DEFAULT_AFFINITY_SECONDS


def _of_family(addresses: Sequence[str], family: IPFamily) -> tuple[str, ...]:
    return tuple(each for each in addresses if family_of(each) == family)
