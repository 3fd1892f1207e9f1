"""What happens in the cluster, as far as it may let a pod that was refused be placed after all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag

from shipwheel.api.meta import Obj


class Action(IntFlag):
    """What was done; of a change, which part."""

    ADD = 1
    DELETE = 2
    UPDATE_LABELS = 4
    UPDATE_TAINTS = 8
    UPDATE_ALLOCATABLE = 16
    UPDATE_CONDITION = 32
    UPDATE_ANNOTATION = 64
    SCALE_DOWN = 128
    UPDATE_TOLERATIONS = 256
    UPDATE_GATES = 512
    UPDATE_CLAIMS = 1024
    """The claims that are made for a pod have names."""
    UPDATE_FEATURES = 2048
    UPDATE = 4 | 8 | 16 | 32 | 64 | 128 | 256 | 512 | 1024 | 2048
    ALL = 4095


_LABELS = {
    Action.ADD: "Add",
    Action.DELETE: "Delete",
    Action.UPDATE_TAINTS: "UpdateNodeTaint",
    Action.UPDATE_ALLOCATABLE: "UpdateNodeAllocatable",
    Action.UPDATE_CONDITION: "UpdateNodeCondition",
    Action.UPDATE_ANNOTATION: "UpdateNodeAnnotation",
    Action.UPDATE_FEATURES: "UpdateNodeDeclaredFeature",
    Action.SCALE_DOWN: "UpdatePodScaleDown",
    Action.UPDATE_TOLERATIONS: "UpdatePodToleration",
    Action.UPDATE_GATES: "UpdatePodSchedulingGatesEliminated",
    Action.UPDATE_CLAIMS: "UpdatePodGeneratedResourceClaim",
}
"""What metrics call an action; a change of several parts is just an update."""


@dataclass(frozen=True, slots=True)
class ClusterEvent:
    """`resource` is the kind: `Node`, `PersistentVolumeClaim`, ..., `AssignedPod` for a pod that has a node, and
    `UnschedulablePod` for the very pod that waits."""

    resource: str
    action: Action
    old: Obj | None = None
    new: Obj | None = None

    @property
    def label(self) -> str:
        """As metrics call it: `NodeAdd`, `AssignedPodDelete`, `NodeUpdateNodeLabel`, ..."""
        if self.action == Action.UPDATE_LABELS:
            return f"{self.resource}Update{'Node' if self.resource == 'Node' else 'Pod'}Label"
        return self.resource + _LABELS.get(self.action, "Update")


Hint = Callable[[Obj, ClusterEvent], bool]
"""Whether an event may help a pod."""


@dataclass(frozen=True, slots=True)
class Interest:
    """Events that may undo a plugin's refusal; without a hint all of them may."""

    resource: str
    action: Action
    hint: Hint | None = None

    def helps(self, pod: Obj, event: ClusterEvent) -> bool:
        return (
            self.resource == event.resource
            and bool(self.action & event.action)
            and (self.hint is None or self.hint(pod, event))
        )


def node_changes(old: Obj, new: Obj) -> Action:
    """Which parts of a node that scheduling depends on have changed."""
    found = Action(0)
    if old["metadata"].get("labels") != new["metadata"].get("labels"):
        found |= Action.UPDATE_LABELS
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if before.get("taints") != after.get("taints") or before.get("unschedulable") != after.get("unschedulable"):
        found |= Action.UPDATE_TAINTS
    was, now = old.get("status") or {}, new.get("status") or {}
    if was.get("allocatable") != now.get("allocatable"):
        found |= Action.UPDATE_ALLOCATABLE
    if was.get("declaredFeatures") != now.get("declaredFeatures"):
        found |= Action.UPDATE_FEATURES
    return found
