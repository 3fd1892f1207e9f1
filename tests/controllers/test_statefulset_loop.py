"""StatefulSets on the fake API: one pod at a time, each with its identity and its claims."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj
from shipwheel.client.resources import CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from shipwheel.controllers.statefulset import StatefulSetController
from shipwheel.controllers.statefulset.plan import REVISION
from tests.controllers.fakeapi import Faults
from tests.controllers.world import World, names, template, without_faults

LABELS = {"app": "db"}


def stateful(replicas: int = 3, **spec: object) -> Obj:
    return {
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": LABELS},
            "template": template(LABELS),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            **spec,
        },
    }


CLAIMS = [
    {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
]


def world(faults: Faults | None = None) -> World:
    made = World((StatefulSetController,), faults or Faults())
    made.add_node()
    return made


def status(cluster: World) -> Obj:
    return cluster.api.get(STATEFUL_SETS, "db", "default")["status"]


def images(cluster: World) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in cluster.api.list(PODS)}


def set_image(cluster: World, image: str) -> None:
    def change(obj: Obj) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image

    cluster.api.change(STATEFUL_SETS, "db", "default", change)


def is_complete(cluster: World, image: str, replicas: int) -> bool:
    found = status(cluster)
    return (
        set(images(cluster).values()) <= {image}
        and len(images(cluster)) == replicas
        and found.get("availableReplicas") == found.get("updatedReplicas") == found.get("replicas") == replicas
        and found.get("currentRevision") == found.get("updateRevision")
    )


async def test_pods_come_in_order_each_after_the_one_before_is_ready():
    cluster = world()
    async with cluster.running():
        cluster.api.create(STATEFUL_SETS, stateful())
        for count in range(1, 4):
            await cluster.until(lambda count=count: len(cluster.api.list(PODS)) == count)
            await cluster.settle(5)
            assert names(cluster.api.list(PODS)) == [f"db-{index}" for index in range(count)]
            cluster.run_pods()
        await cluster.until(lambda: is_complete(cluster, "i", 3))
        pod = cluster.api.get(PODS, "db-1", "default")
        assert pod["spec"]["hostname"] == "db-1"
        assert pod["spec"]["subdomain"] == "db"
        assert pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] == "db-1"
        assert pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
        assert pod["metadata"]["labels"][REVISION] == status(cluster)["currentRevision"]
        assert ("SuccessfulCreate", "Create Pod db-0 in StatefulSet db successful") in cluster.events()


async def test_pods_go_in_reverse_order_one_at_a_time():
    cluster = world()
    async with cluster.running():
        cluster.api.create(STATEFUL_SETS, stateful())
        await cluster.run_until(lambda: is_complete(cluster, "i", 3))
        cluster.api.change(STATEFUL_SETS, "db", "default", lambda obj: obj["spec"].update(replicas=0))
        gone: list[str] = []

        def done() -> bool:
            leaving = [pod for pod in cluster.api.list(PODS) if pod["metadata"].get("deletionTimestamp")]
            assert len(leaving) <= 1
            gone.extend(names(leaving))
            cluster.run_pods()
            return not cluster.api.list(PODS)

        await cluster.until(done)
        assert list(dict.fromkeys(gone)) == ["db-2", "db-1", "db-0"]


async def test_parallel_sets_do_all_at_once():
    cluster = world()
    async with cluster.running():
        cluster.api.create(STATEFUL_SETS, stateful(podManagementPolicy="Parallel"))
        await cluster.settle(1)
        assert len(cluster.api.list(PODS)) == 3


async def test_a_roll_out_goes_from_the_top_and_waits_for_each():
    cluster = world()
    async with cluster.running():
        cluster.api.create(STATEFUL_SETS, stateful())
        await cluster.run_until(lambda: is_complete(cluster, "i", 3))
        first = status(cluster)["currentRevision"]
        set_image(cluster, "j")
        order: list[str] = []

        def done() -> bool:
            running = [pod for pod in cluster.api.list(PODS) if pod["status"]["phase"] == "Running"]
            assert len(running) >= 2
            order.extend(name for name, image in images(cluster).items() if image == "j" and name not in order)
            cluster.run_pods()
            return is_complete(cluster, "j", 3)

        await cluster.until(done)
        assert order == ["db-2", "db-1", "db-0"]
        assert status(cluster)["currentRevision"] != first
        assert len(cluster.api.list(CONTROLLER_REVISIONS)) == 2


async def test_a_partition_keeps_the_lower_ordinals_old_even_when_they_are_made_anew():
    cluster = world()
    async with cluster.running():
        cluster.api.create(STATEFUL_SETS, stateful())
        await cluster.run_until(lambda: is_complete(cluster, "i", 3))

        def change(obj: Obj) -> None:
            obj["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 2
            obj["spec"]["template"]["spec"]["containers"][0]["image"] = "j"

        cluster.api.change(STATEFUL_SETS, "db", "default", change)
        await cluster.run_until(lambda: images(cluster) == {"db-0": "i", "db-1": "i", "db-2": "j"})
        cluster.api.delete(PODS, "db-0", "default")
        cluster.api.delete(PODS, "db-2", "default")
        await cluster.run_until(lambda: status(cluster)["availableReplicas"] == 3 and len(images(cluster)) == 3)
        assert images(cluster) == {"db-0": "i", "db-1": "i", "db-2": "j"}


async def test_on_delete_replaces_only_what_somebody_deletes():
    cluster = world()
    async with cluster.running():
        cluster.api.create(STATEFUL_SETS, stateful(updateStrategy={"type": "OnDelete"}))
        await cluster.run_until(lambda: status(cluster).get("availableReplicas") == 3)
        set_image(cluster, "j")
        await cluster.pass_time(10)
        assert set(images(cluster).values()) == {"i"}
        cluster.api.delete(PODS, "db-1", "default")
        await cluster.run_until(lambda: images(cluster) == {"db-0": "i", "db-1": "j", "db-2": "i"})


async def test_several_may_be_unavailable_if_the_strategy_says_so():
    cluster = world()
    async with cluster.running():
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 2}}
        cluster.api.create(STATEFUL_SETS, stateful(4, updateStrategy=strategy))
        await cluster.run_until(lambda: is_complete(cluster, "i", 4))
        set_image(cluster, "j")
        await cluster.settle(1)
        leaving = [pod for pod in cluster.api.list(PODS) if pod["metadata"].get("deletionTimestamp")]
        assert names(leaving) == ["db-2", "db-3"]


async def test_ordinals_can_start_elsewhere():
    cluster = world()
    async with cluster.running():
        cluster.api.create(STATEFUL_SETS, stateful(2, ordinals={"start": 5}))
        await cluster.run_until(lambda: status(cluster).get("availableReplicas") == 2)
        assert names(cluster.api.list(PODS)) == ["db-5", "db-6"]


async def test_each_pod_has_its_claims_and_they_outlive_it():
    cluster = world()
    async with cluster.running():
        cluster.api.create(STATEFUL_SETS, stateful(2, volumeClaimTemplates=CLAIMS))
        await cluster.run_until(lambda: is_complete(cluster, "i", 2))
        assert names(cluster.api.list(PERSISTENT_VOLUME_CLAIMS)) == ["data-db-0", "data-db-1"]
        volume = cluster.api.get(PODS, "db-1", "default")["spec"]["volumes"][0]
        assert volume == {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}
        cluster.api.change(STATEFUL_SETS, "db", "default", lambda obj: obj["spec"].update(replicas=1))
        await cluster.run_until(lambda: names(cluster.api.list(PODS)) == ["db-0"])
        assert len(cluster.api.list(PERSISTENT_VOLUME_CLAIMS)) == 2


@pytest.mark.parametrize(
    ("deleted", "scaled", "owners_at_scale", "owners_kept"),
    [
        ("Retain", "Delete", {"data-db-1": ["Pod"]}, {"data-db-0": []}),
        ("Delete", "Retain", {"data-db-1": ["StatefulSet"]}, {"data-db-0": ["StatefulSet"]}),
        ("Delete", "Delete", {"data-db-1": ["Pod"]}, {"data-db-0": ["StatefulSet"]}),
        ("Retain", "Retain", {"data-db-1": []}, {"data-db-0": []}),
    ],
)
async def test_the_retention_policy_is_told_by_owner_references(deleted, scaled, owners_at_scale, owners_kept):
    cluster = world()

    def owners() -> dict[str, list[str]]:
        return {
            claim["metadata"]["name"]: [each["kind"] for each in claim["metadata"].get("ownerReferences", [])]
            for claim in cluster.api.list(PERSISTENT_VOLUME_CLAIMS)
        }

    policy = {"whenDeleted": deleted, "whenScaled": scaled}
    async with cluster.running():
        spec = {"volumeClaimTemplates": CLAIMS, "persistentVolumeClaimRetentionPolicy": policy}
        cluster.api.create(STATEFUL_SETS, stateful(2, **spec))
        await cluster.run_until(lambda: is_complete(cluster, "i", 2))
        cluster.api.change(STATEFUL_SETS, "db", "default", lambda obj: obj["spec"].update(replicas=1))
        await cluster.until(lambda: owners() == owners_at_scale | owners_kept)


async def test_a_failed_pod_is_replaced():
    cluster = world()
    async with cluster.running():
        cluster.api.create(STATEFUL_SETS, stateful(1))
        await cluster.run_until(lambda: is_complete(cluster, "i", 1))
        old = cluster.api.get(PODS, "db-0", "default")
        cluster.end_pod(old, "Failed")

        def is_new() -> bool:
            pod = cluster.api.get(PODS, "db-0", "default")
            return pod is not None and pod["metadata"]["uid"] != old["metadata"]["uid"]

        await cluster.run_until(lambda: is_new() and is_complete(cluster, "i", 1))


@pytest.mark.parametrize("seed", range(5))
async def test_faults_never_make_two_pods_of_one_name_nor_skip_the_order(seed):
    faults = Faults(fail_before=0.05, fail_after=0.05, conflict=0.1, break_watch=0.05, expire=0.2, lag=0.2, seed=seed)
    cluster = world(faults)
    async with cluster.running():
        cluster.api.create(STATEFUL_SETS, stateful(3, volumeClaimTemplates=CLAIMS))

        def in_order() -> bool:
            present = [int(name[-1]) for name in images(cluster)]
            assert present == list(range(len(present)))
            cluster.run_pods()
            return is_complete(cluster, "i", 3)

        await cluster.until(in_order, within=900)
        set_image(cluster, "j")

        def rolling() -> bool:
            # A pod is missing only while its successor is on the way.
            running = [pod for pod in cluster.api.list(PODS) if pod["status"]["phase"] == "Running"]
            assert len(running) >= 2
            cluster.run_pods()
            return is_complete(cluster, "j", 3)

        await cluster.until(rolling, within=900)
        without_faults(cluster)


@pytest.mark.parametrize("lifetime", range(0, 16, 2))
async def test_killed_after_any_write_the_next_manager_goes_on(lifetime):
    cluster = world()
    async with cluster.running():
        cluster.api.create(STATEFUL_SETS, stateful(2, volumeClaimTemplates=CLAIMS))
        await cluster.run_until(lambda: is_complete(cluster, "i", 2))
        set_image(cluster, "j")
        stop = cluster.api.writes + lifetime
        while cluster.api.writes < stop and not is_complete(cluster, "j", 2):
            cluster.run_pods()
            await cluster.clock.advance(0.1, turns=1)
        await cluster.kill()
        await cluster.start()
        await cluster.run_until(lambda: is_complete(cluster, "j", 2))
        assert len(cluster.api.list(CONTROLLER_REVISIONS)) == 2
