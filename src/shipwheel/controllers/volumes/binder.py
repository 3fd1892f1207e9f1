"""Binds claims to volumes and reclaims the volumes of claims that have gone.

The decisions are in `plan`. Claims and volumes have a queue each with one worker, so that two claims are never
offered the same volume. What waits for others (a pod, a provisioner, an administrator) is looked at again every
`pvclaimbinder_sync_period` seconds, as upstream does with everything, which also keeps the events fresh.
"""

from __future__ import annotations

import asyncio

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, annotations_of, key_of, name_of, split_key, uid_of
from shipwheel.client.informer import EventType
from shipwheel.client.resources import NODES, PERSISTENT_VOLUME_CLAIMS, STORAGE_CLASSES
from shipwheel.controllers.framework import Context, Retry, is_not_found
from shipwheel.controllers.pods import is_terminal
from shipwheel.controllers.volumes import caches, plan, plugins
from shipwheel.controllers.volumes.errands import CLAIM, VOLUME
from shipwheel.controllers.volumes.provisioning import Provisioner
from shipwheel.controllers.volumes.reclaim import Reclaimer
from shipwheel.controllers.volumes.records import Records
from shipwheel.kinds.claims import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    MIGRATED_TO,
    class_of,
    default_class,
    reserved,
    with_annotations,
    without_annotations,
)


class VolumeBinder:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._period = ctx.config.pvclaimbinder_sync_period
        self._claims = caches.claims(ctx)
        self._volumes = caches.volumes(ctx)
        self._pods = caches.pods_of_claims(ctx)
        self._classes = ctx.informer(STORAGE_CLASSES)
        self._records = Records(ctx)
        self._provisioner = Provisioner(ctx, self._records, self._pods)
        self._reclaimer = Reclaimer(ctx, self._records, self._pods)
        informers = (self._claims, self._volumes, self._pods, self._classes, ctx.informer(NODES))
        self._claim_loop = ctx.loop("claims", self.reconcile_claim, workers=1, informers=informers)
        self._volume_loop = ctx.loop("volumes", self.reconcile_volume, workers=1, informers=informers)
        self._claims.add_handler(self._on_claim)
        self._volumes.add_handler(self._on_volume)
        self._pods.add_handler(self._on_pod)
        self._classes.add_handler(self._on_class)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._claim_loop.run(), name="claims")
            group.create_task(self._volume_loop.run(), name="volumes")

    # Events

    def _on_claim(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        claim = new if new is not None else old
        if claim is None:
            return
        if new is not None:
            self._claim_loop.add(new)
        else:
            self._records.claims.forget(claim)
        # Those that name it may have to be let go of: it has chosen another one, or is gone.
        for volume in self._volumes.by_index("claim", key_of(claim)):
            self._volume_loop.add(volume)

    def _on_volume(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        volume = new if new is not None else old
        if volume is None:
            return
        if new is not None:
            self._volume_loop.add(new)
        else:
            self._records.volumes.forget(volume)
        for key in caches.reservations(volume):
            self._claim_loop.queue.add(key)
        if new is not None and (new.get("status") or {}).get("phase") == "Available":
            self._queue_unbound(class_of(new))

    def _on_class(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is not None:
            self._queue_unbound(name_of(new))
            self._queue_unbound("")

    def _queue_unbound(self, class_name: str) -> None:
        for claim in self._claims.by_index("class", class_name):
            if not claim["spec"].get("volumeName"):
                self._claim_loop.add(claim)

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        """An errand has made progress."""
        annotations = annotations_of(new if new is not None else old or {"metadata": {}})
        if VOLUME in annotations:
            self._volume_loop.queue.add(annotations[VOLUME])
        if CLAIM in annotations:
            self._claim_loop.queue.add(annotations[CLAIM])

    # Claims

    async def reconcile_claim(self, key: str) -> float | None:
        claim = self._records.claims.get(*split_key(key))
        if claim is None:
            return None
        if (driver := plugins.migration(claim, claim=True)) is not None:
            claim = await self._records.update_claim(_migrated(claim, driver))
        storage_class = self._classes.get("", class_of(claim))
        step = plan.plan_claim(
            claim,
            named=self._records.volumes.get("", claim["spec"].get("volumeName") or ""),
            candidates=self._candidates(claim),
            storage_class=storage_class,
            default_class=default_class(self._classes.list()),
            unscheduled=self._unscheduled(claim),
        )
        match step:
            case plan.Bind(volume):
                await self._bind(claim, volume)
                return None
            case plan.Pend(event):
                if event:
                    self._records.event(claim, event)
                await self._records.set_claim_phase(claim, "Pending", None)
            case plan.Lose(event):
                if (claim.get("status") or {}).get("phase") != "Lost":
                    claim = await self._records.set_claim_phase(claim, "Lost", None)
                    self._records.event(claim, event)
            case plan.AssignClass(name):
                await self._records.update_claim({**claim, "spec": {**claim["spec"], "storageClassName": name}})
                return None
            case plan.Provision():
                await self._provisioner.provision(claim, storage_class)
            case plan.Misbound(event, error):
                self._records.event(claim, event)
                raise Retry(error)
        return self._period

    def _candidates(self, claim: Obj) -> list[Obj]:
        of_class = self._records.volumes.by_index("class", class_of(claim))
        return [*of_class, *self._records.volumes.by_index("claim", key_of(claim))]

    def _unscheduled(self, claim: Obj) -> list[str]:
        return sorted(
            name_of(pod)
            for pod in self._pods.by_index("claim", key_of(claim))
            if not is_terminal(pod) and not pod["spec"].get("nodeName")
        )

    async def _bind(self, claim: Obj, volume: Obj) -> None:
        """Four writes; each is left out when it was done before. Nothing is undone: should one fail, the next
        attempt goes on from there."""
        if (wanted := reserved(volume, claim)) is not volume:
            volume = await self._records.update_volume(wanted)
        volume = await self._records.set_volume_phase(volume, "Bound")
        claim = await self._name_volume(claim, volume)
        await self._records.set_claim_phase(claim, "Bound", volume)

    async def _name_volume(self, claim: Obj, volume: Obj) -> Obj:
        marks: dict[str, str] = {}
        if BIND_COMPLETED not in annotations_of(claim):
            marks[BIND_COMPLETED] = "yes"
        if claim["spec"].get("volumeName") != name_of(volume):
            marks[BOUND_BY_CONTROLLER] = annotations_of(claim).get(BOUND_BY_CONTROLLER, "yes")
            claim = {**claim, "spec": {**claim["spec"], "volumeName": name_of(volume)}}
        return await self._records.update_claim(with_annotations(claim, marks)) if marks else claim

    # Volumes

    async def reconcile_volume(self, key: str) -> float | None:
        volume = self._records.volumes.get("", key)
        if volume is None:
            return None
        volume = await self._annotate_volume(volume)
        claim = await self._claim_named_by(volume)
        match plan.plan_volume(volume, claim):
            case "available":
                await self._records.set_volume_phase(volume, "Available")
            case "bound":
                await self._records.set_volume_phase(volume, "Bound")
            case "bind" if claim is not None:
                self._claim_loop.add(claim)
            case "mismatch" if claim is not None:
                self._mismatch(volume, claim)
                return self._period
            case "unbind":
                await self._reclaimer.unbind(volume)
            case "release":
                if (volume.get("status") or {}).get("phase") not in ("Released", "Failed"):
                    volume = await self._records.set_volume_phase(volume, "Released")
                return await self._reclaimer.reclaim(volume)
        return None

    async def _annotate_volume(self, volume: Obj) -> Obj:
        driver = plugins.migration(volume, claim=False)
        finalizers = plugins.finalizers(volume)
        changed = volume if driver is None else _migrated(volume, driver)
        if finalizers != (volume["metadata"].get("finalizers") or []) and not volume["metadata"].get(
            "deletionTimestamp"
        ):
            changed = {**changed, "metadata": {**changed["metadata"], "finalizers": finalizers}}
        return volume if changed is volume else await self._records.update_volume(changed)

    async def _claim_named_by(self, volume: Obj) -> Obj | None:
        """The claim that a volume names with its uid. That it has gone means that data will be deleted, so a cache
        is not believed about it."""
        reference = volume["spec"].get("claimRef") or {}
        if not reference.get("uid"):
            return None
        namespace, name = reference.get("namespace", ""), reference.get("name", "")
        claim = self._records.claims.get(namespace, name)
        if claim is None or uid_of(claim) != reference["uid"]:
            try:
                claim = await self._ctx.client.get(PERSISTENT_VOLUME_CLAIMS, name, namespace)
            except ApiError as error:
                if not is_not_found(error):
                    raise
                return None
        return claim if uid_of(claim) == reference["uid"] else None

    def _mismatch(self, volume: Obj, claim: Obj) -> None:
        why = "due to incompatible volumeMode."
        about_volume = f'Cannot bind PersistentVolume to requested PersistentVolumeClaim "{name_of(claim)}" {why}'
        about_claim = f'Cannot bind PersistentVolume "{name_of(volume)}" to requested PersistentVolumeClaim {why}'
        self._records.event(volume, plan.Event("Warning", "VolumeMismatch", about_volume))
        self._records.event(claim, plan.Event("Warning", "VolumeMismatch", about_claim))


def _migrated(obj: Obj, driver: str) -> Obj:
    return with_annotations(obj, {MIGRATED_TO: driver}) if driver else without_annotations(obj, MIGRATED_TO)
