"""The service proxy as a component: informers in, nftables transactions out.

What a service contributes to the table is rendered again only when the service or its endpoints changed; the
difference between the table that was and the table that shall be is what the kernel gets to see.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
from shipwheel.network.proxy.facts import differ, facts_of, zone_of
from shipwheel.network.proxy.health import Health, ServiceHealthServers, serve
from shipwheel.network.proxy.metrics import ProxyMetrics
from shipwheel.network.proxy.model import (
    HEADLESS_LABEL,
    PROXY_NAME_LABEL,
    Endpoint,
    IPFamily,
    ServicePort,
    endpoints_by_port,
    service_of_slice,
    service_ports,
)
from shipwheel.network.proxy.rules import Facts, contribution, render
from shipwheel.network.proxy.ruleset import Ruleset
from shipwheel.network.proxy.topology import Place, Reachable, reachable

log = logging.getLogger(__name__)

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
    conntrack.set_limits(config)
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
        rendered = self._rendered[family]
        before = rendered.pop(key, None)
        after = self._rendering_of(key, service_ports(service, family), family) if service is not None else None
        if after is not None and after.ports:
            rendered[key] = after
        self._udp_changed |= any(
            port.protocol == "udp" for each in (before, after) if each is not None for port, _, _ in each.ports
        )

    def _rendering_of(self, key: str, ports: Iterable[ServicePort], family: IPFamily) -> _Rendered:
        slices = self._slices.by_index(SLICES_BY_SERVICE, key)
        backends = endpoints_by_port(slices, family, self._config.node_name)
        found = []
        for port in ports:
            members = backends.get((port.port_name, port.protocol), [])
            found.append((port, members, reachable(port, members, self._place)))
        facts = self._facts[family]
        return _Rendered(found, ruleset.combine(contribution(port, to, facts) for port, _, to in found))

    def _learn_facts(self) -> None:
        """Work out what the rules depend on besides services; when it changed, everything is rendered anew."""
        node = self._nodes.get("", self._config.node_name)
        cidrs = [cidr for each in self._service_cidrs.list() for cidr in each["spec"].get("cidrs") or ()]
        facts = {family: facts_of(self._config, node, cidrs, family) for family in FAMILIES}
        place = Place(self._config.node_name, zone_of(node))
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
        if differ(new, old):
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
