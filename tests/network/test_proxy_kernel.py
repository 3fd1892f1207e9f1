"""The rules in a real kernel, with real sockets: a node with two pods, a client outside, in namespaces of ours."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from shipwheel.network.proxy import conntrack, nft
from shipwheel.network.proxy.model import Endpoint, ServicePort
from shipwheel.network.proxy.nft import Table
from shipwheel.network.proxy.rules import Facts, LocalDetection, contribution, render
from shipwheel.network.proxy.topology import Place, reachable
from tests.network.netns import Namespace, connect, namespaces, run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

NODE_IP, CLIENT_IP = "192.0.2.2", "192.0.2.9"
PODS = ("10.244.0.5", "10.244.0.6")
CLUSTER_IP, EXTERNAL_IP, BALANCER_IP = "10.96.0.9", "198.51.100.1", "198.51.100.7"
FACTS = Facts(local_detection=LocalDetection.by_cidr("10.244.0.0/16"), node_ip=NODE_IP, service_cidrs=("10.96.0.0/16",))
PLACE = Place("here")


@dataclass
class World:
    node: Namespace
    client: Namespace
    pods: list[Namespace]
    table: Table = field(default_factory=lambda: Table("ip", "kube-proxy"))

    def sync(self, *services: tuple[ServicePort, list[Endpoint]], facts: Facts = FACTS) -> None:
        parts = [contribution(port, reachable(port, members, PLACE), facts) for port, members in services]
        asyncio.run(self.table.sync(render(facts, parts)))


@pytest.fixture(scope="module")
def machines() -> Iterator[World]:
    with namespaces("node", "client", "pod1", "pod2") as (node, client, *pods):
        node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        # A pod that reaches itself makes the node send redirects, and those count against the limit on refusals.
        for each in ("all", "default"):
            node.run("sysctl", "-qw", f"net.ipv4.conf.{each}.send_redirects=0")
        run(
            "ip", "link", "add", "out", "netns", node.name, "type", "veth", "peer", "name", "eth0", "netns", client.name
        )
        for space, link, address in ((node, "out", NODE_IP), (client, "eth0", CLIENT_IP)):
            space.run("ip", "addr", "add", f"{address}/24", "dev", link)
            space.run("ip", "link", "set", link, "up")
        client.run("ip", "route", "add", "default", "via", NODE_IP)
        for pod, address in zip(pods, PODS, strict=True):
            connect(node, pod, here="10.244.0.1", there=address)
        # Service addresses must lead somewhere, if only to be translated before anything leaves.
        node.run("ip", "link", "add", "outside", "type", "veth", "peer", "name", "nowhere")
        node.run("ip", "link", "set", "outside", "up")
        node.run("ip", "link", "set", "nowhere", "up")
        node.run("ip", "route", "add", "default", "dev", "outside")
        servers = [Server(pod, 8080) for pod in pods]
        yield World(node, client, pods)
        for server in servers:
            server.close()


@pytest.fixture
def world(machines: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """nft and conntrack work on the node."""

    async def in_node(script: str, *arguments: str) -> str:
        try:
            return machines.node.run("nft", *(arguments or ("-f", "-")), stdin=script)
        except AssertionError as error:
            raise nft.NftError(str(error)) from error

    async def conntrack_in_node(*arguments: str) -> str:
        return machines.node.run("conntrack", *arguments)

    monkeypatch.setattr(nft, "run", in_node)
    monkeypatch.setattr(conntrack, "_conntrack", conntrack_in_node)
    return machines


class Server:
    """Answers every connection and datagram with its pod's name and the address it sees."""

    def __init__(self, pod: Namespace, port: int) -> None:
        self._name = pod.name
        self._tcp = pod.do(lambda: socket.create_server(("", port)))
        self._udp = pod.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._udp.bind(("", port))
        for work in (self._serve_tcp, self._serve_udp):
            threading.Thread(target=work, daemon=True).start()

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, (host, _) = self._tcp.accept()
            except OSError:
                return
            with connection:
                connection.sendall(f"{self._name} {host}".encode())

    def _serve_udp(self) -> None:
        while True:
            try:
                _, peer = self._udp.recvfrom(100)
            except OSError:
                return
            self._udp.sendto(f"{self._name} {peer[0]}".encode(), peer)

    def close(self) -> None:
        for each in (self._tcp, self._udp):
            each.close()


def ask(place: Namespace, host: str, port: int) -> tuple[str, str]:
    """(the pod that answers, the address it sees); OSError when nobody does."""

    def work() -> tuple[str, str]:
        with socket.create_connection((host, port), timeout=1) as connection:
            pod, seen = connection.recv(200).decode().split()
            return pod, seen

    return place.do(work)


def a_service(protocol: str = "tcp", **changes: object) -> ServicePort:
    known = {"namespace": "default", "name": "web", "port_name": "p", "protocol": protocol}
    return ServicePort(**{**known, "cluster_ip": CLUSTER_IP, "port": 80, **changes})  # type: ignore[arg-type]


def endpoints(*addresses: str, local: bool = True, serving: bool = True) -> list[Endpoint]:
    return [Endpoint(each, 8080, local=local, ready=serving, serving=serving) for each in addresses]


def test_a_pod_and_the_node_reach_a_cluster_ip(world: World) -> None:
    world.sync((a_service(), endpoints(*PODS)))
    first, second = world.pods
    for place, seen in ((first, PODS[0]), (world.node, None)):
        answers = [ask(place, CLUSTER_IP, 80) for _ in range(20)]
        assert set(Counter(pod for pod, _ in answers)) == {first.name, second.name}
        if seen:
            # Pods keep their address, but where they reach themselves.
            assert {address for pod, address in answers if pod == second.name} == {seen}
            assert {address for pod, address in answers if pod == first.name} == {"10.244.0.1"}


def test_traffic_from_outside_is_masqueraded(world: World) -> None:
    world.sync((a_service(node_port=30080, external_ips=(EXTERNAL_IP,)), endpoints(*PODS)))
    for host, port in ((CLUSTER_IP, 80), (NODE_IP, 30080), (EXTERNAL_IP, 80)):
        assert ask(world.client, host, port)[1] == "10.244.0.1"
    assert ask(world.pods[0], NODE_IP, 30080)[0] in {each.name for each in world.pods}
    assert ask(world.node, NODE_IP, 30080)[0] in {each.name for each in world.pods}


def test_the_local_policy_keeps_the_clients_address(world: World) -> None:
    service = a_service(node_port=30080, external_local=True)
    world.sync((service, endpoints(PODS[0]) + endpoints(PODS[1], local=False)))
    answers = {ask(world.client, NODE_IP, 30080) for _ in range(10)}
    assert answers == {(world.pods[0].name, CLIENT_IP)}
    assert len({ask(world.node, NODE_IP, 30080)[0] for _ in range(20)}) == 2
    world.sync((service, endpoints(*PODS, local=False)))
    with pytest.raises(TimeoutError):
        ask(world.client, NODE_IP, 30080)
    ask(world.node, NODE_IP, 30080)


def test_without_endpoints_clients_are_refused(world: World) -> None:
    world.sync((a_service(node_port=30080, external_ips=(EXTERNAL_IP,)), []))
    for place in (world.client, world.pods[0], world.node):
        for host, port in ((CLUSTER_IP, 80), (NODE_IP, 30080)):
            with pytest.raises(ConnectionRefusedError):
                ask(place, host, port)


def test_ports_and_addresses_that_no_service_has(world: World) -> None:
    world.sync((a_service(), endpoints(*PODS)))
    with pytest.raises(ConnectionRefusedError):
        ask(world.pods[0], CLUSTER_IP, 81)
    with pytest.raises((TimeoutError, PermissionError)):
        ask(world.pods[0], "10.96.1.1", 80)


def test_clients_stay_with_their_endpoint_even_over_a_restart(world: World) -> None:
    service = (a_service(affinity_seconds=100), endpoints(*PODS))
    world.sync(service)
    first = {ask(world.client, CLUSTER_IP, 80)[0] for _ in range(15)}
    assert len(first) == 1
    world.table = Table("ip", "kube-proxy")
    world.sync(service)
    assert {ask(world.client, CLUSTER_IP, 80)[0] for _ in range(15)} == first


def test_a_load_balancer_lets_its_source_ranges_in(world: World) -> None:
    allowed = a_service(load_balancer_ips=(BALANCER_IP,), source_ranges=(f"{CLIENT_IP}/32",))
    world.sync((allowed, endpoints(*PODS)))
    ask(world.client, BALANCER_IP, 80)
    forbidden = a_service(load_balancer_ips=(BALANCER_IP,), source_ranges=("203.0.113.0/24",))
    world.sync((forbidden, endpoints(*PODS)))
    with pytest.raises(TimeoutError):
        ask(world.client, BALANCER_IP, 80)
    ask(world.client, CLUSTER_IP, 80)


def test_udp_clients_move_on_when_their_endpoint_is_gone(world: World) -> None:
    service = a_service("udp", port=53)
    client = world.client.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.settimeout(1)

    def ask_again() -> str:
        client.sendto(b"?", (CLUSTER_IP, 53))
        return client.recv(200).decode().split()[0]

    with client:
        world.sync((service, endpoints(PODS[0])))
        assert ask_again() == world.pods[0].name
        world.sync((service, endpoints(PODS[1])))
        # The kernel remembers where this client's packets went.
        assert ask_again() == world.pods[0].name
        removed = asyncio.run(conntrack.remove_stale("IPv4", [(service, endpoints(PODS[1]))]))
        assert [each.answered_by for each in removed] == [PODS[0]]
        assert ask_again() == world.pods[1].name


def test_the_table_is_the_same_whichever_way_it_came_about(world: World) -> None:
    states = [
        [(a_service(), endpoints(*PODS))],
        [(a_service(affinity_seconds=5, node_port=30080), endpoints(PODS[0]))],
        [(a_service(affinity_seconds=9, external_ips=(EXTERNAL_IP,)), endpoints(*PODS))],
        [(a_service(), []), (a_service(name="b", cluster_ip="10.96.0.7"), endpoints(PODS[1]))],
        [],
        [(a_service(external_local=True, node_port=30080), endpoints(*PODS))],
    ]
    for state in states:
        world.sync(*state)
        if world.table.has_stale_chains:
            asyncio.run(world.table.delete_stale_chains())
        grown = normal(world.node.run("nft", "-s", "list", "table", "ip", "kube-proxy"))
        world.table.distrust()
        world.sync(*state)
        assert normal(world.node.run("nft", "-s", "list", "table", "ip", "kube-proxy")) == grown


def normal(listing: str) -> list[str]:
    """Without the order in which chains and elements were made."""
    lines = [line.strip().strip(",") for line in listing.replace("elements = {", "\n").splitlines()]
    return sorted(" ".join(line.rstrip("}").split()) for line in lines)


def test_meddling_is_put_right(world: World) -> None:
    world.sync((a_service(), endpoints(*PODS)))
    world.node.run("nft", "delete", "table", "ip", "kube-proxy")
    with pytest.raises(nft.NftError):
        world.sync((a_service(), endpoints(PODS[0])))
    world.sync((a_service(), endpoints(PODS[0])))
    assert ask(world.client, CLUSTER_IP, 80)[0] == world.pods[0].name
    asyncio.run(world.table.delete())
    assert "kube-proxy" not in world.node.run("nft", "list", "tables")
