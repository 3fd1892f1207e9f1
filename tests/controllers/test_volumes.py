"""Volumes on the fake API: bound once, reclaimed only when their claim has really gone, protected while used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shipwheel.api.meta import Obj
from shipwheel.client.resources import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
    VOLUME_ATTRIBUTES_CLASSES,
)
from shipwheel.controllers.volumes import (
    AttributesClassProtection,
    ClaimProtection,
    EphemeralVolumeController,
    ExpandController,
    VolumeBinder,
    VolumeProtection,
)
from shipwheel.controllers.volumes.errands import RECYCLER, recycler_pod, with_tools
from shipwheel.controllers.volumes.plugins import NoPlugin, deleter_of, external_name
from tests.controllers.fakeapi import Faults
from tests.controllers.world import CONFIG, World, without_faults

CLAIMS, VOLUMES = PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
LOCAL = replace(CONFIG, local_path_provisioner="/var/lib/volumes", local_path_helper_image="helper")


def add_volume(cluster: World, name: str, storage: str = "1Gi", policy: str = "Retain", **spec: object) -> Obj:
    full = {
        "capacity": {"storage": storage},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": policy,
        "hostPath": {"path": "/data"},
        **spec,
    }
    return cluster.api.create(VOLUMES, {"metadata": {"name": name}, "spec": full, "status": {"phase": "Pending"}})


def add_claim(cluster: World, name: str, storage: str = "1Gi", class_name: str | None = "", **meta: object) -> Obj:
    spec: Obj = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}}
    if class_name is not None:
        spec["storageClassName"] = class_name
    body = {"metadata": {"name": name, "namespace": "default", **meta}, "spec": spec, "status": {"phase": "Pending"}}
    return cluster.api.create(CLAIMS, body)


def add_class(
    cluster: World, name: str, provisioner: str = "example.com/x", *, default: bool = False, **fields: object
) -> None:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    body = {"metadata": {"name": name, "annotations": annotations}, "provisioner": provisioner, **fields}
    cluster.api.create(STORAGE_CLASSES, body)


def claim(cluster: World, name: str) -> Obj:
    return cluster.api.get(CLAIMS, name, "default")


def volume(cluster: World, name: str) -> Obj:
    return cluster.api.get(VOLUMES, name)


def is_bound(cluster: World, claim_name: str, volume_name: str = "") -> bool:
    """Both name each other and both say so."""
    found = claim(cluster, claim_name)
    chosen = found["spec"].get("volumeName")
    if not chosen or found["status"].get("phase") != "Bound" or (volume_name and chosen != volume_name):
        return False
    other = volume(cluster, chosen)
    return other["spec"]["claimRef"]["uid"] == found["metadata"]["uid"] and other["status"]["phase"] == "Bound"


def phase(cluster: World, name: str) -> str:
    found = volume(cluster, name)
    return found["status"].get("phase", "") if found else "gone"


# Binding


async def test_a_claim_gets_the_smallest_volume_that_is_big_enough():
    cluster = World((VolumeBinder,))
    async with cluster.running():
        add_volume(cluster, "big", "9Gi")
        add_volume(cluster, "right", "2Gi")
        await cluster.until(lambda: phase(cluster, "right") == "Available")
        add_claim(cluster, "c")
        await cluster.until(lambda: is_bound(cluster, "c", "right"))
        found = claim(cluster, "c")
        assert found["status"]["capacity"] == {"storage": "2Gi"}
        assert found["metadata"]["annotations"] == {
            "pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes",
        }


async def test_a_volume_that_comes_later_is_taken_at_once():
    cluster = World((VolumeBinder,))
    async with cluster.running():
        add_claim(cluster, "c")
        await cluster.settle(2)
        assert cluster.events("FailedBinding")[0][1] == (
            "no persistent volumes available for this claim and no storage class is set"
        )
        add_volume(cluster, "v")
        await cluster.until(lambda: is_bound(cluster, "c", "v"), within=2)


async def test_a_claim_that_names_its_volume():
    cluster = World((VolumeBinder,))
    async with cluster.running():
        add_volume(cluster, "small", "1Mi")
        add_volume(cluster, "v")
        add_claim(cluster, "c")
        cluster.api.change(CLAIMS, "c", "default", lambda obj: obj["spec"].update(volumeName="v"))
        add_claim(cluster, "wrong")
        cluster.api.change(CLAIMS, "wrong", "default", lambda obj: obj["spec"].update(volumeName="small"))
        await cluster.until(lambda: is_bound(cluster, "c", "v"))
        await cluster.settle(1)
        assert cluster.events("VolumeMismatch") == [
            ("VolumeMismatch", 'Cannot bind to requested volume "small": requested PV is too small')
        ]


@pytest.mark.parametrize("seed", range(6))
async def test_no_volume_is_given_to_two_claims_whatever_fails(seed):
    faults = Faults(fail_before=0.05, fail_after=0.05, conflict=0.1, break_watch=0.05, expire=0.2, lag=0.3, seed=seed)
    cluster = World((VolumeBinder,), faults)
    async with cluster.running():
        for index in range(8):
            add_claim(cluster, f"c{index}")
            add_volume(cluster, f"v{index}", f"{index + 1}Gi")
            if index % 3 == 0:
                await cluster.settle(0.3)
            if index == 4:
                await cluster.kill()
                await cluster.start()

        def all_bound() -> bool:
            chosen = [claim(cluster, f"c{index}")["spec"].get("volumeName") for index in range(8)]
            given = [name for name in chosen if name]
            assert len(given) == len(set(given))
            return all(is_bound(cluster, f"c{index}") for index in range(8))

        await cluster.until(all_bound, within=900)


@pytest.mark.parametrize("lifetime", range(5))
async def test_binding_goes_on_where_it_was_interrupted(lifetime):
    cluster = World((VolumeBinder,))
    async with cluster.running():
        add_volume(cluster, "v")
        await cluster.until(lambda: phase(cluster, "v") == "Available")
        add_claim(cluster, "c")
        stop = cluster.api.writes + lifetime
        while cluster.api.writes < stop and not is_bound(cluster, "c"):
            await cluster.clock.advance(0.1, turns=1)
        await cluster.kill()
        await cluster.start()
        await cluster.until(lambda: is_bound(cluster, "c", "v"), within=30)


async def test_a_claim_whose_volume_has_gone_is_lost():
    cluster = World((VolumeBinder,))
    async with cluster.running():
        add_volume(cluster, "v")
        add_claim(cluster, "c")
        await cluster.until(lambda: is_bound(cluster, "c"))
        cluster.api.delete(VOLUMES, "v")
        await cluster.until(lambda: claim(cluster, "c")["status"]["phase"] == "Lost")
        assert cluster.events("ClaimLost") == [
            ("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
        ]


async def test_a_default_class_that_comes_later_is_assigned():
    cluster = World((VolumeBinder,))
    async with cluster.running():
        add_claim(cluster, "c", class_name=None)
        await cluster.settle(1)
        add_class(cluster, "gold", default=True)
        await cluster.until(lambda: claim(cluster, "c")["spec"].get("storageClassName") == "gold", within=2)


# Provisioning


async def test_external_provisioners_are_told():
    cluster = World((VolumeBinder,))
    add_class(cluster, "gold")
    async with cluster.running():
        add_claim(cluster, "c", class_name="gold")
        await cluster.settle(1)
        found = claim(cluster, "c")["metadata"]["annotations"]
        assert found["volume.kubernetes.io/storage-provisioner"] == "example.com/x"
        assert found["volume.beta.kubernetes.io/storage-provisioner"] == "example.com/x"
        assert cluster.events("ExternalProvisioning")


@pytest.mark.parametrize(
    ("provisioner", "expected"),
    [("example.com/x", "example.com/x"), ("kubernetes.io/aws-ebs", "ebs.csi.aws.com")],
)
def test_names_of_provisioners(provisioner, expected):
    assert external_name(provisioner) == expected


async def test_what_cannot_be_provisioned_is_told():
    cluster = World((VolumeBinder,))
    add_class(cluster, "static", "kubernetes.io/no-provisioner")
    async with cluster.running():
        add_claim(cluster, "a", class_name="static")
        add_claim(cluster, "b", class_name="missing")
        await cluster.settle(1)
        assert {message for _, message in cluster.events("ProvisioningFailed")} == {
            "no volume plugin matched name: kubernetes.io/no-provisioner",
            'storageclass.storage.k8s.io "missing" not found',
        }


async def test_claims_wait_for_their_first_consumer():
    cluster = World((VolumeBinder,))
    add_class(cluster, "late", volumeBindingMode="WaitForFirstConsumer")
    async with cluster.running():
        add_volume(cluster, "v", storageClassName="late")
        add_claim(cluster, "c", class_name="late")
        await cluster.settle(2)
        assert claim(cluster, "c")["spec"].get("volumeName") is None
        assert cluster.events("WaitForFirstConsumer")
        uses = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
        for name in ("p1", "p2"):
            body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": [], "volumes": uses}}
            cluster.api.create(PODS, body)
        await cluster.pass_time(16, step=4)
        assert cluster.events("WaitForPodScheduled") == [
            ("WaitForPodScheduled", "waiting for pods p1,p2 to be scheduled")
        ]


def run_errands(cluster: World, phase: str = "Succeeded", **status: object) -> None:
    for pod in cluster.api.list(PODS):
        if pod["status"]["phase"] == "Pending":
            cluster.end_pod(pod, phase, **status)


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
async def test_the_built_in_provisioner_makes_and_removes_a_directory(seed):
    faults = Faults() if seed is None else Faults(fail_before=0.1, fail_after=0.1, conflict=0.1, lag=0.2, seed=seed)
    cluster = World((VolumeBinder,), faults, config=LOCAL)
    cluster.add_node("n1", labels={"kubernetes.io/hostname": "host1"})
    add_class(
        cluster, "local", "shipwheel.dev/local-path", volumeBindingMode="WaitForFirstConsumer", reclaimPolicy="Delete"
    )
    async with cluster.running():
        made = add_claim(cluster, "c", class_name="local")
        await cluster.settle(1)
        assert cluster.api.list(PODS) == []
        cluster.api.change(
            CLAIMS,
            "c",
            "default",
            lambda obj: (
                obj["metadata"].setdefault("annotations", {}).update({"volume.kubernetes.io/selected-node": "n1"})
            ),
        )

        def provisioned() -> bool:
            run_errands(cluster)
            return is_bound(cluster, "c")

        await cluster.until(provisioned, within=300)
        (pv,) = cluster.api.list(VOLUMES)
        assert pv["metadata"]["name"] == f"pvc-{made['metadata']['uid']}"
        assert pv["spec"]["local"]["path"] == f"/var/lib/volumes/pvc-{made['metadata']['uid']}_default_c"
        (term,) = pv["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
        assert term["matchExpressions"][0]["values"] == ["host1"]
        assert pv["metadata"]["finalizers"] == ["kubernetes.io/pv-controller"]
        creations = [obj for _, gvr, kind, obj, _ in cluster.api.log if gvr == PODS and kind == "ADDED"]
        assert creations[0]["spec"]["nodeName"] == "n1"
        assert creations[0]["spec"]["containers"][0]["image"] == "helper"
        cluster.api.delete(CLAIMS, "c", "default")

        def removed() -> bool:
            run_errands(cluster)
            return not cluster.api.list(VOLUMES)

        await cluster.until(removed, within=300)
        without_faults(cluster)
        await cluster.pass_time(40, step=5)
        assert cluster.api.list(PODS) == [], "no errand is left behind or begun again"


@pytest.mark.parametrize("first", [CLAIMS, VOLUMES])
async def test_a_directory_is_removed_once_though_others_hold_the_volume_longer(first):
    """The volume's protection is taken off only after its directory has been removed; and who deletes the volume before
    its claim has the directory removed all the same."""
    cluster = World((VolumeBinder, VolumeProtection), config=LOCAL)
    cluster.add_node("n1")
    add_class(cluster, "local", "shipwheel.dev/local-path", volumeBindingMode="WaitForFirstConsumer")
    async with cluster.running():
        add_claim(cluster, "c", class_name="local", annotations={"volume.kubernetes.io/selected-node": "n1"})
        await cluster.until(lambda: (run_errands(cluster), is_bound(cluster, "c"))[1])
        (pv,) = cluster.api.list(VOLUMES)
        assert set(pv["metadata"]["finalizers"]) == {"kubernetes.io/pv-controller", "kubernetes.io/pv-protection"}
        if first == VOLUMES:
            cluster.api.delete(VOLUMES, pv["metadata"]["name"])
        cluster.api.delete(CLAIMS, "c", "default")
        await cluster.until(lambda: (run_errands(cluster), not cluster.api.list(VOLUMES))[1])
        await cluster.pass_time(60, step=5)
        sent = [obj for _, gvr, kind, obj, _ in cluster.api.log if gvr == PODS and kind == "ADDED"]
        assert [each["metadata"]["name"].split("-")[2] for each in sent] == ["create", "delete"]
        assert cluster.api.list(PODS) == []


async def test_when_a_directory_cannot_be_made_another_node_may_be_chosen():
    cluster = World((VolumeBinder,), config=LOCAL)
    cluster.add_node("n1")
    add_class(cluster, "local", "shipwheel.dev/local-path", volumeBindingMode="WaitForFirstConsumer")
    async with cluster.running():
        add_claim(cluster, "c", class_name="local", annotations={"volume.kubernetes.io/selected-node": "n1"})
        await cluster.until(lambda: bool(cluster.api.list(PODS)))
        run_errands(cluster, "Failed", message="disk full")
        await cluster.settle(1)
        assert "volume.kubernetes.io/selected-node" not in claim(cluster, "c")["metadata"].get("annotations", {})
        assert cluster.events("ProvisioningFailed") == [
            ("ProvisioningFailed", 'Failed to provision volume with StorageClass "local": disk full')
        ]


async def test_a_directory_on_a_node_that_has_gone_is_gone():
    cluster = World((VolumeBinder,), config=LOCAL)
    cluster.add_node("n1")
    add_class(cluster, "local", "shipwheel.dev/local-path", volumeBindingMode="WaitForFirstConsumer")
    async with cluster.running():
        add_claim(cluster, "c", class_name="local", annotations={"volume.kubernetes.io/selected-node": "n1"})
        await cluster.until(lambda: (run_errands(cluster), is_bound(cluster, "c"))[1])
        cluster.api.delete(NODES, "n1")
        await cluster.settle(1)
        cluster.api.delete(CLAIMS, "c", "default")
        await cluster.until(lambda: not cluster.api.list(VOLUMES))


# Reclaiming


async def bound_then_released(cluster: World, policy: str, **spec: object) -> None:
    add_volume(cluster, "v", policy=policy, **spec)
    add_claim(cluster, "c")
    await cluster.until(lambda: is_bound(cluster, "c"))
    cluster.api.delete(CLAIMS, "c", "default")


async def test_retained_volumes_are_kept_for_the_administrator():
    cluster = World((VolumeBinder,))
    async with cluster.running():
        await bound_then_released(cluster, "Retain")
        await cluster.until(lambda: phase(cluster, "v") == "Released")
        add_claim(cluster, "next")
        await cluster.pass_time(40, step=5)
        assert phase(cluster, "v") == "Released"
        assert not claim(cluster, "next")["spec"].get("volumeName")


async def test_recycled_volumes_are_emptied_and_offered_again():
    cluster = World((VolumeBinder,))
    async with cluster.running():
        await bound_then_released(cluster, "Recycle")
        await cluster.until(lambda: bool(cluster.api.get(PODS, "recycler-for-v", "default")))
        assert phase(cluster, "v") == "Released"
        run_errands(cluster)
        await cluster.until(lambda: phase(cluster, "v") == "Available")
        assert "claimRef" not in volume(cluster, "v")["spec"]
        assert cluster.events("VolumeRecycled") == [("VolumeRecycled", "Volume recycled")]
        assert not cluster.api.list(PODS)


async def test_a_volume_in_use_is_not_recycled():
    cluster = World((VolumeBinder,))
    async with cluster.running():
        uses = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
        body = {
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [], "volumes": uses, "nodeName": "n1"},
        }
        cluster.start_pod(cluster.api.create(PODS, body))
        await bound_then_released(cluster, "Recycle")
        await cluster.pass_time(20, step=5)
        assert cluster.events("VolumeFailedRecycle")[0][1] == "Volume is used by pods: default/p"
        assert not cluster.api.get(PODS, "recycler-for-v", "default")


async def test_deleting_what_we_cannot_delete_fails():
    cluster = World((VolumeBinder,))
    async with cluster.running():
        await bound_then_released(cluster, "Delete", hostPath=None, nfs={"server": "s", "path": "/"})
        await cluster.until(lambda: phase(cluster, "v") == "Failed")
        message = 'error getting deleter volume plugin for volume "v": no deletable volume plugin matched'
        assert volume(cluster, "v")["status"]["message"] == message
        assert cluster.events("VolumeFailedDelete") == [("VolumeFailedDelete", message)]


async def until_a_thread_has(cluster: World, condition: Callable[[], bool]) -> None:
    """Wait for what a thread does on the disk: that takes real time, which no clock of ours moves."""
    async with asyncio.timeout(60):
        while not condition():
            await cluster.settle(0.1)
            await asyncio.sleep(0.01)


async def test_directories_of_the_manager_s_machine(tmp_path: Path):
    target = tmp_path / "data"
    (target / "deep").mkdir(parents=True)
    assert str(target).startswith("/tmp/")
    cluster = World((VolumeBinder,))
    async with cluster.running():
        await bound_then_released(cluster, "Delete", hostPath={"path": str(target)})
        await until_a_thread_has(cluster, lambda: phase(cluster, "v") == "gone")
        assert not target.exists()


async def test_only_temporary_directories_of_the_manager_s_machine_are_deleted():
    target = "/nowhere/at/all"
    cluster = World((VolumeBinder,))
    async with cluster.running():
        await bound_then_released(cluster, "Delete", hostPath={"path": target})
        await until_a_thread_has(cluster, lambda: phase(cluster, "v") == "Failed")
        assert volume(cluster, "v")["status"]["message"] == (
            f"host_path deleter only supports /tmp/.+ but received provided {target}"
        )


async def test_a_cache_that_is_behind_releases_nothing():
    """The claim is not in the cache yet (its watch lags), but it is there."""
    cluster = World((VolumeBinder,))
    async with cluster.running():
        await cluster.settle(1)
        cluster.api.faults = Faults(lag=1.0)
        made = add_claim(cluster, "c")
        cluster.api.change(CLAIMS, "c", "default", lambda obj: obj["spec"].update(volumeName="v"))
        reference = {"namespace": "default", "name": "c", "uid": made["metadata"]["uid"]}
        add_volume(cluster, "v", policy="Recycle", claimRef=reference)
        seen: set[str] = set()

        def bound() -> bool:
            seen.add(phase(cluster, "v"))
            return is_bound(cluster, "c")

        await cluster.until(bound)
        assert not seen & {"Released", "Failed"}


class TestDeleters:
    def pv(self, annotations: dict[str, str] | None = None, **spec: object) -> Obj:
        return {"metadata": {"name": "v", "annotations": annotations or {}}, "spec": spec}

    @pytest.mark.parametrize(
        ("annotations", "spec", "expected"),
        [
            ({"pv.kubernetes.io/provisioned-by": "example.com/x"}, {}, "external"),
            ({"pv.kubernetes.io/provisioned-by": "kubernetes.io/gce-pd"}, {}, "external"),
            ({"pv.kubernetes.io/provisioned-by": "shipwheel.dev/local-path"}, {}, "local-path"),
            ({}, {"csi": {"driver": "d"}}, "external"),
            ({}, {"hostPath": {"path": "/x"}}, "host-path"),
        ],
    )
    def test_who_deletes(self, annotations, spec, expected):
        assert deleter_of(self.pv(annotations, **spec)) == expected

    def test_nobody(self):
        with pytest.raises(NoPlugin, match=r"no volume plugin matched name: kubernetes\.io/odd"):
            deleter_of(self.pv({"pv.kubernetes.io/provisioned-by": "kubernetes.io/odd"}))


@pytest.mark.parametrize(("storage", "seconds"), [("1Gi", 60), ("5Gi", 150)])
def test_a_recycler_has_time_by_size(storage, seconds):
    pv = {"metadata": {"name": "v"}, "spec": {"capacity": {"storage": storage}, "hostPath": {"path": "/x"}}}
    pod = recycler_pod(pv, RECYCLER, minimum=60, per_gi=30)
    assert pod["spec"]["activeDeadlineSeconds"] == seconds
    assert pod["spec"]["volumes"] == [{"name": "vol", "hostPath": {"path": "/x"}}]
    assert "hostPath" not in RECYCLER["spec"]["volumes"][0]


def test_an_image_without_tools_gets_the_node_s():
    pod = with_tools(RECYCLER, ["/bin", "/usr"])
    assert pod["spec"]["volumes"] == [
        {"name": "vol"},
        {"name": "tools-0", "hostPath": {"path": "/bin"}},
        {"name": "tools-1", "hostPath": {"path": "/usr"}},
    ]
    assert pod["spec"]["containers"][0]["volumeMounts"] == [
        {"name": "vol", "mountPath": "/scrub"},
        {"name": "tools-0", "mountPath": "/bin", "readOnly": True},
        {"name": "tools-1", "mountPath": "/usr", "readOnly": True},
    ]
    assert len(RECYCLER["spec"]["volumes"]) == 1
    assert with_tools(RECYCLER, []) is RECYCLER


# Protection


async def test_a_claim_in_use_waits_until_no_pod_uses_it():
    cluster = World((ClaimProtection,))
    async with cluster.running():
        add_claim(cluster, "c")
        await cluster.until(
            lambda: "kubernetes.io/pvc-protection" in claim(cluster, "c")["metadata"].get("finalizers", ())
        )
        uses = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
        body = {
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [], "volumes": uses, "nodeName": "n1"},
        }
        cluster.start_pod(cluster.api.create(PODS, body))
        cluster.api.delete(CLAIMS, "c", "default")
        await cluster.pass_time(30, step=5)
        assert claim(cluster, "c")["metadata"]["deletionTimestamp"]
        cluster.api.delete(PODS, "p", "default")
        await cluster.pass_time(5)
        assert claim(cluster, "c"), "the pod is still ending"
        cluster.run_pods()
        await cluster.until(lambda: not claim(cluster, "c"))


async def test_a_pod_that_no_cache_shows_yet_protects_too():
    cluster = World((ClaimProtection,))
    async with cluster.running():
        add_claim(cluster, "c", finalizers=["kubernetes.io/pvc-protection"])
        await cluster.settle(1)
        cluster.api.faults = Faults(lag=1.0, seed=3)
        uses = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
        body = {
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [], "volumes": uses, "nodeName": "n1"},
        }
        cluster.api.delete(CLAIMS, "c", "default")
        cluster.start_pod(cluster.api.create(PODS, body))
        await cluster.pass_time(10)
        assert claim(cluster, "c")


async def test_a_volume_is_protected_while_bound():
    cluster = World((VolumeProtection,))
    async with cluster.running():
        add_volume(cluster, "v")
        await cluster.until(
            lambda: volume(cluster, "v")["metadata"].get("finalizers") == ["kubernetes.io/pv-protection"]
        )
        cluster.api.change(VOLUMES, "v", "", lambda obj: obj["status"].update(phase="Bound"))
        cluster.api.delete(VOLUMES, "v")
        await cluster.pass_time(10)
        assert volume(cluster, "v")
        cluster.api.change(VOLUMES, "v", "", lambda obj: obj["status"].update(phase="Released"))
        await cluster.until(lambda: not volume(cluster, "v"))


async def test_an_attributes_class_is_protected_while_named():
    cluster = World((AttributesClassProtection,))
    async with cluster.running():
        cluster.api.create(VOLUME_ATTRIBUTES_CLASSES, {"metadata": {"name": "fast"}})
        add_volume(cluster, "v", volumeAttributesClassName="fast")
        await cluster.settle(1)
        cluster.api.delete(VOLUME_ATTRIBUTES_CLASSES, "fast")
        await cluster.pass_time(10)
        assert cluster.api.get(VOLUME_ATTRIBUTES_CLASSES, "fast")
        cluster.api.delete(VOLUMES, "v")
        await cluster.until(lambda: not cluster.api.get(VOLUME_ATTRIBUTES_CLASSES, "fast"))


# Ephemeral volumes and expansion


def with_ephemeral(name: str = "p") -> Obj:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    volumes = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": [], "volumes": volumes}}


@pytest.mark.parametrize("seed", [None, 1, 2])
async def test_a_pod_gets_the_claims_of_its_ephemeral_volumes(seed):
    faults = Faults() if seed is None else Faults(fail_before=0.2, fail_after=0.2, lag=0.2, seed=seed)
    cluster = World((EphemeralVolumeController,), faults)
    async with cluster.running():
        pod = cluster.api.create(PODS, with_ephemeral())
        await cluster.until(lambda: claim(cluster, "p-scratch") is not None, within=120)
        (owner,) = claim(cluster, "p-scratch")["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (pod["metadata"]["uid"], True)
        assert claim(cluster, "p-scratch")["metadata"]["labels"] == {"a": "b"}


async def test_a_claim_of_that_name_that_is_somebody_else_s():
    cluster = World((EphemeralVolumeController,))
    async with cluster.running():
        add_claim(cluster, "p-scratch")
        cluster.api.create(PODS, with_ephemeral())
        await cluster.settle(1)
        assert cluster.events("FailedBinding")[0][1] == (
            "ephemeral volume scratch: PVC default/p-scratch was not created for pod default/p (pod is not owner)"
        )


def bound_claim(cluster: World, provisioner: str) -> None:
    made = add_claim(cluster, "c", "5Gi")
    reference = {"namespace": "default", "name": "c", "uid": made["metadata"]["uid"]}
    add_volume(cluster, "v", "1Gi", claimRef=reference)
    cluster.api.change(
        VOLUMES,
        "v",
        "",
        lambda obj: obj["metadata"].update(annotations={"pv.kubernetes.io/provisioned-by": provisioner}),
    )

    def bind(obj: Obj) -> None:
        obj["spec"]["volumeName"] = "v"
        resizing = [{"type": "Resizing", "status": "True"}]
        obj["status"] = {"phase": "Bound", "capacity": {"storage": "1Gi"}, "conditions": resizing}

    cluster.api.change(CLAIMS, "c", "default", bind)


async def test_directories_are_grown_by_changing_the_numbers():
    cluster = World((ExpandController,))
    async with cluster.running():
        bound_claim(cluster, "shipwheel.dev/local-path")
        await cluster.until(lambda: claim(cluster, "c")["status"]["capacity"]["storage"] == "5Gi")
        assert volume(cluster, "v")["spec"]["capacity"]["storage"] == "5Gi"
        assert "conditions" not in claim(cluster, "c")["status"]
        assert cluster.events("VolumeResizeSuccessful")


async def test_others_are_left_to_their_resizers():
    cluster = World((ExpandController,))
    async with cluster.running():
        bound_claim(cluster, "example.com/x")
        await cluster.settle(1)
        assert claim(cluster, "c")["status"]["capacity"]["storage"] == "1Gi"
        assert cluster.events("ExternalExpanding") == [
            ("ExternalExpanding", "waiting for an external controller to expand this PVC")
        ]
