"""Whether the node takes a pod: a last look, by those who know what really runs here.

The scheduler decided by what it knew; two schedulers, a pod bound by hand or a node that shrank make it wrong. What
does not fit is failed with a reason that controllers understand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shipwheel.api import quantity
from shipwheel.api.meta import Obj, labels_of
from shipwheel.api.quantity import ZERO
from shipwheel.kubelet import podspec
from shipwheel.kubelet.eviction import REASON, refuses
from shipwheel.kubelet.pod_worker import Ending
from shipwheel.kubelet.resources import Amounts, add, pod_requests, qos_class
from shipwheel.kubelet.services import Record


@dataclass(frozen=True, slots=True)
class Verdict:
    """A pod that is not simply taken. With an empty `reason` it is taken once the victims have ended."""

    reason: str = ""
    message: str = ""
    victims: Sequence[str] = ()
    ending: Ending | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    record: Record
    conditions: Callable[[], frozenset[str]] = frozenset
    """The pressures that the node is under."""

    def check(
        self, pod: Obj, others: Iterable[Obj], node: Obj | None, allocatable: Mapping[str, str]
    ) -> Verdict | None:
        """None to take the pod as it is; an event tells of a rejection."""
        verdict = admit(pod, list(others), node, allocatable, self.conditions())
        if verdict is not None and verdict.reason:
            self.record(pod, None, "Warning", verdict.reason, verdict.message)
        return verdict


def admit(
    pod: Obj,
    others: Sequence[Obj],
    node: Obj | None,
    allocatable: Mapping[str, str],
    conditions: frozenset[str] = frozenset(),
) -> Verdict | None:
    refused = refuses(conditions, pod, qos_class(pod))
    if refused:
        return Verdict(REASON, refused)
    if not podspec.is_static(pod) and node is not None:
        wrong = misplaced(pod, node)
        if wrong:
            return Verdict(reason=wrong[0], message=wrong[1])
    short = shortages(pod, others, allocatable)
    if not short:
        return None
    if podspec.is_critical(pod):
        victims = choose_victims(pod, others, allocatable)
        if victims:
            ending = Ending("Preempting", "Preempted in order to admit critical pod", grace=None)
            return Verdict(victims=[each["metadata"]["uid"] for each in victims], ending=ending)
    return Verdict(f"OutOf{short[0][0]}", shortage_message(short[0]))


def shortage_message(short: tuple[str, int, int, int]) -> str:
    name, asked, used, capacity = short
    return f"Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"


def misplaced(pod: Obj, node: Obj) -> tuple[str, str] | None:
    """(reason, message) when node selector, affinity or taints keep the pod away."""
    labels = labels_of(node)
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()) or not _affinity_fits(pod, node):
        return (
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        )
    return None


def _affinity_fits(pod: Obj, node: Obj) -> bool:
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(_term_fits(term, node) for term in required.get("nodeSelectorTerms") or ())


def _term_fits(term: Obj, node: Obj) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    labels = labels_of(node)
    own_fields = {"metadata.name": node["metadata"]["name"]}
    return all(_requirement_fits(each, labels) for each in expressions) and all(
        _requirement_fits(each, own_fields) for each in fields
    )


def _requirement_fits(requirement: Obj, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement["key"])
    values = requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _number(value) > _number(values[0] if values else None) > _NO_NUMBER
        case "Lt":
            return _NO_NUMBER < _number(value) < _number(values[0] if values else None)
    return False


_NO_NUMBER = float("-inf")


def _number(text: str | None) -> float:
    try:
        return int(text or "")
    except ValueError:
        return _NO_NUMBER


def shortages(
    pod: Obj, others: Sequence[Obj], allocatable: Mapping[str, str]
) -> list[tuple[str, int, int, int]]:
    """What the node has too little of: (resource, asked, used, capacity), the number of pods first. CPU is counted
    in thousandths."""
    found: list[tuple[str, int, int, int]] = []
    most = quantity.value(allocatable.get("pods", "0"))
    if len(others) + 1 > most:
        found.append(("pods", 1, len(others), most))
    used: Amounts = {}
    for other in others:
        used = add(used, pod_requests(other))
    for name, asked in sorted(pod_requests(pod).items(), key=lambda pair: _order(pair[0])):
        if asked.is_zero() or (name not in allocatable and "/" in name):
            continue
        capacity = quantity.parse(allocatable.get(name, "0"))
        if asked + used.get(name, ZERO) > capacity:
            found.append(
                (name, _count(name, asked), _count(name, used.get(name, ZERO)), _count(name, capacity))
            )
    return found


def _order(name: str) -> tuple[int, str]:
    known = ("cpu", "memory", "ephemeral-storage")
    return (known.index(name) if name in known else len(known), name)


def _count(name: str, amount: quantity.Quantity) -> int:
    return amount.milli_value() if name == "cpu" else amount.value()


def choose_victims(pod: Obj, others: Sequence[Obj], allocatable: Mapping[str, str]) -> list[Obj]:
    """The fewest and least guaranteed pods whose end makes room for a critical one; none when that is impossible."""
    priority = pod["spec"].get("priority") or 0
    ranks = {"BestEffort": 0, "Burstable": 1, "Guaranteed": 2}
    candidates = [
        each
        for each in others
        if not podspec.is_critical(each) or (each["spec"].get("priority") or 0) < priority
    ]
    candidates.sort(key=lambda each: (ranks[qos_class(each)], each["spec"].get("priority") or 0))
    victims: list[Obj] = []
    for candidate in candidates:
        if not shortages(pod, [each for each in others if each not in victims], allocatable):
            break
        victims.append(candidate)
    remaining = [each for each in others if each not in victims]
    return victims if not shortages(pod, remaining, allocatable) else []
