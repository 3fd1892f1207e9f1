"""The node's own place at the API server: registration, status, lease.

The status is looked at every ten seconds and written when it changed, or every five minutes; that the node is alive
is told by its lease, renewed every ten seconds (KEP-589). What changes readiness is written at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shipwheel.api.clock import Clock, rfc3339_micro
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.resources import LEASES, NODES
from shipwheel.kubelet import node_status
from shipwheel.kubelet.node_status import NodeFacts

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
_REGISTER_SECONDS = 0.1
_MAXIMUM_REGISTER_SECONDS = 7.0
_TRIES = 5
_UNINITIALIZED = {"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class Identity:
    name: str
    labels: Mapping[str, str]
    taints: Sequence[Obj] = ()
    provider_id: str = ""
    register: bool = True
    update_seconds: float = 10.0
    report_seconds: float = 300.0
    lease_seconds: int = 40
    controller_attach: bool = True
    external_cloud: bool = False
    """A cloud controller manager makes the node usable; until then a taint keeps pods away."""


class Node:
    """`facts()` tells what the status is made from. `object` is the node as the server has it, None until known."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        identity: Identity,
        facts: Callable[[], NodeFacts],
        record: Callable[[str, str, str], None],
    ) -> None:
        self._client = client
        self._clock = clock
        self._identity = identity
        self._facts = facts
        self._record = record
        self._hurry = asyncio.Event()
        self._reported = float("-inf")
        self.object: Obj | None = None

    def seen(self, node: Obj) -> None:
        """The node's object as a watch has it."""
        self.object = node

    def hurry(self) -> None:
        """Something changed that others should know at once."""
        self._hurry.set()

    async def run(self) -> None:
        """Register, then keep status and lease fresh, until cancelled."""
        await self._register()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_status(), name="node status")
            group.create_task(self._keep_lease(), name="node lease")

    async def _register(self) -> None:
        delay = _REGISTER_SECONDS
        while True:
            try:
                self.object = await self._register_once()
                break
            except (ApiError, ConnectionFailed) as error:
                log.warning('Unable to register node "%s" with API server: %s', self._identity.name, error)
            await self._clock.sleep(delay)
            delay = min(delay * 2, _MAXIMUM_REGISTER_SECONDS)
        log.info("Successfully registered node %s", self._identity.name)

    async def _register_once(self) -> Obj:
        identity = self._identity
        if not identity.register:
            return await self._client.get(NODES, identity.name)
        wanted = node_status.initial_node(
            self._facts(),
            name=identity.name,
            labels=identity.labels,
            taints=[*identity.taints, *([_UNINITIALIZED] if identity.external_cloud else ())],
            provider_id=identity.provider_id,
            controller_attach=identity.controller_attach,
            now=self._clock.now(),
        )
        try:
            return await self._client.create(NODES, wanted)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        existing = await self._client.get(NODES, identity.name)
        meta = wanted["metadata"]
        changes = {
            part: {
                key: value
                for key, value in (meta.get(part) or {}).items()
                if (existing["metadata"].get(part) or {}).get(key) != value
            }
            for part in ("labels", "annotations")
        }
        changes = {part: listed for part, listed in changes.items() if listed}
        if not changes:
            return existing
        return await self._client.patch(NODES, identity.name, "", {"metadata": changes}, kind="strategic")

    async def _keep_status(self) -> None:
        while True:
            self._hurry.clear()
            for _ in range(_TRIES):
                try:
                    await self._report()
                    break
                except (ApiError, ConnectionFailed) as error:
                    log.warning("Error updating node status, will retry: %s", error)
                    if isinstance(error, ApiError) and error.code == 404:
                        await self._register()
            else:
                log.error("Unable to update node status: update node status exceeds retry count")
            await self._pause(self._identity.update_seconds * (1 + random.random() * 0.04))

    async def _pause(self, seconds: float) -> None:
        hurry = asyncio.ensure_future(self._hurry.wait())
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({hurry, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()
            timer.cancel()

    async def _report(self) -> None:
        """Write the status if it changed, or if that was not done for long."""
        current = self.object
        if current is None:
            return
        old = current.get("status") or {}
        new = node_status.node_status(self._facts(), old, now=self._clock.now())
        new = {**{key: value for key, value in old.items() if key not in new}, **new}
        elapsed = self._clock.monotonic() - self._reported
        if not node_status.changed(old, new) and elapsed < self._identity.report_seconds:
            return
        patch: Obj = {key: value or None for key, value in new.items() if (old.get(key) or None) != (value or None)}
        if "addresses" in patch:
            patch["addresses"] = [*patch["addresses"], {"$patch": "replace"}]
        self.object = await self._client.patch(
            NODES, self._identity.name, "", {"status": patch}, kind="strategic", subresource="status"
        )
        self._reported = self._clock.monotonic()
        self._tell(old, new)

    def _tell(self, old: Obj, new: Obj) -> None:
        """Events for conditions that changed, and for a start of the machine since the last report."""
        before_boot, boot = ((each.get("nodeInfo") or {}).get("bootID") for each in (old, new))
        if before_boot and before_boot != boot:
            text = f"Node {self._identity.name} has been rebooted, boot id: {boot}"
            self._record("Warning", "Rebooted", text)
        before = {each["type"]: each["status"] for each in old.get("conditions") or ()}
        for each in new["conditions"]:
            if before.get(each["type"]) == each["status"]:
                continue
            if each["type"] == "Ready":
                word = "NodeReady" if each["status"] == "True" else "NodeNotReady"
            else:
                word = each["reason"].replace("Kubelet", "Node", 1)
            text = f"Node {self._identity.name} status is now: {word}"
            self._record("Normal", word, text)

    async def _keep_lease(self) -> None:
        lease: Obj | None = None
        interval = self._identity.lease_seconds / 4
        delay = 0.2
        while True:
            try:
                lease = await self._renew(lease)
                delay = 0.2
                await self._clock.sleep(interval * (1 + random.random() * 0.04))
            except (ApiError, ConnectionFailed) as error:
                log.warning("Failed to ensure lease exists, will retry: %s", error)
                lease = None
                await self._clock.sleep(delay)
                delay = min(delay * 2, 7.0)

    async def _renew(self, lease: Obj | None) -> Obj:
        name = self._identity.name
        now = rfc3339_micro(self._clock.now())
        if lease is None:
            try:
                lease = await self._client.get(LEASES, name, LEASE_NAMESPACE)
            except ApiError as error:
                if error.code != 404:
                    raise
                return await self._client.create(LEASES, self._new_lease(now), LEASE_NAMESPACE)
        spec = {**lease.get("spec", {}), "holderIdentity": name, "renewTime": now}
        spec["leaseDurationSeconds"] = self._identity.lease_seconds
        return await self._client.update(LEASES, {**lease, "spec": spec})

    def _new_lease(self, now: str) -> Obj:
        name = self._identity.name
        meta: Obj = {"name": name, "namespace": LEASE_NAMESPACE}
        if self.object is not None:
            uid = self.object["metadata"]["uid"]
            meta["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": meta,
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": self._identity.lease_seconds,
                "renewTime": now,
            },
        }
