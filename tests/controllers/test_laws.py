"""The laws of the workload loops, held at every single change while everything goes wrong that can.

The simulated API fails requests (done or not), refuses writes, lets watches lag, overtake each other, repeat
themselves, break off and expire, and kills the manager right after writes; `world.law` is asked at each change of an
object. All of it is drawn from a seed, so a failure can be replayed. When the faults end, the loop must still arrive.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta

import pytest

from shipwheel.api.clock import parse_time
from shipwheel.api.meta import GroupVersionResource, Obj, controller_of, is_condition_true, labels_of, name_of, uid_of
from shipwheel.client.resources import (
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    NODES,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
)
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.cronjob import SCHEDULED_AT, CronJobController
from shipwheel.controllers.daemonset import DaemonSetController
from shipwheel.controllers.daemonset.plan import node_of, should_run
from shipwheel.controllers.deployment import DeploymentController
from shipwheel.controllers.deployment.sizing import fenceposts
from shipwheel.controllers.job import JobController
from shipwheel.controllers.job.plan import FINALIZER, INDEX, is_finished
from shipwheel.controllers.replicaset import ReplicaSetController, ReplicationControllerController
from shipwheel.controllers.statefulset import StatefulSetController
from shipwheel.controllers.statefulset.plan import ordinal_of
from tests.controllers.world import World, template, trouble, without_faults

LABELS = {"app": "web"}
SEEDS = range(10)


def workload(replicas: int, **spec: object) -> Obj:
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template(LABELS), **spec},
    }


def set_image(world: World, gvr: GroupVersionResource, image: str) -> None:
    world.api.change(
        gvr, "web", "default",
        lambda obj: obj["spec"]["template"]["spec"]["containers"][0].update(image=image),
    )  # fmt: skip


def image_of(pod: Obj) -> str:
    return pod["spec"]["containers"][0]["image"]


def staying(world: World) -> list[Obj]:
    return [pod for pod in world.all(PODS) if podutil.is_active(pod)]


def ready(world: World) -> int:
    return sum(podutil.is_ready(pod) for pod in staying(world))


async def arrive(world: World, arrived, *, step=None) -> None:
    """Let the loop work through the trouble, then in peace."""

    def working() -> bool:
        (step or world.run_pods)()
        return arrived()

    for _ in range(60):
        working()
        await world.settle(random.Random(world.api.revision).random())
    without_faults(world)
    await world.until(working, within=900)
    await world.pass_time(20, step=5)
    assert arrived(), "it does not stay"


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_rollout_keeps_its_floor_and_its_ceiling(seed):
    chance = random.Random(seed)
    world = World((DeploymentController, ReplicaSetController), trouble(seed))
    world.add_node()
    replicas = chance.randint(2, 8)
    surge, unavailable = chance.choice([("25%", "25%"), (1, 0), (0, 1), (2, 1), ("100%", 0), (0, "50%"), (3, 3)])
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    deployment = workload(replicas, strategy={"type": "RollingUpdate", "rollingUpdate": rolling})
    bounds = fenceposts(deployment)
    complete = False

    def law(gvr: GroupVersionResource, kind: str, obj: Obj, old: Obj | None) -> str:
        wanted = sum(rs["spec"]["replicas"] for rs in world.all(REPLICA_SETS))
        if wanted > replicas + bounds.surge:
            return f"{wanted} replicas are more than {replicas} and {bounds.surge}"
        for rs in world.all(REPLICA_SETS):
            own = sum((controller_of(pod) or {}).get("uid") == uid_of(rs) for pod in staying(world))
            if kind == "ADDED" and own > max(rs["spec"]["replicas"], replicas):
                return f"{own} pods are more than {name_of(rs)} ever wanted"
        if complete and ready(world) < replicas - bounds.unavailable:
            return f"{ready(world)} pods are fewer than {replicas} without {bounds.unavailable}"
        return ""

    def arrived(image: str) -> bool:
        return [image_of(pod) for pod in world.all(PODS)] == [image] * replicas and ready(world) == replicas

    world.law(law)
    async with world.running():
        world.api.create(DEPLOYMENTS, deployment)
        await world.run_until(lambda: arrived("i"), within=900)
        complete = True
        set_image(world, DEPLOYMENTS, "j")
        for _ in range(chance.randint(0, 6)):
            world.run_pods()
            await world.settle(1)
        set_image(world, DEPLOYMENTS, "k")
        await arrive(world, lambda: arrived("k"))


@pytest.mark.parametrize("kind", ["ReplicaSet", "ReplicationController"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_replica_set_has_neither_orphans_nor_doubles(seed, kind):
    chance = random.Random(seed)
    gvr = REPLICA_SETS if kind == "ReplicaSet" else REPLICATION_CONTROLLERS
    world = World((ReplicaSetController, ReplicationControllerController), trouble(seed))
    world.add_node()
    most = 0

    def law(changed: GroupVersionResource, kind: str, obj: Obj, old: Obj | None) -> str:
        own = [pod for pod in staying(world) if controller_of(pod)]
        if changed == PODS and kind == "ADDED" and len(own) > most:
            return f"{len(own)} pods, never were more than {most} wanted"
        return ""

    world.law(law)
    rs = workload(0)
    if kind == "ReplicationController":
        rs["spec"]["selector"] = LABELS
    async with world.running():
        world.api.create(gvr, rs)
        for _ in range(4):
            wanted = chance.randint(0, 12)
            most = max(most, wanted)
            world.api.change(gvr, "web", "default", lambda obj, wanted=wanted: obj["spec"].update(replicas=wanted))
            for _ in range(chance.randint(1, 4)):
                world.run_pods()
                await world.settle(chance.random())
            for pod in chance.sample(staying(world), len(staying(world)) // 4):
                if chance.random() < 0.5:
                    world.api.delete(PODS, name_of(pod), "default")
                else:
                    world.end_pod(pod, "Failed")

        def arrived() -> bool:
            pods = staying(world)
            status = world.api.get(gvr, "web", "default")["status"]
            return (
                len(pods) == wanted
                and all((controller_of(pod) or {}).get("name") == "web" for pod in pods)
                and all(status.get(key, 0) == wanted for key in ("replicas", "readyReplicas", "availableReplicas"))
            )

        await arrive(world, arrived)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_stateful_set_goes_in_order(seed):
    chance = random.Random(seed)
    world = World((StatefulSetController,), trouble(seed))
    world.add_node()
    start = chance.choice([0, 0, 3])
    stateful = workload(
        chance.randint(2, 5),
        serviceName="web",
        ordinals={"start": start},
        updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
    )

    def law(gvr: GroupVersionResource, kind: str, obj: Obj, old: Obj | None) -> str:
        if gvr != PODS:
            return ""
        own = ordinal_of(obj)
        pods = {ordinal_of(pod): pod for pod in world.all(PODS)}
        standing = {ordinal for ordinal, pod in pods.items() if podutil.is_active(pod) and podutil.is_ready(pod)}
        if kind == "ADDED" and not set(range(start, own)) <= standing:
            return f"pod {own} is made while {set(range(start, own)) - standing} are not there"
        begins = old is not None and "deletionTimestamp" not in old["metadata"]
        if begins and "deletionTimestamp" in obj["metadata"] and (others := set(pods) - standing - {own}):
            return f"pod {own} is taken down while {others} are not there"
        return ""

    def arrived() -> bool:
        spec = world.api.get(STATEFUL_SETS, "web", "default")["spec"]
        image = spec["template"]["spec"]["containers"][0]["image"]
        wanted = dict.fromkeys(range(start, start + spec["replicas"]), image)
        status = world.api.get(STATEFUL_SETS, "web", "default")["status"]
        return (
            {ordinal_of(pod): image_of(pod) for pod in staying(world)} == wanted
            and ready(world) == len(wanted)
            and status.get("availableReplicas", 0) == len(wanted)
            and status["currentRevision"] == status["updateRevision"]
        )

    world.law(law)
    async with world.running():
        world.api.create(STATEFUL_SETS, stateful)
        for image in ("i", "j", "k"):
            set_image(world, STATEFUL_SETS, image)
            wanted = chance.randint(1, 6)
            world.api.change(
                STATEFUL_SETS, "web", "default", lambda obj, wanted=wanted: obj["spec"].update(replicas=wanted)
            )
            for _ in range(chance.randint(1, 12)):
                world.run_pods()
                await world.settle(1)
        await arrive(world, arrived)


@pytest.mark.parametrize("surge", [0, 1])
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_daemon_set_has_one_pod_a_node(seed, surge):
    chance = random.Random(seed)
    world = World((DaemonSetController,), trouble(seed))
    nodes = [f"n{index}" for index in range(5)]
    for name in nodes:
        world.add_node(name, labels={"disk": "ssd"})
    rolling = {"maxSurge": surge, "maxUnavailable": 1 - surge}
    daemon_set = workload(0, updateStrategy={"type": "RollingUpdate", "rollingUpdate": rolling})
    del daemon_set["spec"]["replicas"]
    daemon_set["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    moving = False
    complete = False

    def law(gvr: GroupVersionResource, kind: str, obj: Obj, old: Obj | None) -> str:
        if gvr != PODS:
            return ""
        for node, count in Counter(node_of(pod) for pod in staying(world)).items():
            if count > 1 + surge:
                return f"{count} pods on {node}"
        missing = len(nodes) - len({node_of(pod) for pod in staying(world) if podutil.is_ready(pod)})
        if complete and not moving and missing > 1 - surge:
            return f"{missing} nodes without a pod"
        return ""

    def run_pods() -> None:
        for node in nodes:
            world.run_pods(node=node, choose=lambda pod, node=node: node_of(pod) == node)

    def arrived(image: str) -> bool:
        ds = world.api.get(DAEMON_SETS, "web", "default")
        wanted = sorted(name_of(node) for node in world.all(NODES) if should_run(ds, node)[0])
        status = ds["status"]
        return (
            sorted(node_of(pod) for pod in world.all(PODS)) == wanted
            and {image_of(pod) for pod in staying(world)} <= {image}
            and status.get("numberAvailable") == status.get("updatedNumberScheduled") == len(wanted)
            and status.get("numberMisscheduled") == 0
        )

    world.law(law)
    async with world.running():
        world.api.create(DAEMON_SETS, daemon_set)
        await arrive(world, lambda: arrived("i"), step=run_pods)
        world.api.faults = trouble(seed)
        complete = True
        set_image(world, DAEMON_SETS, "j")
        for _ in range(chance.randint(0, 12)):
            run_pods()
            await world.settle(0.5)
        moving = True
        set_image(world, DAEMON_SETS, "k")
        for node in chance.sample(nodes, 2):
            disk = chance.choice(["ssd", "hdd"])
            world.api.change(NODES, node, "", lambda obj, disk=disk: obj["metadata"].update(labels={"disk": disk}))
            run_pods()
            await world.settle(0.5)
        await arrive(world, lambda: arrived("k"), step=run_pods)


@pytest.mark.parametrize("mode", ["NonIndexed", "Indexed"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_job_counts_every_pod_once(seed, mode):
    chance = random.Random(seed)
    world = World((JobController,), trouble(seed))
    world.add_node()
    completions = chance.randint(3, 9)
    job = workload(
        0,
        completions=completions,
        parallelism=chance.randint(1, 4),
        backoffLimit=1000,
        completionMode=mode,
        template=template(LABELS, restartPolicy="Never"),
    )
    del job["spec"]["replicas"]
    ended: dict[str, set[str]] = {"succeeded": set(), "failed": set()}
    indexes: set[str] = set()

    def counted(status: Obj, result: str) -> int:
        return status.get(result, 0) + len((status.get("uncountedTerminatedPods") or {}).get(result, ()))

    def law(gvr: GroupVersionResource, kind: str, obj: Obj, old: Obj | None) -> str:
        if gvr == PODS and kind != "DELETED":
            if podutil.phase_of(obj) == "Succeeded":
                ended["succeeded"].add(uid_of(obj))
                indexes.add(obj["metadata"].get("annotations", {}).get(INDEX, ""))
            elif podutil.phase_of(obj) == "Failed" or "deletionTimestamp" in obj["metadata"]:
                ended["failed"].add(uid_of(obj))
        if gvr != JOBS:
            return ""
        for result, uids in ended.items():
            has = counted(obj["status"], result) if mode == "NonIndexed" else obj["status"].get(result, 0)
            if has > len(uids):
                return f"{has} pods counted as {result}, {len(uids)} were"
            if old is not None and obj["status"].get(result, 0) < old["status"].get(result, 0):
                return f"fewer {result} than before"
        return ""

    def work() -> None:
        for pod in world.api.list(PODS):
            if pod["metadata"].get("deletionTimestamp"):
                world.finish_deletion(pod)
            elif pod["status"]["phase"] == "Pending":
                world.start_pod(pod)
            elif pod["status"]["phase"] == "Running" and chance.random() < 0.5:
                world.end_pod(pod, chance.choice(["Succeeded", "Succeeded", "Failed"]))

    world.law(law)
    async with world.running():
        world.api.create(JOBS, job)

        def arrived() -> bool:
            return is_condition_true(world.api.get(JOBS, "web", "default"), "Complete")

        await arrive(world, arrived, step=work)
        status = world.api.get(JOBS, "web", "default")["status"]
        assert status["succeeded"] == (len(ended["succeeded"]) if mode == "NonIndexed" else len(indexes)) == completions
        assert status.get("failed", 0) == len(ended["failed"])
        assert not any((status.get("uncountedTerminatedPods") or {}).values())
        assert not any(FINALIZER in pod["metadata"].get("finalizers", ()) for pod in world.all(PODS))


@pytest.mark.parametrize("policy", ["Allow", "Forbid", "Replace"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_cron_job_fires_once_for_each_time(seed, policy):
    chance = random.Random(seed)
    world = World((CronJobController,), trouble(seed))
    cronjob = {
        "metadata": {"name": "tick", "namespace": "default"},
        "spec": {
            "schedule": "* * * * *",
            "concurrencyPolicy": policy,
            "successfulJobsHistoryLimit": chance.choice([0, 1, 3]),
            "failedJobsHistoryLimit": chance.choice([0, 1]),
            "jobTemplate": {"spec": {"template": template(LABELS, restartPolicy="Never")}},
        },
    }
    fired: list[str] = []

    def law(gvr: GroupVersionResource, kind: str, obj: Obj, old: Obj | None) -> str:
        if gvr != JOBS or kind != "ADDED":
            return ""
        fired.append(obj["metadata"]["annotations"][SCHEDULED_AT])
        running = [
            job for job in world.all(JOBS) if not is_finished(job) and "deletionTimestamp" not in job["metadata"]
        ]
        if len(fired) != len(set(fired)):
            return f"{fired[-1]} twice"
        if policy != "Allow" and len(running) > 1:
            return f"{len(running)} Jobs at a time"
        return ""

    def end_jobs() -> None:
        for job in world.api.list(JOBS):
            if not is_finished(job) and chance.random() < 0.4:
                world.api.change(JOBS, name_of(job), "default", lambda job: job["status"].update(outcome()))

    def outcome() -> Obj:
        return {"conditions": [{"type": chance.choice(["Complete", "Complete", "Failed"]), "status": "True"}]}

    world.law(law)
    async with world.running():
        world.api.create(CRON_JOBS, cronjob)
        for _ in range(80):
            end_jobs()
            await world.settle(20)
        without_faults(world)
        times = [parse_time(text) for text in fired]
        assert times == sorted(times)
        if policy == "Allow":
            assert times[-1] - times[0] == timedelta(minutes=len(times) - 1), "a time was missed"
            assert world.clock.now() - times[-1] <= timedelta(minutes=1, seconds=30)
        assert labels_of(world.api.get(CRON_JOBS, "tick", "default")) == {}
