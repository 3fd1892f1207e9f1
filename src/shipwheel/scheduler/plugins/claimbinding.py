"""What is written about claims: the devices that were chosen, and for which pods they are reserved.

Between the decision and its writing a claim is *promised* its devices, so that nobody else is given them. Of a claim
that several pods share only the first has to choose; each of them is added to those it is reserved for.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shipwheel.api.clock import parse_time, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, condition, is_being_deleted, name_of, namespace_of, uid_of
from shipwheel.client.client import Client
from shipwheel.client.metrics import exponential
from shipwheel.client.resources import PODS, RESOURCE_CLAIMS
from shipwheel.scheduler.devices.ledger import allocation_of
from shipwheel.scheduler.framework import Cycle, Handle, PluginError

FINALIZER = "resource.kubernetes.io/delete-protection"
_ATTEMPTS = 5
_POLL_SECONDS = 1.0
_STATE = "DynamicResources/decisions"


class DeviceBindingFailed(PluginError):
    """A driver says that a device cannot be made ready."""


class DeviceBindingTimeout(PluginError):
    """A device was not made ready in time."""


@dataclass(slots=True)
class Decision:
    """What becomes of a claim."""

    claim: Obj
    allocation: Obj | None = None
    """None: it has one already."""
    mappings: Sequence[Obj] = ()
    """Of the claim that extended resources come to: which container has which request."""
    promise: str = field(default_factory=lambda: str(uuid.uuid4()))
    """What its promise is known by; a claim that is not made yet has no uid."""

    @property
    def is_new(self) -> bool:
        """The claim is made only when the decision is written."""
        return "uid" not in self.claim["metadata"]


def is_reserved_for(claim: Obj, pod: Obj) -> bool:
    reserved = (claim.get("status") or {}).get("reservedFor") or ()
    return any(each.get("uid") == uid_of(pod) for each in reserved)


def _devices_to_wait_for(claim: Obj) -> list[tuple[Obj, Obj]]:
    """(result, what is reported of the device) of devices that have to be made ready before the pod is bound."""
    status = claim.get("status") or {}
    found: list[tuple[Obj, Obj]] = []
    for result in ((allocation_of(claim) or {}).get("devices") or {}).get("results") or ():
        if result.get("bindingConditions"):
            known = (each for each in status.get("devices") or () if _same_device(each, result))
            found.append((result, {"status": next(known, {})}))
    return found


def _same_device(one: Obj, other: Obj) -> bool:
    return all(one.get(key) == other.get(key) for key in ("driver", "pool", "device"))


def binding_failure(claim: Obj) -> str:
    """Why a device could not be made ready; empty when nothing is known of that."""
    for result, reported in _devices_to_wait_for(claim):
        for kind in result.get("bindingFailureConditions") or ():
            failed = condition(reported, kind)
            if failed is not None and failed["status"] == "True":
                why = f'reason={failed.get("reason", "")}, message="{failed.get("message", "")}"'
                return f"device binding failed: claim={name_of(claim)}, {why}"
    return ""


def _is_ready(claim: Obj) -> bool:
    return all(
        (condition(reported, kind) or {}).get("status") == "True"
        for result, reported in _devices_to_wait_for(claim)
        for kind in result["bindingConditions"]
    )


class ClaimBinding:
    """Writes decisions about claims. `timeout` is how many seconds devices may take to be made ready."""

    def __init__(self, handle: Handle, timeout: float) -> None:
        self._handle = handle
        self._ledger = handle.ledger
        self._timeout = timeout
        metrics, labels = handle.metrics, ("profile", "driver", "status")
        self._created = metrics.counter(
            "scheduler_resourceclaim_creates_total",
            "[ALPHA] Number of ResourceClaims creation requests within scheduler",
            ("status",),
        )
        self._prepared = metrics.counter(
            "scheduler_dra_bindingconditions_allocations_total",
            "[ALPHA] Number of allocations using devices with BindingConditions, counted per driver per scheduling "
            "attempt",
            labels,
        )
        self._prepared_seconds = metrics.histogram(
            "scheduler_dra_bindingconditions_wait_duration_seconds",
            "[ALPHA] Time in seconds spent waiting for BindingConditions to be satisfied during PreBind.",
            exponential(0.1, 2, 14),
            labels,
        )

    def is_late(self, claim: Obj) -> bool:
        """Its devices should have been ready by now."""
        since = (allocation_of(claim) or {}).get("allocationTimestamp")
        client = self._handle.client
        if since is None or client is None or not _devices_to_wait_for(claim) or _is_ready(claim):
            return False
        return (client.clock.now() - parse_time(since)).total_seconds() > self._timeout

    # A decision

    def reserve(self, cycle: Cycle, decisions: Sequence[Decision]) -> None:
        """Promise what was decided."""
        cycle.state[_STATE] = decisions
        for each in decisions:
            if each.allocation is not None:
                if not each.is_new:
                    each.promise = uid_of(each.claim)
                self._ledger.promise(each.promise, each.allocation)

    def unreserve(self, cycle: Cycle) -> None:
        """Take the decision back, and what was written of it."""
        for each in cycle.state.pop(_STATE, ()):
            if each.allocation is not None:
                self._ledger.release(each.promise)
            if each.mappings:
                if not each.is_new:
                    self.delete(each.claim)
            elif allocation_of(each.claim) and is_reserved_for(each.claim, cycle.pod):
                self._unreserve(each.claim, cycle.pod)

    async def bind(self, cycle: Cycle, node: str) -> None:
        """Write the decision, and wait for devices that have to be made ready. PluginError when that fails."""
        decisions: Sequence[Decision] = cycle.state.get(_STATE, ())
        for each in decisions:
            if not is_reserved_for(each.claim, cycle.pod):
                await self._write(each, cycle.pod)
        if any(_devices_to_wait_for(each.claim) for each in decisions):
            await self._until_ready(cycle.pod, decisions, node)

    async def _write(self, decision: Decision, pod: Obj) -> None:
        client = self._client()
        try:
            if decision.is_new:
                decision.claim = await self._create(client, decision.claim, namespace_of(pod))
            decision.claim = await self._write_claim(client, decision, pod)
        finally:
            if decision.allocation is not None:
                self._ledger.release(decision.promise)
        if decision.mappings:
            mentioned = {"requestMappings": list(decision.mappings), "resourceClaimName": name_of(decision.claim)}
            patch = {"metadata": {"uid": uid_of(pod)}, "status": {"extendedResourceClaimStatus": mentioned}}
            await client.patch(PODS, name_of(pod), namespace_of(pod), patch, kind="strategic", subresource="status")

    async def _create(self, client: Client, claim: Obj, namespace: str) -> Obj:
        status = "failure"
        try:
            made = await client.create(RESOURCE_CLAIMS, claim, namespace)
            status = "success"
        finally:
            self._created.labels(status).inc()
        return made

    async def _write_claim(self, client: Client, decision: Decision, pod: Obj) -> Obj:
        """Others write claims too, so a conflict is a reason to look again."""
        claim = decision.claim
        for attempt in range(_ATTEMPTS):
            try:
                if attempt:
                    claim = await client.get(RESOURCE_CLAIMS, name_of(claim), namespace_of(claim))
                written = await self._try(client, claim, decision.allocation, pod)
            except ApiError as error:
                if error.code != 409 or attempt == _ATTEMPTS - 1:
                    what = "allocation and reservation" if decision.allocation is not None else "reservation"
                    raise PluginError(f"add {what} to claim {_key(claim)}: {error}") from error
            else:
                self._ledger.written(written)
                return written
        raise AssertionError("unreachable")

    async def _try(self, client: Client, claim: Obj, allocation: Obj | None, pod: Obj) -> Obj:
        if is_being_deleted(claim):
            raise PluginError(f"claim {_key(claim)} got deleted in the meantime")
        known = allocation_of(claim)
        if allocation is not None and known:
            raise PluginError(f"claim {_key(claim)} got allocated elsewhere in the meantime")
        if allocation is None and not known:
            raise PluginError(f"claim {_key(claim)} got deallocated elsewhere in the meantime")
        finalizers = claim["metadata"].get("finalizers") or []
        if allocation is not None and FINALIZER not in finalizers:
            marked = {**claim, "metadata": {**claim["metadata"], "finalizers": [*finalizers, FINALIZER]}}
            claim = await client.update(RESOURCE_CLAIMS, marked)
        status = claim.get("status") or {}
        reference = {"resource": "pods", "name": name_of(pod), "uid": uid_of(pod)}
        given = {"allocationTimestamp": rfc3339(client.clock.now()), **(allocation or known or {})}
        changed = {
            **status,
            "allocation": given,
            "reservedFor": [*(status.get("reservedFor") or ()), reference],
        }
        return await client.update(RESOURCE_CLAIMS, {**claim, "status": changed}, subresource="status")

    async def _until_ready(self, pod: Obj, decisions: Sequence[Decision], node: str) -> None:
        """Wait for the conditions that drivers set on devices (KEP-5007)."""
        profile = pod["spec"].get("schedulerName", "default-scheduler")
        if self._handle.recorder is not None:
            message = f"waiting for binding conditions for device on node {node}"
            self._handle.recorder.for_component(profile).event(pod, "Normal", "BindingConditionsPending", message)
        status, started = "error", time.perf_counter()
        try:
            await self._wait(decisions)
            status = "success"
        except DeviceBindingFailed:
            status = "failure"
            raise
        except DeviceBindingTimeout:
            status = "timeout"
            raise
        finally:
            for each in decisions:
                for result, _ in _devices_to_wait_for(each.claim):
                    self._prepared.labels(profile, result["driver"], status).inc()
                    seconds = time.perf_counter() - started
                    self._prepared_seconds.labels(profile, result["driver"], status).observe(seconds)

    async def _wait(self, decisions: Sequence[Decision]) -> None:
        client = self._client()
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    for each in decisions:
                        claim = self._ledger.claim(namespace_of(each.claim), name_of(each.claim))
                        if claim is None:
                            raise PluginError(f'resourceclaim.resource.k8s.io "{name_of(each.claim)}" not found')
                        each.claim = claim
                        if reason := binding_failure(claim):
                            raise DeviceBindingFailed(reason)
                        if self.is_late(claim):
                            raise DeviceBindingTimeout(f"device binding timeout: claim={name_of(claim)}")
                    if all(_is_ready(each.claim) for each in decisions):
                        return
                    await client.clock.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise DeviceBindingTimeout("device binding timeout: context deadline exceeded") from error

    def _client(self) -> Client:
        assert self._handle.client is not None
        return self._handle.client

    # Taking back

    def deallocate(self, claim: Obj) -> None:
        """Let a claim have other devices."""
        freed = {"allocation": None, "devices": None, "reservedFor": None}
        meta = {"uid": uid_of(claim), "resourceVersion": claim["metadata"].get("resourceVersion")}
        self._patch(claim, "the deallocation of", {"metadata": meta, "status": freed})

    def _unreserve(self, claim: Obj, pod: Obj) -> None:
        mine = [{"$patch": "delete", "uid": uid_of(pod)}]
        patch = {"metadata": {"uid": uid_of(claim)}, "status": {"reservedFor": mine}}
        self._patch(claim, f"the reservation for {uid_of(pod)} of", patch, kind="strategic")

    def _patch(self, claim: Obj, what: str, patch: Obj, kind: Any = "merge") -> None:
        async def write() -> None:
            client = self._client()
            try:
                written = await client.patch(
                    RESOURCE_CLAIMS, name_of(claim), namespace_of(claim), patch, kind=kind, subresource="status"
                )
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
            else:
                self._ledger.written(written)

        self._handle.later(f"{what} claim {_key(claim)}", write)

    def delete(self, claim: Obj) -> None:
        """Delete a claim that was made of extended resources."""

        async def delete() -> None:
            client = self._client()
            try:
                current = await client.get(RESOURCE_CLAIMS, name_of(claim), namespace_of(claim))
                if uid_of(current) != uid_of(claim):
                    return
                finalizers = current["metadata"].get("finalizers") or []
                left = [each for each in finalizers if each != FINALIZER]
                if len(left) < len(finalizers):
                    unmarked = {**current, "metadata": {**current["metadata"], "finalizers": left}}
                    await client.update(RESOURCE_CLAIMS, unmarked)
                await client.delete(RESOURCE_CLAIMS, name_of(claim), namespace_of(claim), uid=uid_of(claim))
            except ApiError as error:
                if error.code != 404:
                    raise

        self._handle.later(f"the deletion of claim {_key(claim)}", delete)


def _key(claim: Obj) -> str:
    return f"{namespace_of(claim)}/{claim['metadata'].get('name', '')}"
