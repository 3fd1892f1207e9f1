"""Simulated nodes as a component: one process, two watches, and their kubelets' API."""

from __future__ import annotations

import asyncio
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.client.client import Client
from shipwheel.client.httpserver import HttpServer, server_tls
from shipwheel.kubelet.server.auth import AuthConfig, Gate
from shipwheel.kubelet.simulated_nodes.config import Config
from shipwheel.kubelet.simulated_nodes.nodes import Nodes
from shipwheel.kubelet.simulated_nodes.pods import Pods
from shipwheel.kubelet.simulated_nodes.server import SimulatedServer


async def run(config: Config, *, client: Client, clock: Clock) -> None:
    """Until cancelled. OSError when the port cannot be had."""
    nodes = Nodes(client, clock, config)
    pods = Pods(client, clock, config.stages, nodes.get, nodes.address)
    nodes.subscribe(pods.node_changed)
    server = None
    if config.port:
        gate = Gate(client, clock, "", AuthConfig())
        server = HttpServer(SimulatedServer(nodes, pods, config.stages, gate, clock).handle)
        authorities = [Path(config.client_ca_file).read_text()] if config.client_ca_file else []  # noqa: ASYNC240
        tls = server_tls(config.cert_file, config.key_file, client_ca=authorities)
        await server.listen(config.address, config.port, tls=tls)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(nodes.run(), name="simulated nodes")
            await nodes.wait_synced()
            tasks.create_task(pods.run(), name="simulated pods")
    finally:
        if server is not None:
            await server.close()
