"""Resource claims and tainted devices."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj, condition
from shipwheel.client.resources import (
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
)
from shipwheel.controllers.devices import DeviceTaintEvictionController, ResourceClaimController
from shipwheel.controllers.devices.consumers import FINALIZER, Unknown, claim_keys, claim_name, make_claim
from shipwheel.controllers.devices.eviction import evicting_taints, eviction_time
from tests.controllers import objects
from tests.controllers.fakeapi import Faults
from tests.controllers.objects import NOW, ago
from tests.controllers.world import World, without_faults

# Claims of pods


def test_how_a_pod_names_its_claims():
    uses = [{"name": "a", "resourceClaimName": "mine"}, {"name": "b", "resourceClaimTemplateName": "t"}]
    pod = objects.pod("p", spec={"resourceClaims": uses})
    assert claim_keys(pod) == ["default/mine"]
    with pytest.raises(Unknown, match='pod "default/p": ResourceClaim not created yet'):
        claim_name(pod, uses[1])
    pod["status"]["resourceClaimStatuses"] = [{"name": "b", "resourceClaimName": "made"}]
    assert claim_keys(pod) == ["default/made", "default/mine"]
    pod["status"]["resourceClaimStatuses"] = [{"name": "b"}]
    assert claim_name(pod, uses[1]) is None


@pytest.mark.parametrize(("pod", "use"), [("p", "gpu"), ("p" * 63, "u" * 63), ("p" * 10, "u" * 60)])
def test_generated_names_fit(pod, use):
    made = make_claim(objects.pod(pod), {"name": use}, {"spec": {"spec": {}}})
    assert len(made["metadata"]["generateName"]) <= 58
    assert make_claim(objects.pod("p"), {"name": "gpu"}, {"spec": {}})["metadata"]["generateName"] == "p-gpu-"


def add_pod(cluster: World, name: str = "p", node: str = "") -> Obj:
    spec: Obj = {"containers": [], "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]}
    if node:
        spec["nodeName"] = node
    return cluster.api.create(PODS, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})


def add_template(cluster: World) -> None:
    cluster.api.create(
        RESOURCE_CLAIM_TEMPLATES, {"metadata": {"name": "t", "namespace": "default"}, "spec": {"spec": {"devices": {}}}}
    )


def claims(cluster: World) -> list[Obj]:
    return cluster.api.list(RESOURCE_CLAIMS)


def allocate(cluster: World, pod: Obj) -> None:
    """What the scheduler does."""

    def change(obj: Obj) -> None:
        obj["metadata"]["finalizers"] = [FINALIZER]
        result = {"driver": "d", "pool": "pool", "device": "dev0", "request": "r"}
        reference = {"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        obj["status"] = {"allocation": {"devices": {"results": [result]}}, "reservedFor": [reference]}

    (only,) = claims(cluster)
    cluster.api.change(RESOURCE_CLAIMS, only["metadata"]["name"], "default", change)


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
async def test_a_claim_is_made_for_a_pod_and_goes_with_it(seed):
    faults = Faults() if seed is None else Faults(fail_before=0.1, conflict=0.1, break_watch=0.1, lag=0.2, seed=seed)
    cluster = World((ResourceClaimController,), faults)
    add_template(cluster)
    async with cluster.running():
        pod = add_pod(cluster)

        def named() -> bool:
            statuses = cluster.api.get(PODS, "p", "default")["status"].get("resourceClaimStatuses")
            return len(claims(cluster)) == 1 and statuses == [
                {"name": "gpu", "resourceClaimName": claims(cluster)[0]["metadata"]["name"]}
            ]

        await cluster.until(named, within=200)
        allocate(cluster, pod)
        await cluster.pass_time(10)
        assert claims(cluster)[0]["status"]["reservedFor"]
        cluster.end_pod(cluster.api.get(PODS, "p", "default"))
        await cluster.until(lambda: not claims(cluster), within=200)
        without_faults(cluster)


async def test_a_claim_of_a_pod_that_runs_keeps_its_devices():
    cluster = World((ResourceClaimController,))
    add_template(cluster)
    async with cluster.running():
        pod = add_pod(cluster)
        await cluster.until(lambda: len(claims(cluster)) == 1)
        allocate(cluster, pod)
        cluster.api.change(PODS, "p", "default", lambda obj: obj["spec"].update(nodeName="n1"))
        cluster.api.delete(PODS, "p", "default")
        await cluster.pass_time(10)
        assert claims(cluster)[0]["status"]["reservedFor"], "it is still ending"
        cluster.run_pods()
        await cluster.until(lambda: not claims(cluster)[0]["status"].get("reservedFor"))
        left = claims(cluster)[0]
        assert "allocation" not in left["status"]
        assert FINALIZER not in left["metadata"].get("finalizers", ())


async def test_a_missing_template_is_told():
    cluster = World((ResourceClaimController,))
    async with cluster.running():
        add_pod(cluster)
        await cluster.settle(1)
        assert cluster.events("FailedResourceClaimCreation")[0][1] == (
            'PodResourceClaim gpu: resource claim template "t": resourceclaimtemplate.resource.k8s.io "t" not found'
        )


# Tainted devices


def device_slice(generation: int = 1, *taints: Obj, name: str = "s") -> Obj:
    device = {"name": "dev0", "taints": list(taints)}
    pool = {"name": "pool", "generation": generation}
    return {"metadata": {"name": name}, "spec": {"driver": "d", "pool": pool, "devices": [device]}}


BAD = {"key": "bad", "effect": "NoExecute", "timeAdded": ago(0)}


def test_only_the_newest_generation_counts():
    assert evicting_taints([device_slice(1, BAD), device_slice(2)]) == {}
    assert evicting_taints([device_slice(1, BAD)]) == {("d", "pool", "dev0"): [BAD]}
    assert evicting_taints([device_slice(1, {**BAD, "effect": "NoSchedule"})]) == {}


@pytest.mark.parametrize(
    ("tolerations", "expected"),
    [
        ([], NOW),
        ([{"key": "bad", "operator": "Exists", "effect": "NoExecute"}], None),
        (
            [{"key": "bad", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
            NOW + timedelta(minutes=1),
        ),
        ([{"key": "other", "operator": "Exists", "effect": "NoExecute"}], NOW),
    ],
)
def test_when_users_of_a_device_must_go(tolerations, expected):
    result = {"driver": "d", "pool": "pool", "device": "dev0", "tolerations": tolerations}
    claim = {"status": {"allocation": {"devices": {"results": [result]}}}}
    assert eviction_time(claim, {("d", "pool", "dev0"): [BAD]}) == expected
    assert eviction_time(claim, {}) is None


async def test_pods_leave_a_tainted_device():
    cluster = World((ResourceClaimController, DeviceTaintEvictionController))
    add_template(cluster)
    cluster.api.create(RESOURCE_SLICES, device_slice())
    async with cluster.running():
        pod = add_pod(cluster)
        await cluster.until(lambda: len(claims(cluster)) == 1)
        allocate(cluster, pod)
        cluster.start_pod(cluster.api.get(PODS, "p", "default"))
        await cluster.settle(2)
        taint = {**BAD, "timeAdded": rfc3339(cluster.clock.now())}
        cluster.api.change(RESOURCE_SLICES, "s", "", lambda obj: obj.update(spec=device_slice(1, taint)["spec"]))
        await cluster.until(lambda: bool(cluster.api.get(PODS, "p", "default")["metadata"].get("deletionTimestamp")))
        found = condition(cluster.api.get(PODS, "p", "default"), "DisruptionTarget")
        assert found["reason"] == "DeletionByDeviceTaintManager"
        assert cluster.events("DeviceTaintManagerEviction") == [("DeviceTaintManagerEviction", "Marking for deletion")]
