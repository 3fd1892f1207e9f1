"""Eviction by NoExecute taints of devices (KEP-5055): pods that use a tainted device are deleted, after the time
that their request tolerates the taint for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from shipwheel.api.clock import parse_time
from shipwheel.api.meta import Obj, is_being_deleted, key_of, split_key
from shipwheel.client.informer import EventType
from shipwheel.client.resources import RESOURCE_CLAIMS, RESOURCE_SLICES
from shipwheel.controllers.devices.consumers import (
    claim_keys,
    is_reserved_for,
    not_made_for,
    owning_pod,
)
from shipwheel.controllers.eviction import evict, reference_to
from shipwheel.controllers.framework import Context
from shipwheel.controllers.pods import is_terminal
from shipwheel.kinds.taints import tolerates

Device = tuple[str, str, str]
"""Driver, pool and name."""


def evicting_taints(slices: Iterable[Obj]) -> dict[Device, list[Obj]]:
    """The NoExecute taints of devices; only the newest generation of a pool counts."""
    slices = list(slices)
    newest: dict[tuple[str, str], int] = {}
    for each in slices:
        pool = _pool_of(each)
        newest[pool] = max(newest.get(pool, 0), each["spec"]["pool"].get("generation", 0))
    found: dict[Device, list[Obj]] = {}
    for each in slices:
        if each["spec"]["pool"].get("generation", 0) != newest[_pool_of(each)]:
            continue
        for device in each["spec"].get("devices") or ():
            taints = [taint for taint in device.get("taints") or () if taint.get("effect") == "NoExecute"]
            if taints:
                found[(*_pool_of(each), device["name"])] = taints
    return found


def _pool_of(each: Obj) -> tuple[str, str]:
    return each["spec"]["driver"], each["spec"]["pool"]["name"]


def eviction_time(claim: Obj, taints: Mapping[Device, list[Obj]]) -> datetime | None:
    """When the users of an allocated claim must go; None: never."""
    times: list[datetime] = []
    allocation = (claim.get("status") or {}).get("allocation") or {}
    for result in (allocation.get("devices") or {}).get("results") or ():
        for taint in taints.get((result["driver"], result["pool"], result["device"]), ()):
            added = taint.get("timeAdded")
            seconds = _seconds_tolerated(taint, result.get("tolerations") or ())
            if added and seconds is not None:
                times.append(parse_time(added) + timedelta(seconds=seconds))
    return min(times, default=None)


def _seconds_tolerated(taint: Obj, tolerations: Iterable[Obj]) -> int | None:
    """0: not tolerated; None: for ever."""
    limits: list[int] = []
    for toleration in tolerations:
        if toleration.get("effect") != "NoExecute" or tolerates((toleration,), taint) is None:
            continue
        if toleration.get("tolerationSeconds") is None:
            return None
        limits.append(max(toleration["tolerationSeconds"], 0))
    return min(limits, default=0)


class DeviceTaintEvictionController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._pods = ctx.pods()
        self._pods.add_indexers({"resource-claim": claim_keys})
        self._claims = ctx.informer(RESOURCE_CLAIMS)
        self._slices = ctx.informer(RESOURCE_SLICES)
        self._taints: dict[Device, list[Obj]] = {}
        self._pending: set[str] = set()
        self._loop = ctx.loop(
            "device_taint_eviction",
            self.reconcile,
            workers=ctx.config.concurrent_device_taint_eviction_syncs,
            informers=(self._pods, self._claims, self._slices),
        )
        self._pods.add_handler(self._on_pod)
        self._claims.add_handler(self._on_claim)
        self._slices.add_handler(self._on_slice)
        self._evicted = ctx.metrics.counter(
            "device_taint_eviction_controller_pod_deletions_total",
            "[ALPHA] Total number of Pods deleted by DeviceTaintEvictionController since its start.",
        )

    async def run(self) -> None:
        await self._loop.run()

    # Events

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        pod = new if new is not None else old
        if pod is not None and (key_of(pod) in self._pending or (self._taints and claim_keys(pod))):
            self._loop.add(pod)

    def _on_claim(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        claim = new if new is not None else old
        if claim is not None and (self._taints or self._pending):
            self._queue_users(claim)

    def _on_slice(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        before, self._taints = self._taints, evicting_taints(self._slices.list())
        both = before.keys() | self._taints.keys()
        changed = {device for device in both if before.get(device) != self._taints.get(device)}
        if not changed:
            return
        for claim in self._claims.list():
            allocation = (claim.get("status") or {}).get("allocation") or {}
            results = (allocation.get("devices") or {}).get("results") or ()
            if any((each["driver"], each["pool"], each["device"]) in changed for each in results):
                self._queue_users(claim)

    def _queue_users(self, claim: Obj) -> None:
        for pod in self._pods.by_index("resource-claim", key_of(claim)):
            self._loop.add(pod)

    # Reconciling

    async def reconcile(self, key: str) -> float | None:
        pod = self._pods.get(*split_key(key))
        if pod is None or is_being_deleted(pod) or is_terminal(pod):
            self._pending.discard(key)
            return None
        when = self._eviction_time(pod)
        if when is None:
            if key in self._pending:
                self._pending.remove(key)
                self._event(pod, "Cancelling deletion")
            return None
        left = (when - self._ctx.clock.now()).total_seconds()
        if left > 0:
            self._pending.add(key)
            return left
        await self._evict(pod)
        self._pending.discard(key)
        return None

    def _eviction_time(self, pod: Obj) -> datetime | None:
        if not pod["spec"].get("nodeName"):
            return None
        times: list[datetime] = []
        for key in claim_keys(pod):
            claim = self._claims.get(*split_key(key))
            if claim is None or not is_reserved_for(claim, pod):
                continue
            if owning_pod(claim) is not None and not_made_for(claim, pod):
                continue
            when = eviction_time(claim, self._taints)
            if when is not None:
                times.append(when)
        return min(times, default=None)

    async def _evict(self, pod: Obj) -> None:
        self._event(pod, "Marking for deletion")
        await evict(
            self._ctx.client,
            self._ctx.clock,
            pod,
            reason="DeletionByDeviceTaintManager",
            message="Device Taint manager: deleting due to NoExecute taint",
        )
        self._evicted.inc()

    def _event(self, pod: Obj, message: str) -> None:
        self._ctx.recorder.event(reference_to(pod), "Normal", "DeviceTaintManagerEviction", message)
