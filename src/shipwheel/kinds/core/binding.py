"""`bindings`: the older way to give a pod its node, by a kind of its own."""

from __future__ import annotations

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Call, Resource, Server
from shipwheel.kinds.core.podcalls import bind_pod
from shipwheel.kinds.declare import served


async def _create(server: Server, call: Call) -> Obj:
    return await bind_pod(server, call, call.body or {})


RESOURCES = (
    Resource(
        kind="Binding",
        plural="bindings",
        singular="binding",
        versions=(served("", "v1", "Binding"),),
        verbs=("create",),
        call=_create,
    ),
)
