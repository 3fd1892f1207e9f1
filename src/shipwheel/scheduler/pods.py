"""What the rules look at in a pod, compiled once for all pods of the same template.

Thousands of pods come from one template and differ only in their names, so a pod's *shape* (requests, ports,
affinity, constraints) is kept under the bytes of what it is made of. A shape never changes; who has one has
everything but the pod's name, its owner and its claims.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import orjson

from shipwheel.api.meta import Obj
from shipwheel.api.quantity import Quantity, parse
from shipwheel.api.selectors import (
    NOTHING,
    LabelSelector,
    Requirement,
    from_label_selector,
)
from shipwheel.kinds.podresources import pod_requests

Amounts = dict[str, int]
"""Milli-units of cpu, units of everything else."""
Port = tuple[str, str, int]
"""(protocol, host address, port)"""
Labels = dict[str, str]

TERMINAL = ("Succeeded", "Failed")
DEFAULT_CPU = 100
DEFAULT_MEMORY = 200 << 20
"""What a container that asks for nothing is scored as asking for."""

_SHAPES = 4096
_SPEC = (
    "affinity", "tolerations", "nodeSelector", "topologySpreadConstraints", "overhead", "resources", "priority",
    "preemptionPolicy",
)  # fmt: skip
_CONTAINER = ("image", "resources", "ports", "restartPolicy")
RELEVANT_VOLUMES = (
    "persistentVolumeClaim", "ephemeral", "gcePersistentDisk", "awsElasticBlockStore", "rbd", "iscsi", "image", "csi",
)  # fmt: skip


def amounts(quantities: dict[str, str] | None) -> Amounts:
    """Quantities as the numbers that are compared."""
    return _numbers({resource: parse(text) for resource, text in (quantities or {}).items()})


def _numbers(quantities: dict[str, Quantity]) -> Amounts:
    return {
        resource: quantity.milli_value() if resource == "cpu" else quantity.value()
        for resource, quantity in quantities.items()
    }


@dataclass(frozen=True, slots=True)
class Term:
    """A term of pod affinity: the pods it means, and what "together" is."""

    pods: Pods
    topology_key: str


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of some namespaces that a selector selects."""

    selector: LabelSelector
    namespaces: frozenset[str]
    namespace_selector: LabelSelector = NOTHING
    living: bool = False
    """Not those that are being deleted."""

    def match(self, namespace: str, labels: Labels, namespace_labels: Labels) -> bool:
        return (
            namespace in self.namespaces or self.namespace_selector.matches(namespace_labels)
        ) and self.selector.matches(labels)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A topology spread constraint."""

    topology_key: str
    max_skew: int
    pods: Pods
    min_domains: int = 1
    honor_affinity: bool = True
    honor_taints: bool = False


@dataclass(frozen=True)
class Shape:
    """What pods of one template have in common for the scheduler."""

    spec: Obj
    """Only the parts that matter here, and without what differs between pods of a template."""
    namespace: str
    labels: Labels

    # Identity is equality: equal shapes are one object as long as they are remembered.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    @cached_property
    def priority(self) -> int:
        return self.spec.get("priority") or 0

    @cached_property
    def requests(self) -> Amounts:
        """What must be free on a node; nothing is left out but zeros."""
        return {name: amount for name, amount in _numbers(pod_requests({"spec": self.spec})).items() if amount}

    @cached_property
    def nonzero_requests(self) -> Amounts:
        """The requests as they are scored: a container that does not say is taken to want a little."""
        spec = self.spec
        assumed = {
            **spec,
            "containers": [_assume(each, spec) for each in spec.get("containers") or ()],
            "initContainers": [_assume(each, spec) for each in spec.get("initContainers") or ()],
        }
        return _numbers(pod_requests({"spec": assumed}))

    @cached_property
    def ports(self) -> tuple[Port, ...]:
        """The ports of the node that the pod takes."""
        spec = self.spec
        sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
        return tuple(
            (port.get("protocol") or "TCP", port.get("hostIP") or "0.0.0.0", port["hostPort"])
            for container in [*(spec.get("containers") or ()), *sidecars]
            for port in container.get("ports") or ()
            if port.get("hostPort")
        )

    @cached_property
    def images(self) -> tuple[str, ...]:
        spec = self.spec
        named = [each.get("image") for each in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))]
        mounted = [(each["image"] or {}).get("reference") for each in self.volumes if "image" in each]
        return tuple(normalized_image(name) for name in (*named, *mounted) if name)

    @cached_property
    def containers(self) -> int:
        return len(self.spec.get("initContainers") or ()) + len(self.spec.get("containers") or ())

    @cached_property
    def tolerations(self) -> tuple[Obj, ...]:
        return tuple(self.spec.get("tolerations") or ())

    @cached_property
    def node_affinity(self) -> Obj:
        return (self.spec.get("affinity") or {}).get("nodeAffinity") or {}

    @cached_property
    def static_key(self) -> bytes:
        """Equal for pods that nodes themselves (not what runs there) treat alike."""
        spec = self.spec
        return orjson.dumps((spec.get("tolerations"), spec.get("nodeSelector"), self.node_affinity))

    @cached_property
    def volumes(self) -> tuple[Obj, ...]:
        """Those that restrict where the pod can be."""
        return tuple(self.spec.get("volumes") or ())

    @cached_property
    def required_affinity(self) -> tuple[Term, ...]:
        return self._required("podAffinity")

    @cached_property
    def required_anti_affinity(self) -> tuple[Term, ...]:
        return self._required("podAntiAffinity")

    @cached_property
    def preferred_affinity(self) -> tuple[tuple[Term, int], ...]:
        return self._preferred("podAffinity")

    @cached_property
    def preferred_anti_affinity(self) -> tuple[tuple[Term, int], ...]:
        return self._preferred("podAntiAffinity")

    @cached_property
    def has_affinity(self) -> bool:
        affinity = self.spec.get("affinity") or {}
        return bool(affinity.get("podAffinity") or affinity.get("podAntiAffinity"))

    def _required(self, kind: str) -> tuple[Term, ...]:
        affinity = (self.spec.get("affinity") or {}).get(kind) or {}
        terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        return tuple(_term(each, self.namespace, self.labels) for each in terms)

    def _preferred(self, kind: str) -> tuple[tuple[Term, int], ...]:
        affinity = (self.spec.get("affinity") or {}).get(kind) or {}
        terms = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        return tuple((_term(each["podAffinityTerm"], self.namespace, self.labels), each["weight"]) for each in terms)

    @cached_property
    def hard_spread(self) -> tuple[Constraint, ...]:
        return self._spread("DoNotSchedule")

    @cached_property
    def soft_spread(self) -> tuple[Constraint, ...]:
        return self._spread("ScheduleAnyway")

    def _spread(self, action: str) -> tuple[Constraint, ...]:
        given = self.spec.get("topologySpreadConstraints") or ()
        return tuple(
            constraint(each, self.namespace, self.labels) for each in given if each["whenUnsatisfiable"] == action
        )


def constraint(given: Obj, namespace: str, labels: Labels) -> Constraint:
    """A `core/v1 TopologySpreadConstraint` of a pod with these labels."""
    selector = from_label_selector(given.get("labelSelector"))
    keys = [key for key in given.get("matchLabelKeys") or () if key in labels]
    if keys:
        selector = selector & LabelSelector(Requirement(key, "=", (labels[key],)) for key in keys)
    return Constraint(
        topology_key=given["topologyKey"],
        max_skew=given["maxSkew"],
        pods=Pods(selector, frozenset((namespace,)), living=True),
        min_domains=given.get("minDomains") or 1,
        honor_affinity=given.get("nodeAffinityPolicy", "Honor") == "Honor",
        honor_taints=given.get("nodeTaintsPolicy", "Ignore") == "Honor",
    )


def _term(given: Obj, namespace: str, labels: Labels) -> Term:
    selector = from_label_selector(given.get("labelSelector"))
    chosen = [(key, "in") for key in given.get("matchLabelKeys") or () if key in labels]
    chosen += [(key, "notin") for key in given.get("mismatchLabelKeys") or () if key in labels]
    if chosen and not selector.is_nothing:
        selector = selector & LabelSelector(Requirement(key, operator, (labels[key],)) for key, operator in chosen)
    by_label = given.get("namespaceSelector")
    named = given.get("namespaces") or ()
    own = () if named or by_label is not None else (namespace,)
    among = NOTHING if by_label is None else from_label_selector(by_label)
    return Term(Pods(selector, frozenset((*named, *own)), among), given["topologyKey"])


def _assume(container: Obj, spec: Obj) -> Obj:
    """A container that asks for what one that does not say is scored with."""
    resources = container.get("resources") or {}
    requests = {"cpu": f"{DEFAULT_CPU}m", "memory": str(DEFAULT_MEMORY), **(resources.get("requests") or {})}
    return {**container, "resources": {**resources, "requests": requests}}


def normalized_image(name: str) -> str:
    """A name without a tag means the latest."""
    return name if name.rfind(":") > name.rfind("/") else f"{name}:latest"


class Shapes:
    """The shapes of pods seen lately, by what they are made of."""

    def __init__(self, size: int = _SHAPES) -> None:
        self._size = size
        self._known: OrderedDict[bytes, Shape] = OrderedDict()

    def of(self, pod: Obj) -> Shape:
        """A pod's shape. SelectorError when one of its selectors cannot be read."""
        meta = pod["metadata"]
        namespace, labels = meta.get("namespace", ""), meta.get("labels") or {}
        spec = _essence(pod["spec"])
        key = orjson.dumps((namespace, labels, spec))
        shape = self._known.get(key)
        if shape is not None:
            self._known.move_to_end(key)
            return shape
        shape = self._known[key] = Shape(spec, namespace, labels)
        if len(self._known) > self._size:
            self._known.popitem(last=False)
        return shape


def _essence(spec: Obj) -> Obj:
    kept = {key: spec[key] for key in _SPEC if spec.get(key)}
    for kind in ("containers", "initContainers"):
        if spec.get(kind):
            kept[kind] = [{key: each[key] for key in _CONTAINER if each.get(key)} for each in spec[kind]]
    if spec.get("volumes"):
        volumes = [each for each in spec["volumes"] if any(kind in each for kind in RELEVANT_VOLUMES)]
        if volumes:
            kept["volumes"] = volumes
    return kept


def claim_names(pod_name: str, shape: Shape) -> list[tuple[str, bool]]:
    """The claims a pod uses, and whether each is made for it alone (a generic ephemeral volume)."""
    found = []
    for volume in shape.volumes:
        if volume.get("persistentVolumeClaim"):
            found.append((volume["persistentVolumeClaim"]["claimName"], False))
        elif volume.get("ephemeral") is not None:
            found.append((f"{pod_name}-{volume['name']}", True))
    return found


def tolerated(tolerations: Iterable[Obj], key: str, value: str, effect: str) -> bool:
    """Whether one of the tolerations tolerates a taint."""
    for toleration in tolerations:
        if toleration.get("effect") and toleration["effect"] != effect:
            continue
        if toleration.get("key") and toleration["key"] != key:
            continue
        operator = toleration.get("operator") or "Equal"
        if operator == "Exists" or (operator == "Equal" and (toleration.get("value") or "") == value):
            return True
    return False
