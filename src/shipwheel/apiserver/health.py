"""Whether the server is alive and ready, check by check (`/livez`, `/readyz`, `/healthz`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from shipwheel.client.httpserver import Request, Response
from shipwheel.client.serving import health_answer
from shipwheel.kinds.core.componentstatus import Health as ComponentHealth

if TYPE_CHECKING:
    from shipwheel.apiserver.server import ApiServer

Check = Callable[[], str]


class Health:
    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self.ready = False
        """Set once the cluster's own objects are there, cleared when the server stops."""

    def checks(self, name: str) -> Mapping[str, Check]:
        """What is wrong with each part; empty when nothing is."""
        common: dict[str, Check] = {"ping": lambda: "", "log": lambda: "", "etcd": self._store}
        common |= {"poststarthook/start-watch-cache": self._store}
        if name in ("readyz", "healthz"):
            common["poststarthook/rbac/bootstrap-roles"] = self._bootstrapped
            common["poststarthook/scheduling/bootstrap-system-priority-classes"] = self._bootstrapped
        if name == "readyz":
            common["informer-sync"] = self._store
            common["shutdown"] = lambda: "process is shutting down" if self._server.reader.draining.is_set() else ""
        return common

    def _store(self) -> str:
        return "" if self._server.cache.connected.is_set() else "the store cannot be reached"

    def _bootstrapped(self) -> str:
        return "" if self.ready else "not finished"

    def answer(self, request: Request, name: str, single: str) -> Response:
        checks = self.checks(name)
        if single:
            if single not in checks:
                return Response(404, b"404 page not found\n", content_type="text/plain; charset=utf-8")
            wrong = checks[single]()
            text = f"internal server error: {wrong}\n" if wrong else "ok"
            return Response(500 if wrong else 200, text.encode(), content_type="text/plain; charset=utf-8")
        excluded = {value for key, value in request.query if key == "exclude"}
        verbose = any(key == "verbose" for key, _ in request.query)
        return health_answer(name, checks, excluded=excluded, verbose=verbose)

    def components(self) -> Mapping[str, Callable[[], Awaitable[ComponentHealth]]]:
        """What ComponentStatus asks."""

        async def store() -> ComponentHealth:
            wrong = self._store()
            return ComponentHealth("False", error=wrong) if wrong else ComponentHealth("True", message="ok")

        return {"etcd-0": store}
