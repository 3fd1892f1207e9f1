"""The scheduler against an API server in memory: what it binds, what it writes, and that faults do no harm."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from shipwheel.api.clock import SystemClock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import condition
from shipwheel.client import resources as r
from shipwheel.client.events import EventRecorder
from shipwheel.client.httpclient import ConnectionFailed
from shipwheel.client.httpserver import HttpServer, Request, Response
from shipwheel.client.metrics import Metrics
from shipwheel.scheduler.configuration import Configuration, ExtenderConfig, ProfileConfig
from shipwheel.scheduler.core import Scheduler
from shipwheel.scheduler.plugins.basics import NodePorts
from shipwheel.scheduler.plugins.volumebinding import BIND_COMPLETED, SELECTED_NODE
from tests.controllers.fakeapi import FakeApi, Faults
from tests.controllers.fakekinds import KINDS, FakeKind

Obj = dict[str, Any]
MORE_KINDS = KINDS | {
    r.CSI_STORAGE_CAPACITIES: FakeKind("CSIStorageCapacity", has_status=False),
    r.PRIORITY_CLASSES: FakeKind("PriorityClass", namespaced=False, has_status=False),
    r.DEVICE_CLASSES: FakeKind("DeviceClass", namespaced=False, has_status=False),
}


def node(name: str, cpu: str = "4", pods: str = "20", **labels: str) -> Obj:
    room = {"cpu": cpu, "memory": "16Gi", "pods": pods}
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}
    return {"metadata": metadata, "spec": {}, "status": {"allocatable": room}}


def pod(name: str, cpu: str = "1", priority: int = 0, **spec: Any) -> Obj:
    container = {"name": "main", "image": "a", "resources": {"requests": {"cpu": cpu}}}
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"containers": [container], "priority": priority, **spec},
    }


class World:
    def __init__(self, api: FakeApi, scheduler: Scheduler) -> None:
        self.api = api
        self.scheduler = scheduler

    def pod(self, name: str) -> Obj:
        found = self.api.get(r.PODS, name, "default")
        assert found is not None
        return found

    def where(self, name: str) -> str:
        found = self.api.get(r.PODS, name, "default")
        return found["spec"].get("nodeName", "") if found else ""

    def events(self, reason: str) -> list[str]:
        return [each["message"] for each in self.api.list(r.EVENTS) if each["reason"] == reason]

    async def until(self, true: Callable[[], Any], seconds: float = 60) -> None:
        """Wait for what tests wait for; the timeout is only for failures."""
        async with asyncio.timeout(seconds):
            while not true():
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(
    *objects: tuple[Any, Obj],
    configuration: Configuration | None = None,
    faults: Faults | None = None,
    metrics: Metrics | None = None,
    **more: Any,
) -> AsyncIterator[World]:
    clock = SystemClock()
    api = FakeApi(clock, faults or Faults(), kinds=MORE_KINDS)
    for kind, obj in objects:
        api.create(kind, obj)
    client = api.client()
    recorder = EventRecorder(client, clock, component="default-scheduler")
    config = configuration or Configuration(initial_backoff=0.05, max_backoff=0.2)
    scheduler = Scheduler(config, client, clock, recorder, metrics or Metrics(process=False), **more)
    tasks = [asyncio.create_task(scheduler.run()), asyncio.create_task(recorder.run())]
    try:
        yield World(api, scheduler)
        for task in tasks:
            assert not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_pods_get_nodes_and_events_say_so() -> None:
    async with running((r.NODES, node("one")), (r.PODS, pod("a"))) as world:
        await world.until(lambda: world.where("a") == "one" and world.events("Scheduled"))
        assert world.events("Scheduled") == ["Successfully assigned default/a to one"]


async def test_what_is_measured_has_upstreams_names() -> None:
    metrics = Metrics(process=False)
    full = (r.NODES, node("one", "1"))
    expected = (
        'scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 2.0',
        'scheduler_queueing_hint_execution_duration_seconds_count{event="NodeAdd",hint="Queue",plugin="NodeResources',
        'scheduler_event_handling_duration_seconds_count{event="NodeAdd"} 2.0',
        'scheduler_event_handling_duration_seconds_count{event="UnschedulablePodAdd"} 2.0',
        'scheduler_event_handling_duration_seconds_count{event="AssignedPodUpdate"} 2.0',
        'scheduler_goroutines{operation="binding"}',
        'scheduler_plugin_execution_duration_seconds_count{extension_point="Filter",plugin="NodeResourcesFit",status',
        'scheduler_plugin_evaluation_total{extension_point="Filter",plugin="NodeResourcesFit",profile="default-scheduler"}',
        'scheduler_queue_incoming_pods_total{event="UnschedulablePodAdd",queue="active"} 2.0',
        *(
            f'scheduler_framework_extension_point_duration_seconds_count{{extension_point="{point}",'
            for point in ("PreFilter", "Filter", "PostFilter", "Reserve", "Permit", "PreBind", "Bind")
        ),
    )
    async with running(full, (r.PODS, pod("a")), (r.PODS, pod("b")), metrics=metrics) as world:

        def missing() -> list[str]:
            world.scheduler.refresh_metrics()
            text = metrics.exposition().decode()
            return [each for each in expected if each not in text]

        await world.until(lambda: world.events("Scheduled") and world.events("FailedScheduling"))
        world.api.create(r.NODES, node("two"))
        await world.until(lambda: world.where("a") and world.where("b"))
        with contextlib.suppress(TimeoutError):
            await world.until(lambda: not missing())
        assert missing() == []


async def test_other_schedulers_pods_are_left_alone() -> None:
    async with running((r.NODES, node("one")), (r.PODS, pod("theirs", schedulerName="other"))) as world:
        world.api.create(r.PODS, pod("ours"))
        await world.until(lambda: world.where("ours"))
        assert world.where("theirs") == ""


async def test_who_fits_nowhere_is_told_why_and_tried_again_when_it_may_help() -> None:
    async with running((r.NODES, node("one", "1")), (r.PODS, pod("a", "2"))) as world:
        await world.until(lambda: condition(world.pod("a"), "PodScheduled") and world.events("FailedScheduling"))
        message = (
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are "
            "available: 1 Preemption is not helpful for scheduling."
        )
        said = condition(world.pod("a"), "PodScheduled")
        assert said is not None
        assert (said["status"], said["reason"], said["message"]) == ("False", "Unschedulable", message)
        assert world.events("FailedScheduling") == [message]
        world.api.create(r.NODES, node("two"))
        await world.until(lambda: world.where("a") == "two")


async def test_no_nodes_at_all() -> None:
    async with running((r.PODS, pod("a"))) as world:
        await world.until(lambda: world.events("FailedScheduling"))
        assert world.events("FailedScheduling") == ["no nodes available to schedule pods"]
        world.api.create(r.NODES, node("one"))
        await world.until(lambda: world.where("a"))


async def test_gates_hold_a_pod_back() -> None:
    gated = pod("a", schedulingGates=[{"name": "wait"}])
    async with running((r.NODES, node("one")), (r.PODS, gated), (r.PODS, pod("b"))) as world:
        await world.until(lambda: world.where("b"))
        assert world.where("a") == ""
        world.api.change(r.PODS, "a", "default", lambda obj: obj["spec"].pop("schedulingGates"))
        await world.until(lambda: world.where("a"))


async def test_a_pod_of_higher_priority_takes_the_place_of_another() -> None:
    placed = pod("low", "3", nodeName="one")
    async with running((r.NODES, node("one")), (r.PODS, placed), (r.PODS, pod("high", "3", 10))) as world:
        await world.until(lambda: "deletionTimestamp" in world.pod("low")["metadata"])
        assert (world.pod("high")["status"]["nominatedNodeName"], world.where("high")) == ("one", "")
        target = condition(world.pod("low"), "DisruptionTarget")
        assert target is not None and target["reason"] == "PreemptionByScheduler"
        world.api.delete(r.PODS, "low", "default", gracePeriodSeconds=0)
        await world.until(lambda: world.where("high") == "one")
        uid = world.pod("high")["metadata"]["uid"]
        await world.until(lambda: world.events("Preempted") == [f"Preempted by pod {uid} on node one"])


async def test_what_a_deleted_pod_was_promised_is_for_others() -> None:
    """The place of a pod that goes is promised; whoever it was promised to is deleted before it has gone."""
    leaving = pod("leaving", "3", nodeName="one")
    leaving["metadata"]["finalizers"] = ["example.com/wait"]
    async with running((r.NODES, node("one")), (r.PODS, leaving), (r.PODS, pod("high", "3", 10))) as world:
        await world.until(lambda: world.pod("high").get("status", {}).get("nominatedNodeName") == "one")
        world.api.create(r.PODS, pod("low", "3", 5))
        await world.until(lambda: condition(world.pod("low"), "PodScheduled"))
        world.api.delete(r.PODS, "high", "default", gracePeriodSeconds=0)
        world.api.change(r.PODS, "leaving", "default", lambda obj: obj["metadata"].pop("finalizers"))
        world.api.delete(r.PODS, "leaving", "default", gracePeriodSeconds=0)
        await world.until(lambda: world.where("low") == "one")


async def test_only_who_has_room_now_is_woken_by_a_pod_that_goes() -> None:
    pods = [(r.PODS, pod(name, "3", nodeName="one")) for name in ("a", "b")]
    async with running((r.NODES, node("one", "6")), *pods) as world:
        world.api.create(r.PODS, pod("small", "2"))
        world.api.create(r.PODS, pod("large", "5"))
        await world.until(lambda: len(world.events("FailedScheduling")) == 2)
        world.api.delete(r.PODS, "a", "default", gracePeriodSeconds=0)
        await world.until(lambda: world.where("small"))
        assert len(world.events("FailedScheduling")) == 2, "the large one was not tried in vain"
        world.api.delete(r.PODS, "small", "default", gracePeriodSeconds=0)
        world.api.delete(r.PODS, "b", "default", gracePeriodSeconds=0)
        await world.until(lambda: world.where("large"))


async def test_a_plugin_that_raises_fails_that_pods_attempt_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: NodePorts, cycle: Any) -> Any:
        if cycle.pod["metadata"]["name"] == "cursed":
            raise RuntimeError("out of luck")
        return ()

    monkeypatch.setattr(NodePorts, "filter", fail)
    async with running((r.NODES, node("one")), (r.PODS, pod("cursed", priority=9))) as world:
        world.api.create(r.PODS, pod("fine"))
        await world.until(lambda: world.where("fine") and world.events("FailedScheduling"))
        assert world.events("FailedScheduling")[0] == 'running "NodePorts" filter plugin: out of luck'
        await world.until(lambda: condition(world.pod("cursed"), "PodScheduled"))
        said = condition(world.pod("cursed"), "PodScheduled")
        assert said is not None and said["reason"] == "SchedulerError"


async def test_the_same_seed_makes_the_same_choices() -> None:
    async def choices() -> list[str]:
        names = [f"pod-{index}" for index in range(12)]
        nodes = [(r.NODES, node(f"node-{index}")) for index in range(6)]
        async with running(*nodes, seed=5) as world:
            for name in names:
                world.api.create(r.PODS, pod(name))
                await world.until(lambda name=name: world.where(name))
            return [world.where(name) for name in names]

    assert await choices() == await choices()


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_fails_every_pod_is_bound_once_and_no_node_is_too_full(seed: int) -> None:
    faults = Faults(fail_before=0.05, fail_after=0.1, break_watch=0.02, expire=0.1, lag=0.05, seed=seed)
    nodes = [(r.NODES, node(f"node-{index}", pods="6")) for index in range(3)]
    async with running(*nodes, faults=faults) as world:
        bound: Counter[str] = Counter()

        def refuse_twice(method: str, path: str, body: Obj | None) -> None:
            if path.endswith("/binding"):
                name = path.split("/")[-2]
                if world.where(name):
                    raise ApiError(409, "Conflict", f'pod {name} is already assigned to node "{world.where(name)}"')
                bound[name] += 1

        world.api.before_write = refuse_twice
        names = [f"pod-{index}" for index in range(16)]
        for name in names:
            world.api.create(r.PODS, pod(name, "100m"))
        await world.until(lambda: all(world.where(name) for name in names), 120)
        assert set(bound.values()) == {1}
        taken = Counter(world.where(name) for name in names)
        assert max(taken.values()) <= 6


async def test_a_binding_whose_answer_is_lost_keeps_its_room() -> None:
    """The watch lags, so only a question can tell that the node has no room for another pod."""
    async with running((r.NODES, node("one", pods="1")), faults=Faults(lag=1.0)) as world:
        lost = iter(range(1))

        def lose() -> None:
            if world.api.requests[-1][1].endswith("/binding") and next(lost, None) is not None:
                raise ConnectionFailed("EOF")

        world.api.after_write = lose
        world.api.create(r.PODS, pod("a"))
        world.api.create(r.PODS, pod("b"))
        await world.until(lambda: world.events("Scheduled") and world.events("FailedScheduling"))
        assert next(lost, None) is None
        assert sorted(map(world.where, "ab")) == ["", "one"]
        assert world.events("FailedScheduling")[0].startswith("0/1 nodes are available: 1 Too many pods. ")


async def test_several_profiles_at_once() -> None:
    full = {"NodeResourcesFit": {"scoringStrategy": {"type": "MostAllocated"}}}
    profiles = (ProfileConfig(), ProfileConfig(scheduler_name="packer", args=full))
    settled = pod("settled", "2", nodeName="one")
    async with running(
        (r.NODES, node("one")),
        (r.NODES, node("two")),
        (r.PODS, settled),
        configuration=Configuration(profiles=profiles),
    ) as world:
        world.api.create(r.PODS, pod("spread"))
        await world.until(lambda: world.where("spread"))
        world.api.create(r.PODS, pod("packed", schedulerName="packer"))
        await world.until(lambda: world.where("packed"))
        assert (world.where("spread"), world.where("packed")) == ("two", "one")


async def test_a_pod_for_a_node_that_is_not_there() -> None:
    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gone"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [by_name]}}
    async with running((r.NODES, node("one")), (r.PODS, pod("a", affinity={"nodeAffinity": required}))) as world:
        await world.until(lambda: world.events("FailedScheduling"))
        assert world.events("FailedScheduling")[0].startswith(
            "0/1 nodes are available: 1 node(s) didn't satisfy plugin(s) [NodeAffinity]. no new claims "
        )


# Volumes

STORAGE = {"metadata": {"name": "local"}, "provisioner": "kubernetes.io/no-provisioner"}
WAITING = {**STORAGE, "volumeBindingMode": "WaitForFirstConsumer"}
CLAIM = {
    "metadata": {"name": "data", "namespace": "default"},
    "spec": {
        "storageClassName": "local",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    },
    "status": {"phase": "Pending"},
}


def volume(name: str, on: str, size: str = "2Gi") -> Obj:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [on]}]}
    return {
        "metadata": {"name": name},
        "spec": {
            "storageClassName": "local",
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
        "status": {"phase": "Available"},
    }


def using(name: str) -> Obj:
    return pod(name, volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}])


def bind_claim(world: World, volume_name: str) -> None:
    """What the volume controller does."""

    def change(obj: Obj) -> None:
        obj["spec"]["volumeName"] = volume_name
        obj["metadata"].setdefault("annotations", {})[BIND_COMPLETED] = "yes"

    world.api.change(r.PERSISTENT_VOLUME_CLAIMS, "data", "default", change)


async def test_a_claim_that_waits_gets_the_smallest_volume_there_is_on_a_node() -> None:
    volumes = [volume("big", "two", "9Gi"), volume("small", "two", "2Gi"), volume("tiny", "one", "10Mi")]
    async with running(
        *((r.NODES, node(name)) for name in ("one", "two")),
        (r.STORAGE_CLASSES, WAITING),
        (r.PERSISTENT_VOLUME_CLAIMS, CLAIM),
        *((r.PERSISTENT_VOLUMES, each) for each in volumes),
        (r.PODS, using("a")),
    ) as world:

        def reference() -> Obj | None:
            found = world.api.get(r.PERSISTENT_VOLUMES, "small")
            return found["spec"].get("claimRef") if found else None

        await world.until(reference)
        assert world.where("a") == "", "the pod is bound only when its claim is"
        assert (reference() or {})["name"] == "data"
        bind_claim(world, "small")
        await world.until(lambda: world.where("a") == "two")


async def test_a_claim_is_provisioned_for_the_node() -> None:
    made = {**WAITING, "provisioner": "example.com/disks"}
    async with running(
        (r.NODES, node("one")), (r.STORAGE_CLASSES, made), (r.PERSISTENT_VOLUME_CLAIMS, CLAIM), (r.PODS, using("a"))
    ) as world:

        def selected() -> str:
            claim = world.api.get(r.PERSISTENT_VOLUME_CLAIMS, "data", "default") or {"metadata": {}}
            return (claim["metadata"].get("annotations") or {}).get(SELECTED_NODE, "")

        await world.until(lambda: selected() == "one")
        world.api.create(r.PERSISTENT_VOLUMES, volume("new", "one"))
        bind_claim(world, "new")
        await world.until(lambda: world.where("a") == "one")


async def test_a_provisioner_that_gives_up_is_asked_again() -> None:
    made = {**WAITING, "provisioner": "example.com/disks"}
    async with running(
        (r.NODES, node("one")), (r.STORAGE_CLASSES, made), (r.PERSISTENT_VOLUME_CLAIMS, CLAIM), (r.PODS, using("a"))
    ) as world:

        def annotations() -> dict[str, str]:
            claim = world.api.get(r.PERSISTENT_VOLUME_CLAIMS, "data", "default") or {"metadata": {}}
            return claim["metadata"].get("annotations") or {}

        await world.until(lambda: annotations().get(SELECTED_NODE) == "one")
        world.api.change(
            r.PERSISTENT_VOLUME_CLAIMS, "data", "default", lambda claim: claim["metadata"]["annotations"].clear()
        )
        await world.until(lambda: annotations().get(SELECTED_NODE) == "one")
        world.api.create(r.PERSISTENT_VOLUMES, volume("new", "one"))
        bind_claim(world, "new")
        await world.until(lambda: world.where("a") == "one")
        told = 'binding volumes: provisioning failed for PVC "data"'
        await world.until(lambda: any(told in each for each in world.events("FailedScheduling")))


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([], 'persistentvolumeclaim "data" not found'),
        (
            [(r.STORAGE_CLASSES, STORAGE), (r.PERSISTENT_VOLUME_CLAIMS, CLAIM)],
            "pod has unbound immediate PersistentVolumeClaims",
        ),
        (
            [(r.STORAGE_CLASSES, WAITING), (r.PERSISTENT_VOLUME_CLAIMS, CLAIM)],
            "1 node(s) didn't find available persistent volumes to bind",
        ),
    ],
)
async def test_what_is_said_about_volumes(objects: list[tuple[Any, Obj]], reason: str) -> None:
    async with running((r.NODES, node("one")), *objects, (r.PODS, using("a"))) as world:
        await world.until(lambda: world.events("FailedScheduling"))
        assert world.events("FailedScheduling")[0] == (
            f"0/1 nodes are available: {reason}. no new claims to deallocate, preemption: 0/1 nodes are available: "
            "1 Preemption is not helpful for scheduling."
        )


# Extenders


@contextlib.asynccontextmanager
async def extender(answer: Callable[[str, Obj], Any], **more: Any) -> AsyncIterator[Configuration]:
    async def handle(request: Request) -> Response:
        found = answer(request.path.lstrip("/"), orjson.loads(await request.body(1 << 20)))
        if found is None:
            await asyncio.Event().wait()
        return Response(200, orjson.dumps(found))

    server = HttpServer(handle)
    port = await server.listen("127.0.0.1", 0)
    config = ExtenderConfig(
        url_prefix=f"http://127.0.0.1:{port}", filter_verb="filter", node_cache_capable=True, timeout=0.3, **more
    )
    try:
        yield Configuration(profiles=(ProfileConfig(),), extenders=(config,), initial_backoff=0.05, max_backoff=0.1)
    finally:
        await server.close()


NODES = [(r.NODES, node("one")), (r.NODES, node("two"))]


async def test_an_extender_filters_and_scores() -> None:
    def answer(verb: str, body: Obj) -> Any:
        if verb == "filter":
            return {"nodenames": [each for each in body["nodenames"] if each != "one"], "failedNodes": {"one": "no"}}
        return [{"host": "three", "score": 10}]

    async with (
        extender(answer, prioritize_verb="prioritize", weight=5) as configuration,
        running(*NODES, (r.NODES, node("three")), configuration=configuration) as world,
    ):
        for index in range(3):
            world.api.create(r.PODS, pod(f"a{index}", "100m"))
        await world.until(lambda: all(world.where(f"a{index}") == "three" for index in range(3)))


async def test_what_an_extender_refuses_is_told_in_its_words() -> None:
    def answer(verb: str, body: Obj) -> Any:
        return {"nodenames": [], "failedNodes": dict.fromkeys(body["nodenames"], "it is full moon")}

    async with (
        extender(answer) as configuration,
        running(*NODES, (r.PODS, pod("a")), configuration=configuration) as world,
    ):
        await world.until(lambda: world.events("FailedScheduling"))
        assert world.events("FailedScheduling")[0].startswith("0/2 nodes are available: 2 it is full moon.")


@pytest.mark.parametrize(
    "answer", [lambda verb, body: None, lambda verb, body: {"nodenames": ["nowhere"]}, lambda *_: 3]
)
@pytest.mark.parametrize("ignorable", [True, False])
async def test_an_extender_that_hangs_or_lies(answer: Callable[[str, Obj], Any], ignorable: bool) -> None:
    async with (
        extender(answer, ignorable=ignorable) as configuration,
        running(*NODES, (r.PODS, pod("a")), configuration=configuration) as world,
    ):
        if ignorable:
            await world.until(lambda: world.where("a"))
            return
        await world.until(lambda: condition(world.pod("a"), "PodScheduled"))
        said = condition(world.pod("a"), "PodScheduled")
        assert said is not None and said["reason"] == "SchedulerError"
        assert world.where("a") == ""
