"""A whole cluster on this machine: up and down.

`up` checks the machine, makes what the cluster needs (keys, settings), starts a supervisor that outlives it, and
waits until the cluster works. It can be called again at any time: what runs is left alone, what was killed is
started again and goes on with what the store and the containers hold. `down` takes everything away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from shipwheel.admin import (
    addons,
    choices,
    fleet,
    identities,
    machine,
    pki,
    readiness,
    teardown,
    traces,
    user_kubeconfig,
)
from shipwheel.admin.choices import Wanted
from shipwheel.admin.errors import ClusterError, NotAble
from shipwheel.admin.kernel import network_namespace
from shipwheel.admin.layout import RUN, Layout, LayoutError, Settings
from shipwheel.admin.ports import Claims
from shipwheel.admin.supervisor import Lock, daemonize

__all__ = ["ClusterError", "LayoutError", "NotAble", "Wanted", "down", "load_images", "up"]

Progress = Callable[[str], AbstractContextManager[None]]

LOCK_TIMEOUT = 3.0
POLL = 0.03


@contextlib.contextmanager
def silent(text: str) -> Iterator[None]:
    yield


def up(wanted: Wanted, progress: Progress = silent) -> tuple[Layout, Settings]:
    """Have the cluster run. Raises `ClusterError`, `NotAble`, `LayoutError`, `pki.PkiError`, `LookupError`."""
    layout = Layout.of(wanted.name, wanted.data_dir)
    lock = Lock(layout.lock)
    made = layout.read_settings()
    if made is None and layout.foreign():
        raise ClusterError(f"{layout.data} holds no cluster, but {layout.foreign()[0].name}; choose another --data-dir")
    settings = choices.reconcile(made, wanted) if made is not None else None
    if not _take(lock):
        return layout, _go_on(layout, made, settings, progress)
    with progress("Checking this machine"):
        settings = settings or choices.new_settings(wanted)
        choices.check_machine(settings)
        choices.check_port(settings)
        choices.check_ranges(layout, settings)
        # What may have changed since the cluster last ran.
        claims = Claims()
        settings = replace(settings, ports=choices.choose_ports(settings, claims), address=choices.own_address())
    with progress("Checking keys and certificates" if made else "Making keys and certificates"):
        _prepare(layout, settings)
    try:
        with progress("Starting the control plane"):
            supervisor = _start(layout, settings)
            claims.release()
            lock.release()
            asyncio.run(readiness.api_server(layout, settings, supervisor))
        with progress("Waiting for the node" if len(settings.running_nodes) == 1 else "Waiting for the nodes"):
            asyncio.run(readiness.everything(layout, settings, supervisor))
        if settings.simulated_nodes:
            with progress(f"Waiting for {settings.simulated_nodes} simulated nodes"):
                asyncio.run(readiness.simulated_nodes(layout, settings, supervisor))
    except (ClusterError, KeyboardInterrupt):
        teardown.stop_supervisor(layout)
        raise
    user_kubeconfig.publish(layout)
    return layout, settings


def _go_on(layout: Layout, made: Settings | None, settings: Settings | None, progress: Progress) -> Settings:
    """With a cluster that runs: the settings it has then."""
    if made is None or settings is None:
        raise ClusterError(f'the cluster "{layout.name}" is just being made')
    if settings.port != made.port:
        raise ClusterError(f'the cluster "{layout.name}" runs on port {made.port}')
    with progress("Waiting for the cluster, which runs already"):
        asyncio.run(readiness.everything(layout, made, None))
    for node in settings.nodes[len(made.nodes) :]:
        fleet.add(layout.name, layout.data, node.name, progress)
    if (settings.simulated_nodes, settings.stages) != (made.simulated_nodes, made.stages):
        with progress(f"Waiting for {settings.simulated_nodes} simulated nodes"):
            fleet.simulate(layout.name, layout.data, settings.simulated_nodes, settings.stages)
    user_kubeconfig.publish(layout)
    return layout.read_settings() or settings


def down(name: str, data_dir: Path | None = None, *, keep_data: bool = False, progress: Progress = silent) -> bool:
    """Take the cluster away, running or not; whether there was anything. With `keep_data`, what the store and
    the images hold stays, and `up` goes on with it. Raises `ClusterError`, `LayoutError`."""
    layout = Layout.of(name, data_dir)
    settings = layout.known_settings()
    if not layout.owned():
        return False
    if settings is not None and settings.runtime == "containerd" and os.geteuid() != 0:
        raise ClusterError("the cluster runs containers as root; try: sudo shipwheel down")
    teardown.check_namespace(layout)
    with progress("Stopping the control plane"):
        teardown.stop_supervisor(layout)
    if settings is not None:
        with progress("Removing containers and rules"):
            asyncio.run(teardown.sweep(layout, settings))
        user_kubeconfig.withdraw(settings)
    if keep_data:
        return True
    with progress("Removing data"):
        _remove(layout)
    return True


def _remove(layout: Layout) -> None:
    """What is ours, and the directory if it is empty then."""
    for each in layout.owned():
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()
    with contextlib.suppress(OSError):
        layout.data.rmdir()


def load_images(name: str, data_dir: Path | None, archive: bytes) -> None:
    """Give every node the images of an archive (OCI or Docker). Raises `ClusterError`, `ImageError`."""
    from shipwheel.admin.nodes import containerd_config, import_images

    layout = Layout.of(name, data_dir)
    settings = layout.read_settings()
    if settings is None:
        raise ClusterError(f'there is no cluster "{name}"')
    if settings.runtime != "containerd":
        raise ClusterError("simulated pods need no images")
    for node in settings.running_nodes:
        asyncio.run(import_images(containerd_config(layout, node.name), archive))


def _take(lock: Lock) -> bool:
    """The lock, if nobody has it; who was killed needs a moment to end."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while not lock.take():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def _prepare(layout: Layout, settings: Settings) -> None:
    """Everything on disk that the components expect."""
    now = datetime.now(UTC)
    pki.ensure(
        layout.pki,
        api_hosts=pki.api_server_hosts(
            node_name=machine.hostname(),
            addresses=[settings.address, settings.gateway],
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
        traces.record(layout.machine_before, RUN.glob("*/data/machine-before.json"))
        layout.run.mkdir(parents=True, exist_ok=True, mode=0o711)
        link = layout.run / "data"
        link.unlink(missing_ok=True)
        link.symlink_to(layout.data)
        layout.network_namespace.write_text(network_namespace())


def _start(layout: Layout, settings: Settings) -> int:
    """Fork the supervisor; its number."""
    from shipwheel.admin.processes import programs
    from shipwheel.admin.supervisor import Supervisor

    supervisor = Supervisor(
        programs(layout, settings),
        log_file=layout.log,
        state=layout.state,
        reload=lambda: programs(layout, layout.read_settings() or settings),
    )
    return daemonize(supervisor.run, log_file=layout.log("supervisor"))
