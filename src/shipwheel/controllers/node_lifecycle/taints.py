"""Which taints a node's conditions mean."""

from __future__ import annotations

from collections.abc import Iterable

from shipwheel.api.meta import Obj

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"

_BY_CONDITION = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
}
_OURS = frozenset({UNSCHEDULABLE, *_BY_CONDITION.values()})
_LABELS = (
    ("kubernetes.io/os", "beta.kubernetes.io/os"),
    ("kubernetes.io/arch", "beta.kubernetes.io/arch"),
)


def no_schedule_taints(node: Obj, now: str) -> list[Obj] | None:
    """All taints of a node, those for scheduling made to agree with its conditions; None: they do already."""
    wanted = {
        taint
        for entry in (node.get("status") or {}).get("conditions") or ()
        if (taint := _BY_CONDITION.get((entry["type"], entry["status"])))
    }
    if node["spec"].get("unschedulable"):
        wanted.add(UNSCHEDULABLE)
    present = {
        taint["key"]
        for taint in node["spec"].get("taints") or ()
        if taint["effect"] == "NoSchedule" and taint["key"] in _OURS
    }
    add = [{"key": key, "effect": "NoSchedule", "timeAdded": now} for key in sorted(wanted - present)]
    return swapped(node, add, [(key, "NoSchedule") for key in present - wanted])


def no_execute_taints(node: Obj, ready: str, now: str) -> list[Obj] | None:
    """All taints of a node whose Ready condition has the status `ready`; None: they are as they should be."""
    wanted = {"False": NOT_READY, "Unknown": UNREACHABLE}.get(ready)
    other = {NOT_READY, UNREACHABLE} - {wanted}
    add = [{"key": wanted, "effect": "NoExecute", "timeAdded": now}] if wanted and not has(node, wanted) else []
    return swapped(node, add, [(key, "NoExecute") for key in other])


def has(node: Obj, key: str) -> bool:
    """There is such a NoExecute taint."""
    taints = node["spec"].get("taints") or ()
    return any(taint["key"] == key and taint["effect"] == "NoExecute" for taint in taints)


def swapped(node: Obj, add: Iterable[Obj], remove: Iterable[tuple[str, str]]) -> list[Obj] | None:
    """The node's taints with some added and some removed; None when that changes nothing."""
    old: list[Obj] = node["spec"].get("taints") or []
    gone = set(remove)
    taints = [taint for taint in old if (taint["key"], taint["effect"]) not in gone]
    taints += add
    return taints if taints != old else None


def missing_labels(node_labels: dict[str, str]) -> dict[str, str]:
    """The old names of labels that should be there beside the new ones."""
    return {
        old: node_labels[new] for new, old in _LABELS if new in node_labels and node_labels.get(old) != node_labels[new]
    }
