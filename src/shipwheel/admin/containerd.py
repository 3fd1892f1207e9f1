"""A containerd of the cluster's own: its configuration, its start, its end.

A private one shares nothing with a containerd (or Docker) that the machine already runs: own socket, images,
containers and network configuration. It is started detached, because containers must survive the end of the
program that started them: whoever comes next finds it by its pid file and goes on with it. `stop` is the one
who cleans: sandboxes are stopped through CRI, so that the network plugins give back what they took, and then
whatever is still there, shims, mounts, network namespaces, is swept away by what the kernel shows of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shipwheel.admin.images import PAUSE
from shipwheel.admin.kernel import (
    CAP_SYS_RESOURCE,
    children,
    command_of,
    filesystem_of,
    has_capability,
    kill,
    processes,
    remove_empty_cgroups,
    terminate,
    unmount_below,
)
from shipwheel.kubelet.runtime.base import RuntimeFault
from shipwheel.kubelet.runtime.cri import CriRuntime

_MAX_SOCKET_PATH = 107
_UNUSED = (
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.monitor.v1.cgroups",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
)
"""Plugins that only cost time at the start."""


class ContainerdError(Exception):
    """containerd cannot be started or stopped; the message says why, with the end of its log."""


@dataclass(frozen=True, slots=True)
class ContainerdConfig:
    root: Path
    """Images and snapshots: what survives a restart of the machine. Must not be on a file system that overlayfs
    cannot use as an upper layer (then the `native` snapshotter is taken, which copies)."""
    state: Path
    """Sockets, pid files, mounts of running containers. Keep it short: a socket's path has at most 107 bytes."""
    cni_conf_dir: Path
    cni_bin_dir: Path
    sandbox_image: str = PAUSE
    log: Path | None = None
    """None: `containerd.log` under `root`."""
    prefix: Sequence[str] = ()
    """A command to start it with, one that execs it (`nsenter --net=... --`)."""
    registry_config_dir: Path | None = None
    """Of `REGISTRY/hosts.toml` files: mirrors, plain HTTP, CAs."""

    @property
    def socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def endpoint(self) -> str:
        return f"unix://{self.socket}"

    @property
    def log_path(self) -> Path:
        return self.log or self.root / "containerd.log"


def default_cni_bin_dir() -> Path:
    """Where the reference CNI plugins are: upstream's place, or Debian's."""
    places = [Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni")]
    return next((place for place in places if (place / "bridge").exists()), places[0])


class Containerd:
    """One private containerd. All methods can be called by another program than the one that started it."""

    def __init__(self, config: ContainerdConfig) -> None:
        self.config = config
        self._pid_file = config.state / "containerd.pid"
        self._config_file = config.state / "config.toml"

    def running_pid(self) -> int | None:
        """Of the containerd that the pid file names, if that is what runs under the number."""
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if str(self._config_file) in command_of(pid) else None

    async def start(self, *, timeout: float = 30.0) -> bool:
        """Start it, or find it running; return when it answers. Returns whether it had to be started."""
        if self.running_pid() is not None:
            await self._wait_ready(None, timeout)
            return False
        await self._wait_ready(self._spawn(), timeout)
        return True

    def _spawn(self) -> subprocess.Popen[bytes]:
        config = self.config
        if len(os.fsencode(config.socket)) > _MAX_SOCKET_PATH:
            raise ContainerdError(f"the socket's path is longer than {_MAX_SOCKET_PATH} bytes: {config.socket}")
        for directory in (config.root, config.state, config.cni_conf_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        filesystem = filesystem_of(config.root.resolve(), Path("/proc/self/mountinfo").read_text())
        capable = has_capability(Path("/proc/self/status").read_text(), CAP_SYS_RESOURCE)
        self._config_file.write_text(
            render(
                config,
                snapshotter=snapshotter_for(filesystem),
                # Without the capability the kernel refuses a lower oom_score_adj, and every sandbox would fail.
                restrict_oom_score_adj=not capable,
                runtimes=_installed_runtimes(),
            )
        )
        config.socket.unlink(missing_ok=True)
        with config.log_path.open("ab") as log:
            try:
                process = subprocess.Popen(
                    [*config.prefix, "containerd", "--config", str(self._config_file)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise ContainerdError(f"{error.filename} is not installed") from None
        self._pid_file.write_text(f"{process.pid}\n")
        return process

    async def _wait_ready(self, process: subprocess.Popen[bytes] | None, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not _accepts(self.config.socket):
            if process is not None and process.poll() is not None:
                self._pid_file.unlink(missing_ok=True)
                raise ContainerdError(f"containerd ended at its start:\n{self._log_end()}")
            if time.monotonic() > deadline:
                raise ContainerdError(f"containerd does not answer:\n{self._log_end()}")
            await asyncio.sleep(0.005)

    def _log_end(self) -> str:
        try:
            lines = self.config.log_path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-5:])

    async def stop(self, *, timeout: float = 30.0, sandboxes: bool = True) -> None:
        """End it and everything it runs. With `sandboxes` False containerd alone ends: containers run on, and
        `start` finds them again. Harmless when it does not run."""
        if not sandboxes:
            await self._end(timeout)
            return
        if self.running_pid() is None and self._has_tasks():
            # Containers outlived their containerd. Only a containerd can tell the network plugins.
            with contextlib.suppress(ContainerdError):
                await self.start(timeout=timeout)
        if self.running_pid() is not None:
            with contextlib.suppress(RuntimeFault, TimeoutError):
                async with asyncio.timeout(timeout):
                    await remove_sandboxes(self.config.endpoint)
        await self._end(timeout)
        await self._sweep()

    async def _end(self, timeout: float) -> None:
        pid = self.running_pid()
        if pid is not None:
            await terminate(pid, timeout)
        self._pid_file.unlink(missing_ok=True)
        self.config.socket.unlink(missing_ok=True)

    def _has_tasks(self) -> bool:
        tasks = self.config.state / "io.containerd.runtime.v2.task" / "k8s.io"
        return tasks.is_dir() and any(tasks.iterdir())

    async def _sweep(self) -> None:
        """Remove what a containerd that was killed, or could not be asked, has left."""
        for pid in list(self._shims()):
            for child in children(pid):
                kill(child)
            await terminate(pid, 0.0)
        unmount_below(self.config.state)
        unmount_below(self.config.root)
        remove_empty_cgroups("k8s.io")
        shutil.rmtree(self.config.state, ignore_errors=True)

    def _shims(self) -> Iterator[int]:
        for pid in processes():
            command = command_of(pid)
            if command and "containerd-shim" in command[0] and f"{self.config.socket}" in command:
                yield pid


async def remove_sandboxes(endpoint: str, *, at_once: int = 8) -> None:
    """Stop and remove every pod sandbox of a runtime, with its containers. Raises RuntimeFault."""
    runtime = CriRuntime(endpoint)
    places = asyncio.Semaphore(at_once)

    async def remove(sandbox_id: str) -> None:
        async with places:
            await runtime.stop_sandbox(sandbox_id)
            await runtime.remove_sandbox(sandbox_id)

    try:
        found = await runtime.sandboxes()
        results = await asyncio.gather(*(remove(each.id) for each in found), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
    finally:
        await runtime.close()


# --- Configuration


def render(
    config: ContainerdConfig,
    *,
    snapshotter: str,
    restrict_oom_score_adj: bool,
    runtimes: Mapping[str, str],
) -> str:
    """containerd's configuration file, version 2 (containerd 1.3 and newer; 2.x translates it). `runtimes` are
    further OCI runtimes: handler name to the path of a runc-compatible program."""
    unused = [
        *_UNUSED,
        "io.containerd.snapshotter.v1." + ("overlayfs" if snapshotter == "native" else "native"),
    ]
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    lines = [
        "version = 2",
        f"root = {_toml(config.root)}",
        f"state = {_toml(config.state)}",
        f"disabled_plugins = {json.dumps(unused)}",
        # Without it a containerd whose CRI plugin failed would come up and be of no use.
        'required_plugins = ["io.containerd.grpc.v1.cri"]',
        "[grpc]",
        f"address = {_toml(config.socket)}",
        "[debug]",
        'level = "warn"',
        f"[{cri}]",
        f"sandbox_image = {_toml(config.sandbox_image)}",
        f"restrict_oom_score_adj = {json.dumps(restrict_oom_score_adj)}",
        "netns_mounts_under_state_dir = true",
        "enable_unprivileged_ports = true",
        "enable_unprivileged_icmp = true",
        'stream_server_address = "127.0.0.1"',
        'stream_server_port = "0"',
        "max_concurrent_downloads = 3",
        f"[{cri}.cni]",
        f"bin_dir = {_toml(config.cni_bin_dir)}",
        f"conf_dir = {_toml(config.cni_conf_dir)}",
        f"[{cri}.containerd]",
        f"snapshotter = {_toml(snapshotter)}",
        'default_runtime_name = "runc"',
        f"[{cri}.containerd.runtimes.runc]",
        'runtime_type = "io.containerd.runc.v2"',
        f"[{cri}.containerd.runtimes.runc.options]",
        "SystemdCgroup = false",
    ]
    for handler, program in runtimes.items():
        if handler == "runsc":
            lines += [f"[{cri}.containerd.runtimes.runsc]", 'runtime_type = "io.containerd.runsc.v1"']
            continue
        lines += [
            f"[{cri}.containerd.runtimes.{handler}]",
            'runtime_type = "io.containerd.runc.v2"',
            f"[{cri}.containerd.runtimes.{handler}.options]",
            f"BinaryName = {_toml(program)}",
            "SystemdCgroup = false",
        ]
    if config.registry_config_dir is not None:
        lines += [f"[{cri}.registry]", f"config_path = {_toml(config.registry_config_dir)}"]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    return json.dumps(str(value))


def _installed_runtimes() -> dict[str, str]:
    """What RuntimeClasses can name besides runc: handler to program."""
    found = {"crun": shutil.which("crun"), "runsc": shutil.which("containerd-shim-runsc-v1")}
    return {handler: path for handler, path in found.items() if path}


def snapshotter_for(filesystem: str) -> str:
    """`overlayfs`, unless the images' directory is itself on an overlay (a container's file system), which cannot
    carry another."""
    return "native" if filesystem == "overlay" else "overlayfs"


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
