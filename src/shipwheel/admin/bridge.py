"""The cable between the nodes in namespaces of their own and this machine: a bridge, and a veth pair for each.

The machine has the first address of the nodes' range, and is their way to the world.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

from shipwheel.admin.layout import Layout, NodeSettings, Settings
from shipwheel.network.cni import default_mtu
from shipwheel.network.routes import has_interface

INSIDE = "eth0"
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def name_of(layout: Layout) -> str:
    """The bridge's; an interface's name has at most 15 bytes."""
    return f"sw-{_digest(layout.network)}"


def ensure(layout: Layout, settings: Settings) -> None:
    """Have the bridge, with the machine's address. Raises OSError."""
    bridge = name_of(layout)
    address = f"{settings.gateway}/{ip_network(settings.node_cidr).prefixlen}"
    if not has_interface(bridge):
        _ip([f"link add {bridge} type bridge"])
    _ip([f"address replace {address} dev {bridge}", f"link set {bridge} up"])
    FORWARDING.write_text("1\n")


def connect(layout: Layout, node: NodeSettings, first: int) -> None:
    """Tie the network of a node's first process to the bridge. Raises OSError."""
    bridge, outside, mtu = name_of(layout), f"sw-{_digest(layout.network, node.name)}", default_mtu()
    _ip(
        [
            f"link add {outside} mtu {mtu} type veth peer name {INSIDE} mtu {mtu} netns {first}",
            f"link set {outside} master {bridge} up",
        ]
    )


def configure(settings: Settings, node: NodeSettings) -> None:
    """The node's end, by a process in its network. Raises OSError."""
    _ip(
        [
            "link set lo up",
            f"address replace {node.address}/{ip_network(settings.node_cidr).prefixlen} dev {INSIDE}",
            f"link set {INSIDE} up",
            f"route replace default via {settings.gateway} dev {INSIDE}",
        ]
    )
    FORWARDING.write_text("1\n")


def remove(layout: Layout) -> None:
    """Take the bridge away, if there is one; the routes over it go with it. Raises OSError."""
    if has_interface(name_of(layout)):
        _ip([f"link delete {name_of(layout)}"])


def _digest(*words: str) -> str:
    return hashlib.sha256("/".join(words).encode()).hexdigest()[:10]


def _ip(commands: Iterable[str]) -> None:
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip: {done.stderr.strip()}")
