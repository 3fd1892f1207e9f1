"""Namespace deletion: empty a namespace that is being deleted, then let it go.

What kinds there are is asked of the server each time, so that custom and aggregated ones are emptied too. Pods
go first (KEP-5080): what protects them, network policies for example, must not go before them. Why it takes
long is told in the namespace's conditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shipwheel.api.clock import parse_time, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersion, GroupVersionResource, Obj, is_being_deleted, name_of, namespace_of
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.informer import EventType
from shipwheel.client.resources import NAMESPACES, PODS
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.framework import Context, Retry, is_conflict, is_not_found

_FINALIZER = "kubernetes"
_FINALIZER_SECONDS = 15

_FINE = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": (
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


@dataclass(slots=True)
class Remains:
    """What is left in a namespace after an attempt to empty it."""

    counts: dict[GroupVersionResource, int] = field(default_factory=dict)
    finalizers: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    stale: tuple[GroupVersion, ...] = ()
    wait: int = 0
    """Seconds until it is worth looking again; 0: nothing is waited for."""

    def note(self, gvr: GroupVersionResource, items: Sequence[Obj], wait: int) -> None:
        if not items:
            return
        self.counts[gvr] = len(items)
        stuck = False
        for item in items:
            for finalizer in item["metadata"].get("finalizers") or ():
                self.finalizers[finalizer] = self.finalizers.get(finalizer, 0) + 1
                stuck = True
        if not wait and stuck:
            wait = _FINALIZER_SECONDS
        self.wait = max(self.wait, wait)


def conditions_of(old: Iterable[Obj], remains: Remains, now: datetime) -> list[Obj]:
    """The conditions that tell what remains; unchanged ones keep their times."""
    troubles: dict[str, tuple[str, str]] = {}
    if remains.stale:
        names = ", ".join(f"{gv}: stale GroupVersion discovery: {gv}" for gv in remains.stale)
        troubles["NamespaceDeletionDiscoveryFailure"] = (
            "DiscoveryFailed",
            f"Discovery failed for some groups, {len(remains.stale)} failing: "
            f"unable to retrieve the complete list of server APIs: {names}",
        )
    if remains.errors:
        listed = ", ".join(sorted(remains.errors))
        troubles["NamespaceDeletionContentFailure"] = (
            "ContentDeletionFailed",
            f"Failed to delete all resource types, {len(remains.errors)} remaining: {listed}",
        )
    if remains.counts:
        listed = ", ".join(
            sorted(f"{gvr.resource}.{gvr.group} has {n} resource instances" for gvr, n in remains.counts.items())
        )
        troubles["NamespaceContentRemaining"] = (
            "SomeResourcesRemain",
            f"Some resources are remaining: {listed}",
        )
    if remains.finalizers:
        listed = ", ".join(sorted(f"{name} in {n} resource instances" for name, n in remains.finalizers.items()))
        troubles["NamespaceFinalizersRemaining"] = (
            "SomeFinalizersRemain",
            f"Some content in the namespace has finalizers remaining: {listed}",
        )
    known = {entry["type"]: entry for entry in old}
    for kind, fine in _FINE.items():
        wrong = troubles.get(kind)
        status = "True" if wrong else "False"
        reason, message = wrong or fine
        before = known.get(kind)
        if before and (before["status"], before.get("reason"), before.get("message")) == (
            status,
            reason,
            message,
        ):
            continue
        since = before["lastTransitionTime"] if before and before["status"] == status else rfc3339(now)
        known[kind] = {
            "type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message,
        }  # fmt: skip
    return list(known.values())


def grace_left(pods: Iterable[Obj], deleted_at: datetime, now: datetime) -> int:
    """The longest time a running pod may take to end; 0 when it should have by now."""
    longest = max(
        (pod["spec"].get("terminationGracePeriodSeconds") or 0 for pod in pods if not podutil.is_terminal(pod)),
        default=0,
    )
    return longest if (now - deleted_at).total_seconds() < longest else 0


class NamespaceController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._namespaces = ctx.informer(NAMESPACES)
        self._pods = ctx.pods()
        self._loop = ctx.loop(
            "namespace",
            self.reconcile,
            workers=ctx.config.concurrent_namespace_syncs,
            informers=(self._namespaces,),
        )
        self._namespaces.add_handler(self._on_namespace)
        self._pods.add_handler(self._on_pod)

    async def run(self) -> None:
        await self._loop.run()

    def _on_namespace(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is not None and is_being_deleted(new) and not (old and is_being_deleted(old)):
            self._loop.queue.add_after(name_of(new), self._ctx.config.namespace_deletion_grace_period)

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        """When the last pod has gone there is nothing more to wait for."""
        if new is None and old is not None:
            namespace = self._namespaces.get("", namespace_of(old))
            if namespace is not None and is_being_deleted(namespace) and not self._pods.list(namespace_of(old)):
                self._loop.add(namespace)

    async def reconcile(self, key: str) -> float | None:
        try:
            namespace = await self._ctx.client.get(NAMESPACES, key)
            if not is_being_deleted(namespace):
                return None
            if (namespace.get("status") or {}).get("phase") != "Terminating":
                status = {**(namespace.get("status") or {}), "phase": "Terminating"}
                namespace = await self._ctx.client.update(
                    NAMESPACES, {**namespace, "status": status}, subresource="status"
                )
            if _FINALIZER not in (namespace["spec"].get("finalizers") or ()):
                return None
            remains = await self._empty(namespace)
            await self._report(namespace, remains)
            if remains.wait:
                return remains.wait / 2 + 1
            if remains.errors or remains.stale:
                raise Retry(f"namespace {key}: {'; '.join(remains.errors) or 'discovery failed'}")
            await self._finalize(namespace)
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None

    async def _empty(self, namespace: Obj) -> Remains:
        """Delete everything that can be deleted; returns what remains."""
        name = name_of(namespace)
        deleted_at = parse_time(namespace["metadata"]["deletionTimestamp"])
        discovery = await self._ctx.client.resources()
        remains = Remains(stale=discovery.stale)
        await self._empty_pods(name, deleted_at, remains)
        if PODS in remains.counts:
            return remains
        for resource in discovery.preferred():
            if resource.namespaced and "delete" in resource.verbs and resource.gvr != PODS:
                try:
                    await self._empty_of(resource.gvr, name, resource.verbs, remains)
                except (ApiError, ConnectionFailed) as error:
                    remains.errors.append(str(error))
        return remains

    async def _empty_pods(self, namespace: str, deleted_at: datetime, remains: Remains) -> None:
        client = self._ctx.client
        try:
            pods = (await client.list(PODS, namespace))["items"]
            if not pods:
                return
            wait = grace_left(pods, deleted_at, self._ctx.clock.now())
            await client.delete_collection(PODS, namespace, propagation="Background")
            left = (await client.list(PODS, namespace, metadata_only=True))["items"]
            remains.note(PODS, left, wait)
            if left and not remains.wait:
                remains.errors.append(_unexpected(namespace, PODS))
        except (ApiError, ConnectionFailed) as error:
            remains.errors.append(str(error))

    async def _empty_of(
        self, gvr: GroupVersionResource, namespace: str, verbs: frozenset[str], remains: Remains
    ) -> None:
        client = self._ctx.client
        if "list" not in verbs:
            if "deletecollection" in verbs:
                await client.delete_collection(gvr, namespace, propagation="Background")
            return
        # Most kinds have nothing in most namespaces: look before deleting.
        items = (await client.list(gvr, namespace, metadata_only=True))["items"]
        if not items:
            return
        if "deletecollection" in verbs:
            await client.delete_collection(gvr, namespace, propagation="Background")
        else:
            for item in items:
                try:
                    await client.delete(gvr, name_of(item), namespace, propagation="Background")
                except ApiError as error:
                    if error.code not in (404, 405):
                        raise
        items = (await client.list(gvr, namespace, metadata_only=True))["items"]
        before = remains.wait
        remains.note(gvr, items, 0)
        if items and not any(item["metadata"].get("finalizers") for item in items):
            remains.wait = before
            remains.errors.append(_unexpected(namespace, gvr))

    async def _report(self, namespace: Obj, remains: Remains) -> None:
        old = (namespace.get("status") or {}).get("conditions") or []
        conditions = conditions_of(old, remains, self._ctx.clock.now())
        if conditions == old:
            return
        status = {**(namespace.get("status") or {}), "conditions": conditions}
        try:
            await self._ctx.client.update(NAMESPACES, {**namespace, "status": status}, subresource="status")
        except ApiError as error:
            if not is_conflict(error):
                raise

    async def _finalize(self, namespace: Obj) -> None:
        """Take our finalizer off, whoever else changes the namespace meanwhile."""
        while True:
            fresh = await self._ctx.client.get(NAMESPACES, name_of(namespace))
            kept = [each for each in fresh["spec"].get("finalizers") or () if each != _FINALIZER]
            try:
                await self._ctx.client.update(
                    NAMESPACES,
                    {**fresh, "spec": {**fresh["spec"], "finalizers": kept}},
                    subresource="finalize",
                )
                return
            except ApiError as error:
                if not is_conflict(error):
                    raise


def _unexpected(namespace: str, gvr: GroupVersionResource) -> str:
    shown = (
        f"{gvr.group}/{gvr.version}, Resource={gvr.resource}"
        if gvr.group
        else f"/{gvr.version}, Resource={gvr.resource}"
    )
    return f"unexpected items still remain in namespace: {namespace} for gvr: {shown}"
