"""What this machine has and lacks: programs, ports, addresses."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from pathlib import Path

from shipwheel.admin.kernel import command_of, processes

LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that real containers need."""

    what: str
    package: str
    """Debian's and Ubuntu's; empty when no package gives it."""


PROGRAMS = (
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
)
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing_for_containers(cni_bin_dir: Path) -> list[Missing]:
    """What stands in the way of real containers; nothing when they can run."""
    missing = []
    if not Path("/proc/self/ns/net").exists():
        return [Missing("a Linux kernel", "")]
    if os.geteuid() != 0:
        missing.append(Missing("root (try: sudo shipwheel up)", ""))
    for program, package in PROGRAMS:
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}") is None:
            missing.append(Missing(program, package))
    for plugin in ("ptp", "host-local", "loopback", "portmap"):
        if not (cni_bin_dir / plugin).exists():
            missing.append(Missing("the CNI reference plugins", "containernetworking-plugins"))
            break
    return missing


@dataclass(frozen=True, slots=True)
class Owner:
    pid: int
    command: str


def port_owners(port: int, host: str = "") -> list[Owner]:
    """The processes that listen on a TCP port, of that IPv4 address if one is given, as far as we may know."""
    inodes = set(_listeners(port, host))
    if not inodes:
        return []
    return [Owner(pid, " ".join(filter(None, command_of(pid))) or "?") for pid in processes() if inodes & _sockets(pid)]


def taken_by(host: str, port: int) -> str:
    """Who listens there, to be added to a complaint about that; empty when we may not know."""
    return "".join(f'; process {each.pid} ("{each.command}") has it' for each in port_owners(port, host))


def is_free(port: int, host: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(wanted: int, host: str, taken: Iterable[int] = ()) -> int:
    """The port wanted, or any other when that is in use or in `taken`."""
    avoid = set(taken)
    if wanted and wanted not in avoid and is_free(wanted, host):
        return wanted
    while True:
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = probe.getsockname()[1]
        if port not in avoid:
            return port


def hostname() -> str:
    """As node names are written."""
    return socket.gethostname().lower()


def own_address() -> str:
    """The address from which this machine reaches others; of loopback when it reaches nobody."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing: it asks the routing table.
            probe.connect(("192.88.99.1", 9))
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]


def free_network(candidates: Iterable[str], taken: Iterable[str]) -> str:
    """The first range that overlaps with none in use. Raises `LookupError`."""
    used = [ip_network(each) for each in taken]
    for each in candidates:
        if not any(ip_network(each).overlaps(other) for other in used):
            return each
    raise LookupError("no free address range is left")


def routed_networks() -> list[str]:
    """Where this machine's routes lead, the default route apart."""
    try:
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return []
    found = []
    for fields in map(str.split, lines):
        destination, mask = (socket.inet_ntoa(bytes.fromhex(fields[i])[::-1]) for i in (1, 7))
        network = IPv4Network(f"{destination}/{mask}")
        if network.prefixlen:
            found.append(str(network))
    return found


def _listeners(port: int, host: str) -> Iterator[str]:
    """The inodes of the listening sockets on a port; with `host`, those that an IPv4 address leads to."""
    # As the kernel writes it: in hexadecimal, the last byte first.
    within = {"00000000", "0" * 32, socket.inet_aton(host)[::-1].hex().upper()} if host else set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            address, _, number = fields[1].rpartition(":")
            if fields[3] == LISTEN and int(number, 16) == port and (not within or address in within):
                yield fields[9]


def _sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            target = os.readlink(entry.path)
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        return found
    return found
