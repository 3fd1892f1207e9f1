"""Claims, volumes and what belongs to them, as an API server has them.

They are asked for when a pod is mounted, which is rare; nothing is kept.
"""

from __future__ import annotations

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.client import Client
from shipwheel.client.resources import (
    CSI_DRIVERS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    SECRETS,
    VOLUME_ATTACHMENTS,
)

_RESIZE_ERROR = "NodeResizeError"
_RESIZE = ("FileSystemResizePending", "Resizing", "ControllerResizeError", _RESIZE_ERROR)


class ApiCluster:
    """A `volumes.base.Cluster`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def claim(self, namespace: str, name: str) -> Obj:
        return await self._client.get(PERSISTENT_VOLUME_CLAIMS, name, namespace)

    async def volume(self, name: str) -> Obj:
        return await self._client.get(PERSISTENT_VOLUMES, name)

    async def attachment(self, name: str) -> Obj:
        return await self._client.get(VOLUME_ATTACHMENTS, name)

    async def csi_driver(self, name: str) -> Obj | None:
        return await self._or_none(CSI_DRIVERS, name)

    async def secret_of(self, namespace: str, name: str) -> Obj:
        return await self._client.get(SECRETS, name, namespace)

    async def resized(self, claim: Obj, capacity: str) -> None:
        conditions = [each for each in claim["status"].get("conditions") or () if each["type"] not in _RESIZE]
        change: Obj = {"capacity": {"storage": capacity}, "conditions": conditions}
        if (claim["status"].get("allocatedResourceStatuses") or {}).get("storage"):
            change["allocatedResourceStatuses"] = {"storage": None}
        await self._change_status(claim, change)

    async def resizing(self, claim: Obj, state: str, error: str = "") -> None:
        change: Obj = {"allocatedResourceStatuses": {"storage": state}} if state else {}
        if error:
            others = [each for each in claim["status"].get("conditions") or () if each["type"] != _RESIZE_ERROR]
            failed = {
                "type": _RESIZE_ERROR,
                "status": "True",
                "lastTransitionTime": rfc3339(self._client.clock.now()),
                "message": f"failed to expand pvc with {error}",
            }
            change["conditions"] = [*others, failed]
        await self._change_status(claim, change)

    async def _change_status(self, claim: Obj, change: Obj) -> None:
        meta = claim["metadata"]
        await self._client.patch(
            PERSISTENT_VOLUME_CLAIMS, meta["name"], meta["namespace"], {"status": change}, subresource="status"
        )

    async def _or_none(self, resource: GroupVersionResource, name: str) -> Obj | None:
        try:
            return await self._client.get(resource, name)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
