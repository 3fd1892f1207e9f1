"""Running controllers against the fake API: a manager that can be killed, and nodes that run pods."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from shipwheel.api.clock import ManualClock, rfc3339
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.client import Client
from shipwheel.client.events import EventRecorder
from shipwheel.client.informer import InformerFactory
from shipwheel.client.metrics import Metrics
from shipwheel.client.resources import EVENTS, NODES, PODS
from shipwheel.controllers.config import ControllerManagerConfig
from shipwheel.controllers.framework import Context
from tests.controllers.fakeapi import Connection, FakeApi, Faults

CONFIG = ControllerManagerConfig(root_ca="CA")


def trouble(seed: int) -> Faults:
    """Everything that can go wrong, now and then."""
    return Faults(
        fail_before=0.05,
        fail_after=0.05,
        conflict=0.05,
        break_watch=0.05,
        expire=0.2,
        lag=0.2,
        repeat=0.1,
        kill=0.02,
        seed=seed,
    )


@dataclass
class World:
    """A cluster without machines. Time passes only by `pass_time`."""

    controllers: tuple[Callable[[Context], Any], ...]
    faults: Faults = field(default_factory=Faults)
    config: ControllerManagerConfig = CONFIG

    def __post_init__(self) -> None:
        random.seed(self.faults.seed)  # jitter is drawn from it
        self.clock = ManualClock()
        self.api = FakeApi(self.clock, self.faults)
        self.api.after_write = self._maybe_kill
        self.kill_after: int | None = None
        """Kill the manager after so many more writes."""
        self.kills = 0
        self._laws: list[Callable[[GroupVersionResource, str, Obj, Obj | None], str]] = []
        self._broken: list[str] = []
        self.api.on_change = self._judge
        self.manager_metrics = Metrics(process=False)
        """The latest manager's."""
        self._manager: asyncio.Task[None] | None = None
        self._connection: Connection | None = None

    @asynccontextmanager
    async def running(self):
        """With the controllers at work."""
        await self.start()
        try:
            yield self
        finally:
            await self.kill()

    async def start(self) -> None:
        client, self._connection = self.api.connect()
        self._manager = asyncio.create_task(self._run(client))
        await self.settle()

    async def kill(self) -> None:
        """Stop the manager where it stands."""
        manager, self._manager = self._manager, None
        if manager is None:
            return
        if self._connection:
            self._connection.cut = True
        manager.cancel()
        with suppress(asyncio.CancelledError):
            await manager

    def law(self, law: Callable[[GroupVersionResource, str, Obj, Obj | None], str]) -> None:
        """Hold a law from now on: it is asked at every change (resource, type, object, what it was) and says how that
        breaks it, or nothing. A broken law fails the test when the world has settled."""
        self._laws.append(law)

    def _judge(self, gvr: GroupVersionResource, kind: str, obj: Obj, old: Obj | None) -> None:
        self._broken += [wrong for law in self._laws if (wrong := law(gvr, kind, obj, old))]

    def all(self, gvr: GroupVersionResource) -> list[Obj]:
        """All objects of a resource as they are stored: not to be changed."""
        return [obj for key, obj in self.api.objects.items() if key[0] == gvr]

    def _maybe_kill(self) -> None:
        """Right after a write: kill the manager if it is its time. `settle` starts the next."""
        if self._connection is None or self._connection.cut:
            return
        if self.kill_after is not None:
            self.kill_after -= 1
        if self.kill_after == 0 or self.api.happens(self.api.faults.kill):
            self._connection.cut = True
            self.kill_after = None
            self.kills += 1

    async def _run(self, client: Client) -> None:
        recorder = EventRecorder(client, self.clock, component="test")
        self.manager_metrics = Metrics(process=False)
        factory = InformerFactory(client, self.clock)
        context = Context(
            client=client,
            informers=factory,
            clock=self.clock,
            recorder=recorder,
            metrics=self.manager_metrics,
            config=self.config,
        )
        controllers = [make(context) for make in self.controllers]
        async with asyncio.TaskGroup() as group:
            group.create_task(factory.run())
            group.create_task(recorder.run())
            for controller in controllers:
                group.create_task(controller.run())

    async def settle(self, seconds: float = 0.0) -> None:
        """Let everything happen that happens within so little time."""
        await self.clock.advance(seconds, turns=5)
        if self._manager is not None and self._connection is not None and self._connection.cut:
            await self.kill()
            await self.start()
        quiet, revision = 0, -1
        while quiet < 40:
            await asyncio.sleep(0)
            quiet = quiet + 1 if self.api.revision == revision else 0
            revision = self.api.revision
        self._raise_if_failed()

    async def pass_time(self, seconds: float, *, step: float = 1.0) -> None:
        while seconds > 0:
            await self.settle(min(step, seconds))
            seconds -= step

    async def until(self, condition: Callable[[], bool], *, within: float = 60.0, step: float = 0.5) -> None:
        """Let time pass until something is the case."""
        while within > 0:
            if condition():
                return
            await self.settle(step)
            within -= step
        assert condition()

    def _raise_if_failed(self) -> None:
        assert not self._broken, self._broken[0]
        if self._manager is not None and self._manager.done():
            self._manager.result()

    # The nodes

    def add_node(self, name: str = "n1", *, labels: dict[str, str] | None = None, **spec: Any) -> Obj:
        return self.api.create(
            NODES,
            {
                "metadata": {"name": name, "labels": labels or {}},
                "spec": spec,
                "status": {
                    "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}],
                    "allocatable": {"cpu": "8"},
                },
            },
        )

    def run_pods(self, *, node: str = "n1", choose: Callable[[Obj], bool] = lambda pod: True) -> int:
        """Do once what scheduler and kubelet would: bind, start, end. Returns how many pods changed."""
        changed = 0
        for pod in self.api.list(PODS):
            if not choose(pod):
                continue
            name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
            if pod["metadata"].get("deletionTimestamp"):
                self.finish_deletion(pod)
            elif pod["status"].get("phase") == "Pending":
                self.start_pod(pod, node)
            else:
                continue
            assert name and namespace
            changed += 1
        return changed

    def start_pod(self, pod: Obj, node: str = "n1", *, ready: bool = True) -> None:
        def change(pod: Obj) -> None:
            pod["spec"].setdefault("nodeName", node)
            number = len(self.api.log)
            pod["status"] = {
                **pod["status"],
                "phase": "Running",
                "podIP": f"10.0.{number // 250}.{number % 250}",
                "podIPs": [{"ip": f"10.0.{number // 250}.{number % 250}"}],
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "True" if ready else "False",
                        "lastTransitionTime": rfc3339(self.clock.now()),
                    }
                ],
            }

        self.api.change(PODS, pod["metadata"]["name"], pod["metadata"]["namespace"], change)

    def end_pod(self, pod: Obj, phase: str = "Succeeded", **status: Any) -> None:
        def change(pod: Obj) -> None:
            pod["spec"].setdefault("nodeName", "n1")
            pod["status"] = {**pod["status"], "phase": phase, **status}

        self.api.change(PODS, pod["metadata"]["name"], pod["metadata"]["namespace"], change)

    def finish_deletion(self, pod: Obj) -> None:
        def change(pod: Obj) -> None:
            pod["metadata"]["deletionGracePeriodSeconds"] = 0
            if pod["status"].get("phase") not in ("Succeeded", "Failed"):
                pod["status"]["phase"] = "Failed"

        self.api.change(PODS, pod["metadata"]["name"], pod["metadata"]["namespace"], change)

    async def run_until(self, condition: Callable[[], bool], *, within: float = 60.0) -> None:
        """Let nodes and controllers work until something is the case."""

        def step() -> bool:
            self.run_pods()
            return condition()

        await self.until(step, within=within)

    def events(self, reason: str = "") -> list[tuple[str, str]]:
        """(reason, message) of the events recorded."""
        return [(e["reason"], e["message"]) for e in self.api.list(EVENTS) if reason in ("", e["reason"])]


def without_faults(world: World) -> World:
    world.api.faults = replace(
        world.faults, fail_before=0, fail_after=0, conflict=0, break_watch=0, expire=0, lag=0, repeat=0, kill=0
    )
    return world


def template(labels: dict[str, str], **spec: Any) -> Obj:
    return {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


def names(objects: Iterable[Obj]) -> list[str]:
    return [obj["metadata"]["name"] for obj in objects]
