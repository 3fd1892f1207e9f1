"""Entries of `status.conditions` (API conventions, "Typical status properties")."""

from __future__ import annotations

from shipwheel.api.meta import Obj


def set_condition(status: Obj, condition: Obj, *, now: str) -> None:
    """Add a condition, or replace the one of its type. Its `lastTransitionTime` is when its status last changed:
    `now`, or what it was if the status stays the same."""
    conditions = list(status.get("conditions") or ())
    condition = {**condition, "lastTransitionTime": now}
    for index, old in enumerate(conditions):
        if old.get("type") == condition["type"]:
            if old.get("status") == condition["status"] and old.get("lastTransitionTime"):
                condition["lastTransitionTime"] = old["lastTransitionTime"]
            conditions[index] = condition
            break
    else:
        conditions.append(condition)
    status["conditions"] = conditions


def renew_condition(status: Obj, condition: Obj) -> bool:
    """Add a condition or replace the one of its type, as workloads do it: only another status or reason is news (not
    another message), and the newest comes last. Tells whether anything changed."""
    conditions = status.get("conditions") or []
    current = next((entry for entry in conditions if entry["type"] == condition["type"]), None)
    same_status = current is not None and current["status"] == condition["status"]
    if current is not None and same_status:
        if current.get("reason") == condition.get("reason"):
            return False
        condition = {**condition, "lastTransitionTime": current.get("lastTransitionTime")}
    status["conditions"] = [entry for entry in conditions if entry["type"] != condition["type"]] + [condition]
    return True


def remove_condition(status: Obj, kind: str) -> None:
    conditions = [entry for entry in status.get("conditions") or () if entry["type"] != kind]
    if conditions:
        status["conditions"] = conditions
    else:
        status.pop("conditions", None)
