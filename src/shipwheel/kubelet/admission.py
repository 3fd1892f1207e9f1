"""Whether the node takes a pod: a last look, by those who know what really runs here.

The scheduler decided by what it knew; two schedulers, a pod bound by hand or a node that shrank make it wrong. What
does not fit is failed with a reason that controllers understand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shipwheel.api import nodeselector, quantity
from shipwheel.api.meta import Obj, labels_of
from shipwheel.api.quantity import ZERO
from shipwheel.kinds.taints import tolerates
from shipwheel.kubelet import podspec, security, sysctls
from shipwheel.kubelet.eviction import REASON, refuses
from shipwheel.kubelet.pod_worker import Ending
from shipwheel.kubelet.resources import Amounts, add, pod_requests, qos_class
from shipwheel.kubelet.services import Record

_OS_LABEL = "kubernetes.io/os"
_OS = "linux"
SHUTDOWN = ("NodeShutdown", "Pod was rejected as the node is shutting down.")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A pod that is not simply taken. With an empty `reason` it is taken once the victims have ended."""

    reason: str = ""
    message: str = ""
    victims: Sequence[str] = ()
    ending: Ending | None = None
    signal: str = ""
    """The resource that victims make room in."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the node allows, beside what fits."""

    allowed_sysctls: Sequence[str] = ()
    apparmor: bool = True
    """The kernel enforces AppArmor profiles."""
    strict_groups: Callable[[], bool] = lambda: True
    """Whether the runtime can leave out the groups that an image gives its users (KEP-3619)."""


@dataclass(frozen=True, slots=True)
class Admission:
    record: Record
    conditions: Callable[[], frozenset[str]] = frozenset
    """The pressures that the node is under."""
    rules: Rules = field(default_factory=Rules)
    closing: Callable[[], bool] = lambda: False
    """Whether the node is about to shut down."""

    def check(
        self, pod: Obj, others: Iterable[Obj], node: Obj | None, allocatable: Mapping[str, str]
    ) -> Verdict | None:
        """None to take the pod as it is; an event tells of a rejection."""
        if self.closing():
            verdict: Verdict | None = Verdict(*SHUTDOWN)
        else:
            verdict = admit(pod, list(others), node, allocatable, self.conditions(), self.rules)
        if verdict is not None and verdict.reason:
            self.record(pod, None, "Warning", verdict.reason, verdict.message)
        return verdict


def admit(
    pod: Obj,
    others: Sequence[Obj],
    node: Obj | None,
    allocatable: Mapping[str, str],
    conditions: frozenset[str] = frozenset(),
    rules: Rules | None = None,
) -> Verdict | None:
    refused = refuses(conditions, pod, qos_class(pod))
    if refused:
        return Verdict(REASON, refused)
    forbidden = _forbidden(pod, rules or Rules())
    if forbidden is not None:
        return forbidden
    short = shortages(pod, others, allocatable)
    wrong = [] if node is None else misplaced(pod, others, node)
    if short and not wrong and podspec.is_critical(pod):
        victims = choose_victims(pod, others, allocatable)
        if victims:
            ending = Ending("Preempting", "Preempted in order to admit critical pod")
            uids = [each["metadata"]["uid"] for each in victims]
            return Verdict(victims=uids, ending=ending, signal=short[0][0])
    if short:
        return Verdict(f"OutOf{short[0][0]}", shortage_message(short[0]))
    if wrong:
        name, why = wrong[0]
        return Verdict(name, f"Predicate {name} failed: {why}")
    return None


def _forbidden(pod: Obj, rules: Rules) -> Verdict | None:
    if labels_of(pod).get(_OS_LABEL, _OS) != _OS:
        return Verdict(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        )
    if (pod["spec"].get("os") or {}).get("name", _OS) != _OS:
        return Verdict("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
    if security.groups_policy(pod) == "Strict" and not rules.strict_groups():
        return Verdict(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        )
    why = sysctls.refusal(pod, rules.allowed_sysctls)
    if why:
        return Verdict(sysctls.REASON, why)
    if not rules.apparmor and _wants_apparmor(pod):
        return Verdict("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")
    return None


def _wants_apparmor(pod: Obj) -> bool:
    """Whether a profile is asked for that must be enforced."""
    profiles = (security.apparmor(pod, each) for each in podspec.all_containers(pod))
    return any(each is not None and each.kind != "Unconfined" for each in profiles)


def shortage_message(short: tuple[str, int, int, int]) -> str:
    name, asked, used, capacity = short
    return f"Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"


def misplaced(pod: Obj, others: Iterable[Obj], node: Obj) -> list[tuple[str, str]]:
    """(the scheduler's predicate, why) for all that keeps the pod off this node."""
    found = []
    if not nodeselector.fits(pod["spec"], node):
        found.append(("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"))
    taken = {port for other in others for port in _host_ports(other)}
    if any(_collides(port, each) for port in _host_ports(pod) for each in taken):
        found.append(("NodePorts", "node(s) didn't have free ports for the requested pod ports"))
    if not podspec.is_static(pod) and not _tolerates(pod, node):
        found.append(("TaintToleration", "node(s) had taints that the pod didn't tolerate"))
    return found


def _host_ports(pod: Obj) -> list[tuple[str, str, int]]:
    """(address, protocol, port)"""
    return [
        (port.get("hostIP") or "0.0.0.0", port.get("protocol") or "TCP", port["hostPort"])
        for container in (*podspec.containers(pod), *podspec.sidecars(pod))
        for port in container.get("ports") or ()
        if port.get("hostPort")
    ]


def _collides(left: tuple[str, str, int], right: tuple[str, str, int]) -> bool:
    return left[1:] == right[1:] and (left[0] == right[0] or "0.0.0.0" in (left[0], right[0]))


def _tolerates(pod: Obj, node: Obj) -> bool:
    """Only taints that would end the pod matter here; the others are the scheduler's."""
    tolerations = pod["spec"].get("tolerations") or ()
    return all(
        tolerates(tolerations, taint) is not None
        for taint in node["spec"].get("taints") or ()
        if taint["effect"] == "NoExecute"
    )


def shortages(pod: Obj, others: Sequence[Obj], allocatable: Mapping[str, str]) -> list[tuple[str, int, int, int]]:
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
            found.append((name, _count(name, asked), _count(name, used.get(name, ZERO)), _count(name, capacity)))
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
        each for each in others if not podspec.is_critical(each) or (each["spec"].get("priority") or 0) < priority
    ]
    candidates.sort(key=lambda each: (ranks[qos_class(each)], each["spec"].get("priority") or 0))
    victims: list[Obj] = []
    for candidate in candidates:
        if not shortages(pod, [each for each in others if each not in victims], allocatable):
            break
        victims.append(candidate)
    remaining = [each for each in others if each not in victims]
    return victims if not shortages(pod, remaining, allocatable) else []
