"""Takes API servers that have gone out of StorageVersions (KEP-2339): whoever migrates stored objects waits until
all servers agree on a version, and must not wait for one that is no more.
"""

from __future__ import annotations

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, condition, labels_of, name_of, uid_of
from shipwheel.client.informer import EventType
from shipwheel.client.resources import LEASES, STORAGE_VERSIONS
from shipwheel.controllers.framework import Context, is_not_found

_NAMESPACE = "kube-system"
_IDENTITY = "apiserver.kubernetes.io/identity"
_API_SERVER = "kube-apiserver"


def servers_of(version: Obj) -> list[Obj]:
    return (version.get("status") or {}).get("storageVersions") or []


def agreed(status: Obj) -> str:
    """The version that all servers encode with; empty when they differ or there are none."""
    encodings = {each["encodingVersion"] for each in status.get("storageVersions") or ()}
    return encodings.pop() if len(encodings) == 1 else ""


def with_servers(version: Obj, servers: list[Obj], now: str) -> Obj:
    """The StorageVersion's status when only these servers are left."""
    status = {**(version.get("status") or {}), "storageVersions": servers}
    before = status.pop("commonEncodingVersion", None)
    common = agreed(status)
    if common:
        status["commonEncodingVersion"] = common
    entry: Obj = {
        "type": "AllEncodingVersionsEqual",
        "status": "True" if common else "False",
        "reason": "CommonEncodingVersionSet" if common else "CommonEncodingVersionUnset",
        "message": "Common encoding version set" if common else "Common encoding version unset",
        "observedGeneration": version["metadata"].get("generation", 0),
        "lastTransitionTime": now,
    }
    current = condition(version, entry["type"])
    moved = bool(before and common and before != common)
    if current is not None and current["status"] == entry["status"] and not moved:
        entry["lastTransitionTime"] = current.get("lastTransitionTime", now)
    others = [each for each in status.get("conditions") or () if each["type"] != entry["type"]]
    return {**status, "conditions": [*others, entry]}


class StorageVersionGarbageCollector:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._leases = ctx.informer(LEASES)
        self._versions = ctx.informer(STORAGE_VERSIONS)
        self._loop = ctx.loop(
            "storage_version_garbage_collector_storageversions",
            self.reconcile,
            workers=1,
            informers=(self._leases, self._versions),
        )
        self._versions.add_handler(self._loop.on_event)
        self._leases.add_handler(self._on_lease)

    async def run(self) -> None:
        await self._loop.run()

    def _on_lease(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is None and old is not None and labels_of(old).get(_IDENTITY) == _API_SERVER:
            for version in self._versions.list():
                if any(each["apiServerID"] == name_of(old) for each in servers_of(version)):
                    self._loop.add(version)

    async def reconcile(self, key: str) -> float | None:
        version = self._versions.get("", key)
        if version is None or all(self._is_known(each) for each in servers_of(version)):
            return None
        # Before something is taken away, what is and is not there is asked of the server.
        try:
            version = await self._ctx.client.get(STORAGE_VERSIONS, key)
            left = [each for each in servers_of(version) if await self._is_there(each)]
            if not left:
                await self._ctx.client.delete(STORAGE_VERSIONS, key, uid=uid_of(version))
            elif left != servers_of(version):
                status = with_servers(version, left, rfc3339(self._ctx.clock.now()))
                changed = {**version, "status": status}
                await self._ctx.client.update(STORAGE_VERSIONS, changed, subresource="status")
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None

    def _is_known(self, server: Obj) -> bool:
        return _is_identity(self._leases.get(_NAMESPACE, server["apiServerID"]))

    async def _is_there(self, server: Obj) -> bool:
        try:
            lease = await self._ctx.client.get(LEASES, server["apiServerID"], _NAMESPACE)
        except ApiError as error:
            if not is_not_found(error):
                raise
            return False
        return _is_identity(lease)


def _is_identity(lease: Obj | None) -> bool:
    return lease is not None and labels_of(lease).get(_IDENTITY) == _API_SERVER
