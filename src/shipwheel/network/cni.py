"""The pod network of a node: what the reference CNI plugins are told, and how pods reach the world.

Pods are tied to the node by `ptp`: each has a veth pair of its own and a route, no bridge. Everything a pod sends
is therefore routed, and translated where it is for a Service, even when it goes to the pod next door; over a
bridge that would depend on a kernel module (br_netfilter) that many machines do not load. Addresses come from the
node's range, which the control plane gives it (`spec.podCIDR`); until it has one, the node has no network and is
not ready, as with any other network plugin.

Names, state and rules are the cluster's own, so that several clusters share a machine without meeting.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client
from shipwheel.client.informer import EventType, Informer, drop_managed_fields
from shipwheel.client.resources import NODES
from shipwheel.network import forwarding
from shipwheel.network.proxy import nft, ruleset
from shipwheel.network.proxy.ruleset import Chain, Family, Ruleset

log = logging.getLogger(__name__)

CNI_VERSION = "0.4.0"
CONFIGURATION_FILE = "10-shipwheel.conflist"
SIOCGIFMTU = 0x8921
MULTICAST = {"ip": "224.0.0.0/4", "ip6": "ff00::/8"}


@dataclass(frozen=True, slots=True)
class Config:
    name: str
    """Of the network; unique on the machine."""
    node_name: str
    configuration_dir: Path
    """Where the runtime looks for its network configuration."""
    state_dir: Path
    """Where `host-local` remembers which address it gave to whom."""
    cluster_cidrs: tuple[str, ...]
    """Pods of all nodes: what stays inside is not masqueraded."""
    mtu: int = 0
    """0: that of the interface with the default route."""


async def run(
    config: Config,
    *,
    client: Client,
    clock: Clock,
    ready: asyncio.Future[tuple[str, ...]] | None = None,
) -> None:
    """Set the node's network up as soon as it has a range, and again when that changes, until cancelled.

    `ready` gets the gateway addresses. What was set up stays when this ends, because pods go on; `remove` takes
    it away. Raises `nft.NftError`.
    """
    nodes = Informer(
        client, NODES, field_selector=f"metadata.name={config.node_name}", transform=drop_managed_fields,
        clock=clock,
    )  # fmt: skip
    changed = asyncio.Event()

    def on_node(event: EventType, new: Obj | None, old: Obj | None) -> None:
        changed.set()

    nodes.add_handler(on_node)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(nodes.run(), name="node for the pod network")
        current: tuple[str, ...] = ()
        while True:
            await changed.wait()
            changed.clear()
            cidrs = pod_cidrs(nodes.get("", config.node_name))
            if cidrs and cidrs != current:
                await _set_up(config, cidrs)
                current = cidrs
                if ready is not None and not ready.done():
                    ready.set_result(gateways(cidrs))


def pod_cidrs(node: Obj | None) -> tuple[str, ...]:
    """The address ranges of a node's pods, none before the control plane has given it any."""
    spec = (node or {}).get("spec") or {}
    return tuple(spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")]))


def gateways(cidrs: Sequence[str]) -> tuple[str, ...]:
    """The node's own address in each range: the first one, as `host-local` has it."""
    return tuple(str(ip_network(each)[1]) for each in cidrs)


def configuration(name: str, cidrs: Sequence[str], *, state_dir: Path, mtu: int) -> Obj:
    """The CNI configuration list (CNI specification 0.4.0)."""
    routes = [{"dst": "::/0" if ":" in each else "0.0.0.0/0"} for each in cidrs]
    return {
        "cniVersion": CNI_VERSION,
        "name": name,
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "mtu": mtu,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(state_dir),
                    "ranges": [[{"subnet": each}] for each in cidrs],
                    "routes": routes,
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def masquerade(family: Family, cidrs: Sequence[str], cluster_cidrs: Sequence[str]) -> Ruleset:
    """Pods go out under the node's address, for nobody outside knows the way back to theirs."""
    inside = ", ".join((*cluster_cidrs, MULTICAST[family]))
    rules = tuple(f"{family} saddr {each} {family} daddr != {{ {inside} }} masquerade" for each in cidrs)
    return Ruleset(chains={"postrouting": Chain(rules, "type nat hook postrouting priority 100;")})


async def remove(config: Config) -> None:
    """Take away what `run` set up."""
    (config.configuration_dir / CONFIGURATION_FILE).unlink(missing_ok=True)
    for family in ("ip", "ip6"):
        await nft.run(ruleset.delete_table(family, table_of(config.name)))
    await forwarding.forget(config.name)


def table_of(name: str) -> str:
    return f"{name}-masquerade"


async def _set_up(config: Config, cidrs: tuple[str, ...]) -> None:
    for family in ("ip", "ip6"):
        ours = [each for each in cidrs if (":" in each) == (family == "ip6")]
        everybody = [each for each in config.cluster_cidrs if (":" in each) == (family == "ip6")]
        if ours:
            rules = masquerade(family, ours, everybody)
            await nft.run(ruleset.create(family, table_of(config.name), rules))
    await forwarding.let_through(config.name, cidrs)
    document = configuration(
        config.name, cidrs, state_dir=config.state_dir, mtu=config.mtu or default_mtu()
    )  # fmt: skip
    _write(config.configuration_dir / CONFIGURATION_FILE, json.dumps(document, indent=2))
    log.info("pod network %s: %s", config.name, ", ".join(cidrs))


def default_mtu() -> int:
    """That of the interface with the default route; 1500 when there is none."""
    try:
        routes = Path("/proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return 1500
    for fields in map(str.split, routes):
        if fields[1] == "00000000":
            return _mtu_of(fields[0])
    return 1500


def _mtu_of(interface: str) -> int:
    """Asked of the kernel, not read from /sys, which may show another network namespace than ours."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16si12x", interface.encode(), 0)
        return struct.unpack("16si12x", fcntl.ioctl(any_socket, SIOCGIFMTU, request))[1]


def _write(path: Path, text: str) -> None:
    """In one step: the runtime watches the directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text + "\n")
    scratch.replace(path)
