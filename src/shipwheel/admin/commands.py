"""The components as commands: what each is called, where its flags are declared, and how it is run.

`shipwheel kube-proxy --...` and the processes of `shipwheel up` take the same road: a command line by upstream's
flags becomes a configuration, and that is run until it is cancelled.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shipwheel.client.flags import Flag, Parsed, parse

Run = Callable[[Any], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Command:
    """A component. Its modules are imported when they are needed."""

    name: str
    summary: str
    config_module: str
    """Has `FLAGS` and `from_flags(values)`."""
    run: Run
    overrides_file: bool = False
    """Flags change what a configuration file says: `from_flags(values, given)` must know which were given."""

    @property
    def flags(self) -> Sequence[Flag]:
        return importlib.import_module(self.config_module).FLAGS

    def parse(self, arguments: Sequence[str]) -> tuple[Any, Parsed]:
        """The configuration that a command line asks for. Raises `FlagError`, `HelpRequested`."""
        module = importlib.import_module(self.config_module)
        parsed = parse(module.FLAGS, arguments)
        if self.overrides_file:
            return module.from_flags(parsed.values, parsed.given), parsed
        return module.from_flags(parsed.values), parsed


async def _api_server(config: Any) -> None:
    from shipwheel.apiserver import server

    await server.run(config)


async def _controller_manager(config: Any) -> None:
    from shipwheel.controllers import manager

    await _with_client(_connection(config, config.master), manager.run, config)


async def _scheduler(config: Any) -> None:
    from shipwheel.scheduler import scheduler

    if config.write_config_to:
        scheduler.write_config(config)
        return
    await _with_client(_connection(config, config.master), scheduler.run, config)


async def _kubelet(config: Any) -> None:
    from shipwheel.api.clock import SystemClock
    from shipwheel.kubelet import kubelet
    from shipwheel.kubelet.joining import join

    if not config.kubeconfig:
        await kubelet.run(config, client=None, clock=SystemClock())
        return
    await join(config, SystemClock())
    await _with_client(_connection(config), kubelet.run, config)


async def _proxy(config: Any) -> None:
    from shipwheel.network.proxy import proxy

    await _with_client(_Connection(config.kubeconfig, config.master, config.qps, config.burst), proxy.run, config)


async def _simulated_nodes(config: Any) -> None:
    from shipwheel.kubelet.simulated_nodes import component

    await _with_client(_connection(config), component.run, config)


@dataclass(frozen=True, slots=True)
class _Connection:
    """How a component reaches its API server."""

    kubeconfig: str
    master: str
    qps: float
    burst: int


def _connection(config: Any, master: str = "") -> _Connection:
    return _Connection(config.kubeconfig, master, config.kube_api_qps, config.kube_api_burst)


async def _with_client(to: _Connection, run: Callable[..., Coroutine[Any, Any, None]], config: Any) -> None:
    """Run a component that speaks to the API server that its configuration names."""
    from shipwheel import __version__
    from shipwheel.api.clock import SystemClock
    from shipwheel.client.client import Client
    from shipwheel.client.kubeconfig import load_config

    clock = SystemClock()
    server = load_config(to.kubeconfig or None, server=to.master)
    name = run.__module__.split(".")[1]
    agent = f"{name}/v{__version__}"
    async with Client(server, user_agent=agent, qps=to.qps, burst=to.burst, clock=clock) as client:
        await run(config, client=client, clock=clock)


COMMANDS: Mapping[str, Command] = {
    command.name: command
    for command in (
        Command(
            "kube-apiserver",
            "The API server: the only one who speaks to the store, and whom everybody else speaks to.",
            "shipwheel.apiserver.config",
            _api_server,
        ),
        Command(
            "kube-controller-manager",
            "The controllers: they bring what is nearer to what is asked for.",
            "shipwheel.controllers.config",
            _controller_manager,
        ),
        Command(
            "kube-scheduler",
            "The scheduler: it finds a node for each pod.",
            "shipwheel.scheduler.config",
            _scheduler,
        ),
        Command(
            "kubelet",
            "The node agent: it runs the pods that are bound to its node.",
            "shipwheel.kubelet.config",
            _kubelet,
            overrides_file=True,
        ),
        Command(
            "kube-proxy",
            "The service proxy: it makes Services reachable on its node.",
            "shipwheel.network.proxy.config",
            _proxy,
        ),
        Command(
            "simulated-nodes",
            "Nodes by the thousand in one process, whose pods live by declared stages.",
            "shipwheel.kubelet.simulated_nodes.config",
            _simulated_nodes,
        ),
    )
}
