"""The pod network: what the plugins are told, and that pods tied by the real plugins reach one another."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from shipwheel.network import cni
from shipwheel.network.proxy import ruleset
from tests.network.netns import Namespace, namespaces, run

PLUGINS = next(
    (each for each in map(Path, ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")) if (each / "ptp").exists()),
    None,
)


LET_THROUGH = "import asyncio; from shipwheel.network import forwarding; asyncio.run(forwarding.{call})"


def test_the_ranges_of_a_node() -> None:
    assert cni.pod_cidrs(None) == ()
    assert cni.pod_cidrs({"metadata": {"name": "n"}, "spec": {}}) == ()
    assert cni.pod_cidrs({"spec": {"podCIDR": "10.244.0.0/24"}}) == ("10.244.0.0/24",)
    both = {"spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00::/64"]}}
    assert cni.pod_cidrs(both) == ("10.244.0.0/24", "fd00::/64")
    assert cni.gateways(cni.pod_cidrs(both)) == ("10.244.0.1", "fd00::1")


def test_what_the_plugins_are_told(tmp_path: Path) -> None:
    document = cni.configuration("shipwheel-a", ["10.244.0.0/24", "fd00::/64"], state_dir=tmp_path, mtu=1400)
    ptp, portmap = document["plugins"]
    assert (document["name"], ptp["type"], ptp["mtu"], portmap["type"]) == ("shipwheel-a", "ptp", 1400, "portmap")
    assert ptp["ipam"] == {
        "type": "host-local",
        "dataDir": str(tmp_path),
        "ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }


def test_what_stays_inside_is_not_masqueraded() -> None:
    rules = cni.masquerade("ip", ["10.244.0.0/24"], ["10.244.0.0/16"])
    assert rules.chains["postrouting"].rules == (
        "ip saddr 10.244.0.0/24 ip daddr != { 10.244.0.0/16, 224.0.0.0/4 } masquerade",
    )


def test_the_mtu_of_this_machine() -> None:
    assert 576 <= cni.default_mtu() <= 65536


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or PLUGINS is None, reason="needs root and the CNI plugins")
@pytest.mark.parametrize("firewall", [False, True], ids=["open", "dropping"])
def test_pods_reach_one_another_and_the_world(tmp_path: Path, firewall: bool) -> None:
    cidr = "10.251.0.0/24"
    document = cni.configuration("test", [cidr], state_dir=tmp_path, mtu=1400)
    with namespaces("node", "outside", "pod1", "pod2") as (node, outside, *pods):
        run(
            "ip",
            "link",
            "add",
            "out",
            "netns",
            node.name,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            outside.name,
        )
        for space, link, address in ((node, "out", "192.0.2.2"), (outside, "eth0", "192.0.2.9")):
            space.run("ip", "addr", "add", f"{address}/24", "dev", link)
            space.run("ip", "link", "set", link, "up")
        rules = cni.masquerade("ip", [cidr], ["10.251.0.0/16"])
        node.run("nft", "-f", "-", stdin=ruleset.create("ip", "pods", rules))
        if firewall:
            node.run("iptables", "-P", "FORWARD", "DROP")
        for _ in range(2):
            node.run(sys.executable, "-c", LET_THROUGH.format(call=f"let_through('test', ['{cidr}'])"))
        addresses = [plug("ADD", node, pod, document) for pod in pods]
        assert addresses == ["10.251.0.2", "10.251.0.3"]
        assert answer_seen(pods[1], at=addresses[1], by=pods[0]) == addresses[0]
        assert answer_seen(outside, at="192.0.2.9", by=pods[0]) == "192.0.2.2"
        assert answer_seen(node, at=cni.gateways([cidr])[0], by=pods[1]) == addresses[1]
        assert node.run("iptables", "-S", "FORWARD").count("--comment test") == (2 if firewall else 0)
        node.run(sys.executable, "-c", LET_THROUGH.format(call="forget('test')"))
        assert "test" not in node.run("iptables", "-S", "FORWARD")
        for pod in pods:
            plug("DEL", node, pod, document)
        assert "veth" not in node.run("ip", "-o", "link").replace("out@", "")
    leftovers = [each.name for each in (tmp_path / "test").iterdir() if each.name[0].isdigit()]
    assert leftovers == []


def plug(command: str, node: Namespace, pod: Namespace, document: dict) -> str:
    """Call the first plugin as a runtime does; the address it gave."""
    first = {**document["plugins"][0], "cniVersion": document["cniVersion"], "name": document["name"]}
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": pod.name,
        "CNI_NETNS": f"/run/netns/{pod.name}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(PLUGINS),
    }
    settings = [f"{name}={value}" for name, value in environment.items()]
    output = node.run("env", *settings, f"{PLUGINS}/ptp", stdin=json.dumps(first))
    return json.loads(output)["ips"][0]["address"].partition("/")[0] if command == "ADD" else ""


def answer_seen(server: Namespace, *, at: str, by: Namespace) -> str:
    """The address that a server sees of a client."""
    listener = server.do(lambda: socket.create_server(("", 8080)))

    def serve() -> None:
        connection, (host, _) = listener.accept()
        with connection:
            connection.sendall(host.encode())

    thread = threading.Thread(target=serve)
    thread.start()

    def ask() -> str:
        with socket.create_connection((at, 8080), timeout=3) as connection:
            return connection.recv(100).decode()

    try:
        return by.do(ask)
    finally:
        listener.close()
        thread.join()
