"""Taking a cluster off the machine: its processes, and everything that is not a file in its data directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time

from shipwheel.admin import traces
from shipwheel.admin.errors import ClusterError
from shipwheel.admin.kernel import network_namespace, remove_empty_cgroups, unmount_below
from shipwheel.admin.layout import RUN, Layout, Settings
from shipwheel.admin.supervisor import Lock, read_state

TIMEOUT = 60.0
POLL = 0.03


def stop_supervisor(layout: Layout) -> None:
    """End the supervisor, and with it the components; return when all are gone. Raises `ClusterError`."""
    lock = Lock(layout.lock)
    state = read_state(layout.state)
    if lock.is_held and state is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(state["pid"], signal.SIGTERM)
    deadline = time.monotonic() + TIMEOUT
    while lock.is_held:
        if time.monotonic() > deadline:
            raise ClusterError(f"the cluster's processes do not end; see {layout.log('supervisor')}")
        time.sleep(POLL)


def check_namespace(layout: Layout) -> None:
    """Raises `ClusterError` where the cluster's rules and routes cannot be seen, and so not be taken away."""
    try:
        made_in = layout.network_namespace.read_text()
    except FileNotFoundError:
        return
    if made_in == network_namespace():
        return
    state = read_state(layout.state) if Lock(layout.lock).is_held else None
    how = f"; try: nsenter --net=/proc/{state['pid']}/ns/net shipwheel down --name {layout.name}" if state else ""
    raise ClusterError(
        f'the cluster "{layout.name}" was brought up in another network namespace ({made_in}, this one is '
        f"{network_namespace()}), and must be taken down there{how} "
        f"(if that namespace is gone, remove {layout.network_namespace})"
    )


async def sweep(layout: Layout, settings: Settings) -> None:
    """Containers, mounts, networks and rules: all that is not a file in the data directory."""
    if settings.runtime != "containerd":
        return
    from shipwheel.admin import machine_network
    from shipwheel.admin.containerd import Containerd
    from shipwheel.admin.nodes import containerd_config, kill, network_config
    from shipwheel.network import cni
    from shipwheel.network.proxy import proxy

    for node in settings.nodes:
        if node.address:
            kill(layout, node.name)
        else:
            await Containerd(containerd_config(layout, node.name)).stop()
            await cni.remove(network_config(layout, settings, node.name))
    await machine_network.remove(layout)
    await proxy.cleanup(layout.network)
    unmount_below(layout.data)
    remove_empty_cgroups(layout.network)
    shutil.rmtree(layout.run, ignore_errors=True)
    others = any(RUN.glob("*/data"))
    traces.erase(layout.machine_before, others_run=others)
    if not others:
        with contextlib.suppress(OSError):
            RUN.rmdir()
