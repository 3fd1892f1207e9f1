"""What every namespace has: an account called `default`, and the cluster's CA."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj
from shipwheel.client.resources import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS
from shipwheel.controllers.root_ca import RootCaPublisher
from shipwheel.controllers.serviceaccount import ServiceAccountController
from tests.controllers.world import World

DESCRIPTION = "kubernetes.io/description"


def cluster() -> World:
    world = World((RootCaPublisher, ServiceAccountController))
    world.api.create(NAMESPACES, {"metadata": {"name": "ns"}})
    return world


def root_ca(world: World, namespace: str = "ns") -> Obj | None:
    return world.api.get(CONFIG_MAPS, "kube-root-ca.crt", namespace)


def account(world: World, namespace: str = "ns") -> Obj | None:
    return world.api.get(SERVICE_ACCOUNTS, "default", namespace)


async def test_a_namespace_gets_them_at_once():
    world = cluster()
    async with world.running():
        assert account(world)
        assert root_ca(world)["data"] == {"ca.crt": "CA"}
        assert root_ca(world)["metadata"]["annotations"][DESCRIPTION].startswith(
            "Contains a CA bundle that can be used"
        )
        world.api.create(NAMESPACES, {"metadata": {"name": "later"}})
        await world.settle()
        assert account(world, "later")
        assert root_ca(world, "later")


async def test_what_is_deleted_comes_back():
    world = cluster()
    async with world.running():
        world.api.delete(SERVICE_ACCOUNTS, "default", "ns")
        world.api.delete(CONFIG_MAPS, "kube-root-ca.crt", "ns")
        await world.settle()
        assert account(world)
        assert root_ca(world)


@pytest.mark.parametrize(
    "change",
    [
        lambda obj: obj.update(data={"ca.crt": "another"}),
        lambda obj: obj.update(data={"ca.crt": "CA", "more": "x"}),
        lambda obj: obj["metadata"].pop("annotations"),
    ],
)
async def test_what_is_changed_is_put_right_and_the_rest_kept(change):
    world = cluster()
    async with world.running():
        world.api.change(CONFIG_MAPS, "kube-root-ca.crt", "ns", lambda obj: obj["metadata"].update(labels={"a": "b"}))
        world.api.change(CONFIG_MAPS, "kube-root-ca.crt", "ns", change)
        await world.settle()
        assert root_ca(world)["data"] == {"ca.crt": "CA"}
        assert DESCRIPTION in root_ca(world)["metadata"]["annotations"]
        assert root_ca(world)["metadata"]["labels"] == {"a": "b"}


async def test_other_maps_and_accounts_are_left_alone():
    world = cluster()
    async with world.running():
        world.api.create(CONFIG_MAPS, {"metadata": {"name": "mine", "namespace": "ns"}, "data": {"a": "b"}})
        world.api.create(SERVICE_ACCOUNTS, {"metadata": {"name": "robot", "namespace": "ns"}})
        before = world.api.writes
        world.api.delete(CONFIG_MAPS, "mine", "ns")
        world.api.delete(SERVICE_ACCOUNTS, "robot", "ns")
        await world.settle(1)
        assert world.api.writes == before


async def test_a_namespace_on_its_way_out_gets_nothing_more():
    world = cluster()
    async with world.running():
        world.api.delete(NAMESPACES, "ns")
        await world.settle()
        world.api.delete(SERVICE_ACCOUNTS, "default", "ns")
        world.api.delete(CONFIG_MAPS, "kube-root-ca.crt", "ns")
        await world.settle(1)
        assert account(world) is None
        assert root_ca(world) is None
