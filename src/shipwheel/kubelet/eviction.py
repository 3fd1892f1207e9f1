"""When the node runs short: which thresholds are crossed, and which pod has to go. All of it pure.

A signal falls below its threshold; the node reports a condition at once and keeps it for a while (`transition`) after
the signal has recovered. A hard threshold is acted on at once, a soft one after its grace period. At most one
pod ends at a time: first those that use more than they asked for, then by priority, then by how much more they use.

Images and containers' own files may be on a disk of their own: what is on the one does not help the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from shipwheel.api import quantity
from shipwheel.api.meta import Obj
from shipwheel.api.quantity import BINARY_SI, DECIMAL_SI, ZERO, Format, Quantity
from shipwheel.kinds.podresources import pod_limits
from shipwheel.kinds.taints import tolerates
from shipwheel.kubelet import podspec
from shipwheel.kubelet.resources import pod_level, pod_requests, requests_of
from shipwheel.kubelet.thresholds import CONDITIONS, RESOURCES, Threshold

REASON = "Evicted"
IMMEDIATE_GRACE = 1
"""Seconds that a pod gets which must go at once."""
_MEMORY_TAINT = {"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class Observation:
    available: int
    capacity: int
    format: Format = BINARY_SI
    """How what is available is shown: counts are decimal."""


@dataclass(frozen=True, slots=True)
class PressureState:
    """What is remembered from one look to the next. Times are seconds."""

    first_seen: Mapping[Threshold, float] = field(default_factory=dict)
    """Since when a threshold is crossed."""
    last_pressed: Mapping[str, float] = field(default_factory=dict)
    """When a condition last had a cause."""
    acted_on: frozenset[Threshold] = frozenset()
    """Thresholds whose grace period was over at the last look: they hold until their minimum was reclaimed."""


def look(
    thresholds: Sequence[Threshold],
    state: PressureState,
    observations: Mapping[str, Observation],
    *,
    transition: float,
    now: float,
) -> tuple[PressureState, frozenset[str], list[Threshold]]:
    """(state, conditions that hold, thresholds to act on, the most urgent first)."""
    lingering = crossed(state.acted_on, observations, after=True)
    over = [each for each in thresholds if each in crossed([each], observations) or each in lingering]
    first_seen = {each: state.first_seen.get(each, now) for each in over}
    pressed = {CONDITIONS[each.signal]: now for each in over}
    last_pressed = {**state.last_pressed, **pressed}
    held = frozenset(kind for kind, when in last_pressed.items() if kind in pressed or now - when < transition)
    due = [each for each in over if now - first_seen[each] >= (each.grace or 0.0)]
    due.sort(key=lambda each: (RESOURCES[each.signal] != "memory", each.grace is not None))
    kept = {kind: when for kind, when in last_pressed.items() if kind in held}
    return PressureState(first_seen, kept, frozenset(due)), held, due


def crossed(
    thresholds: Iterable[Threshold], observations: Mapping[str, Observation], *, after: bool = False
) -> list[Threshold]:
    """Those below which a signal is; with `after` those below which it is while their minimum is to be reclaimed."""
    return [
        each
        for each in thresholds
        if (seen := observations.get(each.signal)) is not None
        and seen.available < each.limit(seen.capacity, after=after)
    ]


class Stored(NamedTuple):
    """What takes room on a disk."""

    bytes: int = 0
    inodes: int = 0


Part = Literal["layers", "logs", "volumes"]


@dataclass(frozen=True, slots=True)
class PodUsage:
    """What a pod uses. Bytes and counts."""

    memory: int = 0
    processes: int = 0
    containers: Mapping[str, int] = field(default_factory=dict)
    """Of the memory, by container."""
    layers: Mapping[str, Stored] = field(default_factory=dict)
    """What containers wrote over their images."""
    logs: Mapping[str, Stored] = field(default_factory=dict)
    volumes: Mapping[str, Stored] = field(default_factory=dict)
    """On the node's disk, by name."""
    in_memory: Mapping[str, Stored] = field(default_factory=dict)
    """Volumes that are not on the disk."""

    def stored(self, parts: Iterable[Part] = ("layers", "logs", "volumes")) -> Stored:
        found = [each for part in parts for each in getattr(self, part).values()]
        return Stored(sum(each.bytes for each in found), sum(each.inodes for each in found))


def parts_on(signal: str, *, separate: bool) -> tuple[Part, ...]:
    """What of a pod is on the disk that a signal is about. `separate`: images have a disk of their own."""
    if not separate:
        return "layers", "logs", "volumes"
    return ("layers",) if signal.startswith("imagefs.") else ("logs", "volumes")


def rank(pods: Iterable[Obj], usage: Mapping[str, PodUsage], signal: str, *, separate: bool = False) -> list[Obj]:
    """The pods, the first to go first. Those of whose usage nothing is known come before all others."""
    resource, parts = RESOURCES[signal], parts_on(signal, separate=separate)

    def key(pod: Obj) -> tuple[bool, bool, int, float]:
        used = usage.get(pod["metadata"]["uid"])
        priority = pod["spec"].get("priority") or 0
        if used is None:
            return False, False, priority, 0.0
        if resource == "pids":
            return True, True, priority, -float(used.processes)
        requests = pod_requests(pod)
        if resource == "memory":
            asked, uses = requests.get("memory", ZERO).value(), used.memory
        elif resource == "inodes":
            asked, uses = 0, used.stored(parts).inodes
        else:
            asked, uses = requests.get("ephemeral-storage", ZERO).value(), used.stored(parts).bytes
        return True, not uses > asked, priority, float(asked - uses)

    return sorted((pod for pod in pods if not podspec.is_critical(pod)), key=key)


def message(
    pod: Obj, threshold: Threshold, seen: Observation | None, used: PodUsage | None
) -> tuple[str, dict[str, str]]:
    """(what the pod's status and its event tell, the event's annotations)."""
    resource = RESOURCES[threshold.signal]
    text = f"The node was low on resource: {resource}. "
    if seen is not None:
        available = Quantity.of(seen.available, seen.format)
        text += f"Threshold quantity: {threshold.shown(seen.capacity)}, available: {available}. "
    if used is None:
        return text, {}
    annotations: dict[str, str] = {}
    whole = pod_level(pod, "requests").get(resource)
    if resource == "memory" and whole is not None:
        name, shown = pod["metadata"]["name"], str(Quantity.of(used.memory, BINARY_SI))
        text += f"Pod {name} was using {shown}, request is {whole}, has larger consumption of {resource}. "
        annotations |= {"offending_pod": name, "offending_pod_usage": shown}
    offending = _offending(pod, resource, used)
    for name, uses, asked in offending:
        text += f"Container {name} was using {uses}, request is {asked}, has larger consumption of {resource}. "
    return text, annotations | {
        "offending_containers": ",".join(name for name, _, _ in offending),
        "offending_containers_usage": ",".join(uses for _, uses, _ in offending),
        "starved_resource": resource,
    }


def _offending(pod: Obj, resource: str, used: PodUsage) -> list[tuple[str, str, str]]:
    """(name, what it uses, what it asked for) of the containers that use more than they asked for."""
    if resource == "memory":
        uses: Mapping[str, int] = used.containers
    elif resource == "ephemeral-storage":
        uses = {name: layer.bytes + used.logs.get(name, Stored()).bytes for name, layer in used.layers.items()}
    else:
        return []
    found = []
    for container in (*podspec.containers(pod), *podspec.init_containers(pod)):
        asked = requests_of(container).get(resource, ZERO)
        amount = uses.get(container["name"])
        if amount is not None and amount > asked.value():
            found.append((container["name"], str(Quantity.of(amount, BINARY_SI)), str(asked)))
    return found


def over_storage_limit(pod: Obj, used: PodUsage, *, separate: bool = False) -> tuple[str, str] | None:
    """(what is metered, why): for what it stores on the node a pod must go, whatever room there is. None when it may
    stay."""
    everything = {**used.volumes, **used.in_memory}
    for volume in pod["spec"].get("volumes") or ():
        limit = (volume.get("emptyDir") or {}).get("sizeLimit")
        if limit is None:
            continue
        size = quantity.parse(limit)
        if size.sign() > 0 and everything.get(volume["name"], Stored()).bytes > size.value():
            why = f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{size}". '
            return "emptydirfs.limit", why
    total = pod_limits(pod).get("ephemeral-storage")
    if total is not None and used.stored().bytes > total.value():
        why = f"Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
        return "ephemeralpodfs.limit", why
    for container in podspec.containers(pod):
        name, limit = container["name"], _limits(container).get("ephemeral-storage")
        size = quantity.parse(limit or "0")
        uses = used.logs.get(name, Stored()).bytes
        if not separate:
            uses += used.layers.get(name, Stored()).bytes
        if size.sign() > 0 and uses > size.value():
            why = f'Container {name} exceeded its local ephemeral storage limit "{size}". '
            return "ephemeralcontainerfs.limit", why
    return None


def _limits(container: Obj) -> Mapping[str, str]:
    return (container.get("resources") or {}).get("limits") or {}


def stores_with_limits(pod: Obj) -> bool:
    """Whether anything limits what the pod may store on the node."""
    volumes, containers = pod["spec"].get("volumes") or (), (*podspec.containers(pod), *podspec.init_containers(pod))
    return any((each.get("emptyDir") or {}).get("sizeLimit") is not None for each in volumes) or any(
        "ephemeral-storage" in _limits(each) for each in containers
    )


def refuses(conditions: frozenset[str], pod: Obj, qos: str) -> str:
    """Why a node under pressure does not take a new pod; empty when it does."""
    if not conditions or podspec.is_critical(pod):
        return ""
    if conditions == {"MemoryPressure"} and (
        qos != "BestEffort" or tolerates(pod["spec"].get("tolerations") or (), _MEMORY_TAINT) is not None
    ):
        return ""
    return f"The node had condition: [{' '.join(sorted(conditions))}]. "


def grace_for(pod: Obj, threshold: Threshold, maximum: int) -> int:
    """Seconds that an evicted pod gets."""
    if threshold.grace is None:
        return IMMEDIATE_GRACE
    declared = pod["spec"].get("terminationGracePeriodSeconds")
    return maximum if declared is None else min(maximum, declared)


def counted(available: int, capacity: int) -> Observation:
    """Of inodes or processes."""
    return Observation(available, capacity, DECIMAL_SI)
