"""This machine's part in the network of nodes that have namespaces of their own.

It is their way to the world, and so it translates their addresses; it has routes to their pods; and where it is no
node itself it has a service proxy all the same, for the API server calls webhooks and extension servers by their
Services, and whoever is at the keyboard wants to reach them too.
"""

from __future__ import annotations

import asyncio

from shipwheel import __version__
from shipwheel.admin import bridge, nodes
from shipwheel.admin.kept import wait_for_api
from shipwheel.admin.layout import Layout, Settings
from shipwheel.api.clock import SystemClock
from shipwheel.client.client import Client
from shipwheel.client.kubeconfig import load_config
from shipwheel.network import cni, forwarding, routes
from shipwheel.network.dns import server as dns
from shipwheel.network.proxy import nft, ruleset


async def run(layout: Layout, settings: Settings) -> None:
    """Until cancelled; what was set up stays. Raises `nft.NftError`."""
    name, inside = _name(layout), (settings.node_cidr, settings.pod_cidr)
    rules = cni.masquerade("ip", (settings.node_cidr,), inside)
    await nft.run(ruleset.create("ip", cni.table_of(name), rules))
    await forwarding.let_through(name, inside)
    own = next((each.name for each in settings.nodes if not each.address), "")
    config = routes.Config(node_name=own, device=bridge.name_of(layout), link=settings.node_cidr)
    await wait_for_api(layout, "kube-proxy")
    clock, server = SystemClock(), load_config(layout.kubeconfig("kube-proxy"))
    agent = f"shipwheel/v{__version__}"
    async with Client(server, user_agent=agent, clock=clock) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(routes.run(config, client=client, clock=clock))
        resolv_conf = nodes.read_text(nodes.RESOLV_CONF)
        if nodes.resolvers_of_nodes(resolv_conf, settings.gateway).split() != resolv_conf.split():
            tasks.create_task(_resolve(layout, settings))


async def _resolve(layout: Layout, settings: Settings) -> None:
    """Ask the resolvers on this machine's loopback for nodes that cannot reach them."""
    clock, server = SystemClock(), load_config(layout.kubeconfig("dns"))
    while not routes.has_interface(bridge.name_of(layout)):
        await clock.sleep(routes.RETRY_SECONDS)
    async with Client(server, user_agent=f"shipwheel/v{__version__}", clock=clock) as client:
        await dns.run(dns.Config(addresses=(settings.gateway,), domain=settings.domain), client=client, clock=clock)


async def remove(layout: Layout) -> None:
    """Take away what `run` set up, and the bridge."""
    await nft.run(ruleset.delete_table("ip", cni.table_of(_name(layout))))
    await forwarding.forget(_name(layout))
    bridge.remove(layout)


def _name(layout: Layout) -> str:
    return f"{layout.network}-nodes"
