"""InterPodAffinity: pods near or far from other pods, as they and the others ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shipwheel.api.meta import Obj
from shipwheel.scheduler import domains
from shipwheel.scheduler.events import Action, ClusterEvent, Interest
from shipwheel.scheduler.framework import MAX_SCORE, Cycle, Handle, Refusal
from shipwheel.scheduler.plugins.basics import is_itself
from shipwheel.scheduler.pods import Labels, Pods, Shape, Shapes, Term
from shipwheel.scheduler.table import Floats, Mask

AFFINITY = "node(s) didn't match pod affinity rules"
ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
OTHERS_ANTI_AFFINITY = "node(s) didn't satisfy existing pods anti-affinity rules"


@dataclass(frozen=True, slots=True)
class AllOf:
    """The pods that several terms mean at once."""

    parts: tuple[Pods, ...]
    living: bool = False

    def match(self, namespace: str, labels: Labels, namespace_labels: Labels) -> bool:
        return all(each.match(namespace, labels, namespace_labels) for each in self.parts)


class InterPodAffinity:
    name = "InterPodAffinity"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._handle = handle
        weight = args.get("hardPodAffinityWeight")
        self._hard_weight = 1 if weight is None else weight
        self._only_own = bool(args.get("ignorePreferredTermsOfExistingPods"))
        self._shapes = Shapes(256)
        self.events = (
            Interest("AssignedPod", Action.ADD | Action.DELETE | Action.UPDATE_LABELS, self._pod_may_help),
            Interest("UnschedulablePod", Action.UPDATE_LABELS, is_itself),
            Interest("Node", Action.ADD | Action.UPDATE_LABELS),
        )

    def _pod_may_help(self, pod: Obj, event: ClusterEvent) -> bool:
        mine = self._shapes.of(pod)
        before = self._shapes.of(event.old) if event.old is not None else None
        after = self._shapes.of(event.new) if event.new is not None else None
        if after is not None:
            arrives = self._means(mine.required_affinity, after)
            if arrives and not (before is not None and self._means(mine.required_affinity, before)):
                return True
        if before is not None:
            leaves = any(self._means((term,), before) for term in mine.required_anti_affinity)
            leaves = leaves or any(self._means((term,), mine) for term in before.required_anti_affinity)
            stays = after is not None and any(self._means((term,), after) for term in mine.required_anti_affinity)
            return leaves and not stays
        return False

    def _means(self, terms: Sequence[Term], shape: Shape) -> bool:
        """All of the terms (and there are any) mean pods of this shape."""
        labels = self._handle.listers.namespace_labels(shape.namespace)
        return bool(terms) and all(each.pods.match(shape.namespace, shape.labels, labels) for each in terms)

    # Required

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        refused = cycle.none()
        if cycle.shape.required_affinity:
            refused = ~self._near(cycle)[cycle.rows]
            yield Refusal(refused, AFFINITY, True)
        if cycle.shape.required_anti_affinity:
            close = np.zeros(cycle.table.size, np.bool_)
            for term in cycle.shape.required_anti_affinity:
                close |= self._in_domain(cycle, term, cycle.table.counts(term.pods))
            mask = close[cycle.rows] & ~refused
            refused = refused | mask
            yield Refusal(mask, ANTI_AFFINITY)
        avoided = [each for each in cycle.table.carried_for(cycle.shape) if each.kind == "anti"]
        if avoided:
            close = np.zeros(cycle.table.size, np.bool_)
            for each in avoided:
                close |= self._in_domain(cycle, each.term, each.values)
            yield Refusal(close[cycle.rows] & ~refused, OTHERS_ANTI_AFFINITY)

    def _near(self, cycle: Cycle) -> Mask:
        """Rows in whose domains are the pods that the pod must be with."""
        terms, size = cycle.shape.required_affinity, cycle.table.size
        pods: Any = terms[0].pods if len(terms) == 1 else AllOf(tuple(each.pods for each in terms))
        counts = cycle.table.counts(pods)
        labelled, near, anywhere = np.ones(size, np.bool_), np.ones(size, np.bool_), False
        for term in terms:
            found = self._in_domain(cycle, term, counts)
            anywhere = anywhere or bool(found.any())
            near &= found
            labelled &= cycle.table.label(term.topology_key).codes[:size] >= 0
        # The first pod of a group that wants to be together has nobody to be with.
        if not anywhere and self._means(terms, cycle.shape):
            return labelled
        return near

    @staticmethod
    def _in_domain(cycle: Cycle, term: Term, counts: Any) -> Mask:
        column = cycle.table.label(term.topology_key)
        return domains.totals(column, counts, cycle.table.size) > 0

    # Preferred

    def score(self, cycle: Cycle, feasible: Mask) -> Floats | None:
        table, shape = cycle.table, cycle.shape
        own = [(term, table.counts(term.pods), weight) for term, weight in shape.preferred_affinity]
        own += [(term, table.counts(term.pods), -weight) for term, weight in shape.preferred_anti_affinity]
        if self._only_own and not own:
            return None
        signs = {"required": self._hard_weight, "preferred": 1, "avoided": -1, "anti": 0}
        others = [
            (each.term, each.values, each.weight * signs[each.kind])
            for each in table.carried_for(shape)
            if signs[each.kind]
        ]
        if not own and not others:
            return None
        by_key: dict[str, Floats] = {}
        for term, counts, weight in (*own, *others):
            weighed = counts[: table.size].astype(np.float64) * weight
            known = by_key.get(term.topology_key)
            by_key[term.topology_key] = weighed if known is None else known + weighed
        total = np.zeros(table.size)
        for key, values in by_key.items():
            total += domains.totals(table.label(key), values, table.size)
        return total

    def normalize(self, cycle: Cycle, scores: Floats, feasible: Mask) -> Floats:
        chosen = scores[feasible]
        lowest, highest = chosen.min(), chosen.max()
        if highest == lowest:
            return np.zeros(len(scores))
        return np.trunc(MAX_SCORE * ((scores - lowest) / (highest - lowest)))
