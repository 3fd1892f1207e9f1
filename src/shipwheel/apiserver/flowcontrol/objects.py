"""The flow schemas and priority levels that are there in every cluster, kept as they should be (KEP-1040).

The mandatory ones always are as they must be. The suggested ones are made when they are missing, and follow a new
release as long as their annotation lets them, or, where that says nothing, as long as nobody has changed them. Each
flow schema is told whether the priority level that it names exists.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupResource, Obj, annotations_of, condition, name_of
from shipwheel.apiserver.bootstrap import LOOPBACK, ensure
from shipwheel.apiserver.watchcache import Change, ResourceCache
from shipwheel.kinds.conditions import set_condition
from shipwheel.kinds.flowcontrol import mandatory, suggested

if TYPE_CHECKING:
    from shipwheel.apiserver.server import ApiServer

log = logging.getLogger(__name__)

_GROUP = "flowcontrol.apiserver.k8s.io"
SCHEMAS, LEVELS = GroupResource(_GROUP, "flowschemas"), GroupResource(_GROUP, "prioritylevelconfigurations")
AUTO_UPDATE = "apf.kubernetes.io/autoupdate-spec"
RESYNC_SECONDS = 60.0
_FLAGS = dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "false", "FALSE", "False"), False
)


def revised(current: Obj, spec: Obj, *, always: bool) -> Obj | None:
    """The object as it should be instead, or None where it is right. `always`: whatever its administrator says."""
    flag = _FLAGS.get(annotations_of(current).get(AUTO_UPDATE, ""))
    follows = always or (current["metadata"].get("generation") == 1 if flag is None else flag)
    wanted = {**spec, "exempt": current["spec"].get("exempt")} if spec.get("type") == "Exempt" else spec
    right = not follows or current["spec"] == wanted
    if right and flag == follows:
        return None
    annotations = {**annotations_of(current), AUTO_UPDATE: "true" if follows else "false"}
    metadata = {**current["metadata"], "annotations": annotations}
    return {**current, "metadata": metadata, "spec": current["spec"] if right else wanted}


def dangling(schema: Obj, levels: set[str]) -> Obj:
    """The condition that tells whether a flow schema's priority level is missing."""
    level = schema["spec"]["priorityLevelConfiguration"]["name"]
    found = level in levels
    end = "and it exists" if found else "but there is no such object"
    message = f'This FlowSchema references the PriorityLevelConfiguration object named "{level}" {end}'
    status, reason = ("False", "Found") if found else ("True", "NotFound")
    return {"type": "Dangling", "status": status, "reason": reason, "message": message}


class FlowConfig:
    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._changed = asyncio.Event()
        server.cache.on_change(self._on_change)

    def _on_change(self, cache: ResourceCache, change: Change) -> None:
        if cache.resource.group == _GROUP:
            self._changed.set()

    async def ensure(self) -> None:
        """Make what is missing, and put right what has changed."""
        if self._server.scheme.resource(SCHEMAS) is None:
            return
        async with asyncio.TaskGroup() as group:
            for resource, table, always in (
                (LEVELS, suggested.PRIORITY_LEVELS, False),
                (LEVELS, mandatory.PRIORITY_LEVELS, True),
                (SCHEMAS, suggested.FLOW_SCHEMAS, False),
                (SCHEMAS, mandatory.FLOW_SCHEMAS, True),
            ):
                for name, spec in table.items():
                    group.create_task(self._ensure(resource, name, spec, always=always))

    async def _ensure(self, resource: GroupResource, name: str, spec: Obj, *, always: bool) -> None:
        known = self._server.peek(resource, "", name)
        if known is None:
            metadata = {"name": name, "annotations": {AUTO_UPDATE: "true"}}
            await ensure(self._server, resource, {"metadata": metadata, "spec": spec})
        elif revised(known, spec, always=always) is not None:
            await self._server.change(
                resource, "", name, lambda current: revised(current, spec, always=always), user=LOOPBACK
            )

    async def run(self) -> None:
        """Follow the objects until cancelled; what every cluster has is looked at once a minute."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            while True:
                await self._server.clock.sleep(RESYNC_SECONDS)
                try:
                    await self.ensure()
                except* ApiError as errors:
                    log.warning("flow control's own objects: %s", errors.exceptions[0])

    async def _tell(self) -> None:
        """Tell flow schemas about their priority levels whenever either changes."""
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._server.scheme.resource(SCHEMAS) is None:
                continue
            levels = {name_of(level) for level in self._server.peek_all(LEVELS)}
            for schema in self._server.peek_all(SCHEMAS):
                try:
                    await self._tell_one(schema, dangling(schema, levels))
                except ApiError as error:
                    if error.reason != "NotFound":
                        log.warning("status of flow schema %s: %s", name_of(schema), error)

    async def _tell_one(self, schema: Obj, wanted: Obj) -> None:
        known = condition(schema, "Dangling") or {}
        if all(known.get(field) == value for field, value in wanted.items()):
            return
        now = rfc3339(self._server.clock.now())

        def change(current: Obj) -> Obj:
            status = dict(current.get("status") or {})
            set_condition(status, wanted, now=now)
            return {**current, "status": status}

        await self._server.change(SCHEMAS, "", name_of(schema), change, user=LOOPBACK, subresource="status")
