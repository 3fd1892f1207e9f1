"""A whole kubelet on a simulated runtime, with an API server in memory and time that passes when told to."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client import resources as r
from shipwheel.kubelet.kubelet import Kubelet
from shipwheel.kubelet.machine import Machine
from shipwheel.kubelet.runtime.simulated import SimulatedRuntime
from shipwheel.kubelet.runtime.simulated.life import ANNOTATION
from shipwheel.kubelet.settings import KubeletConfig
from shipwheel.kubelet.volumes.mounting import NoMounter
from tests.controllers.fakeapi import FakeApi
from tests.controllers.fakekinds import KINDS, FakeKind
from tests.threads import counted_threads

MACHINE = Machine(
    cpus=4, memory=8 << 30, storage=100 << 30, hugepages={}, swap=0, machine_id="m", system_uuid="u", boot_id="b",
    kernel="6", os_image="Test", operating_system="linux", architecture="amd64", hostname="node1", cgroup_v2=True,
)  # fmt: skip
NODE_KINDS: dict[GroupVersionResource, FakeKind] = {
    **KINDS,
    r.RUNTIME_CLASSES: FakeKind("RuntimeClass", namespaced=False, has_status=False),
}


class World:
    def __init__(self, directory: Path, api: FakeApi, clock: ManualClock, runtime: SimulatedRuntime) -> None:
        self.directory = directory
        self.api = api
        self.clock = clock
        self.runtime = runtime
        self.kubelet: Kubelet
        self._threads = counted_threads()
        self._task: asyncio.Task[None] | None = None

    def config(self, **changes: object) -> KubeletConfig:
        base = KubeletConfig(
            root_dir=str(self.directory / "root"), pod_logs_dir=str(self.directory / "logs"), container_logs_dir="",
            node_ip="192.168.0.1", hostname_override="node1", resolv_conf="", cluster_dns=("10.96.0.10",),
            cluster_domain="cluster.local", enable_server=False, healthz_port=0,
        )  # fmt: skip
        return dataclasses.replace(base, **changes)  # type: ignore[arg-type]

    def start(self, **changes: object) -> None:
        self.kubelet = Kubelet(
            self.config(**changes), client=self.api.client(), runtime=self.runtime, clock=self.clock,
            machine=MACHINE, mounter=NoMounter(), simulated=True,
        )  # fmt: skip
        self._task = asyncio.ensure_future(self.kubelet.run())

    async def stop(self) -> None:
        """As if the process had been killed: containers go on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def until(self, condition: Callable[[], object], *, seconds: float = 120, step: float = 0.25) -> None:
        """Let time pass until something is so."""
        passed = 0.0
        while not condition():
            if self._task is not None and self._task.done():
                self._task.result()
            assert passed <= seconds, "it did not come to that"
            await self.clock.advance(step)
            await asyncio.sleep(0.001)
            await self._threads.idle()
            passed += step

    def create(self, pod: Obj, life: str = "") -> None:
        pod["spec"].setdefault("nodeName", "node1")
        pod["spec"].setdefault("terminationGracePeriodSeconds", 30)
        pod["metadata"].pop("uid", None)
        if life:
            pod["metadata"].setdefault("annotations", {})[ANNOTATION] = life
        self.api.create(r.PODS, pod, "ns")

    def pod(self, name: str = "p") -> Obj | None:
        return self.api.get(r.PODS, name, "ns")

    def phase(self, name: str = "p") -> str:
        found = self.pod(name)
        return found["status"].get("phase", "") if found else "gone"

    def only(self, name: str = "p") -> Obj:
        """The status of the pod's only container."""
        found = self.pod(name)
        statuses = (found or {}).get("status", {}).get("containerStatuses") or [{"state": {}}]
        return statuses[0]

    def waiting(self, name: str = "p") -> str:
        return (self.only(name)["state"].get("waiting") or {}).get("reason", "")

    def reasons(self) -> list[str]:
        """The reasons of all events."""
        return [each["reason"] for each in self.api.list(r.EVENTS)]

    async def running(self) -> list[str]:
        return sorted(each.name for each in await self.runtime.containers() if each.state == "RUNNING")


@asynccontextmanager
async def world(directory: Path, *, start: bool = True) -> AsyncIterator[World]:
    clock = ManualClock()
    api = FakeApi(clock, kinds=NODE_KINDS)
    made = World(directory, api, clock, SimulatedRuntime(clock, storage=directory))
    if start:
        made.start()
    try:
        yield made
    finally:
        await made.stop()
        await made.runtime.close()
