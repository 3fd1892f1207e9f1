"""Pod garbage collection: pods that nobody would ever remove otherwise.

Those on nodes that are gone, those being deleted that never had a node or are on one marked out of service,
and the oldest of those that have ended, when there are too many.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, is_being_deleted, is_condition_true, name_of, namespace_of, uid_of
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.resources import NODES, PODS
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.framework import Context, is_not_found

log = logging.getLogger(__name__)

_PERIOD = 20.0
_QUARANTINE = 40.0
_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


def too_many_terminated(pods: Iterable[Obj], threshold: int) -> list[Obj]:
    """The pods that have ended beyond `threshold`: evicted ones first, then the oldest. 0: no limit."""
    if threshold <= 0:
        return []
    ended = [pod for pod in pods if podutil.phase_of(pod) not in ("Pending", "Running", "Unknown")]
    return sorted(ended, key=_keep_order)[: max(len(ended) - threshold, 0)]


def _keep_order(pod: Obj) -> tuple[Any, ...]:
    status = pod.get("status") or {}
    evicted = status.get("phase") == "Failed" and status.get("reason") == "Evicted"
    return not evicted, pod["metadata"].get("creationTimestamp") or "", name_of(pod)


def is_out_of_service(node: Obj) -> bool:
    """Its administrator has said that it will not come back (KEP-2268)."""
    taints = node["spec"].get("taints") or ()
    return not is_condition_true(node, "Ready") and any(taint["key"] == _OUT_OF_SERVICE for taint in taints)


def unscheduled_terminating(pods: Iterable[Obj]) -> list[Obj]:
    return [pod for pod in pods if is_being_deleted(pod) and not pod["spec"].get("nodeName")]


class PodGarbageCollector:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._pods = ctx.pods()
        self._nodes = ctx.informer(NODES)
        self._missing_since: dict[str, float] = {}
        labels = ("namespace", "reason")
        self._deleted = ctx.metrics.counter(
            "pod_gc_collector_force_delete_pods_total",
            "[ALPHA] Number of pods that are being forcefully deleted since the Pod GC Controller started.",
            labels,
        )
        self._failed = ctx.metrics.counter(
            "pod_gc_collector_force_delete_pod_errors_total",
            "[ALPHA] Number of errors encountered when forcefully deleting the pods since the Pod GC Controller "
            "started.",
            labels,
        )

    async def run(self) -> None:
        await self._pods.wait_synced()
        await self._nodes.wait_synced()
        while True:
            await self.collect()
            await self._ctx.clock.sleep(_PERIOD)

    async def collect(self) -> None:
        """Look once and delete what is to go."""
        pods = self._pods.list()
        for pod in too_many_terminated(pods, self._ctx.config.terminated_pod_gc_threshold):
            await self._remove(pod, "terminated")
        for node in self._nodes.list():
            if is_out_of_service(node):
                for pod in self._pods.by_index("node", name_of(node)):
                    if is_being_deleted(pod):
                        await self._remove(pod, "out-of-service")
        gone = await self._gone_nodes(pods)
        for pod in pods:
            if pod["spec"].get("nodeName") in gone:
                condition = {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists",
                    "lastTransitionTime": rfc3339(self._ctx.clock.now()),
                }
                await self._remove(pod, "orphaned", condition)
        for pod in unscheduled_terminating(pods):
            await self._remove(pod, "unscheduled")

    async def _gone_nodes(self, pods: Sequence[Obj]) -> set[str]:
        """The nodes that pods name, that have been missing for a while, and that the server does not have
        either."""
        now = self._ctx.clock.monotonic()
        named = {pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")}
        missing = {name for name in named if self._nodes.get("", name) is None}
        self._missing_since = {name: self._missing_since.get(name, now) for name in missing}
        gone: set[str] = set()
        for name, since in self._missing_since.items():
            if now - since < _QUARANTINE:
                continue
            try:
                await self._ctx.client.get(NODES, name)
            except (ApiError, ConnectionFailed) as error:
                if is_not_found(error):
                    gone.add(name)
                else:
                    log.warning("error while getting node %s: %s", name, error)
        return gone

    async def _remove(self, pod: Obj, reason: str, condition: Obj | None = None) -> None:
        """Mark a pod failed, since no kubelet will, and delete it at once."""
        client, namespace = self._ctx.client, namespace_of(pod)
        try:
            if not podutil.is_terminal(pod):
                status: Obj = {"phase": "Failed"}
                if pod["metadata"].get("generation"):
                    status["observedGeneration"] = pod["metadata"]["generation"]
                if condition:
                    status["conditions"] = [condition]
                patch = {"metadata": {"uid": uid_of(pod)}, "status": status}
                await client.patch(PODS, name_of(pod), namespace, patch, kind="strategic", subresource="status")
            await client.delete(PODS, name_of(pod), namespace, grace_period=0, uid=uid_of(pod))
        except (ApiError, ConnectionFailed) as error:
            if not is_not_found(error):
                log.error("failed to delete %s pod %s/%s: %s", reason, namespace, name_of(pod), error)
                self._failed.labels(namespace, reason).inc()
                return
        self._deleted.labels(namespace, reason).inc()
