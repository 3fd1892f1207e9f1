"""Kinds that come and go: CustomResourceDefinitions, followed as they change.

A definition's names are accepted unless another kind of its group has them; then it is established and served at once,
discovery and OpenAPI included. A deleted one first loses its objects (its own finalizer holds it until then), and is
served no more.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupResource, Obj, condition
from shipwheel.api.resource import Resource
from shipwheel.apiserver.bootstrap import LOOPBACK
from shipwheel.apiserver.intake import WriteOptions
from shipwheel.apiserver.watchcache import Change, ResourceCache
from shipwheel.kinds.apiextensions.custom import to_resource
from shipwheel.kinds.conditions import set_condition

if TYPE_CHECKING:
    from shipwheel.apiserver.server import ApiServer

log = logging.getLogger(__name__)

DEFINITIONS = GroupResource("apiextensions.k8s.io", "customresourcedefinitions")
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_RETRY_SECONDS = 1.0


class CustomResources:
    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._changed: asyncio.Queue[str] = asyncio.Queue()
        self._served: dict[str, tuple[Obj, Resource]] = {}
        """By definition: the spec it was made from, and the kind."""
        server.cache.on_change(self._on_change)

    def _on_change(self, cache: ResourceCache, change: Change) -> None:
        if cache.resource.group_resource == DEFINITIONS:
            self._changed.put_nowait(change.after.name)

    async def load(self) -> None:
        """Serve what is established already; before the first request."""
        for crd in self._server.peek_all(DEFINITIONS):
            if _holds(crd, "Established"):
                await self._serve(crd)
            self._changed.put_nowait(crd["metadata"]["name"])

    async def run(self) -> None:
        """Follow definitions until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                name = await self._changed.get()
                try:
                    await self._reconcile(name)
                except ApiError as error:
                    log.warning("custom resource definition %s: %s", name, error)
                    group.create_task(self._later(name))

    async def _later(self, name: str) -> None:
        await self._server.clock.sleep(_RETRY_SECONDS)
        self._changed.put_nowait(name)

    async def _reconcile(self, name: str) -> None:
        crd = self._server.peek(DEFINITIONS, "", name)
        if crd is None:
            self._unserve(name)
            return
        if crd["metadata"].get("deletionTimestamp"):
            if CLEANUP in (crd["metadata"].get("finalizers") or ()):
                await self._clean_up(crd)
            return
        status = judge(crd, [each for each in self._server.peek_all(DEFINITIONS) if each is not crd],
                       now=rfc3339(self._server.clock.now()))  # fmt: skip
        if status != (crd.get("status") or {}):

            def change(current: Obj) -> Obj:
                current["status"] = status
                return current

            await self._server.change(DEFINITIONS, "", name, change, user=LOOPBACK, subresource="status")
        if _holds({"status": status}, "Established"):
            await self._serve({**crd, "status": status})

    async def _serve(self, crd: Obj) -> None:
        name = crd["metadata"]["name"]
        known = self._served.get(name)
        if known is not None and known[0] == crd["spec"]:
            return
        resource = to_resource(crd)
        await self._server.cache.add(resource)
        self._server.scheme.add(resource)
        self._served[name] = (crd["spec"], resource)

    def _unserve(self, name: str) -> None:
        _, resource = self._served.pop(name, (None, None))
        if resource is not None:
            self._server.scheme.remove(resource.group_resource)
            self._server.cache.remove(resource)

    async def _clean_up(self, crd: Obj) -> None:
        """Delete all objects of the kind, wait for those that finalizers hold, and let go of the definition."""
        name = crd["metadata"]["name"]
        _, resource = self._served.get(name, (None, None))
        server = self._server
        await self._set_terminating(crd, "InstanceDeletionInProgress", "CustomResource deletion is in progress", "True")
        if resource is not None:
            options = WriteOptions(LOOPBACK)
            for entry in list(server.cache.of(resource).entries.values()):
                try:
                    await server.registry.delete(
                        resource, resource.storage, entry.namespace, entry.name, {}, options, admit=False
                    )
                except ApiError as error:
                    if error.reason != "NotFound":
                        raise
            if server.cache.of(resource).entries:
                raise ApiError(409, "Conflict", f"{len(server.cache.of(resource).entries)} objects remain")

        def release(current: Obj) -> Obj:
            finalizers = [each for each in current["metadata"].get("finalizers") or () if each != CLEANUP]
            current["metadata"]["finalizers"] = finalizers
            return current

        await self._set_terminating(crd, "InstanceDeletionCompleted", "removed all instances", "False")
        await server.change(DEFINITIONS, "", name, release, user=LOOPBACK)

    async def _set_terminating(self, crd: Obj, reason: str, message: str, value: str) -> None:
        now = rfc3339(self._server.clock.now())

        def change(current: Obj) -> Obj:
            status = dict(current.get("status") or {})
            status["conditions"] = with_condition(
                status.get("conditions") or [], "Terminating", value, reason, message, now
            )
            current["status"] = status
            return current

        name = crd["metadata"]["name"]
        await self._server.change(DEFINITIONS, "", name, change, user=LOOPBACK, subresource="status")


def judge(crd: Obj, others: list[Obj], *, now: str) -> Obj:
    """The status of a definition among others: which of its names are accepted, and whether it is established."""
    spec = crd["spec"]
    names, group = spec["names"], spec["group"]
    old = crd.get("status") or {}
    accepted: Obj = dict(old.get("acceptedNames") or {})
    taken = {field: _taken(others, group, field) for field in ("resources", "kinds")}
    conflicts: list[tuple[str, str]] = []
    for field, reason in (("plural", "PluralConflict"), ("singular", "SingularConflict")):
        wanted = names.get(field, "")
        if wanted and wanted in taken["resources"]:
            conflicts.append((reason, f'"{wanted}" is already in use'))
        elif wanted:
            accepted[field] = wanted
    clashing = [each for each in names.get("shortNames") or () if each in taken["resources"]]
    if clashing:
        conflicts.append(("ShortNamesConflict", f'"{", ".join(clashing)}" is already in use'))
    else:
        _set(accepted, "shortNames", names.get("shortNames"))
    for field, reason in (("kind", "KindConflict"), ("listKind", "ListKindConflict")):
        wanted = names.get(field, "")
        if wanted and wanted in taken["kinds"]:
            conflicts.append((reason, f'"{wanted}" is already in use'))
        elif wanted:
            accepted[field] = wanted
    _set(accepted, "categories", names.get("categories"))
    conditions = list(old.get("conditions") or [])
    if conflicts:
        reason, message = conflicts[-1]
        conditions = with_condition(conditions, "NamesAccepted", "False", reason, message, now)
        if not _holds(crd, "Established"):
            conditions = with_condition(
                conditions, "Established", "False", "NotAccepted", "not all names are accepted", now
            )
    else:
        conditions = with_condition(conditions, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now)
        if not _holds(crd, "Established"):
            conditions = with_condition(
                conditions, "Established", "True", "InitialNamesAccepted",
                "the initial names have been accepted", now,
            )  # fmt: skip
    storage = next(each["name"] for each in spec["versions"] if each.get("storage"))
    stored = list(old.get("storedVersions") or [])
    if storage not in stored:
        stored.append(storage)
    return {**old, "conditions": conditions, "acceptedNames": accepted, "storedVersions": stored}


def _set(names: Obj, field: str, value: Any) -> None:
    if value:
        names[field] = value
    else:
        names.pop(field, None)


def _taken(others: list[Obj], group: str, field: str) -> set[str]:
    """The names that other definitions of the group have been given."""
    found: set[str] = set()
    for other in others:
        if other["spec"]["group"] != group:
            continue
        names = (other.get("status") or {}).get("acceptedNames") or {}
        if field == "resources":
            found |= {names.get("plural", ""), names.get("singular", ""), *(names.get("shortNames") or ())}
        else:
            found |= {names.get("kind", ""), names.get("listKind", "")}
    return found - {""}


def _holds(crd: Obj, kind: str) -> bool:
    entry = condition(crd, kind)
    return entry is not None and entry["status"] == "True"


def with_condition(conditions: list[Obj], kind: str, status: str, reason: str, message: str, now: str) -> list[Obj]:
    """Conditions with one set; its time moves only when its status does."""
    holder: Obj = {"conditions": conditions}
    set_condition(holder, {"type": kind, "status": status, "reason": reason, "message": message}, now=now)
    return holder["conditions"]
