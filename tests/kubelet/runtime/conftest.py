"""The two runtimes, ready to run containers of a small image."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shipwheel.admin.containerd import Containerd, ContainerdConfig, default_cni_bin_dir
from shipwheel.admin.images import (
    WEB,
    architecture,
    archive,
    host_busybox,
    import_archive,
    pause_image,
    web_image,
)
from shipwheel.api.clock import SystemClock
from shipwheel.kubelet.runtime.base import Runtime
from shipwheel.kubelet.runtime.cri import CriRuntime
from shipwheel.kubelet.runtime.simulated import SimulatedRuntime
from tests.sweep import swept

SUBNET = f"10.213.{os.getpid() % 256}.0/24"
"""Runs at the same time must not share addresses."""


def run_apart(work: Coroutine[None, None, None]) -> None:
    """Run to the end, whether or not a loop runs in this thread."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


@pytest.fixture(scope="session")
def containerd() -> Iterator[Containerd]:
    """A private containerd with the images and a point-to-point network."""
    if os.geteuid() != 0 or not shutil.which("containerd") or not shutil.which("runc"):
        pytest.skip("needs root, containerd and runc")
    with swept(Path(tempfile.mkdtemp(prefix="swt-"))) as base:
        config = ContainerdConfig(
            root=base / "root",
            state=base / "run",
            cni_conf_dir=base / "cni",
            cni_bin_dir=default_cni_bin_dir(),
        )
        config.cni_conf_dir.mkdir()
        ipam = {"type": "host-local", "dataDir": str(base / "ipam"), "ranges": [[{"subnet": SUBNET}]]}
        network = {"cniVersion": "0.4.0", "name": "swt", "plugins": [{"type": "ptp", "ipam": ipam}]}
        (config.cni_conf_dir / "10-swt.conflist").write_text(json.dumps(network))
        private = Containerd(config)

        async def start() -> None:
            await private.start()
            arch = architecture()
            images = archive([pause_image(arch), web_image(host_busybox())], arch=arch)
            await import_archive(images, socket=config.socket)

        run_apart(start())
        try:
            yield private
        finally:
            run_apart(private.stop())


@pytest.fixture(params=["simulated", pytest.param("containerd", marks=[pytest.mark.root, pytest.mark.containerd])])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[Runtime]:
    if request.param == "simulated":
        simulated = SimulatedRuntime(SystemClock())
        await simulated.set_pod_cidr(SUBNET)
        await simulated.pull_image(WEB, None, None)
        yield simulated
        await simulated.close()
        return
    private: Containerd = request.getfixturevalue("containerd")
    cri = CriRuntime(private.config.endpoint, image_views=private.config.root / "views")
    yield cri
    for sandbox in await cri.sandboxes():
        await cri.stop_sandbox(sandbox.id)
        await cri.remove_sandbox(sandbox.id)
    await cri.close()
