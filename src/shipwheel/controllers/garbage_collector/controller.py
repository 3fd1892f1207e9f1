"""The garbage collector's edge: watch every kind, verify with the server, delete, orphan, finalize.

Nothing is deleted on the word of a cache. Before an object goes, it and all its owners are asked for, and the
deletion carries its uid and version, so that a reference added in the last moment saves it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    GroupResource,
    GroupVersion,
    GroupVersionKind,
    GroupVersionResource,
    Obj,
    uid_of,
)
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.discovery import ApiResource, Discovery
from shipwheel.client.informer import EventType, Handler, Informer
from shipwheel.client.kubeconfig import ConfigError
from shipwheel.controllers.framework import Context, Loop, is_not_found
from shipwheel.controllers.garbage_collector.graph import (
    EVERYWHERE,
    FOREGROUND,
    ORPHAN,
    Graph,
    Identity,
    Node,
    OwnerRef,
    ToDo,
    fits,
    owners_of,
    place_of,
    waits_for_dependents,
    wants_orphans,
)

log = logging.getLogger(__name__)

_RESYNC = 30.0
_SYNC_PATIENCE = 30.0
_NEEDED = {"delete", "list", "watch"}
_IGNORED = frozenset({GroupResource("", "events"), GroupResource("events.k8s.io", "events")})


class UnknownKind(Exception):
    """An owner reference names a kind that the server does not (or not yet) serve."""


@dataclass(slots=True)
class _Monitor:
    informer: Informer
    handler: Handler
    task: asyncio.Task[None] | None


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The owners of an object, by what the server says of them."""

    solid: tuple[OwnerRef, ...]
    dangling: tuple[OwnerRef, ...]
    waiting: tuple[OwnerRef, ...]


class GarbageCollector:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._graph = Graph()
        self._monitors: dict[GroupVersionResource, _Monitor] = {}
        self._discovery = Discovery(())
        workers = ctx.config.concurrent_gc_syncs
        self._examine = Loop(
            ctx.queue("garbage_collector_attempt_to_delete"), self._examine_key, workers=workers, informers=()
        )
        self._orphan = Loop(
            ctx.queue("garbage_collector_attempt_to_orphan"), self._orphan_key, workers=workers, informers=()
        )
        self._sync_errors = ctx.metrics.counter(
            "garbagecollector_controller_resources_sync_error_total",
            "[ALPHA] Number of garbage collector resources sync errors",
        )

    async def run(self) -> None:
        if not self._ctx.config.enable_garbage_collector:
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as group:
            await self._first_sync(group)
            group.create_task(self._examine.run())
            group.create_task(self._orphan.run())
            group.create_task(self._keep_in_sync(group))

    # What there is to watch

    async def _first_sync(self, group: asyncio.TaskGroup) -> None:
        """Examine nothing before everything has been seen once: an owner of a kind not yet listed is not gone. A
        kind that cannot be listed does not hold up the others for ever."""
        while not await self._sync_monitors(group):
            await self._ctx.clock.sleep(1)
        waiting = asyncio.ensure_future(self._all_synced())
        patience = asyncio.ensure_future(self._ctx.clock.sleep(_SYNC_PATIENCE))
        try:
            await asyncio.wait((waiting, patience), return_when=asyncio.FIRST_COMPLETED)
        finally:
            patience.cancel()
            waiting.cancel()

    async def _all_synced(self) -> None:
        for monitor in [*self._monitors.values()]:
            await monitor.informer.wait_synced()

    async def _keep_in_sync(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._ctx.clock.sleep(_RESYNC)
            await self._sync_monitors(group)

    async def _sync_monitors(self, group: asyncio.TaskGroup) -> bool:
        """Watch what the server now has and watch no longer what it has not. Kinds of servers that do not answer
        just now are kept."""
        try:
            discovery = await self._ctx.client.resources()
        except (ApiError, ConnectionFailed, ConfigError) as error:
            log.error("garbage collector: discovery failed: %s", error)
            self._sync_errors.inc()
            return False
        if discovery is self._discovery:
            return True
        self._discovery = discovery
        wanted = {
            each.gvr: each
            for each in discovery.preferred()
            if each.verbs >= _NEEDED and each.gvr.group_resource not in _IGNORED
        }
        stale = {gv.group for gv in discovery.stale}
        for gvr in [gvr for gvr in self._monitors if gvr not in wanted and gvr.group not in stale]:
            self._stop(gvr)
        for gvr, resource in wanted.items():
            if gvr not in self._monitors:
                self._start(resource, group)
        return True

    def _start(self, resource: ApiResource, group: asyncio.TaskGroup) -> None:
        """Watch a kind: with an informer that others use as well, if there is one, else metadata only."""
        shared = self._ctx.informers.existing(resource.gvr)
        task = None
        if shared is not None:
            informer = shared
        else:
            informer = Informer(self._ctx.client, resource.gvr, metadata_only=True, clock=self._ctx.clock)
            task = group.create_task(informer.run(), name=f"gc monitor {resource.gvr.group_resource}")

        def on_event(kind: EventType, new: Obj | None, old: Obj | None) -> None:
            self._on_event(resource, new, old)

        self._monitors[resource.gvr] = _Monitor(informer, on_event, task)
        informer.add_handler(on_event)

    def _stop(self, gvr: GroupVersionResource) -> None:
        monitor = self._monitors.pop(gvr)
        monitor.informer.remove_handler(monitor.handler)
        if monitor.task:
            monitor.task.cancel()
        for obj in monitor.informer.list():
            self._take_up(self._graph.remove(uid_of(obj)))

    def _on_event(self, resource: ApiResource, new: Obj | None, old: Obj | None) -> None:
        if new is None:
            assert old is not None
            self._take_up(self._graph.remove(uid_of(old)))
            return
        meta = new["metadata"]
        identity = Identity(
            str(resource.gvr.group_version),
            resource.kind.kind,
            meta.get("namespace", ""),
            meta["name"],
            meta["uid"],
        )
        self._take_up(self._graph.observe(identity, meta))

    def _take_up(self, todo: ToDo) -> None:
        for node in todo.examine:
            self._examine.queue.add(node.identity.uid)
        for node in todo.orphan:
            self._orphan.queue.add(node.identity.uid)
        for dependent, reference in todo.misplaced:
            self._report_misplaced(dependent, reference)

    def _report_misplaced(self, dependent: Identity, reference: OwnerRef) -> None:
        about = {
            "apiVersion": dependent.api_version,
            "kind": dependent.kind,
            "namespace": dependent.namespace,
            "name": dependent.name,
            "uid": dependent.uid,
        }
        owner = Identity(reference.api_version, reference.kind, dependent.namespace, reference.name, reference.uid)
        self._ctx.recorder.event(
            {key: value for key, value in about.items() if value},
            "Warning",
            "OwnerRefInvalidNamespace",
            f'ownerRef {owner} does not exist in namespace "{dependent.namespace}"',
        )

    # Examining one object

    async def _examine_key(self, uid: str) -> float | None:
        node = self._graph.get(uid)
        if node is None or (node.being_deleted and not node.deleting_dependents):
            return None
        try:
            await self._examine_node(node)
        except UnknownKind as error:
            log.info("garbage collector: %s", error)
            return _RESYNC
        return None

    async def _examine_node(self, node: Node) -> None:
        latest = await self._fetch(node.identity)
        if latest is None or latest["metadata"]["uid"] != node.identity.uid:
            self._take_up(self._missing(node))
            return
        if node.virtual:
            # It exists, but no watch has shown it yet; what it owns is safe.
            return
        meta = latest["metadata"]
        if waits_for_dependents(meta):
            await self._advance_foreground(node, meta)
            return
        owners = owners_of(meta)
        if not owners:
            return
        verdict = await self._judge(node.identity, owners)
        if verdict.solid:
            await self._drop_references(node.identity, meta, [*verdict.dangling, *verdict.waiting])
        elif verdict.waiting and node.dependents:
            # The owner waits for this one, so this one waits for its own dependents first.
            if any(dependent.deleting_dependents for dependent in node.dependents):
                await self._unblock(node.identity, meta)
            await self._delete(node.identity, meta, "Foreground")
        else:
            policy = "Background"
            if ORPHAN in (meta.get("finalizers") or ()):
                policy = "Orphan"
            elif FOREGROUND in (meta.get("finalizers") or ()):
                policy = "Foreground"
            await self._delete(node.identity, meta, policy)

    def _missing(self, node: Node) -> ToDo:
        """Nobody of that name and uid is there. Of what was seen there, the watch would never tell us if it has not."""
        if not node.virtual:
            return self._graph.remove(node.identity.uid)
        if self._resource_of(node.identity.api_version, node.identity.kind).namespaced:
            return self._graph.miss(node.identity)
        return self._graph.miss(replace(node.identity, namespace=EVERYWHERE))

    async def _judge(self, dependent: Identity, owners: Iterable[OwnerRef]) -> _Verdict:
        solid: list[OwnerRef] = []
        dangling: list[OwnerRef] = []
        waiting: list[OwnerRef] = []
        for reference in owners:
            meta = await self._owner_meta(dependent, reference)
            if meta is None:
                dangling.append(reference)
            elif waits_for_dependents(meta):
                waiting.append(reference)
            else:
                solid.append(reference)
        return _Verdict(tuple(solid), tuple(dangling), tuple(waiting))

    async def _owner_meta(self, dependent: Identity, reference: OwnerRef) -> Obj | None:
        """The owner's metadata as the server has it; None when it is gone, or was never where the reference
        says."""
        known = self._graph.get(reference.uid)
        if known is not None and not known.virtual and not fits(reference, dependent, known.identity):
            return None
        resource = self._resource_of(reference.api_version, reference.kind)
        if resource.namespaced and not dependent.namespace:
            return None  # a cluster-scoped object cannot have an owner in a namespace
        place = place_of(reference, dependent.namespace if resource.namespaced else EVERYWHERE)
        if self._graph.is_absent(place):
            return None
        owner = await self._fetch(place)
        if owner is None or owner["metadata"]["uid"] != reference.uid:
            return None
        return owner["metadata"]

    async def _advance_foreground(self, node: Node, meta: Obj) -> None:
        """Let a node go that waits for its dependents, or see to those."""
        blocking = node.blocking_dependents()
        if not blocking:
            await self._remove_finalizer(node.identity, meta, FOREGROUND)
            return
        for dependent in blocking:
            if not dependent.deleting_dependents:
                self._examine.queue.add(dependent.identity.uid)

    # Orphaning

    async def _orphan_key(self, uid: str) -> float | None:
        owner = self._graph.get(uid)
        if owner is None:
            return None
        latest = await self._fetch(owner.identity)
        if latest is None or not wants_orphans(latest["metadata"]):
            return None
        for dependent in list(owner.dependents):
            try:
                patch = {
                    "metadata": {
                        "uid": dependent.identity.uid,
                        "ownerReferences": [{"$patch": "delete", "uid": uid}],
                    }
                }
                await self._patch_references(dependent.identity, patch, {uid})
            except ApiError as error:
                if error.reason not in ("NotFound", "Invalid"):
                    raise
        await self._remove_finalizer(owner.identity, latest["metadata"], ORPHAN)
        return None

    # Talking to the server

    def _resource_of(self, api_version: str, kind: str) -> ApiResource:
        gv = GroupVersion.parse(api_version)
        resource = self._discovery.by_kind.get(GroupVersionKind(gv.group, gv.version, kind))
        if resource is None:
            raise UnknownKind(f'no matches for kind "{kind}" in version "{api_version}"')
        return resource

    async def _fetch(self, identity: Identity) -> Obj | None:
        """An object's metadata as the server has it now; None when it is not there."""
        resource = self._resource_of(identity.api_version, identity.kind)
        namespace = identity.namespace if resource.namespaced else ""
        if resource.namespaced and not namespace:
            return None
        try:
            return await self._ctx.client.get(resource.gvr, identity.name, namespace, metadata_only=True)
        except ApiError as error:
            if not is_not_found(error):
                raise
            return None

    async def _delete(self, identity: Identity, meta: Obj, policy: str) -> None:
        resource = self._resource_of(identity.api_version, identity.kind)
        try:
            await self._ctx.client.delete(
                resource.gvr,
                identity.name,
                identity.namespace,
                propagation=policy,
                uid=identity.uid,
                resource_version=meta.get("resourceVersion"),
            )
        except ApiError as error:
            if not is_not_found(error):
                raise

    async def _drop_references(self, identity: Identity, meta: Obj, drop: Sequence[OwnerRef]) -> None:
        """Take references to owners that are gone away from an object that has others."""
        if not drop:
            return
        uids = {reference.uid for reference in drop}
        patch = {
            "metadata": {
                "uid": identity.uid,
                "ownerReferences": [{"$patch": "delete", "uid": uid} for uid in sorted(uids)],
            }
        }
        await self._patch_references(identity, patch, uids, meta)

    async def _patch_references(self, identity: Identity, patch: Obj, uids: set[str], meta: Obj | None = None) -> None:
        """Remove owner references by a strategic patch; for kinds that have none (custom resources), by writing
        the list that remains."""
        resource = self._resource_of(identity.api_version, identity.kind)
        client = self._ctx.client
        try:
            await client.patch(
                resource.gvr, identity.name, identity.namespace, patch, kind="strategic", metadata_only=True
            )
        except ApiError as error:
            if error.code != 415:
                raise
            if meta is None:
                latest = await self._fetch(identity)
                if latest is None:
                    return
                meta = latest["metadata"]
            kept = [each for each in meta.get("ownerReferences") or () if each["uid"] not in uids]
            await self._merge(identity, meta, {"ownerReferences": kept})

    async def _unblock(self, identity: Identity, meta: Obj) -> None:
        """Break a circle of objects that all wait for one another."""
        references = [{**each, "blockOwnerDeletion": False} for each in meta.get("ownerReferences") or ()]
        await self._merge(identity, meta, {"ownerReferences": references})

    async def _remove_finalizer(self, identity: Identity, meta: Obj, finalizer: str) -> None:
        kept = [each for each in meta.get("finalizers") or () if each != finalizer]
        if len(kept) != len(meta.get("finalizers") or ()):
            await self._merge(identity, meta, {"finalizers": kept})

    async def _merge(self, identity: Identity, meta: Obj, change: Obj) -> None:
        """Change metadata, unless the object has changed since it was looked at."""
        resource = self._resource_of(identity.api_version, identity.kind)
        patch = {"metadata": {"resourceVersion": meta["resourceVersion"], "uid": identity.uid, **change}}
        try:
            await self._ctx.client.patch(
                resource.gvr, identity.name, identity.namespace, patch, kind="merge", metadata_only=True
            )
        except ApiError as error:
            if not is_not_found(error):
                raise
