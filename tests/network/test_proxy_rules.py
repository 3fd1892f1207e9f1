"""Which endpoints serve whom, and the table that comes of it: no kernel involved."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.network.proxy import ruleset
from shipwheel.network.proxy.conntrack import Flow, parse, stale
from shipwheel.network.proxy.model import Endpoint, ServicePort, endpoints_by_port, service_ports
from shipwheel.network.proxy.nft import affinities
from shipwheel.network.proxy.rules import Facts, LocalDetection, contribution, frame, render
from shipwheel.network.proxy.ruleset import Chain, Container, Ruleset
from shipwheel.network.proxy.topology import Place, reachable

HERE = Place("here", "zone-a")
LOCAL = Endpoint("10.244.0.5", 8080, local=True)
REMOTE = Endpoint("10.244.1.5", 8080)
DYING_LOCAL = Endpoint("10.244.0.6", 8080, local=True, ready=False, terminating=True)
DYING_REMOTE = Endpoint("10.244.1.6", 8080, ready=False, terminating=True)
BROKEN = Endpoint("10.244.0.7", 8080, local=True, ready=False, serving=False)


def a_port(**changes: Any) -> ServicePort:
    defaults: dict[str, Any] = {
        "namespace": "default", "name": "web", "port_name": "http", "protocol": "tcp",
        "cluster_ip": "10.96.0.9", "port": 80,
    }  # fmt: skip
    return ServicePort(**{**defaults, **changes})


CLUSTER = a_port()
EXTERNAL_LOCAL = a_port(node_port=30080, external_local=True)
INTERNAL_LOCAL = a_port(internal_local=True)


@pytest.mark.parametrize(
    ("port", "endpoints", "cluster", "local", "anywhere"),
    [
        (CLUSTER, [], [], [], False),
        (CLUSTER, [LOCAL, REMOTE], [LOCAL, REMOTE], [], True),
        (CLUSTER, [BROKEN], [], [], False),
        # Terminating endpoints serve only where nothing else does.
        (CLUSTER, [LOCAL, DYING_REMOTE], [LOCAL], [], True),
        (CLUSTER, [BROKEN, DYING_LOCAL, DYING_REMOTE], [DYING_LOCAL, DYING_REMOTE], [], True),
        (EXTERNAL_LOCAL, [LOCAL, REMOTE], [LOCAL, REMOTE], [LOCAL], True),
        (EXTERNAL_LOCAL, [REMOTE], [REMOTE], [], True),
        (EXTERNAL_LOCAL, [REMOTE, DYING_LOCAL], [REMOTE], [DYING_LOCAL], True),
        (EXTERNAL_LOCAL, [BROKEN], [], [], False),
        (INTERNAL_LOCAL, [LOCAL, REMOTE], [], [LOCAL], True),
        (INTERNAL_LOCAL, [REMOTE], [], [], True),
        (INTERNAL_LOCAL, [BROKEN], [], [], False),
    ],
)
def test_who_is_reached(port: ServicePort, endpoints: Any, cluster: Any, local: Any, anywhere: bool) -> None:
    found = reachable(port, endpoints, HERE)
    assert (list(found.cluster), list(found.local), found.anywhere) == (cluster, local, anywhere)


def hinted(ip: str, *, zones: str = "", nodes: str = "") -> Endpoint:
    return Endpoint(ip, 80, zones=frozenset(zones.split()), nodes=frozenset(nodes.split()))


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ([hinted("a", zones="zone-a"), hinted("b", zones="zone-b")], "a"),
        ([hinted("a", zones="zone-b"), hinted("b", zones="zone-b")], "ab"),
        ([hinted("a", zones="zone-a"), hinted("b")], "ab"),
        ([hinted("a", nodes="here"), hinted("b", nodes="there")], "a"),
        ([hinted("a", zones="zone-a", nodes="there"), hinted("b", zones="zone-b", nodes="there")], "a"),
        ([hinted("a", zones="zone-a zone-b"), hinted("b", zones="zone-b")], "a"),
    ],
)
def test_hints(endpoints: list[Endpoint], expected: str) -> None:
    assert "".join(each.ip for each in reachable(CLUSTER, endpoints, HERE).cluster) == expected


def service(**spec: Any) -> dict[str, Any]:
    base = {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": base | spec}


def test_reading_a_service() -> None:
    obj = service(
        type="LoadBalancer",
        clusterIPs=["10.96.0.9", "fd00::9"],
        externalTrafficPolicy="Local",
        healthCheckNodePort=31000,
        sessionAffinity="ClientIP",
        externalIPs=["198.51.100.1", "2001:db8::1"],
        loadBalancerSourceRanges=["192.0.2.0/24", " 192.0.2.128/25", "2001:db8::/32"],
        ports=[{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}],
    )
    ingress = [{"ip": "198.51.100.7"}, {"ip": "198.51.100.8", "ipMode": "Proxy"}, {"hostname": "lb"}]
    obj["status"] = {"loadBalancer": {"ingress": ingress}}
    (port,) = service_ports(obj, "IPv4")
    assert port == a_port(
        node_port=30080,
        external_ips=("198.51.100.1",),
        load_balancer_ips=("198.51.100.7",),
        source_ranges=("192.0.2.0/24",),
        affinity_seconds=10800,
        external_local=True,
        health_check_node_port=31000,
    )
    (six,) = service_ports(obj, "IPv6")
    assert (six.cluster_ip, six.external_ips, six.load_balancer_ips) == ("fd00::9", ("2001:db8::1",), ())


@pytest.mark.parametrize(
    "spec",
    [{"clusterIP": "None"}, {"clusterIP": ""}, {"type": "ExternalName"}, {"clusterIP": "fd00::9"}],
)
def test_services_that_are_none_of_ours(spec: dict[str, Any]) -> None:
    assert service_ports(service(**spec), "IPv4") == []


def test_another_proxys_service() -> None:
    obj = service()
    obj["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "other"}
    assert service_ports(obj, "IPv4") == []


def test_anybody_in_the_source_ranges_is_no_restriction() -> None:
    assert service_ports(service(loadBalancerSourceRanges=["192.0.2.0/24", "0.0.0.0/0"]), "IPv4")[0].source_ranges == ()


def test_reading_slices() -> None:
    def a_slice(*endpoints: dict[str, Any], family: str = "IPv4") -> dict[str, Any]:
        return {"addressType": family, "ports": [{"name": "http", "port": 8080}], "endpoints": list(endpoints)}

    first = a_slice(
        {"addresses": ["10.244.0.5"], "nodeName": "here"},
        {"addresses": ["10.244.0.6"], "conditions": {"ready": False, "serving": True, "terminating": True}},
        {"addresses": []},
    )
    # The address of a dying pod has been given to a new one.
    second = a_slice({"addresses": ["10.244.0.6"], "hints": {"forZones": [{"name": "z"}]}})
    six = a_slice({"addresses": ["fd00::5"]}, family="IPv6")
    portless = {"addressType": "IPv4", "ports": [{"name": "x"}], "endpoints": [{"addresses": ["1.2.3.4"]}]}
    expected = [
        Endpoint("10.244.0.5", 8080, local=True),
        Endpoint("10.244.0.6", 8080, zones=frozenset("z")),
    ]
    for slices in ([first, second, six, portless], [second, first]):
        assert endpoints_by_port(slices, "IPv4", "here") == {("http", "tcp"): expected}
    assert endpoints_by_port([six], "IPv6", "here")["http", "tcp"][0].address == "[fd00::5]:8080"


FACTS = Facts(
    local_detection=LocalDetection.by_cidr("10.244.0.0/16"),
    node_ip="192.0.2.2",
    service_cidrs=("10.96.0.0/16",),
)


def elements(port: ServicePort, *endpoints: Endpoint) -> dict[str, dict[str, str]]:
    rules = contribution(port, reachable(port, endpoints, HERE), FACTS)
    return {name: dict(content) for name, content in rules.elements.items() if content}


def test_a_service_with_endpoints() -> None:
    found = elements(a_port(node_port=30080, external_ips=("198.51.100.1",)), LOCAL, REMOTE)
    name = next(iter(found["service-nodeports"].values())).split("-", 1)[1]
    assert found == {
        "cluster-ips": {"10.96.0.9": ""},
        "service-ips": {
            "10.96.0.9 . tcp . 80": f"goto service-{name}",
            "198.51.100.1 . tcp . 80": f"goto external-{name}",
        },
        "service-nodeports": {"tcp . 30080": f"goto external-{name}"},
        "hairpin-connections": {"10.244.0.5 . 10.244.0.5 . tcp . 8080": ""},
    }
    assert name.endswith("-default/web/tcp/http")


def test_a_service_without_endpoints_refuses() -> None:
    assert elements(a_port(node_port=30080, external_ips=("198.51.100.1",)), BROKEN) == {
        "cluster-ips": {"10.96.0.9": ""},
        "no-endpoint-services": {
            "10.96.0.9 . tcp . 80": "goto reject-chain",
            "198.51.100.1 . tcp . 80": "goto reject-chain",
        },
        "no-endpoint-nodeports": {"tcp . 30080": "goto reject-chain"},
    }


def test_local_policies_without_local_endpoints_drop_what_comes_from_outside() -> None:
    found = elements(EXTERNAL_LOCAL, REMOTE)
    assert found["no-endpoint-nodeports"] == {"tcp . 30080": "drop"}
    # Pods and processes of this node still get through.
    assert found["service-nodeports"]["tcp . 30080"].startswith("goto external-")
    assert elements(INTERNAL_LOCAL, REMOTE)["no-endpoint-services"] == {"10.96.0.9 . tcp . 80": "drop"}


def chains(port: ServicePort, *endpoints: Endpoint) -> dict[str, tuple[str, ...]]:
    rules = contribution(port, reachable(port, endpoints, HERE), FACTS)
    return {name.split("-")[0]: chain.rules for name, chain in rules.chains.items()}


def test_picking_an_endpoint() -> None:
    assert chains(CLUSTER, LOCAL, REMOTE) == {
        "service": (
            "meta l4proto tcp dnat ip addr . port to numgen random mod 2 map "
            "{ 0 : 10.244.0.5 . 8080, 1 : 10.244.1.5 . 8080 }",
        )
    }


def test_the_firewall_of_a_load_balancer() -> None:
    port = a_port(load_balancer_ips=("198.51.100.7",), source_ranges=("203.0.113.0/24",))
    assert chains(port, LOCAL)["firewall"] == ("ip saddr != { 203.0.113.0/24 } drop",)
    # A node that is let in may come with the balancer's address.
    port = a_port(load_balancer_ips=("198.51.100.7",), source_ranges=("192.0.2.0/24",))
    assert chains(port, LOCAL)["firewall"] == ("ip saddr != { 192.0.2.0/24, 198.51.100.7 } drop",)


def test_names_stay_short_and_unique() -> None:
    long = "x" * 63
    one = a_port(namespace=long, name=long, port_name=long, node_port=1)
    names = contribution(one, reachable(one, [Endpoint("fd00::1", 80)] * 2, HERE), FACTS).chains
    assert max(map(len, names)) <= 255


def test_masquerading_of_traffic_from_outside() -> None:
    def first_rule(facts: Facts) -> str:
        return frame(facts).chains["services"].rules[0]

    assert first_rule(FACTS) == "ip daddr @cluster-ips ip saddr != 10.244.0.0/16 mark set mark or 0x00004000"
    assert first_rule(Facts(masquerade_all=True)) == "ip daddr @cluster-ips mark set mark or 0x00004000"
    assert first_rule(Facts(local_detection=LocalDetection.by_prefix("veth"))).startswith(
        'ip daddr @cluster-ips iifname != "veth*"'
    )
    assert first_rule(Facts()) == "ip daddr . meta l4proto . th dport vmap @service-ips"


def test_node_ports_on_some_addresses_only() -> None:
    rules = frame(Facts(node_port_ips=("192.0.2.2",)))
    assert rules.elements["nodeport-ips"] == {"192.0.2.2": ""}
    assert rules.chains["services"].rules[-1] == (
        "ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports"
    )


def test_two_services_with_the_same_external_ip() -> None:
    """nft refuses a key with two values: the first has it."""
    first = a_port(external_ips=("198.51.100.1",))
    second = a_port(name="other", cluster_ip="10.96.0.10", external_ips=("198.51.100.1",))
    parts = [contribution(each, reachable(each, [LOCAL], HERE), FACTS) for each in (first, second)]
    target = render(FACTS, parts).elements["service-ips"]["198.51.100.1 . tcp . 80"]
    assert target.endswith("default/web/tcp/http")


# What changes between two tables


def test_no_difference_no_script() -> None:
    rules = render(FACTS, [contribution(CLUSTER, reachable(CLUSTER, [LOCAL], HERE), FACTS)])
    assert ruleset.update("ip", "t", rules, rules) == ""


def test_one_endpoint_more_touches_one_chain() -> None:
    before = render(FACTS, [contribution(CLUSTER, reachable(CLUSTER, [REMOTE], HERE), FACTS)])
    after = render(FACTS, [contribution(CLUSTER, reachable(CLUSTER, [REMOTE, LOCAL], HERE), FACTS)])
    script = ruleset.update("ip", "t", before, after).splitlines()
    assert [line.split(" ip t ")[0] for line in script] == ["flush chain", "add rule", "add element"]


KEYS = st.sampled_from("abcd")
CHAINS = st.dictionaries(
    KEYS,
    st.builds(
        Chain, st.lists(st.sampled_from(["drop", "accept", "ip saddr @s drop", "drop @t"]), max_size=2).map(tuple)
    ),
)
SETS = st.dictionaries(st.sampled_from(["s", "t", "m"]), st.dictionaries(KEYS, st.sampled_from(["1", "2"])))


@st.composite
def rulesets(draw: st.DrawFn) -> Ruleset:
    elements = draw(SETS)
    kinds = {name: Container("map", draw(st.sampled_from(["x", "y"]))) for name in elements}
    return Ruleset(draw(CHAINS), kinds, elements)


@given(rulesets(), rulesets())
def test_scripts_lead_where_they_should(old: Ruleset, new: Ruleset) -> None:
    table = Interpreter()
    table.run(ruleset.create("ip", "t", old))
    assert table.state() == old
    table.run(ruleset.update("ip", "t", old, new))
    table.run(ruleset.delete_chains("ip", "t", ruleset.gone(old, new)))
    assert table.state() == new


class Interpreter:
    """As much of nft as our scripts use; what is not there cannot be changed, what is there not be added."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.chains: dict[str, list[str]] = {}
        self.containers: dict[str, Container] = {}
        self.elements: dict[str, dict[str, str]] = {}

    def state(self) -> Ruleset:
        chains = {name: Chain(tuple(rules)) for name, rules in self.chains.items()}
        return Ruleset(chains, self.containers, self.elements)

    def run(self, script: str) -> None:
        for line in script.splitlines():
            verb, what, family, table, *rest = line.split(" ", 5)
            assert (family, table) == ("ip", "t")
            name = rest[0] if rest else ""
            text = rest[1] if len(rest) > 1 else ""
            getattr(self, f"{verb}_{what}")(name, text)

    def add_table(self, name: str, text: str) -> None:
        pass

    def delete_table(self, name: str, text: str) -> None:
        self.clear()

    def add_chain(self, name: str, text: str) -> None:
        assert name not in self.chains
        self.chains[name] = []

    def flush_chain(self, name: str, text: str) -> None:
        self.chains[name].clear()

    def delete_chain(self, name: str, text: str) -> None:
        assert self.chains.pop(name) == []

    def add_rule(self, name: str, text: str) -> None:
        self.chains[name].append(text)

    def add_map(self, name: str, text: str) -> None:
        assert name not in self.containers
        self.containers[name] = Container("map", text.strip("{ }"))
        self.elements[name] = {}

    def delete_map(self, name: str, text: str) -> None:
        assert not any(f"@{name}" in rule for rules in self.chains.values() for rule in rules)
        del self.containers[name], self.elements[name]

    def add_element(self, name: str, text: str) -> None:
        for entry in text.strip("{ }").split(", "):
            key, _, value = entry.partition(" : ")
            assert key not in self.elements[name]
            self.elements[name][key] = value

    def delete_element(self, name: str, text: str) -> None:
        for key in text.strip("{ }").split(", "):
            del self.elements[name][key]


# Connections


LISTING = """\
udp      17 29 src=10.244.0.5 dst=10.96.0.10 sport=4000 dport=53 src=10.244.0.9 dst=10.244.0.5 sport=5353 dport=4000 use=1
udp      17 29 src=192.0.2.9 dst=192.0.2.2 sport=4001 dport=30053 [UNREPLIED] src=10.244.0.8 dst=192.0.2.9 sport=5353 dport=1 use=1
udp      17 29 src=192.0.2.9 dst=192.0.2.2 sport=4002 dport=123 src=192.0.2.2 dst=192.0.2.9 sport=123 dport=4002 use=1
"""  # noqa: E501


def test_connections_to_endpoints_that_are_gone() -> None:
    flows = parse(LISTING)
    assert flows[0] == Flow("10.244.0.5", 4000, "10.96.0.10", 53, "10.244.0.9", 5353)
    assert len(flows) == 3
    dns = a_port(protocol="udp", cluster_ip="10.96.0.10", port=53, node_port=30053)
    nine, eight = Endpoint("10.244.0.9", 5353), Endpoint("10.244.0.8", 5353, ready=False, terminating=True)
    assert stale(flows, [(dns, [nine])]) == [flows[1]]
    assert stale(flows, [(dns, [eight])]) == [flows[0]]
    assert stale(flows, [(dns, [nine, eight])]) == []
    assert stale(flows, [(dns, [])]) == []
    assert stale(flows, [(a_port(cluster_ip="10.96.0.10", port=53), [nine])]) == []


def test_remembered_clients() -> None:
    listing = {
        "nftables": [
            {"metainfo": {}},
            {"set": {"name": "cluster-ips", "elem": ["10.96.0.9"]}},
            {"set": {"name": "affinity-x", "elem": [{"elem": {"val": "10.0.0.1", "timeout": 9, "expires": 7}}]}},
            {"set": {"name": "affinity-y"}},
        ]
    }
    assert affinities(listing) == {"affinity-x": ["10.0.0.1 expires 7s"], "affinity-y": []}
