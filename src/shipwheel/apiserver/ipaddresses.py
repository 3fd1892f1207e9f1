"""An IPAddress object for every cluster IP (KEP-1880): made and taken away as services come and go.

The services are the record. What is missing, left over or wrong, after a crash say, is put right when the server starts
and every few minutes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.apiserver.bootstrap import LOOPBACK
from shipwheel.apiserver.service_means import SERVICES_PREFIX, taken_by
from shipwheel.apiserver.watchcache import Change, ResourceCache

if TYPE_CHECKING:
    from shipwheel.apiserver.server import ApiServer

log = logging.getLogger(__name__)

ADDRESSES = GroupResource("networking.k8s.io", "ipaddresses")
SERVICES = GroupResource("", "services")
MANAGED_BY = "ipaddress.kubernetes.io/managed-by"
MANAGER = "ipallocator.k8s.io"
_FAMILY = "ipaddress.kubernetes.io/ip-family"
_RETRY_SECONDS = 1.0
_PERIOD = 180.0


class IpAddresses:
    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._changed: asyncio.Queue[str] = asyncio.Queue()
        server.cache.on_change(self._on_change)

    def _on_change(self, cache: ResourceCache, change: Change) -> None:
        if cache.resource.prefix != SERVICES_PREFIX:
            return
        for entry in (change.before, change.after):
            if entry is not None:
                for address in taken_by(entry.decode())[0]:
                    self.check(address)

    async def run(self) -> None:
        """Follow services until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_at_all())
            while True:
                address = await self._changed.get()
                try:
                    await self._reconcile(address)
                except ApiError as error:
                    log.warning("IPAddress %s: %s", address, error)
                    group.create_task(self._later(address))

    def check(self, address: str) -> None:
        """Have an address looked at."""
        self._changed.put_nowait(address)

    async def _look_at_all(self) -> None:
        while True:
            for address in self._all():
                self.check(address)
            await self._server.clock.sleep(_PERIOD)

    async def _later(self, address: str) -> None:
        await self._server.clock.sleep(_RETRY_SECONDS)
        self.check(address)

    def _all(self) -> set[str]:
        held = {each for service in self._server.peek_all(SERVICES) for each in taken_by(service)[0]}
        ours = {
            each["metadata"]["name"]
            for each in self._server.peek_all(ADDRESSES)
            if (each["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER
        }
        return held | ours

    async def _reconcile(self, address: str) -> None:
        holders = [service for service in self._server.peek_all(SERVICES) if address in taken_by(service)[0]]
        known = self._server.peek(ADDRESSES, "", address)
        if known is not None and not (is_right(known, holders) if holders else is_foreign(known)):
            await self._server.delete(ADDRESSES, "", address, {}, user=LOOPBACK)
            known = None
        if holders and known is None:
            await self._server.create(ADDRESSES, "", ip_address(address, holders[0]), user=LOOPBACK)


def is_foreign(known: Obj) -> bool:
    """The object was made by somebody else, for something other than a service."""
    return (known["metadata"].get("labels") or {}).get(MANAGED_BY) != MANAGER


def is_right(known: Obj, holders: list[Obj]) -> bool:
    """The object says that one of the services that have the address has it."""
    wanted = [ip_address(known["metadata"]["name"], holder) for holder in holders]
    labels, parent = known["metadata"].get("labels") or {}, known["spec"].get("parentRef") or {}
    return any(
        {"group": "", **parent} == each["spec"]["parentRef"] and labels.items() >= each["metadata"]["labels"].items()
        for each in wanted
    )


def ip_address(address: str, service: Obj) -> Obj:
    """The object that says which service has an address."""
    family = "IPv6" if ":" in address else "IPv4"
    metadata = service["metadata"]
    return {
        "metadata": {"name": address, "labels": {MANAGED_BY: MANAGER, _FAMILY: family}},
        "spec": {
            "parentRef": {
                "group": "",
                "resource": "services",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
            }
        },
    }
