"""From services to rules: what each service port contributes to the table, and the frame that all share.

A packet's way. `nat-prerouting` and `nat-output` look its destination up in one map of service addresses and
one of node ports, so the cost does not grow with the number of services; the map sends it to the service
port's own chain, which picks an endpoint. Traffic that must come back through this node is marked on its way
and masqueraded in `nat-postrouting`. Services that have no endpoint are looked up by the filter chains, which
refuse at once instead of letting a client wait.

The names of chains, sets and maps are those of upstream's nftables mode, so that what an administrator knows
of one holds for the other.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shipwheel.network.proxy.model import Endpoint, IPFamily, ServicePort
from shipwheel.network.proxy.ruleset import Chain, Container, Family, Ruleset, combine
from shipwheel.network.proxy.topology import Reachable

SERVICE_IPS = "service-ips"
SERVICE_NODEPORTS = "service-nodeports"
NODEPORT_IPS = "nodeport-ips"
CLUSTER_IPS = "cluster-ips"
NO_ENDPOINT_SERVICES = "no-endpoint-services"
NO_ENDPOINT_NODEPORTS = "no-endpoint-nodeports"
FIREWALL_IPS = "firewall-ips"
HAIRPIN_CONNECTIONS = "hairpin-connections"
REJECT = "goto reject-chain"


@dataclass(frozen=True, slots=True)
class LocalDetection:
    """How to tell that a packet comes from a pod of this node: two nft matches, empty when there is no
    way to tell (`--detect-local-mode`)."""

    local: str = ""
    not_local: str = ""

    @classmethod
    def by_cidr(cls, cidr: str) -> LocalDetection:
        ip = "ip6" if ":" in cidr else "ip"
        return cls(f"{ip} saddr {cidr}", f"{ip} saddr != {cidr}")

    @classmethod
    def by_bridge(cls, name: str) -> LocalDetection:
        return cls(f'iifname "{name}"', f'iifname != "{name}"')

    @classmethod
    def by_prefix(cls, prefix: str) -> LocalDetection:
        return cls(f'iifname "{prefix}*"', f'iifname != "{prefix}*"')


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules depend on besides Services and their endpoints."""

    family: IPFamily = "IPv4"
    local_detection: LocalDetection = LocalDetection()
    masquerade_all: bool = False
    masquerade_mark: int = 1 << 14
    node_ip: str = ""
    node_port_ips: tuple[str, ...] | None = None
    """The addresses on which node ports answer; None: every local address."""
    service_cidrs: tuple[str, ...] = ()
    """Where cluster IPs come from: those that nobody has are dropped."""

    @property
    def ip(self) -> Family:
        return "ip6" if self.family == "IPv6" else "ip"

    @property
    def address_type(self) -> str:
        return "ipv6_addr" if self.family == "IPv6" else "ipv4_addr"

    @property
    def mark(self) -> str:
        return f"0x{self.masquerade_mark:08x}"

    @property
    def masquerade(self) -> str:
        """Have the packet masqueraded when it leaves."""
        return f"mark set mark or {self.mark}"


def frame(facts: Facts) -> Ruleset:
    """Everything that is there before the first service."""
    ip, address = facts.ip, facts.address_type
    destination = f"{ip} daddr . meta l4proto . th dport"
    if facts.node_port_ips is None:
        loopback = "::1" if facts.family == "IPv6" else "127.0.0.0/8"
        node_port = f"{ip} daddr != {loopback} meta l4proto . th dport"
        dispatched_node_port = f"fib daddr type local {node_port}"
    else:
        node_port = f"{ip} daddr @{NODEPORT_IPS} meta l4proto . th dport"
        dispatched_node_port = node_port
    # Numbers, because older nft knows the names of these priorities for some hooks only.
    before_dnat = "type filter hook {} priority -110;"
    chains = {
        "filter-prerouting-pre-dnat": _base(before_dnat.format("prerouting"), "ct state new jump firewall-check"),
        "filter-output-pre-dnat": _base(before_dnat.format("output"), "ct state new jump firewall-check"),
        "filter-input": _base(
            "type filter hook input priority filter;",
            "ct state new jump nodeport-endpoints-check",
            "ct state new jump service-endpoints-check",
        ),
        "filter-forward": _base(
            "type filter hook forward priority filter;",
            "ct state new jump service-endpoints-check",
            "ct state new jump cluster-ips-check",
        ),
        "filter-output": _base(
            "type filter hook output priority filter;",
            "ct state new jump service-endpoints-check",
            "ct state new jump cluster-ips-check",
        ),
        "nat-prerouting": _base("type nat hook prerouting priority -100;", "jump services"),
        "nat-output": _base("type nat hook output priority -100;", "jump services"),
        "nat-postrouting": _base("type nat hook postrouting priority srcnat;", "jump masquerading"),
        "reject-chain": Chain(("reject",)),
        "firewall-check": Chain((f"{destination} vmap @{FIREWALL_IPS}",)),
        "service-endpoints-check": Chain((f"{destination} vmap @{NO_ENDPOINT_SERVICES}",)),
        "nodeport-endpoints-check": Chain((f"{node_port} vmap @{NO_ENDPOINT_NODEPORTS}",)),
        "cluster-ips-check": Chain(tuple(_cluster_ips_check(facts))),
        "services": Chain(
            (
                *_masquerade_to_cluster_ips(facts),
                f"{destination} vmap @{SERVICE_IPS}",
                f"{dispatched_node_port} vmap @{SERVICE_NODEPORTS}",
            )
        ),
        "masquerading": Chain(
            (
                f"mark and {facts.mark} != 0 mark set mark xor {facts.mark} masquerade fully-random",
                f"ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport "
                f"@{HAIRPIN_CONNECTIONS} masquerade fully-random",
            )
        ),
    }
    by_address = Container("map", f"type {address} . inet_proto . inet_service : verdict;")
    by_port = Container("map", "type inet_proto . inet_service : verdict;")
    containers = {
        SERVICE_IPS: by_address,
        SERVICE_NODEPORTS: by_port,
        NO_ENDPOINT_SERVICES: by_address,
        NO_ENDPOINT_NODEPORTS: by_port,
        FIREWALL_IPS: by_address,
        CLUSTER_IPS: Container("set", f"type {address};"),
        HAIRPIN_CONNECTIONS: Container("set", f"type {address} . {address} . inet_proto . inet_service;"),
    }
    elements: dict[str, dict[str, str]] = {name: {} for name in containers}
    if facts.node_port_ips is not None:
        containers[NODEPORT_IPS] = Container("set", f"type {address};")
        elements[NODEPORT_IPS] = dict.fromkeys(facts.node_port_ips, "")
    return Ruleset(chains, containers, elements)


def render(facts: Facts, contributions: Iterable[Ruleset]) -> Ruleset:
    """The whole table."""
    return combine((frame(facts), *contributions))


def contribution(port: ServicePort, to: Reachable, facts: Facts) -> Ruleset:
    """What one service port adds to the table."""
    names = _Names.of(port)
    chains = _policy_chains(port, to, facts, names)
    containers: dict[str, Container] = {}
    if to.anywhere and port.externally_accessible:
        chains[names.external] = Chain(tuple(_external_rules(port, to, facts, names)))
    if port.affinity_seconds:
        specification = f"type {facts.address_type}; flags dynamic,timeout; timeout {port.affinity_seconds}s;"
        for endpoint in to.all:
            containers[_affinity_set(port, endpoint)] = Container("set", specification)
            chains[_endpoint_chain(port, endpoint)] = _affine_endpoint(port, endpoint, facts)
    firewalled = bool(port.load_balancer_ips and port.source_ranges)
    if firewalled:
        chains[names.firewall] = Chain((_firewall_rule(port, facts),))
    return Ruleset(chains, containers, _elements(port, to, names, firewalled))


def _elements(port: ServicePort, to: Reachable, names: _Names, firewalled: bool) -> dict[str, dict[str, str]]:
    """The port's entries in the maps and sets that packets are looked up in."""
    internal_ok = to.anywhere and not (port.internal_local and not to.local)
    external_ok = to.anywhere and not (port.external_local and not to.local)
    internal_chain = names.local if port.internal_local else names.cluster
    # Without any endpoint there is nobody to answer, anywhere; with none here, others may still answer.
    refusal = "drop" if to.anywhere else REJECT

    def at(address: str) -> str:
        return f"{address} . {port.protocol} . {port.port}"

    service_ips: dict[str, str] = {}
    no_endpoint: dict[str, str] = {}
    node_ports: dict[str, str] = {}
    no_endpoint_node_ports: dict[str, str] = {}
    if internal_ok:
        service_ips[at(port.cluster_ip)] = f"goto {internal_chain}"
    else:
        no_endpoint[at(port.cluster_ip)] = refusal
    for address in (*port.external_ips, *port.load_balancer_ips):
        if to.anywhere:
            service_ips[at(address)] = f"goto {names.external}"
        if not external_ok:
            no_endpoint[at(address)] = refusal
    if port.node_port:
        key = f"{port.protocol} . {port.node_port}"
        if to.anywhere:
            node_ports[key] = f"goto {names.external}"
        if not external_ok:
            no_endpoint_node_ports[key] = refusal
    return {
        CLUSTER_IPS: {port.cluster_ip: ""},
        SERVICE_IPS: service_ips,
        SERVICE_NODEPORTS: node_ports,
        NO_ENDPOINT_SERVICES: no_endpoint,
        NO_ENDPOINT_NODEPORTS: no_endpoint_node_ports,
        FIREWALL_IPS: {at(address): f"goto {names.firewall}" for address in port.load_balancer_ips if firewalled},
        HAIRPIN_CONNECTIONS: {
            f"{each.ip} . {each.ip} . {port.protocol} . {each.port}": "" for each in to.all if each.local
        },
    }


def _policy_chains(port: ServicePort, to: Reachable, facts: Facts, names: _Names) -> dict[str, Chain]:
    """The chains that pick an endpoint, under the Cluster and under the Local policy."""
    pick = _pick_affine if port.affinity_seconds else _pick
    chains: dict[str, Chain] = {}
    if to.cluster and port.uses_cluster_endpoints:
        chains[names.cluster] = Chain(tuple(pick(port, to.cluster, facts)))
    if to.local and port.uses_local_endpoints:
        chains[names.local] = Chain(tuple(pick(port, to.local, facts)))
    return chains


def _pick(port: ServicePort, endpoints: Sequence[Endpoint], facts: Facts) -> Iterable[str]:
    table = ", ".join(f"{index} : {each.ip} . {each.port}" for index, each in enumerate(endpoints))
    yield (
        f"meta l4proto {port.protocol} dnat {facts.ip} addr . port to "
        f"numgen random mod {len(endpoints)} map {{ {table} }}"
    )


def _pick_affine(port: ServicePort, endpoints: Sequence[Endpoint], facts: Facts) -> Iterable[str]:
    """Whoever is in an endpoint's set goes there again; others go anywhere, and into that set."""
    for each in endpoints:
        yield f"{facts.ip} saddr @{_affinity_set(port, each)} goto {_endpoint_chain(port, each)}"
    table = ", ".join(f"{index} : goto {_endpoint_chain(port, each)}" for index, each in enumerate(endpoints))
    yield f"numgen random mod {len(endpoints)} vmap {{ {table} }}"


def _affine_endpoint(port: ServicePort, endpoint: Endpoint, facts: Facts) -> Chain:
    return Chain(
        (
            f"update @{_affinity_set(port, endpoint)} {{ {facts.ip} saddr }}",
            f"meta l4proto {port.protocol} dnat to {endpoint.address}",
        )
    )


def _external_rules(port: ServicePort, to: Reachable, facts: Facts, names: _Names) -> Iterable[str]:
    """What happens to traffic that came for a node port, an external or a load balancer's address."""
    if not port.external_local:
        # The endpoint may be on another node: the answer must come back through here.
        yield facts.masquerade
        if to.cluster:
            yield f"goto {names.cluster}"
        return
    # The policy is about clients outside. Pods and processes of this node get what they would get if their
    # packets went out to the load balancer and came back.
    if to.cluster:
        if facts.local_detection.local:
            yield f"{facts.local_detection.local} goto {names.cluster}"
        yield f"fib saddr type local {facts.masquerade}"
        yield f"fib saddr type local goto {names.cluster}"
    if to.local:
        yield f"goto {names.local}"


def _firewall_rule(port: ServicePort, facts: Facts) -> str:
    """A node that may use the load balancer may also come with the balancer's address as its own."""
    sources = list(port.source_ranges)
    node = ipaddress.ip_address(facts.node_ip) if facts.node_ip else None
    if node and any(node in ipaddress.ip_network(each) for each in sources):
        sources += [each for each in port.load_balancer_ips if not _within(each, port.source_ranges)]
    return f"{facts.ip} saddr != {{ {', '.join(sources)} }} drop"


def _within(address: str, networks: Iterable[str]) -> bool:
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(each) for each in networks)


def _cluster_ips_check(facts: Facts) -> Iterable[str]:
    """A port that a service does not have is refused, an address that no service has leads nowhere."""
    yield f"{facts.ip} daddr @{CLUSTER_IPS} reject"
    if facts.service_cidrs:
        yield f"{facts.ip} daddr {{ {', '.join(facts.service_cidrs)} }} drop"


def _masquerade_to_cluster_ips(facts: Facts) -> Iterable[str]:
    if facts.masquerade_all:
        yield f"{facts.ip} daddr @{CLUSTER_IPS} {facts.masquerade}"
    elif facts.local_detection.not_local:
        yield f"{facts.ip} daddr @{CLUSTER_IPS} {facts.local_detection.not_local} {facts.masquerade}"


def _base(hook: str, *rules: str) -> Chain:
    return Chain(rules, hook)


@dataclass(frozen=True, slots=True)
class _Names:
    """The chains of one service port."""

    cluster: str
    local: str
    external: str
    firewall: str

    @classmethod
    def of(cls, port: ServicePort) -> _Names:
        base = _unique(port.key)
        return cls(f"service-{base}", f"local-{base}", f"external-{base}", f"firewall-{base}")


def _endpoint_chain(port: ServicePort, endpoint: Endpoint) -> str:
    return f"endpoint-{_unique(_endpoint_key(port, endpoint))}"


def _affinity_set(port: ServicePort, endpoint: Endpoint) -> str:
    return f"affinity-{_unique(_endpoint_key(port, endpoint))}"


def _endpoint_key(port: ServicePort, endpoint: Endpoint) -> str:
    return f"{port.key}__{endpoint.ip.replace(':', '.')}/{endpoint.port}"


MAX_NAME = 240


def _unique(key: str) -> str:
    """A name that stays readable and is still unique when it must be cut."""
    digest = base64.b32encode(hashlib.sha256(key.encode()).digest()).decode()[:8]
    name = f"{digest}-{key}"
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."
