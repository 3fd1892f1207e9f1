"""`componentstatuses`: are the parts of the control plane healthy, as the API server sees it?

Deprecated since 1.19, and still what old habits (`kubectl get cs`) ask first. Nothing is stored: whoever asks
makes the server look. Where to look is the server's to know: `server.means("component-checks")` maps names
(`scheduler`, `controller-manager`, `etcd-0`) to functions that look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from shipwheel.api.errors import not_found
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import Call, Column, Resource, Server
from shipwheel.kinds.columns import NAME
from shipwheel.kinds.declare import deprecated, served


@dataclass(frozen=True, slots=True)
class Health:
    """What a check found: `message` is what the component said, `error` why it could not be asked."""

    status: Literal["True", "False", "Unknown"]
    message: str = ""
    error: str = ""


Checks = Mapping[str, Callable[[], Awaitable[Health]]]


async def _read(server: Server, call: Call) -> Obj:
    checks: Checks = server.means("component-checks")
    if call.name:
        if call.name not in checks:
            raise not_found(GroupResource("", "componentstatus"), call.name)
        return _status(call.name, await checks[call.name]())
    found = await asyncio.gather(*(check() for check in checks.values()))
    items = [_status(name, health) for name, health in zip(checks, found, strict=True)]
    return {"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": items}


def _status(name: str, health: Health) -> Obj:
    condition: Obj = {"type": "Healthy", "status": health.status}
    if health.message:
        condition["message"] = health.message
    if health.error:
        condition["error"] = health.error
    return {
        "kind": "ComponentStatus",
        "apiVersion": "v1",
        "metadata": {"name": name},
        "conditions": [condition],
    }


def _healthy(obj: Obj) -> Obj:
    conditions = obj.get("conditions") or ()
    return next((each for each in conditions if each.get("type") == "Healthy"), {})


def _word(obj: Obj, now: datetime) -> str:
    status = _healthy(obj).get("status")
    return "Unknown" if status is None else "Healthy" if status == "True" else "Unhealthy"


RESOURCES = (
    Resource(
        kind="ComponentStatus",
        plural="componentstatuses",
        singular="componentstatus",
        short_names=("cs",),
        namespaced=False,
        versions=(served("", "v1", "ComponentStatus", deprecation=deprecated("v1", "ComponentStatus", "1.19")),),
        verbs=("get", "list"),
        columns=(
            NAME,
            Column("Status", _word),
            Column("Message", lambda obj, now: _healthy(obj).get("message", "")),
            Column("Error", lambda obj, now: _healthy(obj).get("error", "")),
        ),
        call=_read,
    ),
)
