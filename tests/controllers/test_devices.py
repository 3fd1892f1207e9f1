"""Resource claims and tainted devices; ranges of Service addresses; storage versions."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address

import pytest

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj, condition
from shipwheel.client.resources import (
    IP_ADDRESSES,
    LEASES,
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    SERVICE_CIDRS,
    STORAGE_VERSIONS,
)
from shipwheel.controllers.devices import DeviceTaintEvictionController, ResourceClaimController
from shipwheel.controllers.devices.consumers import FINALIZER, Unknown, claim_keys, claim_name, make_claim
from shipwheel.controllers.devices.eviction import evicting_taints, eviction_time
from shipwheel.controllers.service_cidr import ServiceCidrController, can_go, holds
from shipwheel.controllers.storage_versions import StorageVersionGarbageCollector, with_servers
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


# Ranges of Service addresses


def cidr(name: str, *ranges: str) -> Obj:
    return {"metadata": {"name": name}, "spec": {"cidrs": list(ranges)}}


def address(text: str) -> Obj:
    return {"metadata": {"name": text, "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}}}


@pytest.mark.parametrize(
    ("others", "addresses", "expected"),
    [
        ([], [], True),
        ([], ["10.0.0.5"], False),
        ([cidr("wide", "10.0.0.0/16")], ["10.0.0.5"], True),
        ([cidr("part", "10.0.0.0/25")], ["10.0.0.5"], True),
        ([cidr("part", "10.0.0.0/25")], ["10.0.0.200"], False),
        ([cidr("far", "10.9.0.0/24")], ["10.0.0.5"], False),
        ([], ["10.9.0.5"], True),
    ],
)
def test_when_a_range_may_go(others, addresses, expected):
    mine = cidr("mine", "10.0.0.0/24")
    assert can_go(mine, [mine, *others], [address(each) for each in addresses]) is expected


def test_the_ends_of_a_range_are_not_given_out():
    mine = cidr("mine", "10.0.0.0/24")
    assert [holds(mine, ip_address(f"10.0.0.{last}")) for last in (0, 1, 254, 255)] == [False, True, True, False]


async def test_a_range_waits_for_its_last_address():
    cluster = World((ServiceCidrController,))
    async with cluster.running():
        cluster.api.create(SERVICE_CIDRS, cidr("mine", "10.0.0.0/24"))
        cluster.api.create(IP_ADDRESSES, address("10.0.0.5"))
        await cluster.until(lambda: bool(condition(cluster.api.get(SERVICE_CIDRS, "mine"), "Ready")))
        assert (
            condition(cluster.api.get(SERVICE_CIDRS, "mine"), "Ready")["message"] == "Kubernetes Service CIDR is ready"
        )
        cluster.api.delete(SERVICE_CIDRS, "mine")
        await cluster.pass_time(30, step=5)
        ready = condition(cluster.api.get(SERVICE_CIDRS, "mine"), "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "Terminating")
        cluster.api.delete(IP_ADDRESSES, "10.0.0.5")
        await cluster.until(lambda: not cluster.api.get(SERVICE_CIDRS, "mine"))


async def test_a_range_being_deleted_waits_until_all_servers_know():
    cluster = World((ServiceCidrController,))
    async with cluster.running():
        cluster.api.create(SERVICE_CIDRS, cidr("mine", "10.0.0.0/24"))
        await cluster.settle(1)
        cluster.api.delete(SERVICE_CIDRS, "mine")
        await cluster.pass_time(9)
        assert cluster.api.get(SERVICE_CIDRS, "mine")
        await cluster.pass_time(3)
        assert not cluster.api.get(SERVICE_CIDRS, "mine")


# Storage versions


def version(*servers: tuple[str, str]) -> Obj:
    entries = [{"apiServerID": name, "encodingVersion": encoding} for name, encoding in servers]
    return {"metadata": {"name": "apps.deployments"}, "status": {"storageVersions": entries}}


def test_what_the_servers_agree_on():
    agreed = with_servers(version(), version(("a", "v1"), ("b", "v1"))["status"]["storageVersions"], "now")
    assert agreed["commonEncodingVersion"] == "v1"
    assert condition({"status": agreed}, "AllEncodingVersionsEqual")["reason"] == "CommonEncodingVersionSet"
    differ = with_servers(version(), version(("a", "v1"), ("b", "v2"))["status"]["storageVersions"], "now")
    assert "commonEncodingVersion" not in differ
    assert condition({"status": differ}, "AllEncodingVersionsEqual")["status"] == "False"


async def test_servers_that_have_gone_are_taken_out():
    cluster = World((StorageVersionGarbageCollector,))
    for name in ("a", "b"):
        labels = {"apiserver.kubernetes.io/identity": "kube-apiserver"}
        cluster.api.create(LEASES, {"metadata": {"name": name, "namespace": "kube-system", "labels": labels}})
    cluster.api.create(STORAGE_VERSIONS, version(("a", "v1"), ("b", "v2")))
    async with cluster.running():
        await cluster.settle(2)
        assert len(cluster.api.get(STORAGE_VERSIONS, "apps.deployments")["status"]["storageVersions"]) == 2
        cluster.api.delete(LEASES, "b", "kube-system")
        await cluster.settle(2)
        status = cluster.api.get(STORAGE_VERSIONS, "apps.deployments")["status"]
        assert [each["apiServerID"] for each in status["storageVersions"]] == ["a"]
        assert status["commonEncodingVersion"] == "v1"
        cluster.api.delete(LEASES, "a", "kube-system")
        await cluster.until(lambda: not cluster.api.get(STORAGE_VERSIONS, "apps.deployments"))
