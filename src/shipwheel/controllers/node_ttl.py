"""How long kubelets may keep secrets and config maps, as an annotation on nodes: longer in a larger cluster, so
that asking for them does not overwhelm the API server."""

from __future__ import annotations

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, annotations_of, name_of
from shipwheel.client.informer import EventType
from shipwheel.client.resources import NODES
from shipwheel.controllers.framework import Context, is_not_found

TTL = "node.alpha.kubernetes.io/ttl"

# (grows to the next step above so many nodes, goes back below so many, seconds)
_STEPS = ((100, 0, 0), (500, 90, 15), (1000, 450, 30), (2000, 900, 60), (float("inf"), 1800, 300))


def next_step(step: int, nodes: int) -> int:
    """The step for so many nodes, coming from `step`; the bounds overlap, so that it does not go back and
    forth."""
    while nodes > _STEPS[step][0]:
        step += 1
    while nodes < _STEPS[step][1]:
        step -= 1
    return step


def seconds(step: int) -> int:
    return _STEPS[step][2]


class NodeTtlController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._step = 0
        self._nodes = ctx.informer(NODES)
        self._loop = ctx.loop("ttlcontroller", self.reconcile, workers=5, informers=(self._nodes,))
        self._nodes.add_handler(self._on_node)

    async def run(self) -> None:
        await self._loop.run()

    def _on_node(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        step = next_step(self._step, len(self._nodes))
        if step != self._step:
            self._step = step
            for node in self._nodes.list():
                self._loop.add(node)
        elif new is not None:
            self._loop.add(new)

    async def reconcile(self, key: str) -> float | None:
        node = self._nodes.get("", key)
        wanted = str(seconds(self._step))
        if node is None or annotations_of(node).get(TTL) == wanted:
            return None
        patch = {"metadata": {"annotations": {TTL: wanted}}}
        try:
            await self._ctx.client.patch(NODES, name_of(node), "", patch, kind="strategic")
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None
