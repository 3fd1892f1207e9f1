"""Leases of etcd, shared by keys that expire at about the same time.

A lease a key would double etcd's work for every event. As in upstream's lease manager, a lease is granted for a little
longer than asked (5 %, at most a minute) and serves the keys that come meanwhile, 1,000 at most.
"""

from __future__ import annotations

import asyncio

from shipwheel.api.clock import Clock
from shipwheel.store.etcdapi import LEASE_GRANT
from shipwheel.store.etcdclient import EtcdClient

_MOST_KEYS = 1000
_LONGEST_REUSE = 60


class Leases:
    def __init__(self, client: EtcdClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._granting = asyncio.Lock()
        self._lease = 0
        self._ends = 0.0
        self._keys = 0

    async def lease(self, ttl: int) -> int:
        """The id of a lease that ends in `ttl` seconds, or a little later."""
        async with self._granting:
            reuse = min(ttl // 20, _LONGEST_REUSE)
            end = self._clock.monotonic() + ttl
            if not end < self._ends <= end + reuse or self._keys >= _MOST_KEYS:
                granted = await self._client.call(LEASE_GRANT, {"ttl": ttl + reuse})
                self._lease, self._ends, self._keys = granted["id"], end + reuse, 0
            self._keys += 1
            return self._lease

    def forget(self, lease: int) -> None:
        """etcd does not know it any more."""
        if lease == self._lease:
            self._ends = 0.0
