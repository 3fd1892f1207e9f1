"""Namespaces: emptied before they go, and told what holds them; and what each is given."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shipwheel.api.meta import GroupVersion, Obj, condition
from shipwheel.client.resources import CONFIG_MAPS, NAMESPACES, PODS, SECRETS, SERVICE_ACCOUNTS
from shipwheel.controllers.namespace import NamespaceController, Remains, conditions_of, grace_left
from shipwheel.controllers.root_ca import RootCaPublisher
from shipwheel.controllers.serviceaccount import ServiceAccountController
from tests.controllers import objects
from tests.controllers.fakeapi import Faults
from tests.controllers.objects import NOW
from tests.controllers.world import World, names, without_faults


def world(faults: Faults | None = None, *controllers: type) -> World:
    made = World(controllers or (NamespaceController,), faults or Faults())
    made.add_node()
    made.api.create(NAMESPACES, {"metadata": {"name": "team"}})
    return made


def fill(cluster: World, count: int = 5) -> None:
    for index in range(count):
        cluster.api.create(CONFIG_MAPS, {"metadata": {"name": f"m{index}", "namespace": "team"}})
        cluster.api.create(SECRETS, {"metadata": {"name": f"s{index}", "namespace": "team"}})


def phase(cluster: World) -> str:
    namespace = cluster.api.get(NAMESPACES, "team")
    return namespace["status"]["phase"] if namespace else "gone"


async def test_everything_in_it_goes_then_it_goes():
    cluster = world()
    fill(cluster)
    cluster.api.create(CONFIG_MAPS, {"metadata": {"name": "elsewhere", "namespace": "other"}})
    async with cluster.running():
        cluster.api.delete(NAMESPACES, "team")
        await cluster.until(lambda: phase(cluster) == "gone")
        assert names(cluster.api.list(CONFIG_MAPS)) == ["elsewhere"]


async def test_pods_go_first_with_their_grace():
    cluster = world()
    fill(cluster)
    body = {"metadata": {"name": "p", "namespace": "team"}, "spec": {"containers": [], "nodeName": "n1"}}
    cluster.start_pod(cluster.api.create(PODS, body))
    async with cluster.running():
        cluster.api.delete(NAMESPACES, "team")
        await cluster.pass_time(10)
        assert cluster.api.get(PODS, "p", "team")["metadata"]["deletionTimestamp"]
        assert len(cluster.api.list(CONFIG_MAPS)) == 5, "what a pod may need is kept while it ends"
        assert condition(cluster.api.get(NAMESPACES, "team"), "NamespaceContentRemaining")["message"] == (
            "Some resources are remaining: pods. has 1 resource instances"
        )
        cluster.run_pods()
        await cluster.until(lambda: phase(cluster) == "gone", within=3)


async def test_a_finalizer_holds_it_and_is_named():
    cluster = world()
    cluster.api.create(
        CONFIG_MAPS, {"metadata": {"name": "m", "namespace": "team", "finalizers": ["example.com/keep"]}}
    )
    async with cluster.running():
        cluster.api.delete(NAMESPACES, "team")
        await cluster.pass_time(30, step=5)
        assert phase(cluster) == "Terminating"
        found = condition(cluster.api.get(NAMESPACES, "team"), "NamespaceFinalizersRemaining")
        assert found["message"] == (
            "Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances"
        )
        cluster.api.change(CONFIG_MAPS, "m", "team", lambda obj: obj["metadata"].pop("finalizers"))
        await cluster.until(lambda: phase(cluster) == "gone", within=60)


@pytest.mark.parametrize("seed", range(4))
async def test_it_goes_in_the_end_whatever_fails(seed):
    faults = Faults(fail_before=0.03, fail_after=0.03, conflict=0.2, break_watch=0.1, expire=0.2, lag=0.2, seed=seed)
    cluster = world(faults)
    fill(cluster)
    async with cluster.running():
        cluster.api.delete(NAMESPACES, "team")
        await cluster.settle(0.2)
        await cluster.kill()
        await cluster.start()
        await cluster.until(lambda: phase(cluster) == "gone", within=600)
        assert cluster.api.list(CONFIG_MAPS) == cluster.api.list(SECRETS) == []


async def test_another_finalizer_of_the_namespace_is_left_alone():
    cluster = world()
    cluster.api.change(NAMESPACES, "team", "", lambda obj: obj["spec"]["finalizers"].append("example.com/mine"))
    async with cluster.running():
        cluster.api.delete(NAMESPACES, "team")
        await cluster.pass_time(10)
        assert cluster.api.get(NAMESPACES, "team")["spec"]["finalizers"] == ["example.com/mine"]


class TestConditions:
    def test_all_is_well(self):
        found = conditions_of((), Remains(), NOW)
        assert {each["status"] for each in found} == {"False"}
        assert len(found) == 5

    def test_what_is_unchanged_keeps_its_time(self):
        first = conditions_of((), Remains(errors=["a"]), NOW)
        later = conditions_of(first, Remains(errors=["a"]), NOW + timedelta(minutes=5))
        assert later == first
        worse = conditions_of(first, Remains(errors=["a", "b"]), NOW + timedelta(minutes=5))
        failure = next(each for each in worse if each["type"] == "NamespaceDeletionContentFailure")
        assert failure["message"] == "Failed to delete all resource types, 2 remaining: a, b"
        assert failure["lastTransitionTime"] == objects.ago(0), "its status is the same"

    def test_groups_that_cannot_be_asked(self):
        found = conditions_of((), Remains(stale=(GroupVersion("metrics.k8s.io", "v1beta1"),)), NOW)
        assert found[0]["message"] == (
            "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: "
            "metrics.k8s.io/v1beta1: stale GroupVersion discovery: metrics.k8s.io/v1beta1"
        )


@pytest.mark.parametrize(("deleted_for", "expected"), [(0, 60), (59, 60), (60, 0)])
def test_how_long_pods_may_take(deleted_for, expected):
    pods = [
        objects.pod("a", spec={"terminationGracePeriodSeconds": 60}),
        objects.pod("b", "Failed", spec={"terminationGracePeriodSeconds": 900}),
    ]
    assert grace_left(pods, NOW - timedelta(seconds=deleted_for), NOW) == expected


# What each namespace is given


def given_to(cluster: World, namespace: str) -> tuple[list[str], Obj | None]:
    ca = cluster.api.get(CONFIG_MAPS, "kube-root-ca.crt", namespace)
    return names(cluster.api.list(SERVICE_ACCOUNTS, namespace)), ca and ca["data"]


@pytest.mark.parametrize("seed", [None, 1, 2])
async def test_every_namespace_has_a_default_account_and_the_ca(seed):
    faults = Faults() if seed is None else Faults(fail_before=0.1, fail_after=0.2, break_watch=0.1, lag=0.2, seed=seed)
    cluster = world(faults, ServiceAccountController, RootCaPublisher)
    complete = (["default"], {"ca.crt": "CA"})
    async with cluster.running():
        await cluster.until(lambda: given_to(cluster, "team") == complete, within=300)
        cluster.api.create(NAMESPACES, {"metadata": {"name": "new"}})
        await cluster.until(lambda: given_to(cluster, "new") == complete, within=300)
        cluster.api.delete(SERVICE_ACCOUNTS, "default", "team")
        cluster.api.change(CONFIG_MAPS, "kube-root-ca.crt", "team", lambda obj: obj.update(data={"ca.crt": "forged"}))
        await cluster.until(lambda: given_to(cluster, "team") == complete, within=300)
        without_faults(cluster)
        cluster.api.change(NAMESPACES, "new", "", lambda obj: obj["status"].update(phase="Terminating"))
        await cluster.settle(2)
        cluster.api.delete(SERVICE_ACCOUNTS, "default", "new")
        await cluster.settle(2)
        assert given_to(cluster, "new")[0] == [], "one that is going gets nothing any more"
