"""The processes of a cluster on one machine.

One for the API server, one for the controllers and the scheduler, one agent a node (kubelet, service proxy, pod
network, DNS), and etcd where it is the store.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from shipwheel.admin.command_lines import command_lines, etcd_command, write_kubelet_configuration
from shipwheel.admin.commands import COMMANDS
from shipwheel.admin.layout import Layout, Settings
from shipwheel.admin.nodes import containerd_config, import_images, network_config
from shipwheel.admin.runner import run_component
from shipwheel.admin.supervisor import Program

log = logging.getLogger(__name__)

CONTROL_PLANE = ("kube-controller-manager", "kube-scheduler")
POLL = 0.02
STEADY = 10.0
"""Seconds that a part of a process must have run for its failure not to count as one of its start."""
RETRY_DELAY = 0.1
HOPELESS = 3
"""Starts that may fail in a row."""


def programs(layout: Layout, settings: Settings) -> list[Program]:
    """In the order of their start. Everything they need is imported now, before they are forked."""
    for node in settings.nodes:
        write_kubelet_configuration(layout, node)
    lines = command_lines(layout, settings)
    configs = {name: COMMANDS[name].parse(arguments)[0] for name, arguments in lines.items()}
    _preload(settings)
    found = [Program("kube-apiserver", partial(_component, "kube-apiserver", configs))]
    if settings.store == "etcd":
        found.insert(0, Program("etcd", partial(_exec, etcd_command(layout, settings))))
    found.append(Program("control-plane", partial(run_component, partial(_control_plane, layout, configs))))
    for node in settings.nodes:
        found.append(Program(node, partial(run_component, partial(_node, layout, settings, configs, node))))
    return found


def _component(name: str, configs: Mapping[str, Any]) -> None:
    run_component(partial(COMMANDS[name].run, configs[name]))


def _preload(settings: Settings) -> None:
    """Import what the components will need, so that they share it."""
    # gRPC would stop its threads at every fork; nobody here forks while it has any.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    modules = [
        "shipwheel.apiserver.server",
        "shipwheel.controllers.manager",
        "shipwheel.scheduler.scheduler",
        "shipwheel.kubelet.kubelet",
        "shipwheel.client.client",
    ]
    if settings.runtime == "containerd":
        modules += [
            "shipwheel.admin.containerd",
            "shipwheel.network.cni",
            "shipwheel.network.dns.server",
            "shipwheel.network.proxy.proxy",
        ]
    for module in modules:
        importlib.import_module(module)
    gc.collect()


async def _control_plane(layout: Layout, configs: Mapping[str, Any]) -> None:
    await _wait_for_api(layout, "controller-manager")
    async with asyncio.TaskGroup() as tasks:
        for name in CONTROL_PLANE:
            tasks.create_task(_kept(name, partial(COMMANDS[name].run, configs[name])))


async def _node(layout: Layout, settings: Settings, configs: Mapping[str, Any], node: str) -> None:
    """A node's agent. Containers do not end with it."""
    async with asyncio.TaskGroup() as tasks:
        if settings.runtime == "containerd":
            started = asyncio.get_running_loop().create_future()
            tasks.create_task(_kept("containerd", partial(_containerd, layout, node, started)))
            tasks.create_task(_kept("pod network", partial(_network, layout, settings, node)))
            tasks.create_task(_kept("kube-proxy", partial(_proxy_of, layout, configs["kube-proxy"])))
            await started
        await _wait_for_api(layout, node)
        tasks.create_task(_kept("kubelet", partial(COMMANDS["kubelet"].run, configs["kubelet"])))


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


async def _proxy_of(layout: Layout, config: Any) -> None:
    from dataclasses import replace

    await _wait_for_api(layout, "kube-proxy")
    await COMMANDS["kube-proxy"].run(replace(config, table=layout.network, min_sync_period=0.1))


async def _network(layout: Layout, settings: Settings, node: str) -> None:
    """The pod network, and on its gateway address the cluster's DNS."""
    from shipwheel import __version__
    from shipwheel.api.clock import SystemClock
    from shipwheel.client.client import Client
    from shipwheel.client.kubeconfig import load_config
    from shipwheel.network import cni
    from shipwheel.network.dns import server
    from shipwheel.network.dns.publish import publish

    await _wait_for_api(layout, "kube-proxy")
    clock = SystemClock()
    loop = asyncio.get_running_loop()
    agent = f"shipwheel/v{__version__}"
    async with (
        Client(load_config(layout.kubeconfig("kube-proxy")), user_agent=agent, clock=clock) as watcher,
        Client(load_config(layout.kubeconfig("dns")), user_agent=agent, clock=clock) as client,
        asyncio.TaskGroup() as tasks,
    ):
        network_ready: asyncio.Future[tuple[str, ...]] = loop.create_future()
        config = network_config(layout, settings, node)
        tasks.create_task(cni.run(config, client=watcher, clock=clock, ready=network_ready))
        addresses = await network_ready
        dns_ready: asyncio.Future[int] = loop.create_future()
        dns = server.Config(addresses=addresses, domain=settings.domain)
        tasks.create_task(server.run(dns, client=client, clock=clock, ready=dns_ready))
        await publish(client, node, addresses, await dns_ready)


async def _kept(name: str, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a part of a process, again when it fails, so that the other parts need not end with it. One that cannot
    even start ends the process after all: then the supervisor knows, and so does `up`."""
    failures = 0
    while True:
        started = time.monotonic()
        try:
            await make()
            log.warning("%s has ended", name)
        except Exception:
            log.exception("%s failed", name)
            failures = failures + 1 if time.monotonic() - started < STEADY else 1
            if failures >= HOPELESS:
                raise
        await asyncio.sleep(RETRY_DELAY * 2**failures)


async def _wait_for_api(layout: Layout, who: str) -> None:
    """Until the API server is ready: asking again is cheaper than to fail and back off."""
    from shipwheel.api.errors import ApiError
    from shipwheel.client.client import Client, ConnectionFailed
    from shipwheel.client.kubeconfig import load_config

    async with Client(load_config(layout.kubeconfig(who)), user_agent="shipwheel") as client:
        while True:
            try:
                await client.request("GET", "/readyz", timeout=2)
                return
            except (ApiError, ConnectionFailed):
                await asyncio.sleep(POLL)


def _exec(command: Sequence[str]) -> None:
    program = shutil.which(command[0])
    if program is None:
        raise FileNotFoundError(command[0])
    os.execv(program, list(command))
