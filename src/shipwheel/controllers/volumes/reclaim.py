"""What happens to a volume whose claim has gone: kept, emptied for the next one (Recycle), or deleted."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, annotations_of, is_being_deleted, key_of, name_of, uid_of
from shipwheel.client.informer import Informer
from shipwheel.client.resources import NODES, PERSISTENT_VOLUMES
from shipwheel.controllers.framework import Context, is_not_found
from shipwheel.controllers.pods import is_terminal
from shipwheel.controllers.volumes import caches, local_path
from shipwheel.controllers.volumes.errands import DONE, RECYCLER, Outcome, recycler_pod, run_errand
from shipwheel.controllers.volumes.plan import Event
from shipwheel.controllers.volumes.plugins import DELETION_FINALIZER, NoPlugin, deleter_of
from shipwheel.controllers.volumes.records import Records
from shipwheel.kinds.claims import BOUND_BY_CONTROLLER, MIGRATED_TO, without_annotations

_DELETABLE = re.compile(r"/tmp/.+")


class Reclaimer:
    """Both methods return the seconds after which to try again."""

    def __init__(self, ctx: Context, records: Records, pods: Informer) -> None:
        self._ctx = ctx
        self._records = records
        self._pods = pods
        self._nodes = ctx.informer(NODES)

    async def reclaim(self, volume: Obj) -> float | None:
        """Take the next step that the volume's policy asks for."""
        if MIGRATED_TO in annotations_of(volume):
            return None
        match volume["spec"].get("persistentVolumeReclaimPolicy"):
            case "Retain":
                return None
            case "Recycle":
                return await self._recycle(volume)
            case "Delete":
                return await self._delete(volume)
        message = "Volume has unrecognized PersistentVolumeReclaimPolicy"
        await self._records.fail_volume(volume, "VolumeUnknownReclaimPolicy", message)
        return None

    async def unbind(self, volume: Obj) -> None:
        """Take back our reference to the claim, or leave the name that somebody else put there."""
        spec = volume["spec"]
        if BOUND_BY_CONTROLLER in annotations_of(volume):
            free = {**volume, "spec": {key: value for key, value in spec.items() if key != "claimRef"}}
            free = without_annotations(free, BOUND_BY_CONTROLLER)
        else:
            reference = {key: value for key, value in spec["claimRef"].items() if key != "uid"}
            free = {**volume, "spec": {**spec, "claimRef": reference}}
        await self._records.set_volume_phase(await self._records.update_volume(free), "Available")

    async def _recycle(self, volume: Obj) -> float | None:
        period = self._ctx.config.pvclaimbinder_sync_period
        if users := self._users(volume):
            message = f"Volume is used by pods: {','.join(users)}"
            self._records.event(volume, Event("Normal", "VolumeFailedRecycle", message))
            return period
        pod = self._recycler(volume)
        if pod is None:
            message = "No recycler plugin found for the volume!"
            await self._records.fail_volume(volume, "VolumeFailedRecycle", message)
            return None
        outcome = await self._send(pod, volume)
        if not outcome.ended:
            return None
        if outcome.error:
            message = f"Recycle failed: failed to recycle volume: {outcome.error}"
            await self._records.fail_volume(volume, "VolumeFailedRecycle", message)
            return period
        self._records.event(volume, Event("Normal", "VolumeRecycled", "Volume recycled"))
        await self.unbind(volume)
        return None

    def _recycler(self, volume: Obj) -> Obj | None:
        config = self._ctx.config
        if volume["spec"].get("nfs"):
            return recycler_pod(
                volume,
                config.pv_recycler_pod_nfs or RECYCLER,
                minimum=config.pv_recycler_minimum_timeout_nfs,
                per_gi=config.pv_recycler_increment_timeout_nfs,
            )
        return recycler_pod(
            volume,
            config.pv_recycler_pod_hostpath or RECYCLER,
            minimum=config.pv_recycler_minimum_timeout_hostpath,
            per_gi=config.pv_recycler_timeout_increment_hostpath,
        )

    def _users(self, volume: Obj) -> list[str]:
        """Pods that still use a volume whose claim has gone."""
        return sorted(
            key_of(pod)
            for key in caches.reservations(volume)
            for pod in self._pods.by_index("claim", key)
            if not is_terminal(pod)
        )

    async def _delete(self, volume: Obj) -> float | None:
        try:
            deleter = deleter_of(volume)
        except NoPlugin as error:
            await self._records.fail_volume(volume, "VolumeFailedDelete", str(error))
            return None
        if deleter == "external":
            return None
        remove = self._remove_local_path if deleter == "local-path" else _remove_host_path
        outcome = await remove(volume)
        if not outcome.ended:
            return None
        if outcome.error:
            await self._records.fail_volume(volume, "VolumeFailedDelete", outcome.error)
            return self._ctx.config.pvclaimbinder_sync_period
        await self._records.drop_volume(volume)
        return None

    async def _remove_local_path(self, volume: Obj) -> Outcome:
        hostname = local_path.node_of(volume)
        node = next((each for each in self._nodes.list() if local_path.hostname_of(each) == hostname), None)
        if node is None:
            # Its directory went with it.
            return DONE
        pod = local_path.removal_pod(volume, name_of(node), local_path.helper_of(self._ctx.config))
        return await self._send(pod, volume)

    async def _send(self, pod: Obj, volume: Obj) -> Outcome:
        return await run_errand(self._ctx.client, self._pods, pod, is_needed=lambda: self._is_released(volume))

    async def _is_released(self, volume: Obj) -> bool:
        """The server still says of the volume what we know: it was of a claim that has gone."""
        try:
            current = await self._ctx.client.get(PERSISTENT_VOLUMES, name_of(volume))
        except ApiError as error:
            if not is_not_found(error):
                raise
            return False
        if is_being_deleted(current) and DELETION_FINALIZER not in (current["metadata"].get("finalizers") or ()):
            # Its storage is deleted already; others hold the object for a moment yet.
            return False
        claimed_by = (current["spec"].get("claimRef") or {}).get("uid")
        return uid_of(current) == uid_of(volume) and claimed_by == volume["spec"]["claimRef"].get("uid")


async def _remove_host_path(volume: Obj) -> Outcome:
    """Delete a directory on the controller manager's own machine: for trying things out on a single one."""
    return await asyncio.to_thread(_remove_directory, volume["spec"]["hostPath"]["path"])


def _remove_directory(path: str) -> Outcome:
    if not _DELETABLE.fullmatch(path) or not _DELETABLE.fullmatch(str(Path(path).resolve())):
        return Outcome(True, f"host_path deleter only supports /tmp/.+ but received provided {path}")
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return DONE
    except OSError as error:
        return Outcome(True, str(error))
    return DONE
