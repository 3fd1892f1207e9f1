"""The nodes of a running cluster: more of them, fewer, and machines that die and come back.

What shall be is written down first (`Settings.nodes`), then the supervisor is told to have just that run; whoever
comes next, after whatever was killed in between, goes on from what is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from shipwheel.admin import addons, choices, identities, readiness
from shipwheel.admin import nodes as machines
from shipwheel.admin.errors import ClusterError
from shipwheel.admin.layout import Layout, NodeSettings, Settings
from shipwheel.admin.ports import Claims
from shipwheel.admin.status import admin_client, components, list_nodes
from shipwheel.admin.supervisor import Lock, read_state
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, name_of
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.resources import ENDPOINT_SLICES, NODES

TIMEOUT = 60.0
POLL = 0.03

Progress = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Listed:
    """A node as `node list` shows it."""

    settings: NodeSettings
    pid: int
    """Its agent's; 0 when that does not run."""
    object: Obj | None
    """None when the API does not know it, or does not answer."""


def add(name: str, data_dir: Path | None, node: str, progress: Progress) -> str:
    """A node more, by this name or by the next number; its name. Raises `ClusterError`, `PkiError`."""
    with _changing(name, data_dir) as (layout, settings), Claims() as claims:
        changed = choices.with_node(settings, node)
        new = changed.nodes[-1]
        if changed.runtime == "simulated":
            changed = replace(changed, ports=choices.choose_ports(changed, claims, keep=settings.ports))
        with progress(f"Starting {new.name}"):
            have(layout, changed)
        return new.name


def have(layout: Layout, settings: Settings) -> None:
    """Have a running cluster be as these settings say, and wait for its nodes. Raises `ClusterError`."""
    identities.ensure(layout, settings, datetime.now(UTC))
    layout.write_settings(settings)
    _tell(layout, settings)
    asyncio.run(readiness.nodes(layout, settings))


def simulate(name: str, data_dir: Path | None, number: int, stages: str) -> None:
    """Have so many simulated nodes, whose pods live by these stages. Raises `ClusterError`."""
    with _changing(name, data_dir) as (layout, settings), Claims() as claims:
        changed = replace(settings, simulated_nodes=number, stages=stages)
        changed = replace(changed, ports=choices.choose_ports(changed, claims, keep=settings.ports))
        asyncio.run(_install(layout, changed))
        running = {each.name: each.pid for each in components(layout) if each.running}
        have(layout, changed)
        if "simulated-nodes" in running:
            # What it is started with has changed: the supervisor starts it anew.
            with contextlib.suppress(ProcessLookupError):
                os.kill(running["simulated-nodes"], signal.SIGTERM)
        asyncio.run(readiness.simulated_nodes(layout, changed))


async def _install(layout: Layout, settings: Settings) -> None:
    async with admin_client(layout) as client:
        try:
            await addons.install(client, settings)
        except (ApiError, ConnectionFailed) as error:
            raise ClusterError(f"the API server does not answer: {error}") from None


def stop(name: str, data_dir: Path | None, node: str, progress: Progress) -> None:
    """Have a node's machine die. Raises `ClusterError`."""
    with _changing(name, data_dir) as (layout, settings):
        found = _separate(settings, node)
        if found.stopped:
            raise ClusterError(f'the node "{node}" is stopped already')
        with progress(f"Stopping {node}"):
            _halt(layout, _with(settings, replace(found, stopped=True)), node)


def start(name: str, data_dir: Path | None, node: str, progress: Progress) -> None:
    """Switch a stopped node's machine on. Raises `ClusterError`."""
    with _changing(name, data_dir) as (layout, settings):
        found = _known(settings, node)
        if not found.stopped:
            raise ClusterError(f'the node "{node}" is not stopped')
        with progress(f"Starting {node}"):
            have(layout, _with(settings, replace(found, stopped=False)))


def remove(name: str, data_dir: Path | None, node: str, progress: Progress) -> None:
    """Take a node away, with all it had on this machine and in the API. Raises `ClusterError`."""
    with _changing(name, data_dir) as (layout, settings):
        _separate(settings, node)
        left = tuple(each for each in settings.nodes if each.name != node)
        with progress(f"Removing {node}"):
            _halt(layout, replace(settings, nodes=left), node)
            asyncio.run(_forget(layout, node))
            for directory in (layout.node(node), layout.images(node)):
                shutil.rmtree(directory, ignore_errors=True)
            for file in (layout.kubeconfig(node), layout.log(node), layout.log(f"containerd-{node}")):
                file.unlink(missing_ok=True)


def listed(name: str, data_dir: Path | None) -> list[Listed]:
    """The nodes, whether the cluster runs or not. Raises `ClusterError`."""
    layout = Layout.of(name, data_dir)
    settings = _there(name, layout.known_settings())
    running = components(layout)
    pids = {each.name: each.pid for each in running if each.running}
    objects = {name_of(each): each for each in (list_nodes(layout) if running else ())}
    return [Listed(each, pids.get(each.name, 0), objects.get(each.name)) for each in settings.nodes]


def _existing(name: str, data_dir: Path | None) -> tuple[Layout, Settings]:
    layout = Layout.of(name, data_dir)
    return layout, _there(name, layout.read_settings())


def _there(name: str, settings: Settings | None) -> Settings:
    if settings is None:
        raise ClusterError(f'there is no cluster "{name}"')
    return settings


@contextlib.contextmanager
def _changing(name: str, data_dir: Path | None) -> Iterator[tuple[Layout, Settings]]:
    """A running cluster that nobody else changes meanwhile."""
    layout, _ = _existing(name, data_dir)
    with changing(layout):
        layout, settings = _existing(name, data_dir)
        if settings.runtime == "containerd" and os.geteuid() != 0:
            raise ClusterError("the cluster runs containers as root; try again with sudo")
        if not Lock(layout.lock).is_held:
            raise ClusterError(f'the cluster "{name}" does not run; start it first: shipwheel up')
        yield layout, settings


@contextlib.contextmanager
def changing(layout: Layout) -> Iterator[None]:
    """One at a time. Raises `ClusterError` when somebody takes too long."""
    lock = Lock(layout.change_lock)
    deadline = time.monotonic() + TIMEOUT
    while not lock.take():
        if time.monotonic() > deadline:
            raise ClusterError(f'somebody else is changing the cluster "{layout.name}"')
        time.sleep(POLL)
    try:
        yield
    finally:
        lock.release()


def _known(settings: Settings, node: str) -> NodeSettings:
    found = settings.node(node)
    if found is None:
        names = ", ".join(each.name for each in settings.nodes) or "none"
        raise ClusterError(f'there is no node "{node}"; there are: {names}')
    return found


def _separate(settings: Settings, node: str) -> NodeSettings:
    """One that can be taken away, because it is not this machine itself."""
    found = _known(settings, node)
    if settings.runtime == "containerd" and not found.address:
        raise ClusterError(
            f'the node "{node}" is this machine itself, which the cluster\'s control plane runs on; '
            "nodes made by `shipwheel up --nodes` or `shipwheel node add` can be stopped and removed"
        )
    return found


def _with(settings: Settings, node: NodeSettings) -> Settings:
    return replace(settings, nodes=tuple(node if each.name == node.name else each for each in settings.nodes))


def _halt(layout: Layout, settings: Settings, node: str) -> None:
    """Have the supervisor give a node up, and kill all that runs in its namespaces."""
    layout.write_settings(settings)
    _tell(layout, settings)
    if settings.runtime == "containerd":
        try:
            machines.kill(layout, node)
        except TimeoutError as error:
            raise ClusterError(str(error)) from None


def _tell(layout: Layout, settings: Settings) -> None:
    """Have the supervisor take the change in; returns when it has."""
    wanted = {each.name for each in settings.running_nodes}
    deadline = time.monotonic() + TIMEOUT
    told = False
    while True:
        state = read_state(layout.state)
        if state is not None and not told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(state["pid"], signal.SIGHUP)
            told = True
        names = {each["name"] for each in (state or {"components": []})["components"]}
        # Of all processes, only the nodes' have kubeconfigs by their names.
        if told and {each for each in names - {"simulated-nodes"} if layout.kubeconfig(each).exists()} == wanted:
            return
        if time.monotonic() > deadline:
            raise ClusterError(f"the cluster's supervisor does not answer; see {layout.log('supervisor')}")
        time.sleep(POLL)


async def _forget(layout: Layout, node: str) -> None:
    """Take a node out of the API. What it owns there, its lease above all, is garbage then. Raises `ClusterError`."""
    from shipwheel.network.dns.publish import NAMESPACE, slice_name

    async with admin_client(layout) as client:
        for resource, name, namespace in ((NODES, node, ""), (ENDPOINT_SLICES, slice_name(node), NAMESPACE)):
            try:
                await client.delete(resource, name, namespace)
            except ConnectionFailed as error:
                raise ClusterError(f"the API server does not answer: {error}") from None
            except ApiError as error:
                if error.code != 404:
                    raise ClusterError(f"the node {node} cannot be deleted: {error}") from None
