"""A whole cluster on this machine: up, down, and how it is.

`up` checks the machine, makes what the cluster needs (keys, settings), starts a supervisor that outlives it, and
waits until the cluster works. It can be called again at any time: what runs is left alone, what was killed is
started again and goes on with what the store and the containers hold. `down` takes everything away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shipwheel.admin import addons, identities, machine, pki, traces
from shipwheel.admin.kernel import alive, remove_empty_cgroups, unmount_below
from shipwheel.admin.layout import (
    RUN,
    Layout,
    LayoutError,
    RuntimeKind,
    Settings,
    StoreKind,
    clusters,
    home,
    invoking_user,
)
from shipwheel.admin.supervisor import Lock, daemonize, read_state
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, is_condition_true, name_of
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.kubeconfig import load_config, merge_into_file, read_file, remove_from_file
from shipwheel.client.resources import NODES, SERVICE_ACCOUNTS

START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0
HOPELESS = 3
"""Starts that fail in a row, after which nobody need wait any longer."""
POLL = 0.03
DEFAULT_PORT = 6443
ROLE_LABEL = "node-role.kubernetes.io/control-plane"
PORTS = {
    "kubelet": 10250,
    "kubelet-healthz": 10248,
    "proxy-healthz": 10256,
    "proxy-metrics": 10249,
    "controller-manager": 10257,
    "scheduler": 10259,
}

Progress = Callable[[str], AbstractContextManager[None]]


class ClusterError(Exception):
    """What went wrong, for whoever typed the command."""


class NotAble(ClusterError):
    """The machine lacks what real containers need."""

    def __init__(self, missing: list[machine.Missing]) -> None:
        super().__init__("this machine cannot run containers yet")
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `up` was asked for; None where the default, or what the cluster was made with, will do."""

    name: str = "default"
    data_dir: Path | None = None
    runtime: RuntimeKind | None = None
    store: StoreKind | None = None
    port: int | None = None
    """0: any free one."""


@dataclass(frozen=True, slots=True)
class Component:
    """A process of the cluster, for `status`."""

    name: str
    pid: int
    running: bool
    restarts: int
    started: float
    memory: int
    """Bytes that are its own: what it shares with the others is counted in parts."""
    last_exit: str
    log: Path


@contextlib.contextmanager
def silent(text: str) -> Iterator[None]:
    yield


def up(wanted: Wanted, progress: Progress = silent) -> tuple[Layout, Settings]:
    """Have the cluster run. Raises `ClusterError`, `NotAble`, `LayoutError`, `pki.PkiError`."""
    layout = Layout.of(wanted.name, wanted.data_dir)
    lock = Lock(layout.lock)
    settings = layout.read_settings()
    if settings is not None:
        settings = _reconcile(settings, wanted)
    if not _take(lock):
        if settings is None:
            raise ClusterError(f"{layout.data} is in use by another shipwheel command")
        with progress("Waiting for the cluster, which runs already"):
            asyncio.run(_wait_until_it_works(layout, settings, None))
        _publish_kubeconfig(layout, settings)
        return layout, settings
    with progress("Checking this machine"):
        fresh = settings is None
        settings = _new_settings(layout, wanted) if settings is None else settings
        _check_machine(settings)
        _check_port(settings)
        settings = replace(settings, ports=_choose_ports(settings))
    with progress("Making keys and certificates" if fresh else "Checking keys and certificates"):
        _prepare(layout, settings)
    try:
        with progress("Starting the control plane"):
            pid = _start(layout, settings)
            lock.release()
            asyncio.run(_wait_for_api(layout, settings, pid))
        with progress("Waiting for the node"):
            asyncio.run(_wait_until_it_works(layout, settings, pid))
    except ClusterError:
        _stop_supervisor(layout)
        raise
    _publish_kubeconfig(layout, settings)
    return layout, settings


def down(name: str, data_dir: Path | None = None, *, keep_data: bool = False, progress: Progress = silent) -> bool:
    """Take the cluster away, running or not; whether there was anything. With `keep_data`, what the store and
    the images hold stays, and `up` goes on with it. Raises `ClusterError`, `LayoutError`."""
    layout = Layout.of(name, data_dir)
    if not layout.data.exists():
        return False
    settings = layout.read_settings()
    if settings is not None and settings.runtime == "containerd" and os.geteuid() != 0:
        raise ClusterError("the cluster runs containers as root; try: sudo shipwheel down")
    with progress("Stopping the control plane"):
        _stop_supervisor(layout)
    if settings is not None:
        with progress("Removing containers and rules"):
            asyncio.run(_sweep(layout, settings))
        _withdraw_kubeconfig(settings)
    if keep_data:
        return True
    with progress("Removing data"):
        shutil.rmtree(layout.data)
    return True


def is_running(layout: Layout) -> bool:
    return Lock(layout.lock).is_held


def components(layout: Layout) -> list[Component]:
    """The processes of the cluster, as the supervisor last wrote them down."""
    state = read_state(layout.state) if is_running(layout) else None
    if state is None:
        return []
    return [
        Component(
            name=each["name"],
            pid=each["pid"],
            running=bool(each["pid"]) and alive_process(each["pid"]),
            restarts=each["restarts"],
            started=each["started"],
            memory=memory_of(each["pid"]) if each["pid"] else 0,
            last_exit=each["last_exit"],
            log=layout.log(each["name"]),
        )
        for each in state["components"]
    ]


def alive_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def memory_of(pid: int) -> int:
    """Proportional resident memory in bytes; 0 where the kernel does not say."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


@contextlib.asynccontextmanager
async def admin_client(layout: Layout) -> AsyncIterator[Client]:
    """A client with all rights."""
    config = load_config(layout.kubeconfig("admin"))
    async with Client(config, user_agent="shipwheel") as client:
        yield client


def list_nodes(layout: Layout) -> list[Obj]:
    """The cluster's nodes; none when its API server does not answer."""

    async def ask() -> list[Obj]:
        async with admin_client(layout) as client:
            return (await client.list(NODES))["items"]

    try:
        return asyncio.run(ask())
    except (ApiError, ConnectionFailed):
        return []


def load_images(name: str, data_dir: Path | None, archive: bytes) -> None:
    """Give every node the images of an archive (OCI or Docker). Raises `ClusterError`, `ImageError`."""
    from shipwheel.admin.processes import containerd_config, import_images

    layout = Layout.of(name, data_dir)
    settings = layout.read_settings()
    if settings is None:
        raise ClusterError(f'there is no cluster "{name}"')
    if settings.runtime != "containerd":
        raise ClusterError("simulated pods need no images")
    for node in settings.nodes:
        asyncio.run(import_images(containerd_config(layout, node), archive))


# Checks and choices


def _reconcile(settings: Settings, wanted: Wanted) -> Settings:
    """What a cluster was made with, if nothing else is asked for now."""
    for field in ("runtime", "store"):
        asked, made = getattr(wanted, field), getattr(settings, field)
        if asked is not None and asked != made:
            raise ClusterError(
                f'the cluster "{settings.name}" was made with --{field} {made}; '
                f"to have one with --{field} {asked}, take it down first, or choose another --name"
            )
    if wanted.port not in (None, 0, settings.port):
        return replace(settings, port=wanted.port or settings.port)
    return settings


def _new_settings(layout: Layout, wanted: Wanted) -> Settings:
    if not wanted.name.replace("-", "").isalnum() or len(wanted.name) > 40 or wanted.name != wanted.name.lower():
        raise ClusterError(f'"{wanted.name}" is no name for a cluster: use lower case letters, digits and "-"')
    runtime = wanted.runtime or "containerd"
    others = list(clusters()) if runtime == "containerd" else []
    port = wanted.port
    if port is None:
        port = DEFAULT_PORT
    if port == 0:
        port = machine.free_port(DEFAULT_PORT, _bind_address(runtime))
    routed = machine.routed_networks() if runtime == "containerd" else []
    return Settings(
        name=wanted.name,
        runtime=runtime,
        store=wanted.store or "sqlite",
        port=port,
        address=machine.own_address() if runtime == "containerd" else "127.0.0.1",
        service_cidr=machine.free_network(
            (f"10.{number}.0.0/16" for number in range(96, 112)), [*routed, *(each.service_cidr for each in others)]
        ),
        pod_cidr=machine.free_network(
            (f"10.{number}.0.0/16" for number in range(244, 256)), [*routed, *(each.pod_cidr for each in others)]
        ),
    )


def _check_machine(settings: Settings) -> None:
    if settings.runtime == "containerd":
        from shipwheel.admin.containerd import default_cni_bin_dir

        missing = machine.missing_for_containers(default_cni_bin_dir())
        if missing:
            raise NotAble(missing)
        os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{machine.SYSTEM_PATH}"
    if settings.store == "etcd" and shutil.which("etcd") is None:
        raise NotAble([machine.Missing("etcd", "etcd-server")])


def _check_port(settings: Settings) -> None:
    if machine.is_free(settings.port, _bind_address(settings.runtime)):
        return
    owners = machine.port_owners(settings.port)
    by = " and ".join(f'process {each.pid} ("{each.command}")' for each in owners) or "another process"
    raise ClusterError(
        f"port {settings.port} is taken by {by}; free it, or choose another with --port (0: any that is free)"
    )


def _choose_ports(settings: Settings) -> dict[str, int]:
    """The components' other ports: upstream's, or others where those are in use."""
    chosen: dict[str, int] = {}
    wanted = dict(PORTS) | ({"etcd": 2379, "etcd-peer": 2380} if settings.store == "etcd" else {})
    for purpose, port in wanted.items():
        preferred = settings.ports.get(purpose, port)
        chosen[purpose] = machine.free_port(preferred, "0.0.0.0", [settings.port, *chosen.values()])
    return chosen


def _bind_address(runtime: RuntimeKind) -> str:
    """Pods reach the API server by the machine's address; where there are none, nobody else needs to."""
    return "0.0.0.0" if runtime == "containerd" else "127.0.0.1"


# Starting


def _take(lock: Lock) -> bool:
    """The lock, if nobody has it; who was killed needs a moment to end."""
    deadline = time.monotonic() + 3
    while not lock.take():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def _prepare(layout: Layout, settings: Settings) -> None:
    """Everything on disk that the components expect."""
    now = datetime.now(UTC)
    node = settings.nodes[0]
    pki.ensure(
        layout.pki,
        api_hosts=pki.api_server_hosts(
            node_name=node,
            addresses=[settings.address],
            service_ip=addons.api_address(settings.service_cidr),
            domain=settings.domain,
        ),
        etcd_hosts=("localhost", "127.0.0.1", "::1"),
        now=now,
    )
    identities.ensure(layout, settings, now)
    layout.write_settings(settings)
    for directory in (layout.logs, layout.database.parent):
        directory.mkdir(exist_ok=True, mode=0o700)
    if settings.runtime == "containerd":
        traces.record(layout.data / "machine-before.json")
        layout.run.mkdir(parents=True, exist_ok=True, mode=0o711)
        link = layout.run / "data"
        link.unlink(missing_ok=True)
        link.symlink_to(layout.data)


def _start(layout: Layout, settings: Settings) -> int:
    """Fork the supervisor; its number."""
    from shipwheel.admin.processes import programs
    from shipwheel.admin.supervisor import Supervisor

    supervisor = Supervisor(programs(layout, settings), log_file=layout.log, state=layout.state)
    return daemonize(supervisor.run, log_file=layout.log("supervisor"))


async def _wait_for_api(layout: Layout, settings: Settings, supervisor: int) -> None:
    async with admin_client(layout) as client:
        await _poll(lambda: _is_ready(client), layout, supervisor, "the API server")
        await addons.install(client, settings)


async def _wait_until_it_works(layout: Layout, settings: Settings, supervisor: int | None) -> None:
    async with admin_client(layout) as client:
        await _poll(lambda: _is_ready(client), layout, supervisor, "the API server")
        await _poll(lambda: _has_nodes(client, settings), layout, supervisor, "the node")
        await _poll(lambda: _takes_pods(client), layout, supervisor, "the default service account")


async def _poll(done: Callable[[], Any], layout: Layout, supervisor: int | None, what: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not await done():
        if supervisor is not None and not alive(supervisor):
            raise ClusterError(f"the supervisor has ended:\n{tail(layout.log('supervisor'))}")
        for each in components(layout):
            if each.restarts >= HOPELESS and not each.running:
                raise ClusterError(f"{each.name} {each.last_exit}: {_last_words(each.log)}\n(see {each.log})")
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} does not come up:\n{_complaints(layout)}")
        await asyncio.sleep(POLL)


async def _is_ready(client: Client) -> bool:
    try:
        await client.request("GET", "/readyz", timeout=2)
    except (ApiError, ConnectionFailed):
        return False
    return True


async def _has_nodes(client: Client, settings: Settings) -> bool:
    try:
        found = (await client.list(NODES))["items"]
        for each in found:
            await _complete(client, each)
    except (ApiError, ConnectionFailed):
        return False
    ready = {name_of(each) for each in found if is_condition_true(each, "Ready")}
    return ready >= set(settings.nodes)


async def _takes_pods(client: Client) -> bool:
    """Whether a pod would be let in: it needs its namespace's service account."""
    try:
        await client.get(SERVICE_ACCOUNTS, "default", "default")
    except (ApiError, ConnectionFailed):
        return False
    return True


async def _complete(client: Client, node: Obj) -> None:
    """What a node may not say of itself: that it is one of the control plane."""
    if ROLE_LABEL not in (node["metadata"].get("labels") or {}):
        await client.patch(NODES, name_of(node), "", {"metadata": {"labels": {ROLE_LABEL: ""}}})


def _complaints(layout: Layout) -> str:
    """The end of every component's log."""
    return "\n".join(f"--- {each.stem}\n{tail(each)}" for each in sorted(layout.logs.glob("*.log")))


def _last_words(log: Path) -> str:
    """The message of a log's last line."""
    return tail(log, 1).partition("] ")[2]


def tail(log: Path, lines: int = 10) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


# Stopping


def _stop_supervisor(layout: Layout) -> None:
    lock = Lock(layout.lock)
    state = read_state(layout.state)
    if lock.is_held and state is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(state["pid"], signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT
    while lock.is_held:
        if time.monotonic() > deadline:
            raise ClusterError(f"the cluster's processes do not end; see {layout.log('supervisor')}")
        time.sleep(POLL)


async def _sweep(layout: Layout, settings: Settings) -> None:
    """Containers, mounts, networks and rules: all that is not a file in the data directory."""
    if settings.runtime != "containerd":
        return
    from shipwheel.admin.containerd import Containerd
    from shipwheel.admin.processes import containerd_config, network_config
    from shipwheel.network import cni
    from shipwheel.network.proxy import proxy

    for node in settings.nodes:
        await Containerd(containerd_config(layout, node)).stop()
    await cni.remove(network_config(layout, settings, settings.nodes[0]))
    await proxy.cleanup(layout.network)
    unmount_below(layout.data)
    remove_empty_cgroups(layout.network)
    shutil.rmtree(layout.run, ignore_errors=True)
    others = any(RUN.glob("*/data"))
    traces.erase(layout.data / "machine-before.json", others_run=others)
    if not others:
        with contextlib.suppress(OSError):
            RUN.rmdir()


# The user's kubeconfig


def _publish_kubeconfig(layout: Layout, settings: Settings) -> None:
    path = user_kubeconfig()
    merge_into_file(path, read_file(layout.kubeconfig("admin")))
    user = invoking_user()
    if user is not None:
        for each in (path.parent, path, layout.kubeconfig("admin")):
            os.chown(each, user.pw_uid, user.pw_gid)


def _withdraw_kubeconfig(settings: Settings) -> None:
    path = user_kubeconfig()
    if path.exists():
        remove_from_file(path, settings.context)


def user_kubeconfig() -> Path:
    """The file that the user's kubectl reads and writes: the first of `$KUBECONFIG`, or the usual one."""
    listed = [each for each in os.environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    return Path(listed[0]) if listed else home() / ".kube" / "config"


__all__ = ["ClusterError", "LayoutError", "NotAble", "Wanted", "down", "up"]
