"""Whether a node is alive, by our own clock.

A kubelet's times are its own, so they are never compared with ours: what counts is when we last saw its
heartbeat or its lease *change*.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj, condition

_JUDGED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


@dataclass(frozen=True, slots=True)
class Health:
    """What was last seen of a node, and when (monotonic seconds)."""

    probed: float
    heartbeat: str | None
    """`lastHeartbeatTime` of its Ready condition; None when it has no such condition."""
    renewed: str
    """`renewTime` of its lease."""


def observe(known: Health | None, node: Obj, lease: Obj | None, now: float, age: float) -> Health:
    """Take in a node and its lease as they are now. `age`: seconds since the node was created, for one that has
    never reported anything."""
    ready = condition(node, "Ready")
    heartbeat = None if ready is None else ready.get("lastHeartbeatTime") or ""
    renewed = ((lease or {}).get("spec") or {}).get("renewTime") or ""
    if known is None:
        return Health(now - age if ready is None else now, heartbeat, renewed)
    if known.heartbeat != heartbeat or renewed > known.renewed:
        return Health(now, heartbeat, renewed)
    return known


def expired(health: Health, now: float, grace: float) -> bool:
    return now > health.probed + grace


def silent_conditions(node: Obj, now: datetime) -> list[Obj] | None:
    """The conditions of a node that has been silent too long; None when they say so already."""
    old: list[Obj] = (node.get("status") or {}).get("conditions") or []
    conditions = [_unknown(entry, now) if entry["type"] in _JUDGED else entry for entry in old]
    present = {entry["type"] for entry in old}
    for kind in _JUDGED:
        if kind not in present:
            conditions.append(
                {
                    "type": kind,
                    "status": "Unknown",
                    "lastHeartbeatTime": node["metadata"].get("creationTimestamp"),
                    "lastTransitionTime": rfc3339(now),
                    "reason": "NodeStatusNeverUpdated",
                    "message": "Kubelet never posted node status.",
                }
            )
    return conditions if conditions != old else None


def _unknown(entry: Obj, now: datetime) -> Obj:
    if entry["status"] == "Unknown":
        return entry
    changed: dict[str, Any] = {
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
        "lastTransitionTime": rfc3339(now),
    }
    return {**entry, **changed}


def as_if_probed(health: Health, now: float) -> Health:
    """Nothing was heard of anybody for a while, so nobody is to be judged by that time."""
    return replace(health, probed=now)
