"""Whether the server is alive and ready, check by check (`/livez`, `/readyz`, `/healthz`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from shipwheel.apiserver.rendering import PLAIN_TEXT, plain_not_found
from shipwheel.client.httpserver import Request, Response
from shipwheel.client.metrics import HealthMetrics
from shipwheel.client.serving import health_answer
from shipwheel.kinds.core.componentstatus import Health as ComponentHealth
from shipwheel.store.base import StoreError

if TYPE_CHECKING:
    from shipwheel.apiserver.server import ApiServer

Check = Callable[[], str]
_PROBE_SECONDS = 2.0

_LOADED = (
    "generic-apiserver-start-informers", "start-apiextensions-informers", "start-apiextensions-controllers",
    "crd-informer-synced", "storage-readiness", "storage-object-count-tracker-hook",
)  # fmt: skip
_BOOTSTRAPPED = (
    "start-system-namespaces-controller", "start-cluster-authentication-info-controller",
    "start-legacy-token-tracking-controller", "start-service-ip-repair-controllers", "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes", "bootstrap-controller", "start-kubernetes-service-cidr-controller",
)  # fmt: skip
"""What upstream's server does after its start, of which ours does the same."""


class Health:
    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self.results = HealthMetrics()
        self._reached = True
        self._probed = float("-inf")
        self.ready = False
        """Set once the cluster's own objects are there, cleared when the server stops."""

    def checks(self, name: str) -> Mapping[str, Check]:
        """What is wrong with each part; empty when nothing is."""
        checks: dict[str, Check] = {"ping": lambda: "", "log": lambda: "", "etcd": self._store}
        if name == "readyz":
            checks["informer-sync"] = self._store
        checks |= {f"poststarthook/{hook}": self._store for hook in _LOADED}
        checks |= {f"poststarthook/{hook}": self._bootstrapped for hook in _BOOTSTRAPPED}
        if name == "readyz":
            checks["shutdown"] = lambda: "process is shutting down" if self._server.reader.draining.is_set() else ""
        return checks

    def _store(self) -> str:
        return "" if self._server.cache.connected.is_set() and self._reached else "the store cannot be reached"

    async def probe(self) -> None:
        """Ask a store that is not our own whether it is still there, but not for every question anew."""
        now = self._server.clock.monotonic()
        if not self._server.store.shared or now < self._probed + _PROBE_SECONDS:
            return
        self._probed = now
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._server.store.revision()
            self._reached = True
        except (StoreError, TimeoutError):
            self._reached = False

    def _bootstrapped(self) -> str:
        return "" if self.ready else "not finished"

    def answer(self, request: Request, name: str, single: str) -> Response:
        checks = self.checks(name)
        if single:
            if single not in checks:
                return plain_not_found()
            wrong = checks[single]()
            self.results.observe(single, name, ok=not wrong)
            text = f"internal server error: {wrong}\n" if wrong else "ok"
            return Response(500 if wrong else 200, text.encode(), content_type=PLAIN_TEXT)
        excluded = {value for key, value in request.query if key == "exclude"}
        verbose = any(key == "verbose" for key, _ in request.query)
        return health_answer(name, checks, excluded=excluded, verbose=verbose, metrics=self.results)

    def components(self) -> Mapping[str, Callable[[], Awaitable[ComponentHealth]]]:
        """What ComponentStatus asks."""

        async def store() -> ComponentHealth:
            wrong = self._store()
            return ComponentHealth("False", error=wrong) if wrong else ComponentHealth("True", message="ok")

        return {"etcd-0": store}
