"""Which node a pod goes to: rules that refuse nodes, with upstream's reasons, and scores among the rest. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from shipwheel.api.meta import Obj
from shipwheel.scheduler.cluster import Amounts, Node, Port, host_ports, requests_of

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
_DEFAULT_REQUESTS: Amounts = {"cpu": 100, "memory": 200 << 20}
"""What a pod that asks for nothing is scored as asking for."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a pod goes; `node` is empty when no node will have it, and `message` says why."""

    node: str
    message: str = ""


def decide(pod: Obj, nodes: Iterable[Node], *, rng: random.Random) -> Decision:
    """The best node for a pod; equal ones are chosen from at random."""
    refusals: Counter[str] = Counter()
    feasible: list[Node] = []
    count = 0
    wanted, ports = requests_of(pod), host_ports(pod)
    for node in nodes:
        count += 1
        reasons = _refuse(pod, node, wanted, ports)
        if reasons:
            refusals.update(reasons)
        else:
            feasible.append(node)
    if not feasible:
        return Decision("", unavailable(count, refusals))
    scores = [(score(pod, node, wanted), node.name) for node in feasible]
    best = max(scores)[0]
    return Decision(rng.choice([name for value, name in scores if value == best]))


def unavailable(count: int, refusals: Counter[str]) -> str:
    """`0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.`"""
    if not count:
        return "no nodes available to schedule pods"
    texts = sorted(f"{number} {reason}" for reason, number in refusals.items())
    return f"0/{count} nodes are available: {', '.join(texts)}."


def _refuse(pod: Obj, node: Node, wanted: Amounts, ports: list[Port]) -> list[str]:
    """The reasons of the first rule that refuses the node."""
    spec = pod["spec"]
    if node.obj["spec"].get("unschedulable") and not _tolerates(
        spec, {"key": UNSCHEDULABLE_TAINT, "effect": "NoSchedule"}
    ):
        return ["node(s) were unschedulable"]
    if spec.get("nodeName") and spec["nodeName"] != node.name:
        return ["node(s) didn't match the requested node name"]
    for taint in node.obj["spec"].get("taints") or ():
        if taint["effect"] in ("NoSchedule", "NoExecute") and not _tolerates(spec, taint):
            return ["node(s) had untolerated taint(s)"]
    if not _matches_affinity(spec, node.obj):
        return ["node(s) didn't match Pod's node affinity/selector"]
    if any(_clashes(mine, theirs) for mine in ports for theirs in node.ports):
        return ["node(s) didn't have free ports for the requested pod ports"]
    return _lacking(wanted, node)


def _lacking(wanted: Amounts, node: Node) -> list[str]:
    reasons = []
    if len(node.pods) + 1 > node.allocatable.get("pods", 0):
        reasons.append("Too many pods")
    for resource, amount in wanted.items():
        if amount and node.requested.get(resource, 0) + amount > node.allocatable.get(resource, 0):
            reasons.append(f"Insufficient {resource}")
    return reasons


def _clashes(mine: Port, theirs: Port) -> bool:
    anywhere = "0.0.0.0" in (mine[1], theirs[1])
    return mine[0] == theirs[0] and mine[2] == theirs[2] and (anywhere or mine[1] == theirs[1])


def _tolerates(spec: Obj, taint: Obj) -> bool:
    for toleration in spec.get("tolerations") or ():
        if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
            continue
        if toleration.get("key") and toleration["key"] != taint.get("key"):
            continue
        operator = toleration.get("operator") or "Equal"
        if operator == "Exists" or (
            toleration.get("key") and toleration.get("value", "") == (taint.get("value") or "")
        ):
            return True
    return False


def _matches_affinity(spec: Obj, node: Obj) -> bool:
    labels = node["metadata"].get("labels") or {}
    for key, value in (spec.get("nodeSelector") or {}).items():
        if labels.get(key) != value:
            return False
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if required is None:
        return True
    return any(matches_term(term, node) for term in required.get("nodeSelectorTerms") or ())


def matches_term(term: Obj, node: Obj) -> bool:
    """Whether a node selector term selects the node; an empty one selects none."""
    expressions, by_field = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not by_field:
        return False
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    return all(_holds(each, labels) for each in expressions) and all(_holds(each, fields) for each in by_field)


def _holds(requirement: Obj, values: dict[str, str]) -> bool:
    key, operator, wanted = requirement["key"], requirement["operator"], requirement.get("values") or []
    value = values.get(key)
    if operator == "In":
        return value in wanted
    if operator == "NotIn":
        return value not in wanted
    if operator == "Exists":
        return key in values
    if operator == "DoesNotExist":
        return key not in values
    try:
        number, bound = int(value or ""), int(wanted[0])
    except (ValueError, IndexError):
        return False
    return number > bound if operator == "Gt" else number < bound


def score(pod: Obj, node: Node, wanted: Amounts) -> float:
    """0 to 300: room left, balance between cpu and memory, and what the pod would rather have or avoid."""
    shares = []
    for resource, least in _DEFAULT_REQUESTS.items():
        capacity = node.allocatable.get(resource, 0)
        used = node.requested.get(resource, 0) + (wanted.get(resource) or least)
        shares.append(min(used / capacity, 1.0) if capacity else 1.0)
    room = sum(1 - share for share in shares) / len(shares) * 100
    balance = (1 - abs(shares[0] - shares[1]) / 2) * 100
    return int(room) + int(balance) + _preference(pod["spec"], node) - 10 * _avoided(pod["spec"], node)


def _preference(spec: Obj, node: Node) -> int:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    return sum(
        each["weight"]
        for each in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        if matches_term(each["preference"], node.obj)
    )


def _avoided(spec: Obj, node: Node) -> int:
    return sum(
        taint["effect"] == "PreferNoSchedule" and not _tolerates(spec, taint)
        for taint in node.obj["spec"].get("taints") or ()
    )
