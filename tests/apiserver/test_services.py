"""Addresses of services, and the objects that show them."""

from __future__ import annotations

import asyncio

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource
from shipwheel.client.client import Client
from shipwheel.client.resources import SERVICES

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
