"""Where the pods of a DaemonSet belong, and which come and go."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shipwheel.api import nodeselector
from shipwheel.api.intstr import scaled_value
from shipwheel.api.meta import Obj, annotations_of, is_being_deleted, labels_of, name_of
from shipwheel.controllers import pods as podutil
from shipwheel.kinds.taints import tolerates

HASH = "controller-revision-hash"
GENERATION_LABEL = "pod-template-generation"
GENERATION = "deprecated.daemonset.template.generation"

PodsByNode = dict[str, list[Obj]]

_ALWAYS_TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_NETWORK = ("node.kubernetes.io/network-unavailable", "NoSchedule")


@dataclass(slots=True)
class Plan:
    """Nodes to make a pod for, pods to delete, and what to say about it."""

    create: list[str] = field(default_factory=list)
    delete: list[Obj] = field(default_factory=list)
    failed: list[Obj] = field(default_factory=list)
    succeeded: list[Obj] = field(default_factory=list)
    look_after: float | None = None
    """Seconds after which a failed pod may be replaced that may not be yet."""


def tolerations_of(spec: Obj) -> list[Obj]:
    """The template's tolerations and those that every daemon pod has."""
    tolerations = list(spec.get("tolerations") or ())
    wanted = [*_ALWAYS_TOLERATED, *([_NETWORK] if spec.get("hostNetwork") else [])]
    for key, effect in wanted:
        toleration = {"key": key, "operator": "Exists", "effect": effect}
        tolerations = [each for each in tolerations if not _same_toleration(each, toleration)]
        tolerations.append(toleration)
    return tolerations


def _same_toleration(one: Obj, other: Obj) -> bool:
    keys = ("key", "operator", "effect")
    return all(one.get(key) == other.get(key) for key in keys) and not one.get("value")


def template_for(ds: Obj, node: str, hashed: str) -> Obj:
    """The template of the pod for one node: it is bound to it by affinity, for the scheduler to do."""
    template = copy.deepcopy(ds["spec"]["template"])
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    generation = annotations_of(ds).get(GENERATION)
    if generation:
        labels[GENERATION_LABEL] = generation
    labels[HASH] = hashed
    spec = template["spec"]
    spec["tolerations"] = tolerations_of(spec)
    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [by_name]}
    return template


def should_run(ds: Obj, node: Obj) -> tuple[bool, bool]:
    """(a pod should be started on the node, one that is there may stay)."""
    spec = ds["spec"]["template"]["spec"]
    if spec.get("nodeName") not in (None, "", name_of(node)) or not nodeselector.fits(spec, node):
        return False, False
    tolerations = tolerations_of(spec)
    effects = {taint["effect"] for taint in node["spec"].get("taints") or () if tolerates(tolerations, taint) is None}
    if effects & {"NoSchedule", "NoExecute"}:
        return False, "NoExecute" not in effects
    return True, True


def node_of(pod: Obj) -> str:
    """The node a daemon pod is on, or is meant for; empty when it has been changed to something else."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        return spec["nodeName"]
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for each in term.get("matchFields") or ():
            if each["key"] == "metadata.name" and each["operator"] == "In" and len(each.get("values") or ()) == 1:
                return each["values"][0]
    return ""


def by_node(pods: Iterable[Obj]) -> PodsByNode:
    """The pods of each node, oldest first; without those that have ended and are being deleted."""
    found: PodsByNode = {}
    for pod in pods:
        if not (podutil.is_terminal(pod) and is_being_deleted(pod)):
            found.setdefault(node_of(pod), []).append(pod)
    for each in found.values():
        each.sort(key=_seniority)
    return found


def _seniority(pod: Obj) -> tuple[Any, ...]:
    return not pod["spec"].get("nodeName"), pod["metadata"].get("creationTimestamp") or "", name_of(pod)


def is_updated(ds: Obj, pod: Obj, hashed: str) -> bool:
    generation = annotations_of(ds).get(GENERATION)
    labels = labels_of(pod)
    return labels.get(HASH) == hashed or bool(generation and labels.get(GENERATION_LABEL) == generation)


def _number(ds: Obj, name: str, total: int) -> int:
    rolling = (ds["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    return scaled_value(rolling.get(name, 1 if name == "maxUnavailable" else 0), total, round_up=True)


def is_rolling(ds: Obj) -> bool:
    return (ds["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"


def allows_surge(ds: Obj) -> bool:
    return is_rolling(ds) and _number(ds, "maxSurge", 1) > 0


def placement(
    ds: Obj,
    nodes: Sequence[Obj],
    placed: Mapping[str, list[Obj]],
    hashed: str,
    now: datetime,
    backoff: Callable[[str], float],
) -> Plan:
    """A pod for each node that has none, and away with those that are too many, have ended or are not to be
    there. `backoff(node)` gives the seconds for which a failed pod may not yet be replaced."""
    plan = Plan()
    for node in nodes:
        _place_on(plan, ds, node, placed.get(name_of(node)), hashed, now, backoff)
    present = {name_of(node) for node in nodes}
    for name, pods in placed.items():
        if name not in present:
            plan.delete += [pod for pod in pods if not pod["spec"].get("nodeName")]
    return plan


def _place_on(
    plan: Plan,
    ds: Obj,
    node: Obj,
    pods: list[Obj] | None,
    hashed: str,
    now: datetime,
    backoff: Callable[[str], float],
) -> None:
    start, stay = should_run(ds, node)
    name = name_of(node)
    if pods is None:
        if start:
            plan.create.append(name)
        return
    staying = [pod for pod in pods if not is_being_deleted(pod)]
    if not stay:
        plan.delete += staying
        return
    running: list[Obj] = []
    for pod in staying:
        match podutil.phase_of(pod):
            case "Failed":
                wait = backoff(name)
                if wait > 0:
                    plan.look_after = min(wait, plan.look_after or wait)
                else:
                    plan.failed.append(pod)
                    plan.delete.append(pod)
            case "Succeeded":
                plan.succeeded.append(pod)
                plan.delete.append(pod)
            case _:
                running.append(pod)
    if not allows_surge(ds):
        plan.delete += running[1:]
        return
    if not running and start:
        plan.create.append(name)
    if len(running) > 1:
        plan.delete += _superfluous(ds, running, hashed, now)


def _superfluous(ds: Obj, running: Iterable[Obj], hashed: str, now: datetime) -> list[Obj]:
    """In a roll-out with surge one new and one old pod may be on a node, until the new one is available."""
    new: Obj | None = None
    old: Obj | None = None
    surplus: list[Obj] = []
    for pod in running:
        if labels_of(pod).get(HASH) == hashed and new is None:
            new = pod
        elif labels_of(pod).get(HASH) != hashed and old is None:
            old = pod
        else:
            surplus.append(pod)
    if new is not None and old is not None and (not podutil.is_ready(old) or _is_available(ds, new, now)):
        surplus.append(old)
    return surplus


def _is_available(ds: Obj, pod: Obj, now: datetime) -> bool:
    return podutil.is_available(pod, ds["spec"].get("minReadySeconds") or 0, now)


def _new_and_old(ds: Obj, pods: Iterable[Obj], hashed: str) -> tuple[Obj | None, Obj | None] | None:
    """The updated and the outdated pod of a node; None when there are several of either."""
    new: list[Obj] = []
    old: list[Obj] = []
    for pod in pods:
        if not is_being_deleted(pod):
            (new if is_updated(ds, pod, hashed) else old).append(pod)
    if len(new) > 1 or len(old) > 1:
        return None
    return (new[0] if new else None), (old[0] if old else None)


def roll(ds: Obj, nodes: Sequence[Obj], placed: Mapping[str, list[Obj]], hashed: str, now: datetime) -> Plan:
    """The next step of a roll-out: pods that are not available anyway at once, others within the bounds."""
    wanted = [name_of(node) for node in nodes if should_run(ds, node)[0]]
    surge = _number(ds, "maxSurge", len(wanted))
    unavailable = _number(ds, "maxUnavailable", len(wanted))
    if wanted and surge == 0 and unavailable == 0:
        unavailable = 1
    everywhere = {**{name: [] for name in wanted}, **placed}
    if surge == 0:
        return _roll_in_place(ds, everywhere, hashed, unavailable, now)
    return _roll_with_surge(ds, everywhere, set(wanted), hashed, surge, now)


def _roll_in_place(ds: Obj, everywhere: Mapping[str, list[Obj]], hashed: str, limit: int, now: datetime) -> Plan:
    missing = 0
    dead: list[Obj] = []
    candidates: list[Obj] = []
    for pods in everywhere.values():
        pair = _new_and_old(ds, pods, hashed)
        if pair is None or (pair[0] is None) == (pair[1] is None):
            missing += 1  # none there, or one on its way out
            continue
        new, old = pair
        if new is not None:
            missing += not _is_available(ds, new, now)
        elif old is not None and _is_available(ds, old, now):
            candidates.append(old)
        elif old is not None:
            dead.append(old)
            missing += 1
    return Plan(delete=[*dead, *candidates[: max(limit - missing, 0)]])


def _roll_with_surge(
    ds: Obj, everywhere: Mapping[str, list[Obj]], wanted: set[str], hashed: str, limit: int, now: datetime
) -> Plan:
    plan = Plan()
    surging = available = 0
    candidates: list[str] = []
    unwanted: list[Obj] = []
    for name, pods in everywhere.items():
        pair = _new_and_old(ds, pods, hashed)
        if pair is None:
            surging += 1
            continue
        new, old = pair
        oldest = old if old is not None else new
        available += oldest is not None and _is_available(ds, oldest, now)
        if old is None:
            continue
        if new is not None:
            if _is_available(ds, new, now):
                plan.delete.append(old)
            else:
                surging += 1
        elif name not in wanted:
            (unwanted if _is_available(ds, old, now) else plan.delete).append(old)
        elif _is_available(ds, old, now):
            candidates.append(name)
        else:
            plan.create.append(name)
    plan.delete += unwanted[: max(available - len(wanted), 0)]
    plan.create += candidates[: max(limit - surging, 0)]
    return plan


def status_of(ds: Obj, nodes: Iterable[Obj], placed: Mapping[str, list[Obj]], hashed: str, now: datetime) -> Obj:
    """The numbers to report: of each node its oldest pod counts."""
    counts = dict.fromkeys(("desired", "current", "misscheduled", "ready", "updated", "available"), 0)
    for node in nodes:
        pods = placed.get(name_of(node))
        if not should_run(ds, node)[0]:
            counts["misscheduled"] += bool(pods)
            continue
        counts["desired"] += 1
        if not pods:
            continue
        counts["current"] += 1
        pod = pods[0]
        counts["ready"] += podutil.is_ready(pod)
        counts["available"] += _is_available(ds, pod, now)
        counts["updated"] += is_updated(ds, pod, hashed)
    old = ds.get("status") or {}
    status: Obj = {
        "currentNumberScheduled": counts["current"],
        "numberMisscheduled": counts["misscheduled"],
        "desiredNumberScheduled": counts["desired"],
        "numberReady": counts["ready"],
        "observedGeneration": ds["metadata"].get("generation") or 0,
        "updatedNumberScheduled": counts["updated"],
        "numberAvailable": counts["available"],
        "numberUnavailable": counts["desired"] - counts["available"],
    }
    for key in ("collisionCount", "conditions"):
        if old.get(key) is not None:
            status[key] = old[key]
    return status


def same_status(old: Obj, new: Obj) -> bool:
    return all((old.get(key) or 0) == (value or 0) for key, value in new.items() if key != "conditions")
