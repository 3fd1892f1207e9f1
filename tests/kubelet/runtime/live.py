"""A whole kubelet on real containers, with an API server in memory. It can be killed and started again."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

from shipwheel.admin.containerd import Containerd
from shipwheel.admin.images import WEB
from shipwheel.api.clock import SystemClock
from shipwheel.api.meta import Obj
from shipwheel.client import resources as r
from shipwheel.kubelet.kubelet import Kubelet
from shipwheel.kubelet.runtime.base import Container
from shipwheel.kubelet.runtime.cri import CriRuntime
from shipwheel.kubelet.settings import KubeletConfig
from shipwheel.kubelet.volumes.mounting import Mounter
from tests.controllers.fakeapi import FakeApi
from tests.kubelet.world import NODE_KINDS

NAMESPACE = "ns"
RUNTIME_SECONDS = 150
"""A call that the runtime never answers is given up after two minutes, and made again."""


def shell(script: str, name: str = "c", **fields: object) -> Obj:
    """A container that runs a shell script."""
    return {"name": name, "image": WEB, "imagePullPolicy": "Never", "command": ["sh", "-c", script], **fields}


class LiveKubelet:
    def __init__(self, directory: Path, containerd: Containerd) -> None:
        self.directory = directory
        self.clock = SystemClock()
        self.api = FakeApi(self.clock, kinds=NODE_KINDS)
        self.cgroup_root = f"/swtest-{directory.name}"
        self.config = KubeletConfig(
            root_dir=str(directory / "root"),
            pod_logs_dir=str(directory / "logs"),
            container_logs_dir="",
            node_ip="192.168.0.1",
            hostname_override="n1",
            resolv_conf="",
            cgroup_root=self.cgroup_root,
            enable_server=False,
            healthz_port=0,
            eviction_hard={},
        )
        self._containerd = containerd
        self._runtime: CriRuntime | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, **changes: object) -> None:
        config = dataclasses.replace(self.config, **changes)  # type: ignore[arg-type]
        self._runtime = CriRuntime(self._containerd.config.endpoint)
        kubelet = Kubelet(config, client=self.api.client(), runtime=self._runtime, clock=self.clock, mounter=Mounter())
        self._task = asyncio.ensure_future(kubelet.run())

    async def kill(self) -> None:
        """Containers go on."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._runtime is not None:
            await self._runtime.close()

    async def until(self, condition: Callable[[], object], *, seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                if self._task is not None and self._task.done():
                    self._task.result()
                await asyncio.sleep(0.02)

    async def empty(self) -> None:
        """Delete all pods, and wait until nothing is left of them."""
        for pod in self.api.list(r.PODS):
            self.api.delete(r.PODS, pod["metadata"]["name"], NAMESPACE, gracePeriodSeconds=1)
        await self.until(lambda: not self.api.list(r.PODS), seconds=RUNTIME_SECONDS)
        async with asyncio.timeout(RUNTIME_SECONDS):
            while await self.containers():
                await asyncio.sleep(0.1)

    # Pods

    def create(self, name: str, *containers: Obj, **spec: object) -> None:
        made = {
            "nodeName": "n1",
            "terminationGracePeriodSeconds": 1,
            "dnsPolicy": "Default",
            "restartPolicy": "Always",
            "containers": list(containers),
            **spec,
        }
        self.api.create(r.PODS, {"metadata": {"name": name}, "spec": made}, NAMESPACE)

    def status(self, name: str) -> Obj:
        return (self.api.get(r.PODS, name, NAMESPACE) or {}).get("status") or {}

    def phase(self, name: str) -> str:
        return self.status(name).get("phase", "")

    def container(self, name: str) -> Obj:
        """The status of the pod's first container."""
        return next(iter(self.status(name).get("containerStatuses") or ()), {"state": {}})

    def is_ready(self, name: str) -> bool:
        return bool(self.container(name).get("ready"))

    async def containers(self) -> list[Container]:
        """What the runtime has of them, running or not."""
        runtime = CriRuntime(self._containerd.config.endpoint)
        try:
            return await runtime.containers()
        finally:
            await runtime.close()
