"""PodDisruptionBudgets: how many pods may be disturbed at present.

The eviction sub-resource takes from `disruptionsAllowed` and notes the pod in `disruptedPods`; here the number is
worked out anew from the pods as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shipwheel.api.clock import parse_time, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.intstr import scaled_value
from shipwheel.api.meta import (
    GroupVersion,
    GroupVersionKind,
    Obj,
    condition,
    controller_of,
    is_being_deleted,
    labels_of,
    name_of,
    namespace_of,
    split_key,
    uid_of,
)
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.informer import EventType
from shipwheel.client.resources import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
)
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.framework import Context, Writes, is_conflict, is_not_found, selector_of
from shipwheel.kinds.conditions import set_condition

_DELETION_TIMEOUT = timedelta(minutes=2)
_STALE_TIMEOUT = timedelta(minutes=2)
_RETRY = 15.0


@dataclass(frozen=True, slots=True)
class Budget:
    """(how many pods there should be, how many must be healthy)."""

    expected: int
    desired: int


def budget(pdb: Obj, pods: int, scale: int) -> Budget:
    """`scale` is the sum of the replicas that the pods' controllers want, `pods` how many there are."""
    spec = pdb["spec"]
    if spec.get("maxUnavailable") is not None:
        away = scaled_value(spec["maxUnavailable"], scale, round_up=True)
        return Budget(scale, max(scale - away, 0))
    least = spec.get("minAvailable")
    if isinstance(least, str):
        return Budget(scale, scaled_value(least, scale, round_up=True))
    return Budget(pods, least or 0)


def needs_scale(pdb: Obj) -> bool:
    """Percentages and `maxUnavailable` refer to what the controllers want."""
    spec = pdb["spec"]
    return spec.get("maxUnavailable") is not None or isinstance(spec.get("minAvailable"), str)


def still_disrupted(pdb: Obj, pods: Iterable[Obj], now: datetime) -> tuple[dict[str, str], list[Obj], float | None]:
    """(evicted pods whose deletion has still to be seen, those that were not deleted after all, seconds until
    the next will count as such)."""
    noted = (pdb.get("status") or {}).get("disruptedPods") or {}
    kept: dict[str, str] = {}
    forgotten: list[Obj] = []
    wait: float | None = None
    for pod in pods:
        when = noted.get(name_of(pod))
        if when is None or is_being_deleted(pod):
            continue
        left = (parse_time(when) + _DELETION_TIMEOUT - now).total_seconds()
        if left <= 0:
            forgotten.append(pod)
        else:
            kept[name_of(pod)] = when
            wait = left if wait is None else min(wait, left)
    return kept, forgotten, wait


def healthy(pods: Iterable[Obj], disrupted: dict[str, str]) -> int:
    return sum(podutil.is_ready(pod) and not is_being_deleted(pod) and name_of(pod) not in disrupted for pod in pods)


def status_of(pdb: Obj, wanted: Budget, current: int, disrupted: dict[str, str], now: datetime) -> Obj:
    allowed = max(current - wanted.desired, 0) if wanted.expected > 0 else 0
    status: Obj = {
        "currentHealthy": current,
        "desiredHealthy": wanted.desired,
        "expectedPods": wanted.expected,
        "disruptionsAllowed": allowed,
        "observedGeneration": pdb["metadata"].get("generation") or 0,
        "conditions": (pdb.get("status") or {}).get("conditions") or [],
    }
    if disrupted:
        status["disruptedPods"] = disrupted
    reason = "SufficientPods" if allowed > 0 else "InsufficientPods"
    set_condition(status, _disruption_allowed(status, reason, ""), now=rfc3339(now))
    return status


def failed_status(pdb: Obj, error: str, now: datetime) -> Obj:
    """When it cannot be worked out, nothing may be disturbed."""
    status = {**(pdb.get("status") or {}), "disruptionsAllowed": 0}
    set_condition(status, _disruption_allowed(status, "SyncFailed", error), now=rfc3339(now))
    return status


def _disruption_allowed(status: Obj, reason: str, message: str) -> Obj:
    return {
        "type": "DisruptionAllowed",
        "status": "True" if status["disruptionsAllowed"] > 0 else "False",
        "observedGeneration": status.get("observedGeneration") or 0,
        "reason": reason,
        "message": message,
    }


def stale_condition(pod: Obj, now: datetime) -> float | None:
    """Seconds until an announcement that a pod will be disturbed has proved wrong (0: it has); None: there is
    none, or it may still be right."""
    entry = condition(pod, "DisruptionTarget")
    if is_being_deleted(pod) or podutil.is_terminal(pod) or entry is None or entry["status"] != "True":
        return None
    if entry.get("reason") == "TerminationByKubelet":
        return None
    return max((parse_time(entry["lastTransitionTime"]) + _STALE_TIMEOUT - now).total_seconds(), 0.0)


class DisruptionController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._pdbs = ctx.informer(POD_DISRUPTION_BUDGETS)
        self._pods = ctx.pods()
        self._owners = {
            "ReplicaSet": ctx.informer(REPLICA_SETS),
            "Deployment": ctx.informer(DEPLOYMENTS),
            "StatefulSet": ctx.informer(STATEFUL_SETS),
            "ReplicationController": ctx.informer(REPLICATION_CONTROLLERS),
        }
        self._writes = Writes()
        self._loop = ctx.loop(
            "disruption",
            self.reconcile,
            workers=1,
            informers=(self._pdbs, self._pods, *self._owners.values()),
            writes=self._writes,
        )
        self._stale = ctx.loop("stale_pod_disruption", self._reconcile_stale, workers=1, informers=(self._pods,))
        self._pdbs.add_handler(self._loop.on_event)
        self._pods.add_handler(self._on_pod)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop.run())
            group.create_task(self._stale.run())

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        for pod in (new, old):
            if pod is not None:
                for pdb in self._budgets_of(pod):
                    self._loop.add(pdb)
        if new is not None and stale_condition(new, self._ctx.clock.now()) is not None:
            self._stale.add(new)

    def _budgets_of(self, pod: Obj) -> list[Obj]:
        matching = [pdb for pdb in self._pdbs.list(namespace_of(pod)) if selector_of(pdb).matches(labels_of(pod))]
        if len(matching) > 1:
            matching.sort(key=name_of)
            message = (
                f'Pod "{namespace_of(pod)}"/"{name_of(pod)}" matches multiple PodDisruptionBudgets.  '
                f'Chose "{name_of(matching[0])}" arbitrarily.'
            )
            self._ctx.recorder.event(pod, "Warning", "MultiplePodDisruptionBudgets", message)
        return matching

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        pdb = self._pdbs.get(namespace, name)
        if pdb is None:
            self._writes.forget(key)
            return None
        now = self._ctx.clock.now()
        try:
            return await self._sync(key, pdb, now)
        except (ApiError, ConnectionFailed, ValueError) as error:
            if is_conflict(error):
                raise
            await self._write(key, pdb, failed_status(pdb, str(error), now))
            return _RETRY

    async def _sync(self, key: str, pdb: Obj, now: datetime) -> float | None:
        selector = selector_of(pdb)
        pods = [pod for pod in self._pods.list(namespace_of(pdb)) if selector.matches(labels_of(pod))]
        if not pods:
            self._event(pdb, "Normal", "NoPods", "No matching pods found")
        scale = 0
        if needs_scale(pdb):
            try:
                scale, unmanaged = await self._scale(pods)
            except (ApiError, ConnectionFailed, ValueError) as error:
                message = f"Failed to calculate the number of expected pods: {error}"
                self._event(pdb, "Warning", "CalculateExpectedPodCountFailed", message)
                raise
            if unmanaged:
                self._event(
                    pdb,
                    "Warning",
                    "UnmanagedPods",
                    f"Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As "
                    "a result, the status of the PDB cannot be calculated correctly, which may result in undefined "
                    'behavior. To account for these pods please set ".spec.minAvailable" field of the PDB to an '
                    "integer value.",
                )
        disrupted, forgotten, wait = still_disrupted(pdb, pods, now)
        for pod in forgotten:
            message = f"Pod was expected by PDB {namespace_of(pdb)}/{name_of(pdb)} to be deleted but it wasn't"
            self._ctx.recorder.event(pod, "Warning", "NotDeleted", message)
        status = status_of(pdb, budget(pdb, len(pods), scale), healthy(pods, disrupted), disrupted, now)
        if not _same_status(pdb.get("status") or {}, status):
            await self._write(key, pdb, status)
        return wait

    async def _write(self, key: str, pdb: Obj, status: Obj) -> None:
        """With the resource version: an eviction that came between must not be undone."""
        written = await self._ctx.client.update(POD_DISRUPTION_BUDGETS, {**pdb, "status": status}, subresource="status")
        self._writes.wrote(key, self._pdbs, written)

    async def _scale(self, pods: Sequence[Obj]) -> tuple[int, list[str]]:
        """(the replicas that the controllers of the pods want, pods that have no controller)."""
        scales: dict[str, int] = {}
        unmanaged: list[str] = []
        seen: set[str] = set()
        for pod in pods:
            reference = controller_of(pod)
            if reference is None:
                unmanaged.append(name_of(pod))
            elif reference["uid"] not in seen:
                seen.add(reference["uid"])
                found = await self._scale_of(reference, namespace_of(pod))
                if found is None:
                    raise ValueError(f'found no controllers for pod "{name_of(pod)}"')
                scales[found[0]] = found[1]
        return sum(scales.values()), unmanaged

    async def _scale_of(self, reference: Obj, namespace: str) -> tuple[str, int] | None:
        """(uid, replicas) of whoever decides how many pods there are; None when it is gone."""
        kind = reference["kind"]
        group = GroupVersion.parse(reference["apiVersion"]).group
        if kind not in self._owners or group not in ("apps", "extensions", ""):
            return await self._scale_of_other(reference, namespace)
        owner = self._owners[kind].get(namespace, reference["name"])
        if owner is None or uid_of(owner) != reference["uid"]:
            return None
        above = controller_of(owner)
        if kind == "ReplicaSet" and above is not None and above["kind"] == "Deployment":
            return await self._scale_of(above, namespace)
        replicas = owner["spec"].get("replicas")
        return uid_of(owner), 1 if replicas is None else replicas

    async def _scale_of_other(self, reference: Obj, namespace: str) -> tuple[str, int] | None:
        """By the `scale` sub-resource, which any kind may have."""
        gv = GroupVersion.parse(reference["apiVersion"])
        discovery = await self._ctx.client.resources()
        resource = discovery.by_kind.get(GroupVersionKind(gv.group, gv.version, reference["kind"]))
        if resource is None:
            raise ValueError(f'no matches for kind "{reference["kind"]}" in version "{reference["apiVersion"]}"')
        if "scale" not in resource.subresources:
            raise ValueError(f"{resource.gvr.group_resource} does not implement the scale subresource")
        try:
            scale = await self._ctx.client.get(resource.gvr, reference["name"], namespace, subresource="scale")
        except ApiError as error:
            if not is_not_found(error):
                raise
            return None
        if uid_of(scale) != reference["uid"]:
            return None
        return reference["uid"], (scale.get("spec") or {}).get("replicas") or 0

    async def _reconcile_stale(self, key: str) -> float | None:
        namespace, name = split_key(key)
        pod = self._pods.get(namespace, name)
        left = stale_condition(pod, self._ctx.clock.now()) if pod is not None else None
        if pod is None or left is None or left > 0:
            return left
        entry = {
            "type": "DisruptionTarget",
            "status": "False",
            "reason": "",
            "message": "",
            "lastTransitionTime": rfc3339(self._ctx.clock.now()),
        }
        patch = {"metadata": {"uid": uid_of(pod)}, "status": {"conditions": [entry]}}
        try:
            await self._ctx.client.patch(PODS, name, namespace, patch, kind="strategic", subresource="status")
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None

    def _event(self, pdb: Obj, kind: str, reason: str, message: str) -> None:
        self._ctx.recorder.event(pdb, "Warning" if kind == "Warning" else "Normal", reason, message)


def _same_status(old: Obj, new: Obj) -> bool:
    return all(old.get(key) == value for key, value in new.items()) and bool(old.get("disruptedPods")) == bool(
        new.get("disruptedPods")
    )
