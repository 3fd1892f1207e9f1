"""Grows volumes whose claims ask for more. External resizers do it for CSI volumes; the directories of the built-in
provisioner have no size of their own, so there only the numbers change.
"""

from __future__ import annotations

from shipwheel.api.meta import Obj, annotations_of, key_of, namespace_of, split_key, uid_of
from shipwheel.api.quantity import Quantity, parse
from shipwheel.client.informer import EventType
from shipwheel.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from shipwheel.controllers.framework import Context, Retry
from shipwheel.controllers.volumes import caches
from shipwheel.controllers.volumes.plugins import LOCAL_PATH, MIGRATED
from shipwheel.kinds.claims import PROVISIONED_BY, capacity, requested, with_annotations

_RESIZER = "volume.kubernetes.io/storage-resizer"
_RESIZING = ("Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError")


def granted(claim: Obj) -> Quantity:
    """What a claim has, as far as its status tells."""
    return parse(((claim.get("status") or {}).get("capacity") or {}).get("storage", "0"))


def expanded(claim: Obj, size: str) -> Obj:
    """The claim's status when its volume has been brought to a size."""
    status = {**(claim.get("status") or {})}
    status["capacity"] = {**(status.get("capacity") or {}), "storage": size}
    for key in ("allocatedResources", "allocatedResourceStatuses"):
        status.pop(key, None)
    conditions = [each for each in status.get("conditions") or () if each["type"] not in _RESIZING]
    status.pop("conditions", None)
    return status | ({"conditions": conditions} if conditions else {})


class ExpandController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._claims = caches.claims(ctx)
        self._loop = ctx.loop("volume_expand", self.reconcile, workers=10, informers=(self._claims,))
        self._claims.add_handler(self._on_claim)

    async def run(self) -> None:
        await self._loop.run()

    def _on_claim(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is None or (new.get("status") or {}).get("phase") != "Bound":
            return
        if old is None or requested(new) > requested(old) or granted(new) > granted(old):
            self._loop.add(new)

    async def reconcile(self, key: str) -> float | None:
        claim = self._claims.get(*split_key(key))
        if claim is None or requested(claim) <= granted(claim):
            return None
        volume = await self._ctx.client.get(PERSISTENT_VOLUMES, claim["spec"].get("volumeName", ""))
        reference = volume["spec"].get("claimRef") or {}
        if reference.get("namespace") != namespace_of(claim) or reference.get("uid") != uid_of(claim):
            raise Retry(f"persistent Volume is not bound to PVC being updated : {key}")
        provisioner = annotations_of(volume).get(PROVISIONED_BY, "")
        if provisioner in MIGRATED:
            await self._hand_over(claim, provisioner)
        elif provisioner == LOCAL_PATH:
            await self._expand(claim, volume)
        else:
            self._event(claim, "ExternalExpanding", "waiting for an external controller to expand this PVC")
        return None

    async def _hand_over(self, claim: Obj, provisioner: str) -> None:
        message = f"CSI migration enabled for {provisioner}; waiting for external resizer to expand the pvc"
        self._event(claim, "ExternalExpanding", message)
        if annotations_of(claim).get(_RESIZER) != MIGRATED[provisioner]:
            changed = with_annotations(claim, {_RESIZER: MIGRATED[provisioner]})
            await self._ctx.client.update(PERSISTENT_VOLUME_CLAIMS, changed, subresource="status")

    async def _expand(self, claim: Obj, volume: Obj) -> None:
        size = claim["spec"]["resources"]["requests"]["storage"]
        if capacity(volume) < requested(claim):
            spec = {**volume["spec"], "capacity": {**volume["spec"]["capacity"], "storage": size}}
            volume = await self._ctx.client.update(PERSISTENT_VOLUMES, {**volume, "spec": spec})
        changed = {**claim, "status": expanded(claim, volume["spec"]["capacity"]["storage"])}
        await self._ctx.client.update(PERSISTENT_VOLUME_CLAIMS, changed, subresource="status")
        self._event(claim, "VolumeResizeSuccessful", f"ExpandVolume succeeded for volume {key_of(claim)}")

    def _event(self, claim: Obj, reason: str, message: str) -> None:
        self._ctx.recorder.event(claim, "Normal", reason, message)
