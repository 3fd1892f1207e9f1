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
