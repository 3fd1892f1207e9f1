"""Routes from one node to the pods of the others.

Nodes on one link need no tunnels: the pods of each are reached by its own address, as the Node object has both.
What this machine's kernel has is compared with what the API says, and the difference is made. A node off the link
is the default route's affair.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj, name_of
from shipwheel.client.client import Client
from shipwheel.client.informer import EventType, Informer, drop_managed_fields
from shipwheel.client.resources import NODES
from shipwheel.network.cni import pod_cidrs

log = logging.getLogger(__name__)

PROTOCOL = "83"
"""Marks the routes as ours (rtnetlink's rtm_protocol; the numbers from 4 on are free to use)."""
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Config:
    node_name: str
    """This node's own pods are reached otherwise. Empty on a machine that is no node."""
    device: str
    """The interface on the link."""
    link: str
    """The link's range of addresses."""


class RouteError(Exception):
    """The kernel refuses a route; the message is its own."""


async def run(config: Config, *, client: Client, clock: Clock) -> None:
    """Keep the routes what the Nodes say, until cancelled. They stay when this ends: traffic goes on."""
    nodes = Informer(client, NODES, transform=_slim, clock=clock)
    changed = asyncio.Event()

    def on_node(event: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is None or old is None or _way(new) != _way(old):
            changed.set()

    nodes.add_handler(on_node)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(nodes.run(), name="nodes for the routes")
        while True:
            await changed.wait()
            changed.clear()
            try:
                await _bring(config, wanted(nodes.list(), config))
            except RouteError as error:
                # The interface may only just be made.
                log.warning("routes to other nodes' pods: %s", error)
                changed.set()
                await clock.sleep(RETRY_SECONDS)


def wanted(nodes: Iterable[Obj], config: Config) -> dict[str, str]:
    """Range of pods -> address of their node, for every other node on the link."""
    link = ip_network(config.link)
    found: dict[str, str] = {}
    for node in nodes:
        address, cidrs = _way(node)
        if name_of(node) == config.node_name or not address or ip_address(address) not in link:
            continue
        found |= {each: address for each in cidrs if ip_network(each).version == link.version}
    return found


def difference(have: Mapping[str, str], want: Mapping[str, str]) -> list[list[str]]:
    """The arguments of `ip route` that make the one from the other."""
    gone = [["delete", each] for each in have if each not in want]
    return gone + [["replace", each, "via", via] for each, via in want.items() if have.get(each) != via]


def _way(node: Obj) -> tuple[str, tuple[str, ...]]:
    addresses = (node.get("status") or {}).get("addresses") or ()
    internal = (each["address"] for each in addresses if each["type"] == "InternalIP")
    return next(internal, ""), pod_cidrs(node)


def _slim(node: Obj) -> Obj:
    """All that is needed of a node."""
    kept = drop_managed_fields(node)
    status = kept.get("status") or {}
    return {
        "metadata": {key: kept["metadata"][key] for key in ("name", "resourceVersion")},
        "spec": kept.get("spec") or {},
        "status": {"addresses": status.get("addresses") or []},
    }


async def _bring(config: Config, want: Mapping[str, str]) -> None:
    for arguments in difference(await _existing(config, want), want):
        await _ip("route", *arguments, "dev", config.device, "proto", PROTOCOL)
        log.info("route to pods: %s", " ".join(arguments))


async def _existing(config: Config, want: Mapping[str, str]) -> dict[str, str]:
    if not has_interface(config.device):
        if want:
            raise RouteError(f"there is no interface {config.device}")
        return {}
    listed = await _ip("-json", "route", "show", "dev", config.device, "proto", PROTOCOL)
    return {each["dst"]: each.get("gateway", "") for each in json.loads(listed or "[]")}


def has_interface(name: str) -> bool:
    """Asked of the kernel, not read from /sys, which may show another network namespace than ours."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


async def _ip(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "ip", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, complaint = await process.communicate()
    if process.returncode:
        raise RouteError(f"ip {' '.join(arguments)}: {complaint.decode().strip()}")
    return output.decode()
