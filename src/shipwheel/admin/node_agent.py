"""A node's agent: containerd kept running, pod network, DNS, service proxy and kubelet, each kept apart from the
others' failures. In namespaces of the node's own where it is not this machine itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Mapping
from typing import Any

from shipwheel.admin import bridge
from shipwheel.admin.commands import COMMANDS
from shipwheel.admin.errors import ClusterError
from shipwheel.admin.kept import kept, wait_for_api
from shipwheel.admin.layout import Layout, NodeSettings, Settings
from shipwheel.admin.machine import taken_by
from shipwheel.admin.nodes import boot, containerd_config, import_images, namespaces_of, network_config
from shipwheel.admin.runner import leaves, run_component
from shipwheel.admin.supervisor import set_title


def fork(layout: Layout, settings: Settings, node: NodeSettings) -> int:
    """`os.fork`, for the agent of a node in namespaces. Raises OSError, in the parent only."""
    return boot(layout, settings, node).fork()


def main(layout: Layout, settings: Settings, configs: Mapping[str, Any], node: NodeSettings) -> None:
    """The agent, in the process that was forked for it. Containers do not end with it."""
    if node.address:
        namespaces_of(layout, node.name).enter()
        bridge.configure(settings, node)
    set_title("kubelet")
    run_component(lambda: _run(layout, settings, configs, node))


async def _run(layout: Layout, settings: Settings, configs: Mapping[str, Any], node: NodeSettings) -> None:
    server = settings.server_for(node)
    async with asyncio.TaskGroup() as tasks:
        if settings.runtime == "containerd":
            started = asyncio.get_running_loop().create_future()
            tasks.create_task(kept("containerd", lambda: _containerd(layout, node.name, started)))
            tasks.create_task(kept("pod network", lambda: _network(layout, settings, node)))
            tasks.create_task(kept("kube-proxy", lambda: proxy(layout, configs["kube-proxy"], server)))
            await started
        await wait_for_api(layout, node.name, server)
        tasks.create_task(kept("kubelet", lambda: COMMANDS["kubelet"].run(configs["kubelet"])))


async def _containerd(layout: Layout, node: str, started: asyncio.Future[None]) -> None:
    """Have containerd run, with the images that every pod needs; returns when it has ended."""
    from shipwheel.admin.containerd import Containerd

    containerd = Containerd(containerd_config(layout, node))
    await containerd.start()
    await _import_pause(containerd)
    _settle(started)
    pid = containerd.running_pid()
    if pid is not None:
        await _ended(pid)
        raise RuntimeError("containerd has ended")


async def _import_pause(containerd: Any) -> None:
    from shipwheel.admin import images
    from shipwheel.kubelet.runtime.cri import CriRuntime

    runtime = CriRuntime(containerd.config.endpoint)
    try:
        if await runtime.image_status(images.PAUSE) is not None:
            return
    finally:
        await runtime.close()
    arch = images.architecture()
    archive = images.archive([images.pause_image(arch)], arch=arch)
    await import_images(containerd.config, archive)


async def _ended(pid: int) -> None:
    """Return when a process, which need not be a child, has ended."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        loop.add_reader(descriptor, _settle, ended)
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def proxy(layout: Layout, config: Any, server: str) -> None:
    """The service proxy, its rules under the cluster's own name."""
    from dataclasses import replace

    await wait_for_api(layout, "kube-proxy", server)
    await COMMANDS["kube-proxy"].run(replace(config, table=layout.network, min_sync_period=0.1))


async def _network(layout: Layout, settings: Settings, node: NodeSettings) -> None:
    """The pod network, routes to other nodes' pods, and on the pods' gateway address the cluster's DNS."""
    from shipwheel import __version__
    from shipwheel.api.clock import SystemClock
    from shipwheel.client.client import Client
    from shipwheel.client.kubeconfig import load_config
    from shipwheel.client.resources import NODES
    from shipwheel.network import cni, routes
    from shipwheel.network.dns import server
    from shipwheel.network.dns.publish import publish

    url = settings.server_for(node)
    await wait_for_api(layout, "kube-proxy", url)
    clock = SystemClock()
    loop = asyncio.get_running_loop()
    agent = f"shipwheel/v{__version__}"
    async with (
        Client(load_config(layout.kubeconfig("kube-proxy"), server=url), user_agent=agent, clock=clock) as watcher,
        Client(load_config(layout.kubeconfig("dns"), server=url), user_agent=agent, clock=clock) as client,
        asyncio.TaskGroup() as tasks,
    ):
        network_ready: asyncio.Future[tuple[str, ...]] = loop.create_future()
        config = network_config(layout, settings, node.name)
        tasks.create_task(cni.run(config, client=watcher, clock=clock, ready=network_ready))
        if node.address:
            link = routes.Config(node_name=node.name, device=bridge.INSIDE, link=settings.node_cidr)
            tasks.create_task(routes.run(link, client=watcher, clock=clock))
        addresses = await network_ready
        dns_ready: asyncio.Future[int] = loop.create_future()
        dns = server.Config(addresses=addresses, domain=settings.domain)
        tasks.create_task(_dns(server.run(dns, client=client, clock=clock, ready=dns_ready)))
        await publish(client, await watcher.get(NODES, node.name), addresses, await dns_ready)


async def _dns(serve: Coroutine[Any, Any, None]) -> None:
    """Raises `ClusterError`, which also says who has the address that the server needs."""
    from shipwheel.network.dns.server import CannotListen

    try:
        await serve
    except ExceptionGroup as group:
        error = next((each for each in leaves(group) if isinstance(each, CannotListen)), None)
        if error is None:
            raise
        raise ClusterError(f"{error}{taken_by(error.address, error.port)}") from None
