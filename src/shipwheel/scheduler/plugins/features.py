"""NodeDeclaredFeatures: pods that need something new of the kubelet go where it says that it can (KEP-5328)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from shipwheel.api.meta import Obj
from shipwheel.scheduler.events import Action, ClusterEvent, Interest
from shipwheel.scheduler.framework import Cycle, Handle, Refusal
from shipwheel.scheduler.plugins.basics import is_itself

MISSING = "node(s) didn't match Pod's required features"


def required_features(spec: Obj) -> frozenset[str]:
    """What a pod needs, by the names that kubelets declare."""
    found = set()
    rules = (
        rule
        for kind in ("containers", "initContainers")
        for container in spec.get(kind) or ()
        for rule in container.get("restartPolicyRules") or ()
    )
    if any(rule.get("action") == "RestartAllContainers" for rule in rules):
        found.add("RestartAllContainersOnContainerExits")
    if spec.get("hostNetwork") and spec.get("hostUsers") is False:
        found.add("UserNamespacesHostNetworkSupport")
    return frozenset(found)


def _declares(node: Obj | None, features: frozenset[str]) -> bool:
    return features <= set(((node or {}).get("status") or {}).get("declaredFeatures") or ())


class NodeDeclaredFeatures:
    name = "NodeDeclaredFeatures"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self.events = (
            Interest("Node", Action.ADD | Action.UPDATE_FEATURES, self._node_may_help),
            Interest("UnschedulablePod", Action.UPDATE, is_itself),
        )

    def _node_may_help(self, pod: Obj, event: ClusterEvent) -> bool:
        return _declares(event.new, required_features(pod["spec"]))

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        features = required_features(cycle.pod["spec"])
        if features:
            nodes = cycle.table.nodes[cycle.rows]
            refused = np.fromiter((not _declares(node, features) for node in nodes), np.bool_, len(nodes))
            yield Refusal(refused, MISSING, True)
