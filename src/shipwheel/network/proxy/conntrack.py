"""Connections the kernel remembers: how many and how long, and those whose endpoint is gone.

A UDP client that keeps sending from one port keeps its conntrack entry alive, and with it the address
translation made for its first packet: it would talk to a dead endpoint for ever. Entries of a service's address
that lead to none of its serving endpoints are therefore removed. TCP needs none of this: it notices.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shipwheel.network.proxy.config import Config
from shipwheel.network.proxy.model import Endpoint, IPFamily, ServicePort

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection as its first packet was sent, and who answers it."""

    source: str
    source_port: int
    destination: str
    destination_port: int
    answered_by: str
    answered_port: int


def stale(flows: Iterable[Flow], services: Iterable[tuple[ServicePort, Sequence[Endpoint]]]) -> list[Flow]:
    """The flows to a UDP service that lead to none of its serving endpoints. A service that has none is left
    alone: its clients will find the next."""
    by_address: dict[tuple[str, int], set[tuple[str, int]]] = {}
    by_node_port: dict[int, set[tuple[str, int]]] = {}
    for port, endpoints in services:
        serving = {(each.ip, each.port) for each in endpoints if each.serving}
        if port.protocol != "udp" or not serving:
            continue
        for address in (port.cluster_ip, *port.load_balancer_ips, *port.external_ips):
            by_address[address, port.port] = serving
        if port.node_port:
            by_node_port[port.node_port] = serving

    def is_stale(flow: Flow) -> bool:
        answered = (flow.answered_by, flow.answered_port)
        serving = by_address.get((flow.destination, flow.destination_port))
        if serving is None:
            serving = by_node_port.get(flow.destination_port)
        return serving is not None and answered not in serving

    return [flow for flow in flows if is_stale(flow)]


_ENTRY = re.compile(r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+).*?src=(\S+) dst=\S+ sport=(\d+) dport=\d+")


def parse(listing: str) -> list[Flow]:
    """The flows in the output of `conntrack -L`."""
    return [
        Flow(source, int(sport), destination, int(dport), answered_by, int(answered_port))
        for source, destination, sport, dport, answered_by, answered_port in _ENTRY.findall(listing)
    ]


async def remove_stale(family: IPFamily, services: Iterable[tuple[ServicePort, Sequence[Endpoint]]]) -> list[Flow]:
    """Remove the stale entries of the kernel's table; returns what was removed."""
    flag = family.lower()
    listing = await _conntrack("-L", "-f", flag, "-p", "udp")
    flows = stale(parse(listing), services)
    for flow in flows:
        await _conntrack(
            "-D", "-f", flag, "-p", "udp", "--orig-src", flow.source, "--orig-dst", flow.destination,
            "--sport", str(flow.source_port), "--dport", str(flow.destination_port),
        )  # fmt: skip
    return flows


async def _conntrack(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "conntrack", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    # It fails too when the entry went away meanwhile.
    if process.returncode and arguments[0] == "-L":
        log.error("failed to list conntrack entries: %s", errors.decode(errors="replace").strip())
    return output.decode(errors="replace")


def set_limits(config: Config) -> None:
    """Set the size and the timeouts of the kernel's connection table; 0 leaves a setting as it is. A limit that is
    higher already is not lowered, and what may not be written (in a container) is logged."""
    if config.conntrack_max_per_core:
        wanted = max(config.conntrack_max_per_core * (os.cpu_count() or 1), config.conntrack_min)
        if wanted > _sysctl("nf_conntrack_max"):
            _set_sysctl("nf_conntrack_max", wanted)
    for name, seconds in (
        ("nf_conntrack_tcp_timeout_established", config.conntrack_tcp_established_timeout),
        ("nf_conntrack_tcp_timeout_close_wait", config.conntrack_tcp_close_wait_timeout),
        ("nf_conntrack_udp_timeout", config.conntrack_udp_timeout),
        ("nf_conntrack_udp_timeout_stream", config.conntrack_udp_stream_timeout),
    ):
        if seconds and _sysctl(name) != int(seconds):
            _set_sysctl(name, int(seconds))
    if config.conntrack_tcp_be_liberal:
        _set_sysctl("nf_conntrack_tcp_be_liberal", 1)


def _sysctl(name: str) -> int:
    path = Path("/proc/sys/net/netfilter", name)
    return int(path.read_text()) if path.exists() else 0


def _set_sysctl(name: str, value: int) -> None:
    try:
        Path("/proc/sys/net/netfilter", name).write_text(str(value))
    except OSError as error:
        log.warning("failed to set %s to %d: %s", name, value, error)
