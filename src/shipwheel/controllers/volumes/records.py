"""Reading and writing claims and volumes with the memory of one's own writes."""

from __future__ import annotations

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, name_of, uid_of
from shipwheel.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from shipwheel.controllers.framework import Context, is_not_found
from shipwheel.controllers.volumes.caches import Newest, claims, volumes
from shipwheel.controllers.volumes.plan import Event, claim_status
from shipwheel.controllers.volumes.plugins import DELETION_FINALIZER


class Records:
    """What the binder and its helpers know and change."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.claims = Newest(claims(ctx))
        self.volumes = Newest(volumes(ctx))

    async def update_claim(self, claim: Obj) -> Obj:
        return self.claims.wrote(await self._ctx.client.update(PERSISTENT_VOLUME_CLAIMS, claim))

    async def set_claim_phase(self, claim: Obj, phase: str, volume: Obj | None) -> Obj:
        """Bring the claim's status to a phase, bound to a volume or to none."""
        status = claim_status(claim, phase, volume)
        if status == (claim.get("status") or {}):
            return claim
        changed = {**claim, "status": status}
        return self.claims.wrote(
            await self._ctx.client.update(PERSISTENT_VOLUME_CLAIMS, changed, subresource="status")
        )  # fmt: skip

    async def update_volume(self, volume: Obj) -> Obj:
        return self.volumes.wrote(await self._ctx.client.update(PERSISTENT_VOLUMES, volume))

    async def set_volume_phase(self, volume: Obj, phase: str, message: str = "") -> Obj:
        status = volume.get("status") or {}
        if status.get("phase") == phase:
            return volume
        status = {key: value for key, value in status.items() if key != "message"} | {"phase": phase}
        if message:
            status["message"] = message
        changed = {**volume, "status": status}
        return self.volumes.wrote(await self._ctx.client.update(PERSISTENT_VOLUMES, changed, subresource="status"))

    async def fail_volume(self, volume: Obj, reason: str, message: str) -> None:
        """Its storage cannot be reclaimed: for the administrator to look at."""
        if (volume.get("status") or {}).get("phase") != "Failed":
            volume = await self.set_volume_phase(volume, "Failed", message)
            self.event(volume, Event("Warning", reason, message))

    async def drop_volume(self, volume: Obj) -> None:
        """Delete a volume whose storage is deleted."""
        finalizers = volume["metadata"].get("finalizers") or []
        left = [each for each in finalizers if each != DELETION_FINALIZER]
        try:
            if left != finalizers:
                await self.update_volume({**volume, "metadata": {**volume["metadata"], "finalizers": left}})
            await self._ctx.client.delete(PERSISTENT_VOLUMES, name_of(volume), uid=uid_of(volume))
        except ApiError as error:
            if not is_not_found(error):
                raise

    def event(self, about: Obj, event: Event) -> None:
        self._ctx.recorder.event(about, event.kind, event.reason, event.message)
