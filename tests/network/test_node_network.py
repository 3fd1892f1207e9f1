"""The pod network and DNS as parts of a node's agent, between an API in memory and this machine's sockets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from dnslib import DNSRecord

from shipwheel.api.clock import SystemClock
from shipwheel.client.resources import ENDPOINT_SLICES, NAMESPACES, NODES, SERVICES
from shipwheel.network import cni, forwarding
from shipwheel.network.dns import server
from shipwheel.network.dns.publish import publish
from shipwheel.network.proxy import nft
from tests.controllers.fakeapi import FakeApi


def named(kind: str, name: str, namespace: str = "", **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest}


async def nothing(command: str, *arguments: str) -> str:
    return ""


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_node_gets_its_network_with_its_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts: list[str] = []

    async def record(script: str, *arguments: str) -> str:
        scripts.append(script)
        return ""

    monkeypatch.setattr(nft, "run", record)
    monkeypatch.setattr(forwarding, "_run", nothing)
    api = FakeApi(SystemClock())
    api.create(NODES, named("Node", "here", spec={}))
    config = cni.Config("sw", "here", tmp_path / "conf", tmp_path / "state", ("10.244.0.0/16",), mtu=1400)
    ready: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(cni.run(config, client=api.client(), clock=SystemClock(), ready=ready))
    await asyncio.sleep(0.05)
    assert not ready.done()
    assert not (tmp_path / "conf").exists()
    api.change(NODES, "here", "", lambda each: each["spec"].update(podCIDR="10.244.7.0/24", podCIDRs=["10.244.7.0/24"]))
    assert await asyncio.wait_for(ready, 5) == ("10.244.7.1",)
    (file,) = (tmp_path / "conf").iterdir()
    assert json.loads(file.read_text())["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.7.0/24"}]]
    assert len(scripts) == 1
    assert "add chain ip sw-masquerade postrouting" in scripts[0]
    await cancel(task)
    assert file.exists()
    await cni.remove(config)
    assert not file.exists()
    assert scripts[1:] == [
        f"add table {each} sw-masquerade\ndelete table {each} sw-masquerade\n" for each in ("ip", "ip6")
    ]


async def test_dns_follows_the_api(tmp_path: Path) -> None:
    api = FakeApi(SystemClock())
    api.create(NAMESPACES, named("Namespace", "default"))
    config = server.Config(addresses=("127.0.0.1",), port=0, resolv_conf=tmp_path / "none")
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.run(config, client=api.client(), clock=SystemClock(), ready=ready))
    port = await asyncio.wait_for(ready, 5)

    async def lookup() -> list[str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        query = DNSRecord.question("web.default.svc.cluster.local").pack()
        writer.write(len(query).to_bytes(2, "big") + query)
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        writer.close()
        return [str(each.rdata) for each in DNSRecord.parse(answer).rr]

    async def becomes(expected: list[str]) -> None:
        async with asyncio.timeout(60):
            while await lookup() != expected:
                await asyncio.sleep(0.005)

    assert await lookup() == []
    api.create(SERVICES, named("Service", "web", "default", spec={"clusterIP": "10.96.0.9", "ports": []}))
    await becomes(["10.96.0.9"])
    api.change(SERVICES, "web", "default", lambda each: each["spec"].update(clusterIP="10.96.0.8"))
    await becomes(["10.96.0.8"])
    api.delete(SERVICES, "web", "default")
    await becomes([])
    await cancel(task)


async def test_the_server_says_where_it_is() -> None:
    api = FakeApi(SystemClock())
    client = api.client()
    for uid, port in (("old", 53), ("new", 5353)):
        await publish(client, {"metadata": {"name": "here", "uid": uid}}, ["10.244.0.1"], port)
    (found,) = api.list(ENDPOINT_SLICES, "kube-system")
    assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "kube-dns"
    assert [each["port"] for each in found["ports"]] == [5353, 5353]
    assert [(each["kind"], each["uid"]) for each in found["metadata"]["ownerReferences"]] == [("Node", "new")]
    assert found["endpoints"][0]["addresses"] == ["10.244.0.1"]
    assert found["endpoints"][0]["nodeName"] == "here"
