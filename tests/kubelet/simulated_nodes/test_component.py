"""Simulated nodes with an API server in memory and time that passes when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shipwheel.api.clock import ManualClock, parse_time
from shipwheel.api.meta import Obj, is_condition_true
from shipwheel.client.resources import LEASES, NODES, PODS
from shipwheel.kubelet.simulated_nodes.component import run
from shipwheel.kubelet.simulated_nodes.config import Config
from shipwheel.kubelet.simulated_nodes.nodes import LABEL
from shipwheel.kubelet.simulated_nodes.stages import parse
from tests.controllers.fakeapi import FakeApi, Faults

CONFIG = Config(nodes=3, node_ip="192.0.2.1", port=0, cpus=8, memory=16 << 30)

LONG = 7200.0
"""Seconds in which whatever goes wrong is tried again often enough: an informer waits up to a minute each time."""


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.api = FakeApi(self.clock)
        self._task: asyncio.Task[None] | None = None

    def start(self, config: Config = CONFIG) -> None:
        self._task = asyncio.ensure_future(run(config, client=self.api.client(), clock=self.clock))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, condition: Callable[[], Any], seconds: float = 120) -> Any:
        passed = 0.0
        while not (found := condition()):
            assert passed <= seconds, "it did not come to that"
            await self.clock.advance(0.25)
            passed += 0.25
        return found

    def node(self, name: str) -> Obj:
        found = self.api.get(NODES, name)
        assert found
        return found

    def give_ranges(self) -> None:
        """As the node IPAM controller does."""
        for number, node in enumerate(self.api.list(NODES)):
            cidr = f"10.0.{number}.0/24"
            self.api.change(
                NODES, node["metadata"]["name"], "", lambda obj, cidr=cidr: obj["spec"].update(podCIDRs=[cidr])
            )

    def bind(self, name: str, node: str = "simulated-1", **spec: Any) -> None:
        containers = [{"name": "c", "image": "example.com/c"}]
        self.api.create(
            PODS,
            {
                "metadata": {"name": name, "namespace": "ns", "labels": {"app": name}},
                "spec": {"nodeName": node, "containers": containers, "restartPolicy": "Always", **spec},
            },
        )

    def status(self, name: str) -> Obj:
        return (self.api.get(PODS, name, "ns") or {}).get("status") or {}

    def phase(self, name: str) -> str:
        return self.status(name).get("phase", "")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.stop()


async def test_nodes_register_and_keep_their_leases(world: World) -> None:
    world.start()
    await world.until(lambda: len(world.api.list(NODES)) == 3 and len(world.api.list(LEASES)) == 3)
    node = world.node("simulated-2")
    assert node["metadata"]["labels"][LABEL] == "true"
    assert node["status"]["capacity"]["cpu"] == "8"
    assert {"type": "InternalIP", "address": "192.0.2.1"} in node["status"]["addresses"]
    assert {each["type"]: each["status"] for each in node["status"]["conditions"]}["Ready"] == "True"
    uid = node["metadata"]["uid"]
    (owner,) = world.api.get(LEASES, "simulated-2", "kube-node-lease")["metadata"]["ownerReferences"]  # type: ignore[index]
    assert owner["uid"] == uid
    # Nobody's lease ever runs out.
    for _ in range(12):
        await world.clock.advance(10)
        for lease in world.api.list(LEASES):
            age = world.clock.now() - parse_time(lease["spec"]["renewTime"])
            assert age <= timedelta(seconds=CONFIG.heartbeat * 1.5)


async def test_a_node_that_somebody_made_is_looked_after(world: World) -> None:
    world.api.create(
        NODES,
        {
            "metadata": {"name": "big", "labels": {LABEL: "true"}},
            "spec": {},
            "status": {"capacity": {"cpu": "512"}, "allocatable": {"cpu": "500"}},
        },
    )
    world.api.create(NODES, {"metadata": {"name": "real"}, "spec": {}, "status": {}})
    world.start(replace(CONFIG, nodes=0))
    await world.until(lambda: world.api.get(LEASES, "big", "kube-node-lease"))
    status = world.node("big")["status"]
    assert (status["capacity"], status["allocatable"]) == ({"cpu": "512"}, {"cpu": "500"})
    assert any(each["type"] == "Ready" for each in status["conditions"])
    assert world.node("real")["status"] == {}
    # Said to be lost, it says that it is not; deleted, it is gone.
    world.api.change(
        NODES, "big", "", lambda obj: obj["status"].update(conditions=[{"type": "Ready", "status": "Unknown"}])
    )
    await world.until(lambda: world.node("big")["status"]["conditions"][0]["status"] != "Unknown")
    world.api.delete(NODES, "big")
    world.api.delete(LEASES, "big", "kube-node-lease")
    await world.clock.advance(60)
    assert world.api.list(LEASES) == []
    assert world.api.get(NODES, "big") is None


async def test_pods_run_and_go(world: World) -> None:
    world.start()
    await world.until(lambda: len(world.api.list(NODES)) == 3)
    world.bind("early")
    world.bind("elsewhere", "real")
    await world.clock.advance(5)
    assert world.phase("early") != "Running", "its node has no range of addresses yet"
    world.give_ranges()
    world.bind("host", hostNetwork=True)
    world.bind("job", "simulated-2", restartPolicy="Never")
    await world.until(lambda: world.phase("early") == world.phase("host") == "Running")
    assert (world.status("early")["podIP"], world.status("early")["hostIP"]) == ("10.0.0.2", "192.0.2.1")
    assert world.status("host")["podIP"] == "192.0.2.1"
    await world.until(lambda: world.phase("job") == "Succeeded")
    assert world.status("job")["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    assert world.status("elsewhere").get("phase") in (None, "Pending")
    world.api.delete(PODS, "early", "ns")
    await world.until(lambda: world.api.get(PODS, "early", "ns") is None)


async def test_a_pod_is_ready_again_when_its_node_is(world: World) -> None:
    world.start()
    await world.until(lambda: len(world.api.list(NODES)) == 3)
    world.give_ranges()
    world.bind("p")
    await world.until(lambda: world.phase("p") == "Running")

    def mark(obj: Obj) -> None:
        # As the node lifecycle controller does, when a node was silent too long.
        next(each for each in obj["status"]["conditions"] if each["type"] == "Ready")["status"] = "False"

    world.api.change(PODS, "p", "ns", mark)
    assert not is_condition_true(world.api.get(PODS, "p", "ns") or {}, "Ready")
    await world.until(lambda: is_condition_true(world.api.get(PODS, "p", "ns") or {}, "Ready"))


async def test_failures_are_declared(world: World) -> None:
    text = """
    stages:
    - {name: crash, from: Running, match: {labels: app=flaky}, delay: 5s, to: Exited, exit: 3, message: no luck}
    - {name: pull, from: Pending, match: {labels: app=stuck}, to: Waiting, reason: ImagePullBackOff}
    - {name: linger, from: Deleting, match: {labels: app=stuck}, delay: 30s, to: Deleted}
    """
    world.start(replace(CONFIG, stages=parse(text)))
    await world.until(lambda: len(world.api.list(NODES)) == 3)
    world.give_ranges()
    world.bind("flaky")
    world.bind("stuck")
    only = lambda name: (world.status(name).get("containerStatuses") or [{"restartCount": 0, "state": {}}])[0]  # noqa: E731
    await world.until(lambda: only("flaky")["restartCount"] == 1)
    assert "running" in only("flaky")["state"], "the first time at once"
    assert only("flaky")["lastState"]["terminated"]["exitCode"] == 3
    await world.until(lambda: (only("flaky")["state"].get("waiting") or {}).get("reason") == "CrashLoopBackOff")
    await world.clock.advance(15)
    assert "waiting" in only("flaky")["state"]
    await world.until(lambda: "running" in only("flaky")["state"], seconds=20)
    assert only("stuck")["state"]["waiting"]["reason"] == "ImagePullBackOff"
    assert world.phase("stuck") == "Pending"
    world.api.delete(PODS, "stuck", "ns", gracePeriodSeconds=60)
    await world.clock.advance(20)
    assert world.api.get(PODS, "stuck", "ns")
    await world.until(lambda: world.api.get(PODS, "stuck", "ns") is None, seconds=30)


async def test_who_starts_anew_goes_on(world: World) -> None:
    stages = parse("stages: [{name: crash, from: Running, delay: 20s, to: Exited, exit: 1}]")
    world.start(replace(CONFIG, stages=stages))
    await world.until(lambda: len(world.api.list(NODES)) == 3)
    world.give_ranges()
    world.bind("p")
    await world.until(lambda: world.phase("p") == "Running")
    await world.until(lambda: world.status("p")["containerStatuses"][0]["restartCount"] == 1)
    await world.stop()
    before = world.status("p")
    world.start(replace(CONFIG, stages=stages))
    await world.clock.advance(10)
    assert world.status("p") == before
    await world.until(lambda: world.status("p")["containerStatuses"][0]["restartCount"] == 2)
    assert world.status("p")["podIP"] == before["podIP"]
    for number in range(3):
        world.bind(f"p{number}")
    await world.until(lambda: all(world.phase(f"p{number}") == "Running" for number in range(3)))
    assert len({world.status(name)["podIP"] for name in ("p", "p0", "p1", "p2")}) == 4


async def test_everything_goes_wrong_for_a_while(world: World) -> None:
    world.api.faults = Faults(fail_before=0.2, fail_after=0.2, break_watch=0.1, expire=0.2, seed=1)
    world.start()
    await world.until(lambda: len(world.api.list(NODES)) == 3, seconds=LONG)
    world.give_ranges()
    for number in range(20):
        world.bind(f"p{number}", f"simulated-{number % 3 + 1}")
    await world.until(lambda: all(world.phase(f"p{number}") == "Running" for number in range(20)), seconds=LONG)
    addresses = [world.status(f"p{number}")["podIP"] for number in range(20)]
    assert len(set(addresses)) == 20
    for number in range(20):
        world.api.delete(PODS, f"p{number}", "ns")
    await world.until(lambda: not world.api.list(PODS), seconds=LONG)
