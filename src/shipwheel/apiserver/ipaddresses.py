"""An IPAddress object for every cluster IP (KEP-1880): made and taken away as services come and go.

The services are the record. What is missing or left over, after a crash say, is put right when the server starts.
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
                    self._changed.put_nowait(address)

    async def run(self) -> None:
        """Follow services until cancelled."""
        for address in self._all():
            self._changed.put_nowait(address)
        async with asyncio.TaskGroup() as group:
            while True:
                address = await self._changed.get()
                try:
                    await self._reconcile(address)
                except ApiError as error:
                    log.warning("IPAddress %s: %s", address, error)
                    group.create_task(self._later(address))

    async def _later(self, address: str) -> None:
        await self._server.clock.sleep(_RETRY_SECONDS)
        self._changed.put_nowait(address)

    def _all(self) -> set[str]:
        held = {each for service in self._server.peek_all(SERVICES) for each in taken_by(service)[0]}
        ours = {
            each["metadata"]["name"]
            for each in self._server.peek_all(ADDRESSES)
            if (each["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER
        }
        return held | ours

    async def _reconcile(self, address: str) -> None:
        holder = next((service for service in self._server.peek_all(SERVICES) if address in taken_by(service)[0]), None)
        known = self._server.peek(ADDRESSES, "", address)
        if holder is None:
            if known is not None and (known["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER:
                await self._server.delete(ADDRESSES, "", address, {}, user=LOOPBACK)
        elif known is None:
            await self._server.create(ADDRESSES, "", ip_address(address, holder), user=LOOPBACK)


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
