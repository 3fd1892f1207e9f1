"""Deployments and ReplicaSets together, on the fake API: roll-outs under faults keep their laws."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj, condition
from shipwheel.client.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from shipwheel.controllers.deployment import DeploymentController
from shipwheel.controllers.replicaset import ReplicaSetController
from tests.controllers.fakeapi import Faults
from tests.controllers.world import World, template, without_faults

LABELS = {"app": "web"}


def deployment(replicas: int = 3, **spec: object) -> Obj:
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": LABELS},
            "template": template(LABELS),
            **spec,
        },
    }


def world(faults: Faults | None = None) -> World:
    made = World((DeploymentController, ReplicaSetController), faults or Faults())
    made.add_node()
    return made


def active(world: World) -> list[Obj]:
    return [pod for pod in world.api.list(PODS) if not pod["metadata"].get("deletionTimestamp")]


def available(world: World) -> int:
    return sum(1 for pod in active(world) if pod["status"].get("phase") == "Running")


def wanted(world: World) -> int:
    """The sizes of all ReplicaSets together: what the Deployment answers for (pods may take longer to go)."""
    return sum(rs["spec"]["replicas"] for rs in world.api.list(REPLICA_SETS))


def is_complete(world: World, image: str, replicas: int) -> bool:
    status = world.api.get(DEPLOYMENTS, "web", "default")["status"]
    pods = world.api.list(PODS)
    return (
        len(pods) == replicas
        and all(pod["spec"]["containers"][0]["image"] == image for pod in pods)
        and status.get("availableReplicas") == status.get("updatedReplicas") == status.get("replicas") == replicas
    )


def set_image(world: World, image: str) -> None:
    def change(obj: Obj) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image

    world.api.change(DEPLOYMENTS, "web", "default", change)


async def test_a_new_deployment_gets_its_pods_and_says_so():
    cluster = world()
    async with cluster.running():
        cluster.api.create(DEPLOYMENTS, deployment())
        await cluster.run_until(lambda: is_complete(cluster, "i", 3))
        obj = cluster.api.get(DEPLOYMENTS, "web", "default")
        assert obj["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
        assert condition(obj, "Available")["reason"] == "MinimumReplicasAvailable"
        progressing = condition(obj, "Progressing")
        (rs,) = cluster.api.list(REPLICA_SETS)
        assert progressing["reason"] == "NewReplicaSetAvailable"
        assert progressing["message"] == f'ReplicaSet "{rs["metadata"]["name"]}" has successfully progressed.'
        assert cluster.events("ScalingReplicaSet") == [
            ("ScalingReplicaSet", f"Scaled up replica set {rs['metadata']['name']} from 0 to 3")
        ]
        assert len(cluster.events("SuccessfulCreate")) == 3


@pytest.mark.parametrize(
    ("surge", "unavailable", "most", "least"),
    [("25%", "25%", 10, 6), (1, 0, 9, 8), (0, 1, 8, 7), ("100%", 0, 16, 8), (3, 2, 11, 6)],
)
async def test_a_rolling_update_stays_within_its_bounds(surge, unavailable, most, least):
    cluster = world()
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    async with cluster.running():
        cluster.api.create(DEPLOYMENTS, deployment(8, strategy=strategy))
        await cluster.run_until(lambda: is_complete(cluster, "i", 8))
        set_image(cluster, "j")

        def done() -> bool:
            assert len(active(cluster)) <= most
            assert available(cluster) >= least
            return is_complete(cluster, "j", 8)

        await cluster.run_until(done)


async def test_recreate_never_runs_two_templates_at_once():
    cluster = world()
    async with cluster.running():
        cluster.api.create(DEPLOYMENTS, deployment(3, strategy={"type": "Recreate"}))
        await cluster.run_until(lambda: is_complete(cluster, "i", 3))
        set_image(cluster, "j")

        def done() -> bool:
            assert len({pod["spec"]["containers"][0]["image"] for pod in cluster.api.list(PODS)}) <= 1
            return is_complete(cluster, "j", 3)

        await cluster.run_until(done)


async def test_a_rollout_that_does_not_progress_times_out_and_then_recovers():
    cluster = world()
    async with cluster.running():
        cluster.api.create(DEPLOYMENTS, deployment(2, progressDeadlineSeconds=60))
        await cluster.pass_time(30, step=5)
        assert condition(cluster.api.get(DEPLOYMENTS, "web", "default"), "Progressing")["status"] == "True"
        await cluster.pass_time(60, step=5)
        progressing = condition(cluster.api.get(DEPLOYMENTS, "web", "default"), "Progressing")
        assert (progressing["status"], progressing["reason"]) == ("False", "ProgressDeadlineExceeded")
        await cluster.run_until(lambda: is_complete(cluster, "i", 2))
        progressing = condition(cluster.api.get(DEPLOYMENTS, "web", "default"), "Progressing")
        assert progressing["reason"] == "NewReplicaSetAvailable"


async def test_scaling_while_paused_keeps_the_proportions():
    cluster = world()
    async with cluster.running():
        cluster.api.create(DEPLOYMENTS, deployment(10))
        await cluster.run_until(lambda: is_complete(cluster, "i", 10))
        set_image(cluster, "j")
        await cluster.settle(1)

        def pause_and_grow(obj: Obj) -> None:
            obj["spec"]["paused"] = True
            obj["spec"]["replicas"] = 20

        cluster.api.change(DEPLOYMENTS, "web", "default", pause_and_grow)
        await cluster.settle(1)
        sizes = sorted(rs["spec"]["replicas"] for rs in cluster.api.list(REPLICA_SETS))
        assert sum(sizes) == 25  # 20 and a quarter of surge
        assert sizes == [10, 15]
        assert condition(cluster.api.get(DEPLOYMENTS, "web", "default"), "Progressing")["reason"] == "DeploymentPaused"


async def test_a_hash_collision_is_counted_and_evaded():
    cluster = world()
    async with cluster.running():
        cluster.api.create(DEPLOYMENTS, deployment(1))
        await cluster.run_until(lambda: is_complete(cluster, "i", 1))
        (rs,) = cluster.api.list(REPLICA_SETS)
        await cluster.kill()
        cluster.api.delete(DEPLOYMENTS, "web", "default")
        cluster.api.change(
            REPLICA_SETS,
            rs["metadata"]["name"],
            "default",
            lambda rs: rs["spec"]["template"]["spec"]["containers"][0].update(image="other"),
        )
        cluster.api.create(DEPLOYMENTS, deployment(1))
        await cluster.start()
        await cluster.until(lambda: len(cluster.api.list(REPLICA_SETS)) == 2)
        assert cluster.api.get(DEPLOYMENTS, "web", "default")["status"]["collisionCount"] == 1


async def test_old_sets_beyond_the_history_limit_go():
    cluster = world()
    async with cluster.running():
        cluster.api.create(DEPLOYMENTS, deployment(1, revisionHistoryLimit=2))
        await cluster.run_until(lambda: is_complete(cluster, "i", 1))
        for image in "abcde":
            set_image(cluster, image)
            await cluster.run_until(lambda image=image: is_complete(cluster, image, 1))
        await cluster.until(lambda: len(cluster.api.list(REPLICA_SETS)) == 3)
        revisions = {
            rs["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for rs in cluster.api.list(REPLICA_SETS)
        }
        assert revisions == {"4", "5", "6"}


async def test_an_orphan_is_adopted_and_a_stranger_released():
    cluster = world()
    async with cluster.running():
        orphan = {
            "metadata": {"name": "orphan", "namespace": "default", "labels": LABELS},
            "spec": template(LABELS)["spec"],
        }
        cluster.api.create(PODS, orphan)
        rs = {
            "metadata": {"name": "set", "namespace": "default"},
            "spec": {"replicas": 2, "selector": {"matchLabels": LABELS}, "template": template(LABELS)},
        }
        cluster.api.create(REPLICA_SETS, rs)
        await cluster.settle(1)
        assert len(cluster.api.list(PODS)) == 2
        assert cluster.api.get(PODS, "orphan", "default")["metadata"]["ownerReferences"][0]["name"] == "set"
        cluster.api.change(PODS, "orphan", "default", lambda pod: pod["metadata"].update(labels={"app": "debug"}))
        await cluster.settle(1)
        assert not cluster.api.get(PODS, "orphan", "default")["metadata"].get("ownerReferences")
        assert len(cluster.api.list(PODS)) == 3


@pytest.mark.parametrize("seed", range(6))
async def test_faults_delay_a_rollout_but_break_no_law(seed):
    faults = Faults(fail_before=0.05, fail_after=0.0, conflict=0.1, break_watch=0.05, expire=0.2, lag=0.2, seed=seed)
    cluster = world(faults)
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}
    async with cluster.running():
        cluster.api.create(DEPLOYMENTS, deployment(6, strategy=strategy))
        await cluster.run_until(lambda: is_complete(cluster, "i", 6), within=600)
        set_image(cluster, "j")

        def done() -> bool:
            assert wanted(cluster) <= 8
            assert available(cluster) >= 5
            return is_complete(cluster, "j", 6)

        await cluster.run_until(done, within=600)


@pytest.mark.parametrize("seed", range(4))
async def test_requests_with_unknown_outcome_are_made_good(seed):
    """A pod may be made that nobody knows of; in the end there are as many as there should be."""
    cluster = world(Faults(fail_before=0.1, fail_after=0.2, seed=seed))
    async with cluster.running():
        cluster.api.create(DEPLOYMENTS, deployment(6))
        await cluster.run_until(lambda: is_complete(cluster, "i", 6), within=600)
        without_faults(cluster)
        await cluster.pass_time(60, step=5)
        assert is_complete(cluster, "i", 6)


async def test_killed_after_any_write_the_next_manager_goes_on():
    """However many writes a manager lived for, its successor finishes the same roll-out within its bounds."""
    for lifetime in range(0, 24, 2):
        cluster = world()
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}
        async with cluster.running():
            cluster.api.create(DEPLOYMENTS, deployment(3, strategy=strategy))
            await cluster.run_until(lambda cluster=cluster: is_complete(cluster, "i", 3))
            set_image(cluster, "j")
            stop_at = cluster.api.writes + lifetime
            while cluster.api.writes < stop_at and not is_complete(cluster, "j", 3):
                cluster.run_pods()
                await cluster.clock.advance(0.05, turns=1)
            await cluster.kill()
            await cluster.start()

            def done(cluster: World = cluster) -> bool:
                assert len(active(cluster)) <= 4
                assert available(cluster) >= 2
                return is_complete(cluster, "j", 3)

            await cluster.run_until(done)
            assert len(cluster.api.list(REPLICA_SETS)) == 2
