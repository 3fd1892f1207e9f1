"""PodTopologySpread: pods of a kind evenly over zones, hosts or whatever else divides the nodes (KEP-895).

How many matching pods each domain has is a sum over a column of counts. What the hard constraints refuse and what
the soft ones prefer both follow from these sums.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from shipwheel.api.meta import Obj, controller_of
from shipwheel.api.selectors import EVERYTHING, LabelSelector, from_label_selector, from_labels
from shipwheel.scheduler import domains
from shipwheel.scheduler.events import Action, ClusterEvent, Interest
from shipwheel.scheduler.framework import MAX_SCORE, Cycle, Handle, Refusal
from shipwheel.scheduler.plugins.basics import is_itself
from shipwheel.scheduler.pods import Constraint, Pods, constraint
from shipwheel.scheduler.table import HOSTNAME, Floats, Mask

SYSTEM_DEFAULTS = (
    {"topologyKey": HOSTNAME, "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 3},
    {"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 5},
)
MISMATCH = "node(s) didn't match pod topology spread constraints"
MISSING_LABEL = f"{MISMATCH} (missing required label)"
_WORKLOADS = {("v1", "ReplicationController"), ("apps/v1", "ReplicaSet"), ("apps/v1", "StatefulSet")}


class PodTopologySpread:
    name = "PodTopologySpread"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._handle = handle
        self._system_defaulted = args.get("defaultingType", "System") == "System"
        given = args.get("defaultConstraints") or ()
        self._defaults: Sequence[Obj] = SYSTEM_DEFAULTS if self._system_defaulted else given
        self._selectors: OrderedDict[tuple[object, ...], LabelSelector] = OrderedDict()
        self._selectors_version = -1
        self.events = (
            Interest("AssignedPod", Action.ADD | Action.DELETE | Action.UPDATE_LABELS, self._pod_may_help),
            Interest("UnschedulablePod", Action.UPDATE_LABELS, is_itself),
            Interest("Node", Action.ADD | Action.DELETE | Action.UPDATE_LABELS | Action.UPDATE_TAINTS),
        )

    def _pod_may_help(self, pod: Obj, event: ClusterEvent) -> bool:
        """The event changes how many pods match a constraint."""
        meta = pod["metadata"]
        about = (event.new or event.old or {}).get("metadata") or {}
        if about.get("namespace") != meta.get("namespace"):
            return False
        given = [
            constraint(each, meta.get("namespace", ""), meta.get("labels") or {})
            for each in pod["spec"].get("topologySpreadConstraints") or ()
        ]
        if not given:
            return True
        labels = [each["metadata"].get("labels") or {} for each in (event.old, event.new) if each is not None]
        return any(each.pods.selector.matches(those) for each in given for those in labels)

    # Hard constraints

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        hard = cycle.shape.hard_spread
        if not cycle.shape.spec.get("topologySpreadConstraints"):
            hard = self._default(cycle, "DoNotSchedule")
        if not hard:
            return
        table, size = cycle.table, cycle.table.size
        labelled = table.alive[:size].copy()
        for each in hard:
            labelled &= self._handle.nodes.has_label(each.topology_key)
        refused = np.zeros(size, np.bool_)
        for each in hard:
            has_label = self._handle.nodes.has_label(each.topology_key)
            yield self._refusal(cycle, ~has_label & ~refused, MISSING_LABEL, True)
            refused |= ~has_label
            counted = labelled & self._included(cycle, each)
            here, least = self._matches(cycle, each, counted)
            own = 1 if each.pods.selector.matches(cycle.shape.labels) else 0
            skewed = here + (own - least) > each.max_skew
            yield self._refusal(cycle, skewed & ~refused, MISMATCH, False)
            refused |= skewed

    @staticmethod
    def _refusal(cycle: Cycle, mask: Mask, reason: str, unresolvable: bool) -> Refusal:
        return Refusal(mask[cycle.rows], reason, unresolvable)

    def _included(self, cycle: Cycle, each: Constraint) -> Mask | bool:
        """Nodes that count for a constraint, by its inclusion policies (KEP-3094)."""
        included: Mask | bool = True
        if each.honor_affinity and (cycle.shape.node_affinity or cycle.shape.spec.get("nodeSelector")):
            included = self._handle.nodes.affinity(cycle.shape)
        if each.honor_taints:
            included = included & ~self._handle.nodes.untolerated(cycle.shape)
        return included

    def _matches(self, cycle: Cycle, each: Constraint, counted: Mask) -> tuple[Floats, float]:
        """Matching pods in each row's domain, and in the domain with the fewest."""
        table, size = cycle.table, cycle.table.size
        column = table.label(each.topology_key)
        values = np.where(counted, self._counts(cycle, each.pods), 0)
        if column.distinct:
            present = values[counted]
            here = values.astype(np.float64)
        else:
            sums = domains.by_domain(column, values, size)
            codes = column.codes[:size]
            present = sums[np.unique(codes[counted]) + 1]
            here = sums[codes + 1]
        if len(present) < each.min_domains:
            return here, 0
        return here, float(present.min())

    def _counts(self, cycle: Cycle, pods: Pods) -> Any:
        if pods.selector.is_everything:
            return 0  # an empty selector selects no pods here
        return cycle.table.counts(pods)[: cycle.table.size]

    # Soft constraints

    def score(self, cycle: Cycle, feasible: Mask) -> Floats | None:
        given = bool(cycle.shape.spec.get("topologySpreadConstraints"))
        soft = cycle.shape.soft_spread if given else self._default(cycle, "ScheduleAnyway")
        if not soft:
            return None
        table, size = cycle.table, cycle.table.size
        labelled = table.alive[:size]
        if given or not self._system_defaulted:
            labelled = labelled.copy()
            for each in soft:
                labelled &= self._handle.nodes.has_label(each.topology_key)
        scored = feasible & labelled
        cycle.state["PodTopologySpread/ignored"] = feasible & ~labelled
        total = np.zeros(size)
        for each in soft:
            column = table.label(each.topology_key)
            codes = column.codes[:size]
            if each.topology_key == HOSTNAME:
                number = int(scored.sum())
                counts = np.broadcast_to(self._counts(cycle, each.pods), (size,)).astype(np.float64)
            else:
                here = np.bincount(codes[scored] + 1, minlength=column.size + 1) > 0
                number = int(here.sum())
                counted = labelled & self._included(cycle, each)
                counts = domains.totals(column, np.where(counted, self._counts(cycle, each.pods), 0), size)
            # The fewer domains there are, the less a pod more or less in one of them means.
            weight = np.log(number + 2)
            total += np.where(codes >= 0, counts * weight + (each.max_skew - 1), 0)
        return np.where(labelled, np.floor(total + 0.5), 0)

    def normalize(self, cycle: Cycle, scores: Floats, feasible: Mask) -> Floats:
        """The fewest matching pods are the best; nodes outside of all domains get nothing."""
        ignored = cycle.state["PodTopologySpread/ignored"]
        scored = scores[feasible & ~ignored]
        if not len(scored):
            return np.zeros(len(scores))
        lowest, highest = scored.min(), scored.max()
        if highest == 0:
            return np.where(ignored, 0.0, float(MAX_SCORE))
        return np.where(ignored, 0.0, np.floor(MAX_SCORE * (highest + lowest - scores) / highest))

    # Defaults

    def _default(self, cycle: Cycle, action: str) -> tuple[Constraint, ...]:
        """The profile's constraints, for pods that have none; what is alike is what the pod's services and owner
        select."""
        chosen = [each for each in self._defaults if each["whenUnsatisfiable"] == action]
        if not chosen:
            return ()
        selector = self.selector(cycle)
        if selector.is_everything:
            return ()
        pods = Pods(selector, frozenset((cycle.shape.namespace,)), living=True)
        return tuple(replace(constraint(each, cycle.shape.namespace, cycle.shape.labels), pods=pods) for each in chosen)

    def selector(self, cycle: Cycle) -> LabelSelector:
        """What the services and the owner of a pod select; everything if there are none."""
        listers = self._handle.listers
        if self._selectors_version != listers.workloads_version:
            self._selectors.clear()
            self._selectors_version = listers.workloads_version
        owner = controller_of(cycle.pod) or {}
        key = (cycle.shape, owner.get("uid"))
        selector = self._selectors.get(key)
        if selector is None:
            selector = self._selectors[key] = self._new_selector(cycle, owner)
            if len(self._selectors) > 1024:
                self._selectors.popitem(last=False)
        return selector

    def _new_selector(self, cycle: Cycle, owner: Obj) -> LabelSelector:
        listers, namespace, labels = self._handle.listers, cycle.shape.namespace, cycle.shape.labels
        merged: dict[str, str] = {}
        for service in listers.services.list(namespace):
            wanted = service["spec"].get("selector")
            if wanted and all(labels.get(key) == value for key, value in wanted.items()):
                merged.update(wanted)
        kind = owner.get("kind", "")
        workload = None
        if (owner.get("apiVersion"), kind) in _WORKLOADS:
            workload = listers.owner(namespace, kind, owner["name"])
        if workload is not None and kind == "ReplicationController":
            merged.update(workload["spec"].get("selector") or {})
        selector = from_labels(merged) if merged else EVERYTHING
        if workload is not None and kind != "ReplicationController":
            selector = selector & from_label_selector(workload["spec"].get("selector"))
        return selector
