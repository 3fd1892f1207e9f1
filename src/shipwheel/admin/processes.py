"""The processes of a cluster on one machine.

One for the API server, one for the controllers and the scheduler, one agent a node (kubelet, service proxy, pod
network, DNS), one for this machine's part in the network where nodes have namespaces of their own, and etcd where
it is the store.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from shipwheel.admin import command_lines, machine_network, node_agent
from shipwheel.admin.commands import COMMANDS
from shipwheel.admin.kept import kept, wait_for_api
from shipwheel.admin.layout import Layout, NodeSettings, Settings
from shipwheel.admin.runner import run_component
from shipwheel.admin.supervisor import Program

CONTROL_PLANE = ("kube-controller-manager", "kube-scheduler")


def programs(layout: Layout, settings: Settings) -> list[Program]:
    """In the order of their start. Everything they need is imported now, before they are forked."""
    _preload(settings)
    command_lines.write_recycler(layout)
    configs = _configs(command_lines.control_plane(layout, settings))
    found = [Program("kube-apiserver", partial(_component, "kube-apiserver", configs))]
    if settings.store == "etcd":
        found.insert(0, Program("etcd", partial(_exec, command_lines.etcd_command(layout, settings))))
    found.append(Program("control-plane", partial(run_component, partial(_control_plane, layout, configs))))
    if any(each.address for each in settings.nodes):
        found.append(Program("machine", partial(run_component, partial(_machine, layout, settings, configs))))
    if settings.simulated_nodes:
        simulated = _configs(command_lines.simulated_nodes(layout, settings))
        found.append(Program("simulated-nodes", partial(run_component, partial(_simulated, layout, simulated))))
    return found + [_node(layout, settings, node) for node in settings.running_nodes]


def _node(layout: Layout, settings: Settings, node: NodeSettings) -> Program:
    command_lines.write_kubelet_configuration(layout, node)
    configs = _configs(command_lines.of_node(layout, settings, node))
    main = partial(node_agent.main, layout, settings, configs, node)
    if not node.address:
        return Program(node.name, main)
    return Program(node.name, main, partial(node_agent.fork, layout, settings, node))


def _configs(lines: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {name: COMMANDS[name].parse(arguments)[0] for name, arguments in lines.items()}


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
    if settings.simulated_nodes:
        modules.append("shipwheel.kubelet.simulated_nodes.component")
    for module in modules:
        importlib.import_module(module)
    gc.collect()


async def _control_plane(layout: Layout, configs: Mapping[str, Any]) -> None:
    await wait_for_api(layout, "controller-manager")
    async with asyncio.TaskGroup() as tasks:
        for name in CONTROL_PLANE:
            tasks.create_task(kept(name, partial(COMMANDS[name].run, configs[name])))


async def _simulated(layout: Layout, configs: Mapping[str, Any]) -> None:
    await wait_for_api(layout, "simulated-nodes")
    await COMMANDS["simulated-nodes"].run(configs["simulated-nodes"])


async def _machine(layout: Layout, settings: Settings, configs: Mapping[str, Any]) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(kept("machine network", partial(machine_network.run, layout, settings)))
        if "kube-proxy" in configs:
            proxy = partial(node_agent.proxy, layout, configs["kube-proxy"], settings.server)
            tasks.create_task(kept("kube-proxy", proxy))


def _exec(command: Sequence[str]) -> None:
    program = shutil.which(command[0])
    if program is None:
        raise FileNotFoundError(command[0])
    os.execv(program, list(command))
