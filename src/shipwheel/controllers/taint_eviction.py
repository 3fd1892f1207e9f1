"""Eviction by NoExecute taints: a pod that does not tolerate a taint of its node is deleted, one that tolerates
it for some seconds only, after them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shipwheel.api.meta import Obj, is_being_deleted, key_of, name_of, split_key, uid_of
from shipwheel.client.informer import EventType
from shipwheel.client.resources import NODES
from shipwheel.controllers.eviction import evict, reference_to
from shipwheel.controllers.framework import Context
from shipwheel.kinds.taints import tolerates


def no_execute_taints(node: Obj) -> list[Obj]:
    return [taint for taint in node["spec"].get("taints") or () if taint["effect"] == "NoExecute"]


def seconds_tolerated(taints: Sequence[Obj], tolerations: Iterable[Obj]) -> float | None:
    """How long a pod may stay under these taints: 0: not at all; None: for ever."""
    tolerations = list(tolerations)
    limits: list[float] = []
    for taint in taints:
        toleration = tolerates(tolerations, taint)
        if toleration is None:
            return 0.0
        if toleration.get("tolerationSeconds") is not None:
            limits.append(max(toleration["tolerationSeconds"], 0))
    return min(limits, default=None)


class TaintEvictionController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._pods = ctx.pods()
        self._nodes = ctx.informer(NODES)
        self._since: dict[str, tuple[str, float]] = {}
        self._loop = ctx.loop("noexec_taint_pod", self.reconcile, workers=8, informers=(self._pods, self._nodes))
        self._pods.add_handler(self._on_pod)
        self._nodes.add_handler(self._on_node)
        self._evicted = ctx.metrics.counter(
            "taint_eviction_controller_pod_deletions_total",
            "[ALPHA] Total number of Pods deleted by TaintEvictionController since its start.",
        )
        self._latency = ctx.metrics.histogram(
            "taint_eviction_controller_pod_deletion_duration_seconds",
            "[ALPHA] Latency, in seconds, between the time when a taint effect has been activated for the Pod and its "
            "deletion via TaintEvictionController.",
            (0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 30, 60, 120, 180, 240),
        )

    async def run(self) -> None:
        await self._loop.run()

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is not None and old is not None:
            unchanged = new["spec"].get("nodeName") == old["spec"].get("nodeName")
            if unchanged and new["spec"].get("tolerations") == old["spec"].get("tolerations"):
                return
        pod = new if new is not None else old
        if pod is not None and (key_of(pod) in self._since or self._is_tainted(pod)):
            self._loop.add(pod)

    def _is_tainted(self, pod: Obj) -> bool:
        node = self._nodes.get("", pod["spec"].get("nodeName", ""))
        return node is not None and bool(no_execute_taints(node))

    def _on_node(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is None or (old is not None and no_execute_taints(new) == no_execute_taints(old)):
            return
        if old is None and not no_execute_taints(new):
            return
        for pod in self._pods.by_index("node", name_of(new)):
            self._loop.add(pod)

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        pod = self._pods.get(namespace, name)
        if pod is None or is_being_deleted(pod):
            self._since.pop(key, None)
            return None
        node = self._nodes.get("", pod["spec"].get("nodeName", ""))
        taints = no_execute_taints(node) if node else []
        seconds = seconds_tolerated(taints, pod["spec"].get("tolerations") or ())
        if not taints or seconds is None:
            self._cancel(key, pod)
            return None
        now = self._ctx.clock.monotonic()
        uid, since = self._since.get(key, ("", now))
        if uid != uid_of(pod):
            since = now
        self._since[key] = (uid_of(pod), since)
        left = since + seconds - now
        if left > 0:
            return left
        await self._evict(pod)
        self._latency.observe(self._ctx.clock.monotonic() - since - seconds)
        self._since.pop(key, None)
        return None

    def _cancel(self, key: str, pod: Obj) -> None:
        if self._since.pop(key, None) is not None:
            self._event(pod, f"Cancelling deletion of Pod {key}")

    async def _evict(self, pod: Obj) -> None:
        self._event(pod, f"Marking for deletion Pod {key_of(pod)}")
        await evict(
            self._ctx.client,
            self._ctx.clock,
            pod,
            reason="DeletionByTaintManager",
            message="Taint manager: deleting due to NoExecute taint",
        )
        self._evicted.inc()

    def _event(self, pod: Obj, message: str) -> None:
        self._ctx.recorder.event(reference_to(pod), "Normal", "TaintManagerEviction", message)
