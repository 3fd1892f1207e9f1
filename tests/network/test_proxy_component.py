"""The proxy as a component, between an API in memory and an nft that only writes down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shipwheel.admin.machine import free_port
from shipwheel.api.clock import SystemClock
from shipwheel.client.flags import FlagError, parse
from shipwheel.client.resources import ENDPOINT_SLICES, NODES, SERVICES
from shipwheel.network.proxy import config as configuration
from shipwheel.network.proxy import conntrack, nft, proxy
from shipwheel.network.proxy.config import Config
from shipwheel.network.proxy.facts import facts_of
from tests.controllers.fakeapi import FakeApi

LOCAL = "127.0.0.1"


class Kernel:
    """Takes nft's scripts; refuses some if told to."""

    def __init__(self) -> None:
        self.scripts: list[str] = []
        self.refuse = 0

    async def run(self, script: str, *arguments: str) -> str:
        if arguments:
            raise nft.NftError("no such table")
        if self.refuse:
            self.refuse -= 1
            raise nft.NftError("Device or resource busy")
        self.scripts.append(script)
        return ""


async def until(what: Callable[[], Any]) -> Any:
    async with asyncio.timeout(60):
        while not (found := what()):
            await asyncio.sleep(0.005)
    return found


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(nft, "run", kernel.run)
    monkeypatch.setattr(conntrack, "set_limits", lambda config: None)
    return kernel


@pytest.fixture
def api() -> FakeApi:
    api = FakeApi(SystemClock())
    api.create(NODES, node())
    return api


@asynccontextmanager
async def running(api: FakeApi, **changes: Any) -> AsyncIterator[Config]:
    health, metrics = free_port(0, LOCAL), free_port(0, LOCAL)
    settings = {
        "node_name": "here",
        "healthz_bind_address": f"{LOCAL}:{health}",
        "metrics_bind_address": f"{LOCAL}:{metrics}",
        "min_sync_period": 0.01,
        "sync_period": 0.02,
        **changes,
    }
    config = Config(**settings)
    task = asyncio.create_task(proxy.run(config, client=api.client(), clock=SystemClock()))
    try:
        yield config
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def get(address: str, path: str) -> tuple[int, str]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    if not head:
        raise ConnectionResetError("the server went")
    return int(head.split()[1]), body


def node(**spec: Any) -> dict[str, Any]:
    addresses = [{"type": "InternalIP", "address": "192.0.2.2"}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "here"},
        "spec": spec,
        "status": {"addresses": addresses},
    }


def service(**spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.9", "ports": ports, **spec},
    }


def a_slice(*addresses: str) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [each], "nodeName": "here"} for each in addresses],
    }


async def test_services_come_change_and_go(api: FakeApi, kernel: Kernel) -> None:
    api.create(SERVICES, service())
    api.create(ENDPOINT_SLICES, a_slice("10.244.0.5"))
    async with running(api):
        first = await until(lambda: kernel.scripts and kernel.scripts[0])
        assert first.startswith("add table ip kube-proxy\ndelete table ip kube-proxy\n")
        assert "10.96.0.9 . tcp . 80 : goto service-" in first
        api.change(
            ENDPOINT_SLICES, "web-1", "default", lambda each: each["endpoints"].append({"addresses": ["10.244.0.6"]})
        )
        change = await until(lambda: kernel.scripts[1:] and kernel.scripts[1])
        assert len(change.splitlines()) == 2
        assert "mod 2 map { 0 : 10.244.0.5 . 8080, 1 : 10.244.0.6 . 8080 }" in change
        api.delete(SERVICES, "web", "default")
        await until(lambda: any("delete element ip kube-proxy service-ips" in each for each in kernel.scripts))
        # The empty chain goes when no kernel clings to it any more.
        await until(lambda: kernel.scripts[-1].startswith("delete chain ip kube-proxy service-"))


async def test_only_what_changed_is_written(api: FakeApi, kernel: Kernel) -> None:
    async with running(api):
        await until(lambda: kernel.scripts)
        count = len(kernel.scripts)
        # A node reports its state all the time; that is nothing to the rules.
        api.change(NODES, "here", "", lambda each: each["status"].update(conditions=[{"type": "Ready"}]))
        api.create(SERVICES, service(clusterIP="None"))
        await asyncio.sleep(0.1)
        assert len(kernel.scripts) == count


async def test_what_nft_refuses_is_tried_again_from_the_start(api: FakeApi, kernel: Kernel) -> None:
    api.create(SERVICES, service())
    async with running(api) as config:
        await until(lambda: kernel.scripts)
        kernel.refuse = 2
        api.create(ENDPOINT_SLICES, a_slice("10.244.0.5"))
        last = await until(lambda: kernel.scripts[1:] and kernel.scripts[-1])
        assert last.startswith("add table ip kube-proxy\ndelete table")
        assert "10.244.0.5" in last
        _, text = await get(config.metrics_bind_address, "/metrics")
        assert 'kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"} 2.0' in text


async def test_health(api: FakeApi, kernel: Kernel) -> None:
    async with running(api, sync_period=0.1) as config:
        await until(lambda: kernel.scripts)
        code, body = await get(config.healthz_bind_address, "/healthz")
        found = json.loads(body)
        assert (code, found["healthy"], found["nodeEligible"]) == (200, True, True)
        assert found["status"]["IPv4"]["healthy"] is True
        assert await get(config.metrics_bind_address, "/proxyMode") == (200, "nftables")
        assert (await get(config.metrics_bind_address, "/nonsense"))[0] == 404
        # A node that is about to be taken away gets no new connections, but the proxy is well.
        taint = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
        api.change(NODES, "here", "", lambda each: each["spec"].update(taints=[taint]))
        async with asyncio.timeout(60):
            while (await get(config.healthz_bind_address, "/healthz"))[0] != 503:
                await asyncio.sleep(0.01)
        assert (await get(config.healthz_bind_address, "/livez"))[0] == 200
        # Changes that do not get into the kernel make it ill.
        kernel.refuse = 1000
        api.create(SERVICES, service())
        async with asyncio.timeout(60):
            while (await get(config.healthz_bind_address, "/livez"))[0] != 503:
                await asyncio.sleep(0.01)


async def test_a_load_balancer_asks_where_the_endpoints_are(api: FakeApi, kernel: Kernel) -> None:
    port = free_port(0, "0.0.0.0")
    api.create(SERVICES, service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=port))
    async with running(api):
        await until(lambda: kernel.scripts)

        async def count() -> tuple[int, int]:
            code, body = await get(f"{LOCAL}:{port}", "/")
            return code, json.loads(body)["localEndpoints"]

        async with asyncio.timeout(60):
            while True:
                try:
                    assert await count() == (503, 0)
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01)
            api.create(ENDPOINT_SLICES, a_slice("10.244.0.5", "10.244.0.6"))
            while await count() != (200, 2):
                await asyncio.sleep(0.01)
            api.delete(SERVICES, "web", "default")
            with pytest.raises(ConnectionError):
                while await count():
                    await asyncio.sleep(0.01)


async def test_cleaning_up(kernel: Kernel) -> None:
    config = Config("here", cleanup=True, table="mine")
    await proxy.run(config, client=FakeApi(SystemClock()).client(), clock=SystemClock())
    assert kernel.scripts == [
        "add table ip mine\ndelete table ip mine\n",
        "add table ip6 mine\ndelete table ip6 mine\n",
    ]


# Settings


def read(*arguments: str) -> Config:
    return configuration.from_flags(parse(configuration.FLAGS, arguments).values)


def test_flags() -> None:
    config = read("--hostname-override=here", "--detect-local-mode=ClusterCIDR", "--cluster-cidr=10.0.0.0/8,fd00::/8")
    assert (config.node_name, config.cluster_cidrs) == ("here", ("10.0.0.0/8", "fd00::/8"))
    assert read().node_name


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--proxy-mode=iptables", 'Mode: Unsupported value: "iptables": supported values: "nftables"'),
        ("--detect-local-mode=x", 'DetectLocalMode: Unsupported value: "x"'),
        ("--config=/no/such/file", "open /no/such/file: no such file or directory"),
        ("--ipvs-scheduler=rr", "unknown flag: --ipvs-scheduler"),
    ],
)
def test_settings_that_are_refused(argument: str, message: str) -> None:
    with pytest.raises(FlagError) as caught:
        read(argument)
    assert message in str(caught.value)


FILE = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: /a/kubeconfig, qps: 7}
mode: nftables
clusterCIDR: 10.244.0.0/16
detectLocalMode: BridgeInterface
detectLocal: {bridgeInterface: cni0}
healthzBindAddress: 127.0.0.1
nftables: {masqueradeBit: 10, minSyncPeriod: 2s, masqueradeAll: true}
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 1h}
"""


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(FILE)
    config = read(f"--config={path}", "--hostname-override=here", "--cluster-cidr=ignored")
    assert config == Config(
        node_name="here",
        kubeconfig="/a/kubeconfig",
        qps=7,
        cluster_cidrs=("10.244.0.0/16",),
        detect_local_mode="BridgeInterface",
        bridge_interface="cni0",
        healthz_bind_address="127.0.0.1:10256",
        masquerade_bit=10,
        masquerade_all=True,
        min_sync_period=2.0,
        conntrack_max_per_core=0,
        conntrack_tcp_established_timeout=3600.0,
    )
    path.write_text(FILE + "portRange: x\n")
    with pytest.raises(FlagError, match="unknown field"):
        read(f"--config={path}")
    path.write_text("kind: Pod\napiVersion: v1\n")
    with pytest.raises(FlagError, match='no kind "Pod" is registered'):
        read(f"--config={path}")


def test_facts() -> None:
    config = Config("here", detect_local_mode="NodeCIDR", node_port_addresses=("primary",))
    facts = facts_of(config, node(podCIDRs=["10.244.0.0/24", "fd00::/64"]), ["10.96.0.0/16", "fd01::/112"], "IPv4")
    assert facts.local_detection.local == "ip saddr 10.244.0.0/24"
    assert (facts.node_ip, facts.node_port_ips, facts.service_cidrs) == ("192.0.2.2", ("192.0.2.2",), ("10.96.0.0/16",))
    six = facts_of(config, node(podCIDRs=["10.244.0.0/24", "fd00::/64"]), [], "IPv6")
    assert six.local_detection.local == "ip6 saddr fd00::/64"
    assert (six.node_ip, six.node_port_ips) == ("", ())
    own = Config("here", bind_address="198.51.100.3", node_port_addresses=("127.0.0.0/8", "0.0.0.0/0"))
    assert facts_of(own, None, [], "IPv4").node_port_ips is None
    assert facts_of(own, None, [], "IPv4").node_ip == "198.51.100.3"
