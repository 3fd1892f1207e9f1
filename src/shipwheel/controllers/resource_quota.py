"""ResourceQuotas: count what a namespace uses.

Admission adds what is created; here is taken off again what has gone, and everything is counted anew from time to
time. A creation is no reason to count: the cache may know of it later than the quota does, and the count would
give back what has just been taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

from shipwheel.api.meta import GroupResource, Obj, key_of, namespace_of, split_key
from shipwheel.api.quantity import parse
from shipwheel.client.informer import EventType, Informer
from shipwheel.client.resources import RESOURCE_QUOTAS
from shipwheel.controllers.framework import Context, Writes
from shipwheel.kinds import quota as counting

_WHOLE = frozenset({counting.PODS, counting.SERVICES, counting.CLAIMS, counting.RESOURCE_CLAIMS})
"""Kinds of which more than the metadata counts."""
_DISCOVERY_PERIOD = 30.0
"""How often to look whether the server has a kind by now that a quota names."""


class ResourceQuotaController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._quotas = ctx.informer(RESOURCE_QUOTAS)
        self._counted: dict[GroupResource, Informer] = {}
        self._writes = Writes()
        self._loop = ctx.loop(
            "resourcequota_primary",
            self.reconcile,
            workers=ctx.config.concurrent_resource_quota_syncs,
            informers=(self._quotas,),
            writes=self._writes,
        )
        self._quotas.add_handler(self._on_quota)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop.run())
            group.create_task(self._resync())

    async def _resync(self) -> None:
        while True:
            await self._ctx.clock.sleep(self._ctx.config.resource_quota_sync_period)
            for quota in self._quotas.list():
                self._loop.add(quota)

    def _on_quota(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is None:
            return
        if old is None or (new.get("spec") or {}).get("hard") != (old.get("spec") or {}).get("hard"):
            self._loop.add(new)

    def _on_object(self, resource: GroupResource, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        """Something gave back what it took: count again."""
        if old is None:
            return
        now = self._ctx.clock.now()
        if new is not None and (resource not in _WHOLE or counting.counts_alike(resource, old, new, now)):
            return
        for quota in self._quotas.list(namespace_of(old)):
            if resource in counting.resources_counted((quota.get("spec") or {}).get("hard") or {}):
                self._loop.add(quota)

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        quota = self._quotas.get(namespace, name)
        if quota is None:
            self._writes.forget(key)
            return None
        hard = (quota.get("spec") or {}).get("hard") or {}
        watched = [await self._watch(resource) for resource in counting.resources_counted(hard)]
        counted = counting.count(quota, lambda resource: self._objects(resource, namespace), self._ctx.clock.now())
        status = quota.get("status") or {}
        used = {name: str(amount) for name, amount in counted.items()}
        before = status.get("used")
        # What nothing is counted for keeps the value it has.
        used |= {name: value for name, value in (before or {}).items() if name in hard and name not in used}
        same_hard = status.get("hard") is not None and _equal(status["hard"], hard)
        again = None if all(watched) else _DISCOVERY_PERIOD
        if before is not None and same_hard and _equal(before, used):
            return again
        written = await self._ctx.client.update(
            RESOURCE_QUOTAS, {**quota, "status": {"hard": hard, "used": used}}, subresource="status"
        )
        self._writes.wrote(key_of(quota), self._quotas, written)
        return again

    def _objects(self, resource: GroupResource, namespace: str) -> Iterable[Obj]:
        informer = self._counted.get(resource)
        return informer.list(namespace) if informer else ()

    async def _watch(self, resource: GroupResource) -> bool:
        """Have a cache of a kind that is to be counted; False when the server does not have the kind (yet)."""
        informer = self._counted.get(resource)
        if informer is None:
            discovery = await self._ctx.client.resources()
            served = next((each for each in discovery.preferred() if each.gvr.group_resource == resource), None)
            if served is None or not served.namespaced or not {"list", "watch"} <= served.verbs:
                return False
            informers = self._ctx.informers
            if resource in _WHOLE:
                informer = informers.informer(served.gvr)
            else:
                informer = informers.existing(served.gvr) or informers.informer(served.gvr, metadata_only=True)
            self._counted[resource] = informer
            informer.add_handler(partial(self._on_object, resource))
        await informer.wait_synced()
        return True


def _equal(one: dict[str, str], other: dict[str, str]) -> bool:
    """The same amounts, however they are written."""
    return one.keys() == other.keys() and all(parse(one[name]) == parse(other[name]) for name in one)
