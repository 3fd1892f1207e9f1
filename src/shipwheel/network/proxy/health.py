"""What load balancers and people ask the proxy over HTTP: is it well, and has this node endpoints of a service?"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from ipaddress import ip_address

from shipwheel.api.clock import Clock, rfc3339_micro
from shipwheel.api.meta import Obj
from shipwheel.client.httpserver import HttpServer, Request, Response
from shipwheel.network.proxy.model import IPFamily

log = logging.getLogger(__name__)

TO_BE_DELETED_TAINT = "ToBeDeletedByClusterAutoscaler"
NO_SNIFF = [("X-Content-Type-Options", "nosniff")]


class Health:
    """Healthy while every change is in the kernel within `timeout` seconds of becoming known."""

    def __init__(self, clock: Clock, *, timeout: float) -> None:
        self._clock = clock
        self._timeout = timeout
        self._updated: dict[IPFamily, datetime] = {}
        self._pending: dict[IPFamily, float] = {}
        self.node: Obj | None = None

    def queued(self, family: IPFamily) -> None:
        self._pending.setdefault(family, self._clock.monotonic())

    def updated(self, family: IPFamily) -> None:
        self._pending.pop(family, None)
        self._updated[family] = self._clock.now()

    @property
    def healthy(self) -> bool:
        now = self._clock.monotonic()
        return all(now - since < self._timeout for since in self._pending.values())

    @property
    def node_eligible(self) -> bool:
        """Whether a load balancer should send new connections to this node."""
        if self.node is None or self.node["metadata"].get("deletionTimestamp"):
            return False
        taints = (self.node.get("spec") or {}).get("taints") or ()
        return all(each["key"] != TO_BE_DELETED_TAINT for each in taints)

    async def healthz(self) -> Response:
        return self._answer(self.healthy and self.node_eligible, node_eligible=self.node_eligible)

    async def livez(self) -> Response:
        return self._answer(self.healthy)

    def _answer(self, well: bool, *, node_eligible: bool | None = None) -> Response:
        now = self._clock.now()
        late = {family for family, since in self._pending.items() if self._clock.monotonic() - since >= self._timeout}
        last = now if well else max(self._updated.values(), default=None)
        body: Obj = {
            "lastUpdated": rfc3339_micro(last) if last else "0001-01-01T00:00:00Z",
            "currentTime": rfc3339_micro(now),
        }
        if node_eligible is not None:
            body["nodeEligible"] = node_eligible
        body["healthy"] = self.healthy
        body["status"] = {
            family: {"lastUpdated": rfc3339_micro(moment), "healthy": family not in late}
            for family, moment in self._updated.items()
        }
        return Response(200 if well else 503, json.dumps(body).encode(), headers=NO_SNIFF)


class ServiceHealthServers:
    """A listener for every service with a `healthCheckNodePort`, that says how many endpoints are here."""

    def __init__(self, health: Health, hosts: tuple[str, ...], on_failure: Callable[[str, int, OSError], None]) -> None:
        self._health = health
        self._hosts = hosts
        self._on_failure = on_failure
        self._servers: dict[str, tuple[int, HttpServer]] = {}
        self._local: Mapping[str, int] = {}

    async def sync(self, ports: Mapping[str, int], local_endpoints: Mapping[str, int]) -> None:
        """Listen on these ports, by service (`namespace/name`), and know these numbers of local endpoints."""
        self._local = local_endpoints
        for name, (port, server) in list(self._servers.items()):
            if ports.get(name) != port:
                del self._servers[name]
                await server.close()
        for name, port in ports.items():
            if name not in self._servers:
                await self._open(name, port)

    async def close(self) -> None:
        await self.sync({}, {})

    async def _open(self, name: str, port: int) -> None:
        server = HttpServer(lambda request: self._answer(name))
        try:
            for host in self._hosts:
                await server.listen(host, port)
        except OSError as error:
            await server.close()
            self._on_failure(name, port, error)
            return
        self._servers[name] = (port, server)

    async def _answer(self, name: str) -> Response:
        namespace, _, service = name.partition("/")
        count, well = self._local.get(name, 0), self._health.healthy
        body = {
            "service": {"namespace": namespace, "name": service},
            "localEndpoints": count,
            "serviceProxyHealthy": well,
        }
        headers = [*NO_SNIFF, ("X-Load-Balancing-Endpoint-Weight", str(count))]
        text = json.dumps(body, indent=1).encode()
        return Response(200 if count and well else 503, text, headers=headers)


async def serve(address: str, routes: Mapping[str, Callable[[], Awaitable[Response]]]) -> HttpServer:
    """A server of a few paths at `host:port`. Raises OSError."""

    async def handle(request: Request) -> Response:
        route = routes.get(request.path)
        if route is None:
            return Response(404, b"404 page not found\n", content_type="text/plain; charset=utf-8")
        return await route()

    host, _, port = address.rpartition(":")
    server = HttpServer(handle)
    await server.listen(str(ip_address(host.strip("[]"))), int(port))
    return server
