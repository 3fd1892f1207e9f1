"""Which API servers there are: the endpoints of the service `kubernetes`, when several serve one store.

Each server keeps a key of its own under `/registry/masterleases/`, which goes away when it is not renewed, and makes
the endpoints say what keys there are (upstream's lease endpoint reconciler). A server that stops takes its key along.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING

import orjson

from shipwheel.api.errors import ApiError
from shipwheel.apiserver.bootstrap import publish_endpoints
from shipwheel.store.base import StoreError

if TYPE_CHECKING:
    from shipwheel.apiserver.server import ApiServer

log = logging.getLogger(__name__)

PREFIX = "/registry/masterleases/"
LEASE_SECONDS = 15
RENEW_SECONDS = 10.0


class MasterLeases:
    """Of a server on loopback nobody is told: it is to be reached from this machine only."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        address = ipaddress.ip_address(server.config.advertise_address)
        self._address = "" if address.is_loopback else str(address)

    async def renew(self) -> None:
        """Say that this server is there, and publish who else is. ApiError, StoreError."""
        if not self._address:
            return
        subset = [{"addresses": [{"ip": self._address}]}]
        lease = {"kind": "Endpoints", "apiVersion": "v1", "metadata": {}, "subsets": subset}
        await self._server.store.put(PREFIX + self._address, orjson.dumps(lease), ttl=LEASE_SECONDS)
        await self._publish()

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await self._server.clock.sleep(RENEW_SECONDS)
            try:
                await self.renew()
            except (ApiError, StoreError) as error:
                log.warning("the endpoints of the service kubernetes could not be renewed: %s", error)

    async def leave(self) -> None:
        """Be gone at once, rather than when the lease is over."""
        if not self._address:
            return
        try:
            await self._server.store.delete(PREFIX + self._address)
            await self._publish()
        except (ApiError, StoreError) as error:
            log.warning("the endpoints of the service kubernetes still name this server: %s", error)

    async def _publish(self) -> None:
        page = await self._server.store.range(PREFIX)
        addresses = sorted(item.key.removeprefix(PREFIX) for item in page.items)
        await publish_endpoints(self._server, addresses, self._server.config.secure_port)
