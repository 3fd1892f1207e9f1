"""The service proxy as a component: informers in, nftables transactions out.

What a service contributes to the table is rendered again only when the service or its endpoints changed; the
difference between the table that was and the table that shall be is what the kernel gets to see.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj, key_of
from shipwheel.client.client import Client
from shipwheel.client.events import EventRecorder
from shipwheel.client.httpserver import HttpServer, Response
from shipwheel.client.informer import EventType, InformerFactory
from shipwheel.client.metrics import CONTENT_TYPE, Metrics
from shipwheel.client.resources import ENDPOINT_SLICES, NODES, SERVICE_CIDRS, SERVICES
from shipwheel.network.proxy import conntrack, nft, ruleset
from shipwheel.network.proxy.config import Config
from shipwheel.network.proxy.health import Health, ServiceHealthServers, serve
from shipwheel.network.proxy.metrics import ProxyMetrics
from shipwheel.network.proxy.model import (
    HEADLESS_LABEL,
    PROXY_NAME_LABEL,
    Endpoint,
    IPFamily,
    ServicePort,
    endpoints_by_port,
    family_of,
    service_of_slice,
    service_ports,
)
from shipwheel.network.proxy.rules import Facts, LocalDetection, contribution, render
from shipwheel.network.proxy.ruleset import Ruleset
from shipwheel.network.proxy.topology import Place, Reachable, reachable

log = logging.getLogger(__name__)

ZONE_LABEL = "topology.kubernetes.io/zone"
FAMILIES: tuple[IPFamily, ...] = ("IPv4", "IPv6")
FULL_SYNC_PERIOD = 3600.0
"""Seconds after which the whole table is written anew, whatever is believed to be in it."""
SLICES_BY_SERVICE = "service"


async def run(config: Config, *, client: Client, clock: Clock) -> None:
    """Keep the node's rules what the API says, until cancelled. The rules stay behind: connections go on while
    the proxy is restarted. Raises OSError when an address to serve on cannot be had."""
    if config.cleanup:
        await cleanup(config.table)
        return
    set_conntrack_limits(config)
    metrics = Metrics()
    health = Health(clock, timeout=2 * config.sync_period)
    factory = InformerFactory(client, clock)
    recorder = EventRecorder(client, clock, component="kube-proxy", host=config.node_name)
    proxy = Proxy(config, factory, health=health, metrics=ProxyMetrics(metrics), recorder=recorder, clock=clock)
    servers = await _servers(config, health, metrics)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(factory.run(), name="proxy informers")
            tasks.create_task(recorder.run(), name="proxy events")
            tasks.create_task(proxy.run(), name="proxy rules")
    finally:
        for server in servers:
            await server.close()


async def cleanup(table: str) -> None:
    """Remove every rule of ours."""
    for family in ("ip", "ip6"):
        await nft.run(ruleset.delete_table(family, table))


@dataclass(slots=True)
class _Rendered:
    """What is known of one service, in one family."""

    ports: Sequence[tuple[ServicePort, Sequence[Endpoint], Reachable]]
    rules: Ruleset


class Proxy:
    """Turns the informers' state into tables, one for each IP family that has services."""

    def __init__(
        self,
        config: Config,
        factory: InformerFactory,
        *,
        health: Health,
        metrics: ProxyMetrics,
        recorder: EventRecorder,
        clock: Clock,
    ) -> None:
        ours = f"!{PROXY_NAME_LABEL}"
        self._config = config
        self._health = health
        self._metrics = metrics
        self._recorder = recorder
        self._clock = clock
        self._factory = factory
        self._services = factory.informer(SERVICES, label_selector=ours)
        self._slices = factory.informer(
            ENDPOINT_SLICES,
            label_selector=f"!{HEADLESS_LABEL},{ours}",
            indexers={SLICES_BY_SERVICE: lambda each: filter(None, [service_of_slice(each)])},
        )
        self._nodes = factory.informer(NODES, field_selector=f"metadata.name={config.node_name}")
        self._service_cidrs = factory.informer(SERVICE_CIDRS)
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._facts: dict[IPFamily, Facts] = {}
        self._place = Place(config.node_name)
        self._rendered: dict[IPFamily, dict[str, _Rendered]] = {family: {} for family in FAMILIES}
        self._tables = {
            "IPv4": nft.Table("ip", config.table),
            "IPv6": nft.Table("ip6", config.table),
        }
        self._udp_changed = False
        self._health_servers = ServiceHealthServers(health, ("0.0.0.0",), self._report_health_failure)

    async def run(self) -> None:
        for informer in (self._services, self._slices, self._nodes):
            await informer.wait_synced()
        self._services.add_handler(self._on_service)
        self._slices.add_handler(self._on_slice)
        self._nodes.add_handler(self._on_node)
        self._service_cidrs.add_handler(self._on_service_cidr)
        self._dirty.update(key_of(each) for each in self._services.list())
        self._wake.set()
        try:
            await self._sync_for_ever()
        finally:
            await self._health_servers.close()

    async def _sync_for_ever(self) -> None:
        last_full = self._clock.monotonic()
        delay: float | None = None
        while True:
            await self._wait(delay)
            if self._clock.monotonic() - last_full > FULL_SYNC_PERIOD:
                for table in self._tables.values():
                    table.distrust()
                last_full = self._clock.monotonic()
            well = await self.sync()
            await self._clock.sleep(self._config.min_sync_period)
            if not well:
                delay = self._config.sync_period
            elif any(table.has_stale_chains for table in self._tables.values()):
                await self._delete_stale_chains()
                delay = FULL_SYNC_PERIOD
            else:
                delay = FULL_SYNC_PERIOD

    async def _wait(self, seconds: float | None) -> None:
        """Until something changes, or `seconds` pass."""
        if seconds is None:
            await self._wake.wait()
        else:
            woken = asyncio.ensure_future(self._wake.wait())
            slept = asyncio.ensure_future(self._clock.sleep(seconds))
            try:
                await asyncio.wait({woken, slept}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                woken.cancel()
                slept.cancel()
        self._wake.clear()

    async def sync(self) -> bool:
        """Bring every table up to date; False when nft refused, and it must be tried again."""
        self._learn_facts()
        dirty, self._dirty = self._dirty, set()
        for family in FAMILIES:
            for key in dirty:
                self._render(key, family)
        well = True
        for family in FAMILIES:
            if family == "IPv4" or self._rendered[family]:
                well = await self._sync_family(family) and well
        await self._health_servers.sync(*self._health_checks())
        if well and self._udp_changed:
            self._udp_changed = False
            for family in FAMILIES:
                if self._rendered[family]:
                    removed = await conntrack.remove_stale(family, self._backends(family))
                    self._metrics.conntrack_deleted.labels(family).inc(len(removed))
        return well

    async def _sync_family(self, family: IPFamily) -> bool:
        started = self._clock.monotonic()
        parts = (each.rules for each in self._rendered[family].values())
        try:
            await self._tables[family].sync(render(self._facts[family], parts))
        except nft.NftError as error:
            log.error("nftables sync failed (%s): %s", family, error)
            self._metrics.sync_failures.labels(family).inc()
            return False
        self._health.updated(family)
        self._metrics.sync_duration.labels(family).observe(self._clock.monotonic() - started)
        self._metrics.last_sync.labels(family).set(self._clock.now().timestamp())
        self._count_without_local_endpoints(family)
        return True

    async def _delete_stale_chains(self) -> None:
        for family, table in self._tables.items():
            if table.has_stale_chains:
                try:
                    await table.delete_stale_chains()
                except nft.NftError as error:
                    log.info("unable to delete stale chains, will rewrite the table: %s", error)
                    self._metrics.cleanup_failures.labels(family).inc()
                    self._wake.set()

    def _render(self, key: str, family: IPFamily) -> None:
        """What a service contributes; nothing when it is gone."""
        namespace, _, name = key.partition("/")
        service = self._services.get(namespace, name)
        ports = service_ports(service, family) if service is not None else []
        before = self._rendered[family].pop(key, None)
        if ports:
            slices = self._slices.by_index(SLICES_BY_SERVICE, key)
            backends = endpoints_by_port(slices, family, self._config.node_name)
            found = [
                (port, members, reachable(port, members, self._place))
                for port in ports
                for members in [backends.get((port.port_name, port.protocol), [])]
            ]
            facts = self._facts[family]
            rules = ruleset.combine(contribution(port, to, facts) for port, _, to in found)
            self._rendered[family][key] = _Rendered(found, rules)
        known = [*(before.ports if before else ()), *(found if ports else ())]
        self._udp_changed |= any(port.protocol == "udp" for port, _, _ in known)

    def _learn_facts(self) -> None:
        """Work out what the rules depend on besides services; when it changed, everything is rendered anew."""
        node = self._nodes.get("", self._config.node_name)
        cidrs = [cidr for each in self._service_cidrs.list() for cidr in each["spec"].get("cidrs") or ()]
        facts = {family: facts_of(self._config, node, cidrs, family) for family in FAMILIES}
        labels = (node["metadata"].get("labels") or {}) if node else {}
        place = Place(self._config.node_name, labels.get(ZONE_LABEL, ""))
        if facts != self._facts or place != self._place:
            self._facts, self._place = facts, place
            self._dirty.update(key_of(each) for each in self._services.list())

    def _backends(self, family: IPFamily) -> Iterable[tuple[ServicePort, Sequence[Endpoint]]]:
        for rendered in self._rendered[family].values():
            for port, endpoints, _ in rendered.ports:
                yield port, endpoints

    def _health_checks(self) -> tuple[dict[str, int], dict[str, int]]:
        """By service: the port to tell on, and the number of ready endpoints on this node."""
        ports: dict[str, int] = {}
        local: dict[str, int] = {}
        for family in FAMILIES:
            for key, rendered in self._rendered[family].items():
                for port, endpoints, _ in rendered.ports:
                    if port.health_check_node_port:
                        ports[key] = port.health_check_node_port
                        here = {each.ip for each in endpoints if each.local and each.ready}
                        local[key] = max(local.get(key, 0), len(here))
        return ports, local

    def _count_without_local_endpoints(self, family: IPFamily) -> None:
        internal = external = 0
        for rendered in self._rendered[family].values():
            for port, _, to in rendered.ports:
                if to.anywhere and not to.local:
                    internal += port.internal_local
                    external += port.external_local
        self._metrics.no_local_endpoints.labels(family, "internal").set(internal)
        self._metrics.no_local_endpoints.labels(family, "external").set(external)

    def _report_health_failure(self, service: str, port: int, error: OSError) -> None:
        namespace, _, name = service.partition("/")
        about = {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name}}
        message = f'node {self._config.node_name} failed to start healthcheck "{service}" on port {port}: {error}'
        self._recorder.event(about, "Warning", "FailedToStartServiceHealthcheck", message)

    def _on_service(self, event: EventType, new: Obj | None, old: Obj | None) -> None:
        self._mark(key_of(new or old or {}))

    def _on_slice(self, event: EventType, new: Obj | None, old: Obj | None) -> None:
        for each in (new, old):
            key = service_of_slice(each) if each is not None else None
            if key is not None:
                self._mark(key)

    def _on_node(self, event: EventType, new: Obj | None, old: Obj | None) -> None:
        self._health.node = new
        if new is None or old is None or new.get("spec") != old.get("spec") or _differ(new, old):
            self._wake.set()

    def _on_service_cidr(self, event: EventType, new: Obj | None, old: Obj | None) -> None:
        self._wake.set()

    def _mark(self, key: str) -> None:
        self._dirty.add(key)
        for family in FAMILIES:
            if family == "IPv4" or self._rendered[family]:
                self._health.queued(family)
                self._metrics.last_queued.labels(family).set(self._clock.now().timestamp())
        self._wake.set()


def facts_of(config: Config, node: Obj | None, service_cidrs: Sequence[str], family: IPFamily) -> Facts:
    """What the rules of one family depend on besides services."""
    node_ips = [address for address in _node_ips(config, node) if family_of(address) == family]
    return Facts(
        family=family,
        local_detection=_local_detection(config, node, family),
        masquerade_all=config.masquerade_all,
        masquerade_mark=1 << config.masquerade_bit,
        node_ip=node_ips[0] if node_ips else "",
        node_port_ips=_node_port_ips(config, node_ips, family),
        service_cidrs=tuple(sorted(cidr for cidr in service_cidrs if family_of(cidr) == family)),
    )


def _local_detection(config: Config, node: Obj | None, family: IPFamily) -> LocalDetection:
    match config.detect_local_mode:
        case "BridgeInterface":
            return LocalDetection.by_bridge(config.bridge_interface)
        case "InterfaceNamePrefix":
            return LocalDetection.by_prefix(config.interface_prefix)
        case "ClusterCIDR":
            cidrs: Sequence[str] = config.cluster_cidrs
        case "NodeCIDR":
            cidrs = ((node or {}).get("spec") or {}).get("podCIDRs") or ()
        case _:
            cidrs = ()
    for cidr in cidrs:
        if family_of(cidr) == family:
            return LocalDetection.by_cidr(cidr)
    return LocalDetection()


def _node_ips(config: Config, node: Obj | None) -> list[str]:
    if not ip_address(config.bind_address).is_unspecified:
        return [config.bind_address]
    addresses = ((node or {}).get("status") or {}).get("addresses") or ()
    return [each["address"] for each in addresses if each["type"] == "InternalIP"]


def _node_port_ips(config: Config, node_ips: Sequence[str], family: IPFamily) -> tuple[str, ...] | None:
    """The addresses that NodePorts answer on; None: all."""
    wanted = config.node_port_addresses
    if not wanted:
        return None
    if wanted == ("primary",):
        return tuple(node_ips)
    networks = [ip_network(each, strict=False) for each in wanted if family_of(each) == family]
    if not networks or any(each.prefixlen == 0 for each in networks):
        return None
    addresses = (ip_address(each) for each in local_addresses() if family_of(each) == family)
    chosen = [each for each in addresses if not each.is_loopback and any(each in net for net in networks)]
    return tuple(sorted(str(each) for each in chosen))


def local_addresses() -> list[str]:
    """This machine's addresses, as iproute2 lists them."""
    listing = subprocess.run(["ip", "-json", "address"], capture_output=True, check=True).stdout
    return [each["local"] for link in json.loads(listing) for each in link["addr_info"] if "local" in each]


def set_conntrack_limits(config: Config) -> None:
    """The sizes and timeouts of the kernel's connection table; 0 leaves a setting as it is. A limit that is
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


def _differ(new: Obj, old: Obj) -> bool:
    """Whether what the rules depend on changed; a node reports its condition all the time."""
    return (new["metadata"].get("labels") or {}).get(ZONE_LABEL) != (old["metadata"].get("labels") or {}).get(
        ZONE_LABEL
    ) or (new.get("status") or {}).get("addresses") != (old.get("status") or {}).get("addresses")


async def _servers(config: Config, health: Health, metrics: Metrics) -> list[HttpServer]:
    async def healthz_ok() -> Response:
        return Response(200, b"ok", content_type="text/plain; charset=utf-8")

    async def mode() -> Response:
        return Response(200, b"nftables", content_type="text/plain; charset=utf-8")

    async def exposition() -> Response:
        return Response(200, metrics.exposition(), content_type=CONTENT_TYPE)

    servers = []
    if config.healthz_bind_address:
        servers.append(await serve(config.healthz_bind_address, {"/healthz": health.healthz, "/livez": health.livez}))
    if config.metrics_bind_address:
        routes = {"/metrics": exposition, "/proxyMode": mode, "/healthz": healthz_ok}
        servers.append(await serve(config.metrics_bind_address, routes))
    return servers
