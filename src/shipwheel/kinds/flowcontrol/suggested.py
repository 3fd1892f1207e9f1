"""The flow schemas and priority levels that every cluster starts with, and that its administrator may change: nodes,
leader election, the control plane's components and workloads apart, so that none starves the others (KEP-1040)."""

from __future__ import annotations

from shipwheel.api.meta import Obj
from shipwheel.kinds.flowcontrol.mandatory import EVERYTHING, groups

_LEVELS = (
    # name, nominal concurrency shares, lendable percent, queues, hand size
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
)
_QUEUE_LENGTH = 50


def _level(shares: int, lendable: int, queues: int, hand_size: int) -> Obj:
    queuing = {"queues": queues, "handSize": hand_size, "queueLengthLimit": _QUEUE_LENGTH}
    limits = {"nominalConcurrencyShares": shares, "lendablePercent": lendable}
    return {"type": "Limited", "limited": {**limits, "limitResponse": {"type": "Queue", "queuing": queuing}}}


def _users(*names: str) -> list[Obj]:
    return [{"kind": "User", "user": {"name": name}} for name in names]


def _resources(verbs: list[str], group: str, *names: str, cluster_scope: bool = False) -> Obj:
    rule: Obj = {"verbs": verbs, "apiGroups": [group], "resources": list(names), "namespaces": ["*"]}
    return {**rule, "clusterScope": True} if cluster_scope else rule


_EVERYBODY = groups("system:unauthenticated", "system:authenticated")
_NODES = groups("system:nodes")
_KUBE_SYSTEM: list[Obj] = [{"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}}]
_MANAGER, _SCHEDULER = "system:kube-controller-manager", "system:kube-scheduler"
_PROBES: Obj = {"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}
_LEASES: Obj = {"resourceRules": [_resources(["get", "create", "update"], "coordination.k8s.io", "leases")]}
_NODE_HEALTH: Obj = {
    "resourceRules": [
        _resources(["*"], "", "nodes", "nodes/status", cluster_scope=True),
        _resources(["*"], "coordination.k8s.io", "leases"),
    ]
}
_SCHEMAS = (
    # name, priority level, precedence, distinguisher, subjects, what they ask for
    ("probes", "exempt", 2, "", _EVERYBODY, _PROBES),
    ("system-leader-election", "leader-election", 100, "ByUser", _users(_MANAGER, _SCHEDULER) + _KUBE_SYSTEM, _LEASES),
    ("system-node-high", "node-high", 400, "ByUser", _NODES, _NODE_HEALTH),
    ("system-nodes", "system", 500, "ByUser", _NODES, EVERYTHING),
    ("kube-controller-manager", "workload-high", 800, "ByNamespace", _users(_MANAGER), EVERYTHING),
    ("kube-scheduler", "workload-high", 800, "ByNamespace", _users(_SCHEDULER), EVERYTHING),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", _KUBE_SYSTEM, EVERYTHING),
    ("service-accounts", "workload-low", 9000, "ByUser", groups("system:serviceaccounts"), EVERYTHING),
    ("global-default", "global-default", 9900, "ByUser", _EVERYBODY, EVERYTHING),
)


def _schema(level: str, precedence: int, distinguisher: str, subjects: list[Obj], rules: Obj) -> Obj:
    spec: Obj = {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence}
    if distinguisher:
        spec["distinguisherMethod"] = {"type": distinguisher}
    return {**spec, "rules": [{"subjects": subjects, **rules}]}


FLOW_SCHEMAS: dict[str, Obj] = {name: _schema(*facts) for name, *facts in _SCHEMAS}  # type: ignore[arg-type]
"""Specs by name."""

PRIORITY_LEVELS: dict[str, Obj] = {name: _level(*facts) for name, *facts in _LEVELS}
"""Specs by name."""
