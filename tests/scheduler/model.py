"""The rules of scheduling once more, slowly: written from the documentation, one node and one pod at a time.

What is here knows nothing of arrays, caches or increments. It is what the scheduler's arithmetic is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Obj = dict[str, Any]


@dataclass
class World:
    nodes: list[Obj]
    placed: list[tuple[Obj, str]]
    """Pods, and the nodes they are on."""
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)

    def on(self, node: Obj) -> list[Obj]:
        return [pod for pod, name in self.placed if name == node["metadata"]["name"]]


def labels(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def quantity(text: str) -> int:
    """Whole units; the generator writes only these notations. cpu comes in milli-units elsewhere."""
    for suffix, factor in (("Gi", 2**30), ("Mi", 2**20)):
        if text.endswith(suffix):
            return int(text.removesuffix(suffix)) * factor
    return int(text)


def amount(resource: str, text: str) -> int:
    if resource != "cpu":
        return quantity(text)
    return int(text[:-1]) if text.endswith("m") else int(text) * 1000


def requests(pod: Obj, assumed: dict[str, str] | None = None) -> dict[str, int]:
    """Containers and sidecars add up; an init container runs beside the sidecars before it."""

    def of(container: Obj) -> dict[str, int]:
        given = {**(assumed or {}), **((container.get("resources") or {}).get("requests") or {})}
        return {name: amount(name, text) for name, text in given.items()}

    running: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in pod["spec"].get("initContainers") or []:
        mine = of(container)
        together = {name: running.get(name, 0) + mine.get(name, 0) for name in {*running, *mine}}
        for name, value in together.items():
            peak[name] = max(peak.get(name, 0), value)
        if container.get("restartPolicy") == "Always":
            running = together
    total = dict(running)
    for container in pod["spec"]["containers"]:
        for name, value in of(container).items():
            total[name] = total.get(name, 0) + value
    for name, value in peak.items():
        total[name] = max(total.get(name, 0), value)
    for name, text in (pod["spec"].get("overhead") or {}).items():
        total[name] = total.get(name, 0) + amount(name, text)
    return total


ASSUMED = {"cpu": "100m", "memory": "200Mi"}


def allocatable(node: Obj) -> dict[str, int]:
    return {name: amount(name, text) for name, text in node["status"]["allocatable"].items()}


def used(world: World, node: Obj, resource: str, assumed: dict[str, str] | None = None) -> int:
    return sum(requests(pod, assumed).get(resource, 0) for pod in world.on(node))


def tolerates(pod: Obj, taint: Obj, only: tuple[str, ...] = ()) -> bool:
    for each in pod["spec"].get("tolerations") or []:
        effect = each.get("effect") or ""
        if only and effect not in only:
            continue
        same_effect = effect in ("", taint["effect"])
        same_key = (each.get("key") or "") in ("", taint["key"])
        exists = each.get("operator") == "Exists"
        if same_effect and same_key and (exists or each.get("value", "") == taint.get("value", "")):
            return True
    return False


def requirement(each: Obj, values: dict[str, str]) -> bool:
    key, wanted = each["key"], each.get("values") or []
    there = key in values
    match each["operator"]:
        case "In":
            return there and values[key] in wanted
        case "NotIn":
            return not there or values[key] not in wanted
        case "Exists":
            return there
        case "DoesNotExist":
            return not there
    try:
        number, bound = int(values[key]), int(wanted[0])
    except (KeyError, ValueError):
        return False
    return number > bound if each["operator"] == "Gt" else number < bound


def selected(term: Obj, node: Obj) -> bool:
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    return bool(expressions or fields) and all(
        [
            *(requirement(each, labels(node)) for each in expressions),
            *(requirement(each, {"metadata.name": node["metadata"]["name"]}) for each in fields),
        ]
    )


def matches(selector: Obj | None, values: dict[str, str]) -> bool:
    if selector is None:
        return False
    return all(values.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()) and all(
        requirement(each, values) for each in selector.get("matchExpressions") or []
    )


def node_affinity(pod: Obj, node: Obj) -> bool:
    spec = pod["spec"]
    if any(labels(node).get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return required is None or any(selected(term, node) for term in required["nodeSelectorTerms"])


def hard_taints_tolerated(pod: Obj, node: Obj) -> bool:
    taints = node["spec"].get("taints") or []
    return all(each["effect"] == "PreferNoSchedule" or tolerates(pod, each) for each in taints)


def ports(pod: Obj) -> list[tuple[str, str, int]]:
    return [
        (each.get("protocol", "TCP"), each.get("hostIP", "0.0.0.0"), each["hostPort"])
        for container in pod["spec"]["containers"]
        for each in container.get("ports") or []
        if "hostPort" in each
    ]


def clash(one: tuple[str, str, int], other: tuple[str, str, int]) -> bool:
    same_place = one[1] == other[1] or "0.0.0.0" in (one[1], other[1])
    return one[0] == other[0] and one[2] == other[2] and same_place


def terms(pod: Obj, kind: str, when: str) -> list[Any]:
    return ((pod["spec"].get("affinity") or {}).get(kind) or {}).get(
        f"{when}DuringSchedulingIgnoredDuringExecution"
    ) or []


def means(world: World, owner: Obj, term: Obj, pod: Obj) -> bool:
    """Whether a term of `owner` means `pod`."""
    namespace = pod["metadata"]["namespace"]
    named = term.get("namespaces") or []
    by_label = term.get("namespaceSelector")
    if not named and by_label is None:
        named = [owner["metadata"]["namespace"]]
    chosen = namespace in named or (by_label is not None and matches(by_label, world.namespaces.get(namespace, {})))
    selector = term.get("labelSelector")
    same = all(
        labels(pod).get(key) == labels(owner)[key] for key in term.get("matchLabelKeys") or [] if key in labels(owner)
    )
    return chosen and matches(selector, labels(pod)) and same


def together(one: Obj, other: Obj, key: str) -> bool:
    return key in labels(one) and labels(one)[key] == labels(other).get(key)


def refusals(world: World, pod: Obj, node: Obj) -> list[str]:
    """The reasons of the first rule that refuses the node, in the order of the default profile."""
    for rule in (
        _unschedulable, _tainted, _affinity, _ports, _room, _spread, _pods,
    ):  # fmt: skip
        reasons = rule(world, pod, node)
        if reasons:
            return reasons
    return []


def _unschedulable(world: World, pod: Obj, node: Obj) -> list[str]:
    taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    bad = node["spec"].get("unschedulable") and not tolerates(pod, taint)
    return ["node(s) were unschedulable"] if bad else []


def _tainted(world: World, pod: Obj, node: Obj) -> list[str]:
    return [] if hard_taints_tolerated(pod, node) else ["node(s) had untolerated taint(s)"]


def _affinity(world: World, pod: Obj, node: Obj) -> list[str]:
    return [] if node_affinity(pod, node) else ["node(s) didn't match Pod's node affinity/selector"]


def _ports(world: World, pod: Obj, node: Obj) -> list[str]:
    taken = [port for other in world.on(node) for port in ports(other)]
    bad = any(clash(mine, theirs) for mine in ports(pod) for theirs in taken)
    return ["node(s) didn't have free ports for the requested pod ports"] if bad else []


def _room(world: World, pod: Obj, node: Obj) -> list[str]:
    there = allocatable(node)
    reasons = []
    if len(world.on(node)) + 1 > there.get("pods", 0):
        reasons.append("Too many pods")
    for resource, wanted in requests(pod).items():
        if wanted and used(world, node, resource) + wanted > there.get(resource, 0):
            reasons.append(f"Insufficient {resource}")
    return reasons


MISMATCH = "node(s) didn't match pod topology spread constraints"


def _counted(pod: Obj, node: Obj, constraint: Obj) -> bool:
    if constraint.get("nodeAffinityPolicy", "Honor") == "Honor" and not node_affinity(pod, node):
        return False
    return constraint.get("nodeTaintsPolicy", "Ignore") == "Ignore" or hard_taints_tolerated(pod, node)


def _alike(world: World, pod: Obj, node: Obj, constraint: Obj) -> int:
    """Pods on a node that a constraint counts."""
    selector = constraint.get("labelSelector")
    extra = {key: labels(pod)[key] for key in constraint.get("matchLabelKeys") or [] if key in labels(pod)}
    if selector is not None and not selector and not extra:
        return 0
    return sum(
        other["metadata"]["namespace"] == pod["metadata"]["namespace"]
        and "deletionTimestamp" not in other["metadata"]
        and matches(selector, labels(other))
        and all(labels(other).get(key) == value for key, value in extra.items())
        for other in world.on(node)
    )


def constraints(pod: Obj, action: str) -> list[Obj]:
    given = pod["spec"].get("topologySpreadConstraints") or []
    return [each for each in given if each["whenUnsatisfiable"] == action]


def _spread(world: World, pod: Obj, node: Obj) -> list[str]:
    hard = constraints(pod, "DoNotSchedule")
    eligible = [each for each in world.nodes if all(one["topologyKey"] in labels(each) for one in hard)]
    for each in hard:
        key = each["topologyKey"]
        if key not in labels(node):
            return [f"{MISMATCH} (missing required label)"]
        domains: dict[str, int] = {}
        for other in eligible:
            if _counted(pod, other, each):
                value = labels(other)[key]
                domains[value] = domains.get(value, 0) + _alike(world, pod, other, each)
        least = 0 if len(domains) < each.get("minDomains", 1) else min(domains.values())
        own = matches(each.get("labelSelector"), labels(pod))
        if domains.get(labels(node)[key], 0) + own - least > each["maxSkew"]:
            return [MISMATCH]
    return []


def _pods(world: World, pod: Obj, node: Obj) -> list[str]:
    nodes = {each["metadata"]["name"]: each for each in world.nodes}
    wanted = terms(pod, "podAffinity", "required")
    if wanted:
        if any(each["topologyKey"] not in labels(node) for each in wanted):
            return ["node(s) didn't match pod affinity rules"]
        friends = [
            nodes[name] for other, name in world.placed if all(means(world, pod, each, other) for each in wanted)
        ]
        alone = not any(each["topologyKey"] in labels(friend) for each in wanted for friend in friends)
        near = all(any(together(node, friend, each["topologyKey"]) for friend in friends) for each in wanted)
        if not near and not (alone and all(means(world, pod, each, pod) for each in wanted)):
            return ["node(s) didn't match pod affinity rules"]
    for each in terms(pod, "podAntiAffinity", "required"):
        for other, name in world.placed:
            if means(world, pod, each, other) and together(node, nodes[name], each["topologyKey"]):
                return ["node(s) didn't match pod anti-affinity rules"]
    for other, name in world.placed:
        for each in terms(other, "podAntiAffinity", "required"):
            if means(world, other, each, pod) and together(node, nodes[name], each["topologyKey"]):
                return ["node(s) didn't satisfy existing pods anti-affinity rules"]
    return []


# Scores


def scores(world: World, pod: Obj, feasible: list[Obj]) -> dict[str, list[int]]:
    """Each rule's normalized scores of the feasible nodes."""
    return {
        "TaintToleration": _reverse([_avoided(pod, node) for node in feasible]),
        "NodeAffinity": _normal([_preferred(pod, node) for node in feasible]),
        "NodeResourcesFit": [_least(world, pod, node) for node in feasible],
        "NodeResourcesBalancedAllocation": [_balanced(world, pod, node) for node in feasible],
        "PodTopologySpread": _spread_scores(world, pod, feasible),
        "InterPodAffinity": _pod_scores(world, pod, feasible),
        "ImageLocality": [_images(world, pod, node) for node in feasible],
    }


def _reverse(raw: list[int]) -> list[int]:
    highest = max(raw)
    return [100 - 100 * each // highest if highest else 100 for each in raw]


def _normal(raw: list[int]) -> list[int]:
    highest = max(raw)
    return [100 * each // highest if highest else 0 for each in raw]


def _avoided(pod: Obj, node: Obj) -> int:
    return sum(
        each["effect"] == "PreferNoSchedule" and not tolerates(pod, each, ("", "PreferNoSchedule"))
        for each in node["spec"].get("taints") or []
    )


def _preferred(pod: Obj, node: Obj) -> int:
    return sum(each["weight"] * selected(each["preference"], node) for each in terms(pod, "nodeAffinity", "preferred"))


def _least(world: World, pod: Obj, node: Obj) -> int:
    shares = []
    for resource in ("cpu", "memory"):
        capacity = allocatable(node).get(resource, 0)
        if capacity:
            taken = used(world, node, resource, ASSUMED) + requests(pod, ASSUMED).get(resource, 0)
            shares.append(max(capacity - taken, 0) * 100 // capacity)
    return sum(shares) // len(shares) if shares else 0


def _balanced(world: World, pod: Obj, node: Obj) -> int:
    wanted = requests(pod)
    if not wanted.get("cpu") and not wanted.get("memory"):
        return 0

    def even(extra: dict[str, int]) -> int:
        shares = [
            min(1.0, (used(world, node, resource) + extra.get(resource, 0)) / allocatable(node)[resource])
            for resource in ("cpu", "memory")
            if allocatable(node).get(resource)
        ]
        return int((1 - (abs(shares[0] - shares[1]) / 2 if len(shares) == 2 else 0)) * 100)

    return 50 + int((50 + even(wanted) - even({})) / 2)


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def _spread_scores(world: World, pod: Obj, feasible: list[Obj]) -> list[int]:
    soft = constraints(pod, "ScheduleAnyway")
    if not soft:
        return [0] * len(feasible)
    whole: Callable[[Obj], bool] = lambda node: all(each["topologyKey"] in labels(node) for each in soft)  # noqa: E731
    scored = [node for node in feasible if whole(node)]
    raw: dict[str, int] = {}
    for node in scored:
        total = 0.0
        for each in soft:
            key = each["topologyKey"]
            if key == "kubernetes.io/hostname":
                size, count = len(scored), _alike(world, pod, node, each)
            else:
                size = len({labels(other)[key] for other in scored})
                count = sum(
                    _alike(world, pod, other, each)
                    for other in world.nodes
                    if whole(other) and together(node, other, key) and _counted(pod, other, each)
                )
            total += count * math.log(size + 2) + (each["maxSkew"] - 1)
        raw[node["metadata"]["name"]] = _round(total)
    if not raw:
        return [0] * len(feasible)
    low, high = min(raw.values()), max(raw.values())
    found = []
    for node in feasible:
        mine = raw.get(node["metadata"]["name"])
        if mine is None:
            found.append(0)
        else:
            found.append(100 * (high + low - mine) // high if high else 100)
    return found


def _pod_scores(world: World, pod: Obj, feasible: list[Obj]) -> list[int]:
    nodes = {each["metadata"]["name"]: each for each in world.nodes}
    raw = []
    for node in feasible:
        total = 0
        for other, name in world.placed:
            there = nodes[name]
            for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
                for one, another in ((pod, other), (other, pod)):
                    for each in terms(one, kind, "preferred"):
                        term = each["podAffinityTerm"]
                        if means(world, one, term, another) and together(node, there, term["topologyKey"]):
                            total += sign * each["weight"]
            for term in terms(other, "podAffinity", "required"):
                if means(world, other, term, pod) and together(node, there, term["topologyKey"]):
                    total += 1
        raw.append(total)
    low, high = min(raw), max(raw)
    return [int(100 * ((each - low) / (high - low))) if high > low else 0 for each in raw]


def _images(world: World, pod: Obj, node: Obj) -> int:
    def sizes(one: Obj) -> dict[str, int]:
        return {name: each["sizeBytes"] for each in one["status"].get("images") or [] for name in each["names"]}

    total = 0
    containers = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
    for container in containers:
        image = container["image"]
        if image in sizes(node):
            spread = sum(image in sizes(other) for other in world.nodes) / len(world.nodes)
            total += int(sizes(node)[image] * spread)
    low, high = 23 * 2**20, 1000 * 2**20 * len(containers)
    return 100 * (min(max(total, low), high) - low) // (high - low)
