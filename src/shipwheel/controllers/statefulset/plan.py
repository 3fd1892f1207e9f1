"""What may happen next to the pods of a StatefulSet.

Ordered sets do one thing at a time: a pod is made when all before it are available, and taken away when all
others are; parallel ones do all at once. Only when every pod that should be there is there is a roll-out gone on
with, from the highest ordinal down.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from shipwheel.api.intstr import scaled_value
from shipwheel.api.meta import Obj, is_being_deleted, labels_of, name_of, namespace_of, owner_reference
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.statefulset.claims import storage_matches, with_storage

REVISION = "controller-revision-hash"
POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"

_STATEFUL = re.compile(r"(.*)-([0-9]+)")

Verb = Literal["create", "delete", "fix", "provide", "settle"]


@dataclass(frozen=True, slots=True)
class Action:
    """`create` a pod (and its claims), `delete` it, `fix` its identity, `provide` claims that it lacks, `settle`
    who owns its claims."""

    verb: Verb
    pod: Obj


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...]
    updating: int = 0
    """How many of the deletions are for the roll-out."""


def ordinal_of(pod: Obj) -> int:
    """-1 when its name has none."""
    match = _STATEFUL.fullmatch(name_of(pod))
    return int(match[2]) if match else -1


def is_member(stateful: Obj, pod: Obj) -> bool:
    match = _STATEFUL.fullmatch(name_of(pod))
    return match is not None and match[1] == name_of(stateful)


def start_of(stateful: Obj) -> int:
    return (stateful["spec"].get("ordinals") or {}).get("start") or 0


def replicas_of(stateful: Obj) -> int:
    replicas = stateful["spec"].get("replicas")
    return 1 if replicas is None else replicas


def in_range(stateful: Obj, pod: Obj) -> bool:
    return 0 <= ordinal_of(pod) - start_of(stateful) < replicas_of(stateful)


def is_ordered(stateful: Obj) -> bool:
    return stateful["spec"].get("podManagementPolicy", "OrderedReady") != "Parallel"


def partition_of(stateful: Obj) -> int | None:
    """Ordinals below it keep the old revision; None when the strategy says nothing."""
    rolling = _strategy(stateful).get("rollingUpdate")
    return None if rolling is None else rolling.get("partition") or 0


def _strategy(stateful: Obj) -> Obj:
    return stateful["spec"].get("updateStrategy") or {"type": "RollingUpdate"}


def is_rolling(stateful: Obj) -> bool:
    return _strategy(stateful).get("type", "RollingUpdate") == "RollingUpdate"


def is_unavailable(stateful: Obj, pod: Obj, now: datetime) -> bool:
    return is_being_deleted(pod) or not _is_available(stateful, pod, now)


def _is_available(stateful: Obj, pod: Obj, now: datetime) -> bool:
    return podutil.is_available(pod, stateful["spec"].get("minReadySeconds") or 0, now)


def _is_running_and_ready(pod: Obj) -> bool:
    return podutil.phase_of(pod) == "Running" and podutil.is_ready(pod)


def new_pod(stateful: Obj, ordinal: int, revision: str) -> Obj:
    """The pod of an ordinal, as a set (with the revision's template) makes it."""
    pod = podutil.pod_from_template(stateful["spec"]["template"], owner_reference(stateful), name_of(stateful))
    name = f"{name_of(stateful)}-{ordinal}"
    metadata = {key: value for key, value in pod["metadata"].items() if key != "generateName"}
    labels = {**(metadata.get("labels") or {}), POD_NAME: name, POD_INDEX: str(ordinal), REVISION: revision}
    metadata |= {"name": name, "namespace": namespace_of(stateful), "labels": labels}
    spec = {**pod["spec"], "hostname": name, "subdomain": stateful["spec"].get("serviceName") or ""}
    return with_storage(stateful, {**pod, "metadata": metadata, "spec": spec}, ordinal)


def with_identity(stateful: Obj, pod: Obj) -> Obj:
    """The pod with the labels and volumes that it should have."""
    labels = {**labels_of(pod), POD_NAME: name_of(pod), POD_INDEX: str(ordinal_of(pod))}
    fixed = {**pod, "metadata": {**pod["metadata"], "labels": labels}}
    return fixed if storage_matches(stateful, pod, ordinal_of(pod)) else with_storage(stateful, fixed, ordinal_of(pod))


def _is_itself(stateful: Obj, pod: Obj) -> bool:
    return labels_of(pod).get(POD_NAME) == name_of(pod) and storage_matches(stateful, pod, ordinal_of(pod))


@dataclass(frozen=True, slots=True)
class Revisions:
    """The set with the template of the current revision and of the one to update to, and their names."""

    current: Obj
    update: Obj
    current_name: str
    update_name: str


def versioned_pod(stateful: Obj, revisions: Revisions, ordinal: int) -> Obj:
    """The pod of an ordinal, of the revision that its place in a roll-out calls for."""
    partition = partition_of(stateful)
    kept = (stateful.get("status") or {}).get("currentReplicas") or 0 if partition is None else partition
    if is_rolling(stateful) and ordinal < start_of(stateful) + kept:
        return new_pod(revisions.current, ordinal, revisions.current_name)
    return new_pod(revisions.update, ordinal, revisions.update_name)


def arrange(stateful: Obj, revisions: Revisions, pods: Iterable[Obj]) -> tuple[list[Obj], list[Obj]]:
    """(a pod for each replica, present or to be made; the pods that are too many, highest ordinal first)."""
    present = {ordinal_of(pod): pod for pod in pods if in_range(stateful, pod)}
    extra = [pod for pod in pods if not in_range(stateful, pod) and ordinal_of(pod) >= 0]
    start = start_of(stateful)
    replicas = [
        present.get(ordinal) or versioned_pod(stateful, revisions, ordinal)
        for ordinal in range(start, start + replicas_of(stateful))
    ]
    return replicas, sorted(extra, key=ordinal_of, reverse=True)


def plan(
    stateful: Obj,
    revisions: Revisions,
    pods: Sequence[Obj],
    now: datetime,
    claims_settled: Callable[[Obj], bool],
) -> Plan:
    """The actions for now, in order. `claims_settled` tells whether a pod's claims are owned as they should be."""
    replicas, condemned = arrange(stateful, revisions, pods)
    ordered = is_ordered(stateful)
    actions: list[Action] = []
    for pod in replicas:
        if _keep(actions, stateful, pod, now, claims_settled, ordered=ordered) and ordered:
            return Plan(tuple(actions))
    actions += [Action("settle", pod) for pod in condemned if not claims_settled(pod)]
    first = next((pod for pod in (*replicas, *reversed(condemned)) if is_unavailable(stateful, pod, now)), None)
    for pod in condemned:
        if is_being_deleted(pod):
            if ordered:
                return Plan(tuple(actions))
            continue
        if ordered and pod is not first and not (_is_running_and_ready(pod) and _is_available(stateful, pod, now)):
            return Plan(tuple(actions))
        actions.append(Action("delete", pod))
        if ordered:
            return Plan(tuple(actions))
    if not is_rolling(stateful):
        return Plan(tuple(actions))
    outdated = _to_update(stateful, revisions.update_name, replicas, now)
    return Plan((*actions, *(Action("delete", pod) for pod in outdated)), updating=len(outdated))


def _keep(
    actions: list[Action],
    stateful: Obj,
    pod: Obj,
    now: datetime,
    claims_settled: Callable[[Obj], bool],
    *,
    ordered: bool,
) -> bool:
    """See to a pod that should be there; True when an ordered set must wait for it."""
    phase = podutil.phase_of(pod)
    if podutil.is_terminal(pod):
        if not is_being_deleted(pod):
            actions.append(Action("delete", pod))
        return True
    if not phase:
        actions.append(Action("create", pod))
        return True
    if phase == "Pending":
        actions.append(Action("provide", pod))
    if ordered and (is_being_deleted(pod) or not _is_running_and_ready(pod) or not _is_available(stateful, pod, now)):
        return True
    if not _is_itself(stateful, pod) or not claims_settled(pod):
        actions.append(Action("fix", pod))
    return False


def _to_update(stateful: Obj, revision: str, replicas: Sequence[Obj], now: datetime) -> list[Obj]:
    """The pods of an old revision that may go now."""
    partition = partition_of(stateful) or 0
    rolling = _strategy(stateful).get("rollingUpdate") or {}
    limit = rolling.get("maxUnavailable")
    candidates = list(reversed(replicas[partition:]))
    if limit is None:
        for pod in candidates:
            if _revision_of(pod) != revision and podutil.phase_of(pod) and not is_being_deleted(pod):
                return [pod]
            if is_unavailable(stateful, pod, now):
                return []
        return []
    room = most_unavailable(stateful) - sum(is_unavailable(stateful, pod, now) for pod in replicas)
    outdated = [pod for pod in candidates if _revision_of(pod) != revision and not is_being_deleted(pod)]
    return outdated[: max(room, 0)]


def most_unavailable(stateful: Obj) -> int:
    """How many pods may be unavailable in a roll-out: one, unless the strategy says more (percentages round down)."""
    limit = (_strategy(stateful).get("rollingUpdate") or {}).get("maxUnavailable")
    return 1 if limit is None else max(scaled_value(limit, replicas_of(stateful), round_up=False), 1)


def _revision_of(pod: Obj) -> str:
    return labels_of(pod).get(REVISION, "")


def status_of(
    stateful: Obj, revisions: Revisions, pods: Sequence[Obj], collisions: int, updating: int, now: datetime
) -> Obj:
    """The status to report; `updating` pods of the current revision are just being deleted."""
    old = stateful.get("status") or {}
    ready = [pod for pod in pods if _is_running_and_ready(pod)]
    staying = [pod for pod in pods if not is_being_deleted(pod)]
    status: Obj = {
        "observedGeneration": stateful["metadata"].get("generation") or 0,
        "replicas": len(pods),
        "readyReplicas": len(ready),
        "availableReplicas": sum(_is_available(stateful, pod, now) for pod in ready),
        "currentReplicas": sum(_revision_of(pod) == revisions.current_name for pod in staying) - updating,
        "updatedReplicas": sum(_revision_of(pod) == revisions.update_name for pod in staying),
        "currentRevision": revisions.current_name,
        "updateRevision": revisions.update_name,
        "collisionCount": collisions,
    }
    if old.get("conditions"):
        status["conditions"] = old["conditions"]
    wanted = replicas_of(stateful)
    if is_rolling(stateful) and status["updatedReplicas"] == status["readyReplicas"] == status["replicas"] == wanted:
        status["currentReplicas"] = status["updatedReplicas"]
        status["currentRevision"] = status["updateRevision"]
    return status


def same_status(old: Obj, new: Obj) -> bool:
    return all((old.get(key) or 0) == (value or 0) for key, value in new.items() if key != "conditions")
