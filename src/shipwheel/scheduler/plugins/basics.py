"""Rules about a pod or a node alone: gates, order, name, unschedulable nodes, taints, affinity, ports, images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from shipwheel.api.meta import Obj
from shipwheel.scheduler.events import Action, ClusterEvent, Interest
from shipwheel.scheduler.framework import (
    MAX_SCORE,
    Cycle,
    Handle,
    Refusal,
    Rejection,
    normalized,
    reverse_normalized,
)
from shipwheel.scheduler.nodes import required_names
from shipwheel.scheduler.pods import tolerated
from shipwheel.scheduler.table import Floats, Mask

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"


def is_itself(pod: Obj, event: ClusterEvent) -> bool:
    """The event is about the waiting pod."""
    return event.new is not None and event.new["metadata"].get("uid") == pod["metadata"].get("uid")


class SchedulingGates:
    """A pod with gates is not ready to be scheduled (KEP-3521)."""

    name = "SchedulingGates"
    events: ClassVar = (Interest("UnschedulablePod", Action.UPDATE_GATES, is_itself),)

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        pass

    def pre_enqueue(self, pod: Obj) -> str:
        gates = [each["name"] for each in pod["spec"].get("schedulingGates") or ()]
        return f"waiting for scheduling gates: {gates}".replace("'", "").replace(", ", " ") if gates else ""


class PrioritySort:
    """By priority, then by the time of being queued."""

    name = "PrioritySort"
    events: ClassVar = ()

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        pass

    def sort_key(self, pod: Obj, queued_at: float) -> tuple[float, ...]:
        return (-(pod["spec"].get("priority") or 0), queued_at)


class NodeUnschedulable:
    """Cordoned nodes take only pods that tolerate it."""

    name = "NodeUnschedulable"
    events: ClassVar = (
        Interest("Node", Action.ADD | Action.UPDATE_TAINTS),
        Interest("UnschedulablePod", Action.UPDATE_TOLERATIONS, is_itself),
    )

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        pass

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        mask = cycle.table.unschedulable[cycle.rows]
        if mask.any() and not tolerated(cycle.shape.tolerations, UNSCHEDULABLE_TAINT, "", "NoSchedule"):
            yield Refusal(mask, "node(s) were unschedulable", True)


class NodeName:
    """A pod that names its node goes there."""

    name = "NodeName"
    events: ClassVar = (Interest("Node", Action.ADD),)

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        pass

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        wanted = cycle.pod["spec"].get("nodeName")
        if not wanted:
            return
        mask = np.ones(cycle.table.size, np.bool_)
        row = cycle.table.rows.get(wanted)
        if row is not None:
            mask[row] = False
        yield Refusal(mask[cycle.rows], "node(s) didn't match the requested node name", True)


class TaintToleration:
    """Taints keep away the pods that do not tolerate them; some only if there is a better place."""

    name = "TaintToleration"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._handle = handle
        self.events = (
            Interest("Node", Action.ADD | Action.UPDATE_TAINTS, self._node_may_help),
            Interest("UnschedulablePod", Action.UPDATE_TOLERATIONS, is_itself),
        )

    def _node_may_help(self, pod: Obj, event: ClusterEvent) -> bool:
        node = event.new or {}
        tolerations = pod["spec"].get("tolerations") or ()
        return all(
            each["effect"] == "PreferNoSchedule"
            or tolerated(tolerations, each["key"], each.get("value") or "", each["effect"])
            for each in (node.get("spec") or {}).get("taints") or ()
        )

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        if cycle.table.taints:
            yield Refusal(
                self._handle.nodes.untolerated(cycle.shape)[cycle.rows], "node(s) had untolerated taint(s)", True
            )

    def score(self, cycle: Cycle, feasible: Mask) -> Floats:
        return self._handle.nodes.remembered(("avoid", cycle.shape.static_key), lambda: self._count(cycle))

    def _count(self, cycle: Cycle) -> Floats:
        """How many taints that are not tolerated ask to stay away if possible."""
        relevant = [
            each for each in cycle.shape.tolerations if each.get("effect") in (None, "", "PreferNoSchedule")
        ]  # fmt: skip
        total = np.zeros(cycle.table.size)
        for (key, value, effect), column in cycle.table.taints.items():
            if effect == "PreferNoSchedule" and not tolerated(relevant, key, value, effect):
                total += column[: cycle.table.size]
        return total

    def normalize(self, cycle: Cycle, scores: Floats, feasible: Mask) -> Floats:
        return reverse_normalized(scores, feasible)


class NodeAffinity:
    """nodeSelector and node affinity, and what the profile adds for all its pods (`addedAffinity`)."""

    name = "NodeAffinity"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._handle = handle
        self._added = args.get("addedAffinity") or {}
        self.events = (Interest("Node", Action.ADD | Action.UPDATE_LABELS),)

    def pre_filter(self, cycle: Cycle) -> Rejection | Mask | None:
        """Pods of DaemonSets name their node: nothing else needs to be looked at."""
        names = required_names(cycle.shape)
        if names is None:
            return None
        if not names:
            return Rejection("pod affinity terms conflict")
        mask = np.zeros(cycle.table.size, np.bool_)
        for name in names:
            row = cycle.table.rows.get(name)
            if row is not None:
                mask[row] = True
        return mask[cycle.rows]

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        added = self._added.get("requiredDuringSchedulingIgnoredDuringExecution")
        enforced = None
        if added is not None:
            enforced = self._handle.nodes.remembered(
                ("added", self._handle.table.size),
                lambda: ~self._handle.nodes.any_term(added.get("nodeSelectorTerms") or ()),
            )[cycle.rows]
            yield Refusal(enforced, "node(s) didn't match scheduler-enforced node affinity", True)
        shape = cycle.shape
        if shape.node_affinity or shape.spec.get("nodeSelector"):
            refused = ~self._handle.nodes.affinity(shape)[cycle.rows]
            if enforced is not None:
                refused &= ~enforced
            yield Refusal(refused, "node(s) didn't match Pod's node affinity/selector", True)

    def score(self, cycle: Cycle, feasible: Mask) -> Floats | None:
        kind = "preferredDuringSchedulingIgnoredDuringExecution"
        terms = [*(self._added.get(kind) or ()), *(cycle.shape.node_affinity.get(kind) or ())]
        if not terms:
            return None
        return self._handle.nodes.remembered(
            ("preferred", cycle.shape.static_key, id(self)), lambda: self._weigh(cycle, terms)
        )

    def _weigh(self, cycle: Cycle, terms: list[Obj]) -> Floats:
        total = np.zeros(cycle.table.size)
        for each in terms:
            term = each.get("preference") or {}
            if each["weight"] and (term.get("matchExpressions") or term.get("matchFields")):
                total += each["weight"] * self._handle.nodes.term(term)
        return total

    def normalize(self, cycle: Cycle, scores: Floats, feasible: Mask) -> Floats:
        return normalized(scores, feasible)


class NodePorts:
    """Ports of the node that a pod takes must be free there."""

    name = "NodePorts"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self.events = (
            Interest("AssignedPod", Action.DELETE, self._frees_ports),
            Interest("Node", Action.ADD),
        )

    def _frees_ports(self, pod: Obj, event: ClusterEvent) -> bool:
        gone = event.old or {"spec": {}}
        wanted = {port["hostPort"] for port in _host_ports(pod)}
        return any(port["hostPort"] in wanted for port in _host_ports(gone))

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        if cycle.shape.ports:
            free = cycle.table.free_ports(cycle.shape.ports)[cycle.rows]
            yield Refusal(~free, "node(s) didn't have free ports for the requested pod ports")


def _host_ports(pod: Obj) -> list[Obj]:
    spec = pod["spec"]
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return [port for each in containers for port in each.get("ports") or () if port.get("hostPort")]


class ImageLocality:
    """Better where the images are already, the more so the larger and the more widely spread they are."""

    name = "ImageLocality"
    events: ClassVar = ()
    _LEAST = 23 << 20
    _MOST = 1000 << 20
    """Bytes below which an image does not count, and above which (a container) it counts no more."""

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._known: dict[tuple[str, ...], tuple[tuple[int, int, int], Floats]] = {}

    def score(self, cycle: Cycle, feasible: Mask) -> Floats | None:
        table, images = cycle.table, cycle.shape.images
        version = (table.image_version, table.count, table.size)
        key = (*images, str(cycle.shape.containers))
        known = self._known.get(key)
        if known is None or known[0] != version:
            if len(self._known) > 256:
                self._known.clear()
            known = self._known[key] = (version, self._score(cycle))
        return known[1]

    def _score(self, cycle: Cycle) -> Floats:
        table = cycle.table
        total = np.zeros(table.size)
        for image in cycle.shape.images:
            sizes, nodes = table.image(image)
            here = sizes[: table.size]
            total += np.where(here >= 0, np.floor(here * (nodes / max(table.count, 1))), 0)
        most = self._MOST * cycle.shape.containers
        return np.floor((np.clip(total, self._LEAST, most) - self._LEAST) * MAX_SCORE / (most - self._LEAST))
