"""How far a pod's resize is: what its conditions and events tell.

`PodResizePending` while the node has no room for what is asked (Deferred) or can never grant it (Infeasible);
`PodResizeInProgress` from the moment it is granted until every running container has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj
from shipwheel.api.quantity import ZERO, Quantity
from shipwheel.kubelet import podspec, swap
from shipwheel.kubelet.allocation import Allocation, Resize, pending_resizes, summary
from shipwheel.kubelet.observed import PodObservation
from shipwheel.kubelet.resources import pod_cgroup, qos_class, requests_of
from shipwheel.kubelet.services import Record

PENDING = "PodResizePending"
IN_PROGRESS = "PodResizeInProgress"


@dataclass(frozen=True, slots=True)
class Fixed:
    """What of containers cannot be changed on this node while they run."""

    cpus: bool = False
    """Guaranteed pods' CPUs: they have some for themselves (static policy)."""
    memory: bool = False
    """Guaranteed pods' memory: it is on certain NUMA nodes (static policy)."""
    swap: bool = False
    """The memory of those that may swap: how much follows from it."""

    def forbids(self, pod: Obj, given: Obj) -> str:
        """Why `pod` cannot have what it asks for in place of what it was given; empty when it can."""
        if self.swap and _changes_swap(pod, given):
            return "In-place resize of containers with swap is not supported."
        if qos_class(pod) != "Guaranteed":
            return ""
        if self.cpus and _changes(pod, given, "cpu"):
            return 'Resize is infeasible for Guaranteed Pods alongside CPU Manager policy "static"'
        if self.memory and _changes(pod, given, "memory"):
            return 'Resize is infeasible for Guaranteed Pods alongside Memory Manager policy "Static"'
        return ""


def _changes(pod: Obj, given: Obj, name: str) -> bool:
    return any(_asked(each, name) != _asked(before, name) for each, before in _pairs(pod, given))


def _changes_swap(pod: Obj, given: Obj) -> bool:
    """Whether a container that may swap gets other memory without being started again."""
    return any(
        _asked(each, "memory") != _asked(before, "memory")
        and {"resourceName": "memory", "restartPolicy": "RestartContainer"} not in (before.get("resizePolicy") or ())
        and (swap.may(pod, each) or swap.may(given, before))
        for each, before in _pairs(pod, given)
    )


def _pairs(pod: Obj, given: Obj) -> Iterator[tuple[Obj, Obj]]:
    for each in (*podspec.containers(pod), *podspec.init_containers(pod)):
        before = podspec.find_container(given, each["name"])
        if before is not None:
            yield each, before


@dataclass(frozen=True, slots=True)
class MemoryInUse:
    """What a pod has of memory, in bytes. Nothing is said of a container whose use is not known."""

    pod: int
    limit: int
    """Of the pod as a whole, now; 0 is none."""
    containers: Mapping[str, int]
    """By the container's id."""


def squeezes(pod: Obj, resizes: Sequence[Resize], limit: int) -> bool:
    """Whether the pod, now held to `limit` (0: not at all), or a container of it is to get along with less memory."""
    wanted = pod_cgroup(pod).memory or 0
    return (wanted > 0 and (not limit or wanted < limit)) or any(each.squeezes for each in resizes)


def too_small(pod: Obj, resizes: Sequence[Resize], memory: MemoryInUse) -> str:
    """Why memory cannot be taken away: more is in use than would be left, and the kernel would have to kill for it.
    Empty when it can."""
    faults = []
    wanted = pod_cgroup(pod).memory or 0
    if 0 < wanted <= memory.pod and (not memory.limit or wanted < memory.limit):
        faults.append(f"attempting to set pod memory limit ({wanted}) below current usage ({memory.pod})")
    for each in resizes:
        used = memory.containers.get(each.container_id)
        if each.squeezes and used is None:
            faults.append(f'missing container "{each.name}" memory usage')
        elif each.squeezes and used is not None and used >= each.memory:
            faults.append(
                f'attempting to set container "{each.name}" memory limit ({each.memory}) below current usage ({used})'
            )
    if not faults:
        return ""
    return f"cannot decrease memory limits: {faults[0] if len(faults) == 1 else '[' + ', '.join(faults) + ']'}"


def _asked(container: Obj, name: str) -> Quantity:
    return requests_of(container).get(name, ZERO)


@dataclass(slots=True)
class Resizing:
    allocation: Allocation
    _pending: Obj | None = None
    _in_progress: Obj | None = None

    @property
    def conditions(self) -> Sequence[Obj]:
        return tuple(each for each in (self._pending, self._in_progress) if each is not None)

    @property
    def waits(self) -> bool:
        """Whether the pod would like more than it has."""
        return self._pending is not None

    def consider(
        self,
        pod: Obj,
        never: Callable[[Obj, Obj], str],
        shortage: Callable[[Obj], str],
        record: Record,
        now: datetime,
    ) -> bool:
        """Grant what the specification asks for, if the node has it. `never` tells why it cannot be granted to the pod
        as it is now, `shortage` what there is too little of. Returns whether the allocation changed."""
        if self.allocation.fits(pod):
            self._pending = None
            return False
        impossible = never(pod, self.allocation.applied_to(pod))
        lacking = impossible or shortage(pod)
        if lacking:
            reason = "Infeasible" if impossible else "Deferred"
            generation = pod["metadata"].get("generation") or 0
            news = self._pending is None or self._pending.get("observedGeneration") != generation
            self._pending = _condition(PENDING, reason, lacking, pod, self._pending, now)
            if news:
                text = f"Pod resize {reason}: {summary(pod, lacking)}"
                record(pod, None, "Warning", f"Resize{reason}", text)
            return False
        self._pending = None
        self.allocation.take(pod)
        self._in_progress = _condition(IN_PROGRESS, "", "", pod, None, now)
        record(pod, None, "Normal", "ResizeStarted", f"Pod resize started: {summary(pod)}")
        return True

    def due(self, allocated: Obj, observed: PodObservation) -> list[Resize]:
        """The running containers that do not have what was granted."""
        return pending_resizes(allocated, observed, self.allocation.actuated)

    def note(self, pod: Obj, allocated: Obj, observed: PodObservation, record: Record, now: datetime) -> None:
        """See whether a resize is over, or was going on when the kubelet was restarted."""
        due = self.due(allocated, observed)
        under_way = self.allocation.whole_due or any(each.name in self.allocation.actuated for each in due)
        if under_way and self._in_progress is None:
            self._in_progress = _condition(IN_PROGRESS, "", "", pod, None, now)
        elif not under_way and self._in_progress is not None:
            self._in_progress = None
            record(pod, None, "Normal", "ResizeCompleted", f"Pod resize completed: {summary(allocated)}")

    def failed(self, pod: Obj, message: str, record: Record, now: datetime) -> None:
        """The runtime refused; it is tried again."""
        news = self._in_progress is None or self._in_progress.get("reason") != "Error"
        self._in_progress = _condition(IN_PROGRESS, "Error", message, pod, self._in_progress, now)
        if news:
            record(pod, None, "Warning", "ResizeError", f"Pod resize error: {summary(pod, message)}")


def _condition(kind: str, reason: str, message: str, pod: Obj, old: Obj | None, now: datetime) -> Obj:
    same = old is not None and old.get("reason", "") == reason
    made: Obj = {
        "type": kind,
        "status": "True",
        "lastProbeTime": rfc3339(now),
        "lastTransitionTime": old["lastTransitionTime"] if same and old else rfc3339(now),
    }
    generation = pod["metadata"].get("generation")
    if generation:
        made["observedGeneration"] = generation
    if reason:
        made["reason"] = reason
    if message:
        made["message"] = message
    return made
