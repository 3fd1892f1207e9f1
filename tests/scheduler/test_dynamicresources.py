"""Pods that need devices, against an API server in memory: what is decided, written and taken back."""

from __future__ import annotations

from typing import Any

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.client import resources as r
from shipwheel.scheduler.configuration import Configuration, ProfileConfig
from shipwheel.scheduler.plugins.claimbinding import FINALIZER

from .test_devices import claim, device, pool, request
from .test_loop import Obj, World, node, pod, running

CLASS = (r.DEVICE_CLASSES, {"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}})
GPUS = (r.RESOURCE_SLICES, pool(device("a"), device("b")))


def using(name: str, *claims: str, **spec: Any) -> Obj:
    return pod(name, resourceClaims=[{"name": each, "resourceClaimName": each} for each in claims], **spec)


def claimed(world: World, name: str) -> Obj:
    found = world.api.get(r.RESOURCE_CLAIMS, name, "default")
    return (found or {}).get("status") or {}


def reserved(world: World, name: str) -> list[str]:
    return [each["name"] for each in claimed(world, name).get("reservedFor") or ()]


async def test_a_pod_goes_where_its_devices_are() -> None:
    nodes = [(r.NODES, node(name)) for name in ("one", "two", "three")]
    objects = (*nodes, CLASS, GPUS, (r.RESOURCE_CLAIMS, claim(request(), name="c")))
    async with running(*objects, (r.PODS, using("p", "c"))) as world:
        await world.until(lambda: world.where("p"))
        assert world.where("p") == "one"
        status = claimed(world, "c")
        assert status["allocation"]["devices"]["results"][0]["device"] == "a"
        assert reserved(world, "c") == ["p"]
        found = world.api.get(r.RESOURCE_CLAIMS, "c", "default")
        assert found is not None and found["metadata"]["finalizers"] == [FINALIZER]
        # A second pod shares the claim, and so the node.
        world.api.create(r.PODS, using("q", "c"))
        await world.until(lambda: world.where("q") == "one")
        assert reserved(world, "c") == ["p", "q"]


async def test_two_devices_for_three() -> None:
    claims = [(r.RESOURCE_CLAIMS, claim(request(), name=name)) for name in "xyz"]
    pods = [(r.PODS, using(f"p{name}", name)) for name in "xyz"]
    async with running((r.NODES, node("one")), CLASS, GPUS, *claims, *pods) as world:
        await world.until(lambda: sum(bool(world.where(f"p{name}")) for name in "xyz") == 2)
        await world.until(lambda: world.events("FailedScheduling"))
        assert world.events("FailedScheduling")[0] == (
            "0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, "
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )
        given = [claimed(world, name)["allocation"] for name in "xyz" if claimed(world, name).get("allocation")]
        assert sorted(each["devices"]["results"][0]["device"] for each in given) == ["a", "b"]
        # A claim that is given back makes room.
        last = next(name for name in "xyz" if not world.where(f"p{name}"))
        first = next(name for name in "xyz" if world.where(f"p{name}"))
        world.api.delete(r.PODS, f"p{first}", "default", gracePeriodSeconds=0)
        world.api.change(r.RESOURCE_CLAIMS, first, "default", lambda obj: obj.pop("status"))
        await world.until(lambda: world.where(f"p{last}"))


async def test_pods_wait_until_their_claims_are_made() -> None:
    waiting = pod("p", resourceClaims=[{"name": "c", "resourceClaimTemplateName": "t"}])
    async with running((r.NODES, node("one")), CLASS, GPUS, (r.PODS, waiting), (r.PODS, pod("other"))) as world:
        await world.until(lambda: world.where("other"))
        assert (world.where("p"), world.events("FailedScheduling")) == ("", [])
        assert world.scheduler.queue.size("gated") == 1
        owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": world.pod("p")["metadata"]["uid"]}
        made = claim(request(), name="made")
        made["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
        world.api.create(r.RESOURCE_CLAIMS, made)

        def name_it(obj: Obj) -> None:
            obj.setdefault("status", {})["resourceClaimStatuses"] = [{"name": "c", "resourceClaimName": "made"}]

        world.api.change(r.PODS, "p", "default", name_it)
        await world.until(lambda: world.where("p") == "one")
        assert reserved(world, "made") == ["p"]


async def test_a_claim_that_comes_later_wakes_its_pod() -> None:
    async with running((r.NODES, node("one")), CLASS, GPUS, (r.PODS, using("p", "c"))) as world:
        await world.until(lambda: world.scheduler.queue.size("gated") == 1)
        world.api.create(r.RESOURCE_CLAIMS, claim(request(), name="c"))
        await world.until(lambda: world.where("p"))


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([GPUS], "request r: device class gpu does not exist"),
        ([CLASS], "1 cannot allocate all claims"),
    ],
)
async def test_what_is_said(objects: list[Any], reason: str) -> None:
    wanted = (r.RESOURCE_CLAIMS, claim(request(), name="c"))
    async with running((r.NODES, node("one")), wanted, *objects, (r.PODS, using("p", "c"))) as world:
        await world.until(lambda: world.events("FailedScheduling"))
        assert world.events("FailedScheduling")[0].startswith(f"0/1 nodes are available: {reason}. ")
        for each in (CLASS, GPUS):
            if each not in objects:
                world.api.create(*each)
        await world.until(lambda: world.where("p"))


async def test_a_bad_selector_is_an_error_of_that_pod() -> None:
    bad = claim(request(selectors=[{"cel": {"expression": 'device.attributes["x"].y'}}]), name="bad")
    objects = ((r.NODES, node("one")), CLASS, GPUS, (r.RESOURCE_CLAIMS, bad))
    async with running(*objects, (r.PODS, using("p", "bad")), (r.PODS, pod("other"))) as world:
        await world.until(lambda: world.where("other") and world.events("FailedScheduling"))
        assert world.events("FailedScheduling")[0] == (
            'running "DynamicResources" filter plugin: '
            "claim default/bad: selector #0: CEL runtime error: no such key: y"
        )


async def test_devices_are_free_again_when_the_binding_fails() -> None:
    """The claim is written, the binding is refused: the pod is taken off the claim, and tried again."""
    refusals = iter(range(2))

    def refuse(method: str, path: str, body: Obj | None) -> None:
        if path.endswith("/binding") and next(refusals, None) is not None:
            raise ApiError(500, "InternalError", "out of luck")

    objects = ((r.NODES, node("one")), CLASS, GPUS, (r.RESOURCE_CLAIMS, claim(request(), name="c")))
    async with running(*objects) as world:
        world.api.before_write = refuse
        world.api.create(r.PODS, using("p", "c"))
        await world.until(lambda: world.where("p"))
        assert reserved(world, "c") == ["p"]
        assert next(refusals, None) is None


async def test_a_claim_that_is_somewhere_else_is_taken_back() -> None:
    """Nobody uses it, so it may have another device."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gone"]}]}
    placed = claim(request(), name="c")
    result = {"request": "r", "driver": "gpu.example.com", "pool": "old", "device": "a"}
    selector = {"nodeSelectorTerms": [term]}
    placed["status"] = {"allocation": {"devices": {"results": [result]}, "nodeSelector": selector}}
    objects = ((r.NODES, node("one")), CLASS, GPUS, (r.RESOURCE_CLAIMS, placed))
    async with running(*objects, (r.PODS, using("p", "c"))) as world:
        await world.until(lambda: world.where("p"))
        assert world.events("FailedScheduling")[0].startswith(
            "0/1 nodes are available: 1 resourceclaim not available on the node. "
            "deallocation of ResourceClaim completed, preemption: "
        )
        assert claimed(world, "c")["allocation"]["devices"]["results"][0]["pool"] == "pool"


async def test_the_pod_waits_for_devices_to_be_ready() -> None:
    slow = device("a", bindingConditions=["ready"], bindingFailureConditions=["broken"])
    objects = ((r.NODES, node("one")), CLASS, (r.RESOURCE_CLAIMS, claim(request(), name="c")))
    async with running(*objects, (r.RESOURCE_SLICES, pool(slow)), (r.PODS, using("p", "c"))) as world:
        await world.until(lambda: world.events("BindingConditionsPending"))
        assert world.events("BindingConditionsPending") == ["waiting for binding conditions for device on node one"]
        assert world.where("p") == "" and reserved(world, "c") == ["p"]
        assert world.pod("p")["status"]["nominatedNodeName"] == "one", "others can plan with it"

        def report(obj: Obj) -> None:
            known = {"driver": "gpu.example.com", "pool": "pool", "device": "a"}
            obj["status"]["devices"] = [{**known, "conditions": [{"type": "ready", "status": "True"}]}]

        world.api.change(r.RESOURCE_CLAIMS, "c", "default", report)
        await world.until(lambda: world.where("p"))


async def test_what_was_wished_for_first_is_preferred() -> None:
    first, second = (
        {"name": name, "deviceClassName": "gpu", "count": count} for name, count in (("two", 2), ("one", 1))
    )
    wanted = claim({"name": "r", "firstAvailable": [first, second]}, name="c")
    single = pool(device("c"), name="single", nodeName="two")
    nodes = [(r.NODES, node(name)) for name in ("one", "two")]
    objects = (*nodes, CLASS, GPUS, (r.RESOURCE_SLICES, single), (r.RESOURCE_CLAIMS, wanted))
    async with running(*objects, (r.PODS, using("p", "c"))) as world:
        await world.until(lambda: world.where("p"))
        assert world.where("p") == "one"
        results = claimed(world, "c")["allocation"]["devices"]["results"]
        assert [each["request"] for each in results] == ["r/two", "r/two"]


async def test_extended_resources_that_devices_stand_for() -> None:
    asking = pod("p")
    asking["spec"]["containers"][0]["resources"]["requests"]["example.com/gpu"] = "2"
    async with running(*((r.NODES, node(name)) for name in ("one", "two")), CLASS, GPUS, (r.PODS, asking)) as world:
        await world.until(lambda: world.where("p"))
        assert world.where("p") == "one"
        status = world.pod("p")["status"]["extendedResourceClaimStatus"]
        made = claimed(world, status["resourceClaimName"])
        assert [each["device"] for each in made["allocation"]["devices"]["results"]] == ["a", "b"]
        assert status["requestMappings"] == [
            {"containerName": "main", "resourceName": "example.com/gpu", "requestName": "container-0-request-1"}
        ]
        # There are none left, wherever one asks.
        again = pod("q")
        again["spec"]["containers"][0]["resources"]["requests"]["example.com/gpu"] = "1"
        world.api.create(r.PODS, again)
        await world.until(lambda: world.events("FailedScheduling"))
        assert "2 cannot allocate all claims" in world.events("FailedScheduling")[0]


async def test_several_profiles_share_the_devices() -> None:
    claims = [(r.RESOURCE_CLAIMS, claim(request(), name=name)) for name in "xy"]
    pods = [(r.PODS, using("px", "x")), (r.PODS, using("py", "y", schedulerName="other"))]
    both = Configuration(
        profiles=(ProfileConfig(), ProfileConfig(scheduler_name="other")), initial_backoff=0.05, max_backoff=0.2
    )
    async with running((r.NODES, node("one")), CLASS, GPUS, *claims, *pods, configuration=both) as world:
        await world.until(lambda: world.where("px") and world.where("py"))
        given = [claimed(world, name)["allocation"]["devices"]["results"][0]["device"] for name in "xy"]
        assert sorted(given) == ["a", "b"]
