"""Priorities that only the Policy format still knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from shipwheel.api.meta import controller_of
from shipwheel.scheduler import domains
from shipwheel.scheduler.framework import MAX_SCORE, Cycle, Handle
from shipwheel.scheduler.plugins.spread import PodTopologySpread
from shipwheel.scheduler.pods import Pods
from shipwheel.scheduler.table import Floats, Mask

ZONE = "topology.kubernetes.io/zone"
AVOID = "scheduler.alpha.kubernetes.io/preferAvoidPods"
_ZONE_SHARE = 2 / 3


class SelectorSpread:
    """`SelectorSpreadPriority`: the fewer pods of the same service or workload on the node, and in the zone, the
    better; zones count for two thirds."""

    name = "SelectorSpread"
    events: ClassVar = ()

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._spread = PodTopologySpread({}, handle)

    def score(self, cycle: Cycle, feasible: Mask) -> Floats | None:
        selector = self._spread.selector(cycle)
        if selector.is_everything or cycle.shape.spec.get("topologySpreadConstraints"):
            return None
        pods = Pods(selector, frozenset((cycle.shape.namespace,)), living=True)
        return cycle.table.counts(pods)[: cycle.table.size].astype(np.float64)

    def normalize(self, cycle: Cycle, scores: Floats, feasible: Mask) -> Floats:
        highest = scores[feasible].max(initial=0)
        by_node = MAX_SCORE * (highest - scores) / highest if highest else np.full(len(scores), float(MAX_SCORE))
        zones = cycle.table.label(ZONE)
        in_zone = zones.codes[: cycle.table.size] >= 0
        totals = domains.totals(zones, np.where(feasible, scores, 0), cycle.table.size)
        most = totals[feasible & in_zone].max(initial=0)
        if not (feasible & in_zone).any():
            return np.floor(by_node)
        by_zone = MAX_SCORE * (most - totals) / most if most else np.full(len(scores), float(MAX_SCORE))
        mixed = by_node * (1 - _ZONE_SHARE) + _ZONE_SHARE * by_zone
        return np.floor(np.where(in_zone, mixed, by_node))


class NodePreferAvoidPods:
    """`NodePreferAvoidPodsPriority`: nothing for nodes that say in an annotation that they would rather not have the
    pods of this controller."""

    name = "NodePreferAvoidPods"
    events: ClassVar = ()

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        pass

    def score(self, cycle: Cycle, feasible: Mask) -> Floats:
        scores = np.full(cycle.table.size, float(MAX_SCORE))
        owner = controller_of(cycle.pod)
        if owner is None or owner["kind"] not in ("ReplicationController", "ReplicaSet"):
            return scores
        for row, node in enumerate(cycle.table.nodes):
            text = ((node or {}).get("metadata") or {}).get("annotations", {}).get(AVOID)
            if text and (owner["kind"], owner["uid"]) in _avoided(text):
                scores[row] = 0
        return scores


def _avoided(text: str) -> set[tuple[str, str]]:
    """The (kind, uid) of the controllers in an annotation; an unreadable one avoids nobody."""
    try:
        entries = json.loads(text).get("preferAvoidPods") or ()
        controllers = [each["podSignature"]["podController"] for each in entries]
        return {(each["kind"], each["uid"]) for each in controllers}
    except (ValueError, AttributeError, KeyError, TypeError):
        return set()
