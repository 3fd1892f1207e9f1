"""A private containerd: its configuration, and that it comes, stays and goes without a trace."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shipwheel.admin import kernel
from shipwheel.admin.containerd import (
    Containerd,
    ContainerdConfig,
    ContainerdError,
    default_cni_bin_dir,
    render,
    snapshotter_for,
)
from shipwheel.admin.images import (
    WEB,
    architecture,
    archive,
    host_busybox,
    import_archive,
    pause_image,
    web_image,
)
from shipwheel.kubelet.runtime.base import ContainerConfig, NamespaceModes, SandboxConfig
from shipwheel.kubelet.runtime.cri import CriRuntime

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:25 / /data rw - overlay overlay rw
31 30 0:26 / /data/in\\040side rw master:2 - tmpfs tmpfs rw
32 21 0:27 / /database rw - xfs /dev/sdb rw
"""


def config_at(base: Path, **options: object) -> ContainerdConfig:
    return ContainerdConfig(
        root=base / "root",
        state=base / "run",
        cni_conf_dir=base / "cni",
        cni_bin_dir=default_cni_bin_dir(),
        **options,  # type: ignore[arg-type]
    )


def test_the_configuration_is_toml_with_everything_of_its_own() -> None:
    config = config_at(Path("/x"), registry_config_dir=Path('/certs "d"'))
    text = render(config, snapshotter="overlayfs", restrict_oom_score_adj=True, runtimes={"crun": "/usr/bin/crun"})
    parsed = tomllib.loads(text)
    assert (parsed["root"], parsed["grpc"]["address"]) == ("/x/root", "/x/run/containerd.sock")
    cri = parsed["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["cni"]["conf_dir"] == "/x/cni"
    assert cri["registry"]["config_path"] == '/certs "d"'
    assert cri["containerd"]["runtimes"]["crun"]["options"]["BinaryName"] == "/usr/bin/crun"
    assert "io.containerd.snapshotter.v1.native" in parsed["disabled_plugins"]
    assert "io.containerd.snapshotter.v1.overlayfs" not in parsed["disabled_plugins"]


@pytest.mark.parametrize(
    ("directory", "filesystem"),
    [
        ("/", "ext4"),
        ("/home", "ext4"),
        ("/data/x", "overlay"),
        ("/data/in side/x", "tmpfs"),
        ("/database", "xfs"),
    ],
)
def test_which_file_system_a_directory_is_on(directory: str, filesystem: str) -> None:
    assert kernel.filesystem_of(Path(directory), MOUNTS) == filesystem


def test_an_overlay_cannot_carry_another() -> None:
    assert (snapshotter_for("overlay"), snapshotter_for("ext4")) == ("native", "overlayfs")


def test_mounts_are_found_innermost_first() -> None:
    assert kernel.mounts_below(Path("/data"), MOUNTS) == ["/data/in side", "/data"]


@pytest.mark.parametrize(("effective", "has"), [("000001fffeffffff", False), ("000001ffffffffff", True)])
def test_capabilities(effective: str, has: bool) -> None:
    status = f"Name:\tx\nCapPrm:\t0\nCapEff:\t{effective}\n"
    assert kernel.has_capability(status, kernel.CAP_SYS_RESOURCE) is has


# --- The real thing

real = [
    pytest.mark.root,
    pytest.mark.containerd,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("containerd") or not shutil.which("runc"),
        reason="needs root, containerd and runc",
    ),
]


@pytest.fixture
async def private() -> AsyncIterator[Containerd]:
    with tempfile.TemporaryDirectory(prefix="swc-") as scratch:
        config = config_at(Path(scratch))
        config.cni_conf_dir.mkdir()
        (config.cni_conf_dir / "10-lo.conflist").write_text(
            json.dumps({"cniVersion": "0.4.0", "name": "swc", "plugins": [{"type": "loopback"}]})
        )
        found = Containerd(config)
        yield found
        await found.stop()


async def run_pod(private: Containerd) -> tuple[str, int]:
    """A pod on the host's network with one container: (container id, its process)."""
    arch = architecture()
    await import_archive(
        archive([pause_image(arch), web_image(host_busybox())], arch=arch), socket=private.config.socket
    )
    runtime = CriRuntime(private.config.endpoint)
    try:
        config = SandboxConfig(name="p", namespace="ns", uid="u", namespaces=NamespaceModes(network="NODE"))
        sandbox = await runtime.run_sandbox(config)
        container = await runtime.create_container(
            sandbox, ContainerConfig(name="c", image=WEB, command=["sleep", "3600"]), config
        )
        await runtime.start_container(container)
    finally:
        await runtime.close()
    async with asyncio.timeout(60):
        while True:
            for pid in kernel.processes():
                if kernel.command_of(pid)[:2] == ["sleep", "3600"] and _is_in(pid, container):
                    return container, pid
            await asyncio.sleep(0.01)


def _is_in(pid: int, container: str) -> bool:
    return container in Path(f"/proc/{pid}/cgroup").read_text()


def traces(private: Containerd) -> list[str]:
    """What a containerd could have left on the machine."""
    state = str(private.config.state)
    left = [f"mount {point}" for point in kernel.mounts_below(private.config.state.parent, _mountinfo())]
    left += [f"process {pid}" for pid in kernel.processes() if any(state in a for a in kernel.command_of(pid))]
    return left + ([f"directory {state}"] if private.config.state.exists() else [])


def _mountinfo() -> str:
    return Path("/proc/self/mountinfo").read_text()


class TestPrivateContainerd:
    pytestmark = real

    async def test_it_is_started_once_and_found_again(self, private: Containerd) -> None:
        assert await private.start()
        pid = private.running_pid()
        assert not await private.start()
        assert Containerd(private.config).running_pid() == pid
        await private.stop()
        assert private.running_pid() is None
        assert traces(private) == []
        await private.stop()

    async def test_containers_outlive_it_and_are_found_again(self, private: Containerd) -> None:
        await private.start()
        container, pid = await run_pod(private)
        await private.stop(sandboxes=False)
        assert kernel.alive(pid)
        await private.start()
        runtime = CriRuntime(private.config.endpoint)
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await runtime.container_status(container)).state == "RUNNING"
                    break
                except Exception as error:
                    if "not initialized" not in str(error):
                        raise
                    await asyncio.sleep(0.02)
        await runtime.close()
        await private.stop()
        assert not kernel.alive(pid)
        assert traces(private) == []

    async def test_what_a_killed_one_leaves_is_swept_away(self, private: Containerd) -> None:
        await private.start()
        _, pid = await run_pod(private)
        running = private.running_pid()
        assert running is not None
        os.kill(running, signal.SIGKILL)
        await private._sweep()
        assert not kernel.alive(pid)
        assert traces(private) == []

    async def test_the_end_of_its_log_tells_why_it_does_not_start(self, private: Containerd) -> None:
        private.config.root.mkdir()
        (private.config.root / "io.containerd.metadata.v1.bolt").write_text("not a directory")
        with pytest.raises(ContainerdError, match=r"(?s)containerd ended at its start:.*not a directory"):
            await private.start(timeout=60)
        assert private.running_pid() is None


async def test_a_socket_needs_a_short_path(tmp_path: Path) -> None:
    with pytest.raises(ContainerdError, match="longer than 107 bytes"):
        await Containerd(config_at(tmp_path / ("x" * 100))).start()


async def test_it_has_to_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("shipwheel.admin.containerd._MAX_SOCKET_PATH", 1000)
    with pytest.raises(ContainerdError, match="containerd is not installed"):
        await Containerd(config_at(tmp_path)).start()
