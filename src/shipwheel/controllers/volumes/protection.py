"""Finalizers that keep claims, volumes and attributes classes until nothing uses them any more.

All three work alike: whoever is created gets the finalizer (admission does that too, but may be off), whoever is
being deleted loses it once unused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj, is_being_deleted, key_of, name_of, namespace_of, split_key
from shipwheel.client.informer import EventType, Informer
from shipwheel.client.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTRIBUTES_CLASSES,
)
from shipwheel.controllers.framework import Context, is_not_found
from shipwheel.controllers.volumes import caches
from shipwheel.kinds.claims import claim_name, not_made_for

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"
CLASS_FINALIZER = "kubernetes.io/vac-protection"


def has_work(obj: Obj, finalizer: str) -> bool:
    """It lacks the finalizer, or has it and waits to be deleted."""
    return is_being_deleted(obj) == (finalizer in (obj["metadata"].get("finalizers") or ()))


class _Protection(ABC):
    """Looks after the finalizer of one kind; `is_used` tells whether it is still needed."""

    def __init__(
        self, ctx: Context, name: str, gvr: GroupVersionResource, finalizer: str, *others: Informer, workers: int = 1
    ) -> None:
        self._ctx = ctx
        self._gvr = gvr
        self._finalizer = finalizer
        self._objects = ctx.informer(gvr)
        self.loop = ctx.loop(name, self.reconcile, workers=workers, informers=(self._objects, *others))
        self._objects.add_handler(self._on_event)

    async def run(self) -> None:
        await self.loop.run()

    def _on_event(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is not None and has_work(new, self._finalizer):
            self.loop.add(new)

    async def reconcile(self, key: str) -> float | None:
        obj = self._objects.get(*split_key(key))
        if obj is None or not has_work(obj, self._finalizer):
            return None
        finalizers = list(obj["metadata"].get("finalizers") or ())
        if not is_being_deleted(obj):
            finalizers.append(self._finalizer)
        elif await self.is_used(obj):
            return None
        else:
            finalizers.remove(self._finalizer)
        changed = {**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}}
        try:
            await self._ctx.client.update(self._gvr, changed)
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None

    @abstractmethod
    async def is_used(self, obj: Obj) -> bool:
        """Something still needs the object."""


class VolumeProtection(_Protection):
    """A volume is used while it is bound."""

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx, "pvprotection", PERSISTENT_VOLUMES, VOLUME_FINALIZER)

    async def is_used(self, obj: Obj) -> bool:
        return (obj.get("status") or {}).get("phase") == "Bound"


def uses(pod: Obj, claim: Obj) -> bool:
    """A pod that has a node uses its claims until it is deleted; one made for it, until it has shut down."""
    if not pod["spec"].get("nodeName"):
        return False
    meta = pod["metadata"]
    is_down = is_being_deleted(pod) and meta.get("deletionGracePeriodSeconds") == 0
    for volume in pod["spec"].get("volumes") or ():
        if claim_name(pod, volume) != name_of(claim):
            continue
        if not volume.get("ephemeral") or (not is_down and not not_made_for(claim, pod)):
            return True
    return False


class ClaimProtection(_Protection):
    """A claim is used while a pod that has a node uses it."""

    def __init__(self, ctx: Context) -> None:
        self._pods = caches.pods_of_claims(ctx)
        super().__init__(ctx, "pvcprotection", PERSISTENT_VOLUME_CLAIMS, CLAIM_FINALIZER, self._pods, workers=30)
        self._pods.add_handler(self._on_pod)

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        """A pod that is gone, has ended, or was replaced by one of its name uses nothing any more."""
        for pod in (new, old):
            if pod is None:
                continue
            for key in caches.claims_used(pod):
                claim = self._objects.get(*split_key(key))
                if claim is not None and is_being_deleted(claim):
                    self.loop.queue.add(key)

    async def is_used(self, obj: Obj) -> bool:
        if any(uses(pod, obj) for pod in self._pods.by_index("claim", key_of(obj))):
            return True
        # The cache may not know the newest pods: data is lost if it is wrong.
        pods = await self._ctx.client.list(PODS, namespace_of(obj))
        return any(uses(pod, obj) for pod in pods["items"])


def classes_used(obj: Obj) -> Iterable[str]:
    """The attributes classes that a claim or volume has, wants or is changing to."""
    status = obj.get("status") or {}
    names = (
        obj["spec"].get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    )
    return {name for name in names if name}


class AttributesClassProtection(_Protection):
    """An attributes class is used by the claims and volumes that name it."""

    def __init__(self, ctx: Context) -> None:
        indexers = {"attributes": classes_used}
        self._users = (caches.claims(ctx), caches.volumes(ctx))
        super().__init__(ctx, "vacprotection", VOLUME_ATTRIBUTES_CLASSES, CLASS_FINALIZER, *self._users)
        for informer in self._users:
            informer.add_indexers(indexers)
            informer.add_handler(self._on_user)

    def _on_user(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        before = set(classes_used(old)) if old is not None else set()
        for name in before - (set(classes_used(new)) if new is not None else set()):
            self.loop.queue.add(name)

    async def is_used(self, obj: Obj) -> bool:
        return any(informer.by_index("attributes", name_of(obj)) for informer in self._users)
