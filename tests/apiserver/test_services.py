"""Addresses of services, and the objects that show them."""

from __future__ import annotations

import asyncio

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource
from shipwheel.client.client import Client
from shipwheel.client.resources import SERVICES
from tests.apiserver.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADDRESSES = GroupVersionResource("networking.k8s.io", "v1", "ipaddresses")
RANGES = GroupVersionResource("networking.k8s.io", "v1", "servicecidrs")


async def appears(admin: Client, name: str) -> dict:
    async with asyncio.timeout(10):
        while True:
            try:
                return await admin.get(ADDRESSES, name)
            except ApiError:
                await asyncio.sleep(0.01)


async def disappears(admin: Client, name: str) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await admin.get(ADDRESSES, name)
            except ApiError:
                return
            await asyncio.sleep(0.01)


async def test_every_cluster_ip_has_an_object(admin: Client, namespace: str) -> None:
    made = await admin.create(SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}, namespace)
    address = await appears(admin, made["spec"]["clusterIP"])
    assert address["spec"]["parentRef"] == {"resource": "services", "namespace": namespace, "name": "s"}
    await admin.delete(SERVICES, "s", namespace)
    await disappears(admin, made["spec"]["clusterIP"])


async def test_the_range_is_there(admin: Client) -> None:
    found = await admin.get(RANGES, "kubernetes")
    assert found["spec"]["cidrs"] == ["10.96.0.0/12"]
    assert found["status"]["conditions"][0]["status"] == "True"


async def test_an_address_is_given_once(admin: Client, namespace: str) -> None:
    spec = {"clusterIP": "10.96.0.77", "ports": [{"port": 80}]}
    await admin.create(SERVICES, {"metadata": {"name": "a"}, "spec": dict(spec)}, namespace)
    with pytest.raises(ApiError) as caught:
        await admin.create(SERVICES, {"metadata": {"name": "b"}, "spec": dict(spec)}, namespace)
    assert caught.value.code == 422
    assert "provided IP is already allocated" in caught.value.message
    await admin.delete(SERVICES, "a", namespace)
    await admin.create(SERVICES, {"metadata": {"name": "b"}, "spec": dict(spec)}, namespace)


async def test_further_ranges_give_addresses_as_soon_as_they_are_ready(admin: Client, namespace: str) -> None:
    spec = {"clusterIP": "10.222.0.9", "ports": [{"port": 80}]}
    with pytest.raises(ApiError) as caught:
        await admin.create(SERVICES, {"metadata": {"name": "s"}, "spec": dict(spec)}, namespace)
    assert caught.value.code == 422
    await admin.create(RANGES, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.222.0.0/24"]}})
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    await admin.patch(RANGES, "more", "", {"status": {"conditions": [ready]}}, subresource="status")
    made = await admin.create(SERVICES, {"metadata": {"name": "s"}, "spec": dict(spec)}, namespace)
    assert made["spec"]["clusterIP"] == "10.222.0.9"
    await appears(admin, "10.222.0.9")
    await admin.delete(RANGES, "more")
    with pytest.raises(ApiError):
        await admin.create(
            SERVICES, {"metadata": {"name": "t"}, "spec": {**spec, "clusterIP": "10.222.0.10"}}, namespace
        )


async def test_an_address_object_that_says_something_wrong_is_made_anew(
    admin: Client, world: World, namespace: str
) -> None:
    made = await admin.create(SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}, namespace)
    address = made["spec"]["clusterIP"]
    first = await appears(admin, address)
    await admin.patch(ADDRESSES, address, "", {"metadata": {"labels": None}})
    world.server.ip_addresses.check(address)
    async with asyncio.timeout(10):
        while (await appears(admin, address))["metadata"]["uid"] == first["metadata"]["uid"]:
            await asyncio.sleep(0.01)
    labels = (await appears(admin, address))["metadata"]["labels"]
    assert labels["ipaddress.kubernetes.io/managed-by"] == "ipallocator.k8s.io"
