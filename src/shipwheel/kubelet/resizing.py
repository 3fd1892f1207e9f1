"""How far a pod's resize is: what its conditions and events tell.

`PodResizePending` (Deferred) while the node has no room for what is asked; `PodResizeInProgress` from the moment it
is granted until every running container has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj
from shipwheel.kubelet.allocation import Allocation, Resize, pending_resizes, summary
from shipwheel.kubelet.observed import PodObservation
from shipwheel.kubelet.services import Record

PENDING = "PodResizePending"
IN_PROGRESS = "PodResizeInProgress"


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

    def consider(self, pod: Obj, shortage: Callable[[Obj], str], record: Record, now: datetime) -> bool:
        """Grant what the specification asks for, if the node has it. Returns whether the allocation changed."""
        if self.allocation.fits(pod):
            self._pending = None
            return False
        lacking = shortage(pod)
        if lacking:
            generation = pod["metadata"].get("generation") or 0
            news = self._pending is None or self._pending.get("observedGeneration") != generation
            self._pending = _condition(PENDING, "Deferred", lacking, pod, self._pending, now)
            if news:
                text = f"Pod resize Deferred: {summary(pod, lacking)}"
                record(pod, None, "Warning", "ResizeDeferred", text)
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
