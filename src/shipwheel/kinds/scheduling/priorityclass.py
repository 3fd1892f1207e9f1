"""Priority classes: names for how much a pod matters."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, forbidden
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import Errors, check_fixed
from shipwheel.kinds.columns import AGE, NAME, number, text
from shipwheel.kinds.core.podspec import check_preemption_policy
from shipwheel.kinds.declare import older, served

_SYSTEM = "system-"
_SYSTEM_CLASSES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
_HIGHEST = 1_000_000_000
"""The most that a class of a user's can have."""


class PriorityClassStrategy(Strategy):
    def default(self, priority_class: Obj) -> None:
        if priority_class.get("preemptionPolicy") is None:
            priority_class["preemptionPolicy"] = "PreemptLowerPriority"

    def validate(self, priority_class: Obj) -> list[FieldError]:
        errors: Errors = []
        name, value = priority_class["metadata"].get("name", ""), priority_class.get("value", 0)
        if name.startswith(_SYSTEM):
            why = _not_of_the_system(name, value, bool(priority_class.get("globalDefault")))
            if why:
                detail = f"priority class names with '{_SYSTEM}' prefix are reserved for system use only. error: {why}"
                errors.append(forbidden("metadata.name", detail))
        elif value > _HIGHEST:
            detail = f"maximum allowed value of a user defined priority is {_HIGHEST}"
            errors.append(forbidden("value", detail))
        if priority_class.get("preemptionPolicy") is not None:
            check_preemption_policy(priority_class["preemptionPolicy"], "preemptionPolicy", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        if new.get("value", 0) != old.get("value", 0):
            errors.append(forbidden("value", "may not be changed in an update."))
        check_fixed(new, old, "preemptionPolicy", errors)
        return errors


def _not_of_the_system(name: str, value: int, is_global_default: bool) -> str:
    """Why a class is none of the two that every cluster has; empty when it is."""
    if name not in _SYSTEM_CLASSES:
        return f"{name} is not a known system priority class"
    if value != _SYSTEM_CLASSES[name]:
        return f"value of {name} PriorityClass must be {_SYSTEM_CLASSES[name]}"
    return f"globalDefault of {name} PriorityClass must be false" if is_global_default else ""


RESOURCES = (
    Resource(
        kind="PriorityClass",
        plural="priorityclasses",
        singular="priorityclass",
        short_names=("pc",),
        namespaced=False,
        versions=(
            served("scheduling.k8s.io", "v1", "PriorityClass"),
            older(
                "scheduling.k8s.io",
                "v1beta1",
                "PriorityClass",
                since="1.14",
                until="1.22",
                replacement="scheduling.k8s.io/v1",
            ),
        ),
        strategy=PriorityClassStrategy(),
        columns=(
            NAME,
            Column("Value", number("value"), type="integer"),
            Column("Global-Default", lambda obj, now: bool(obj.get("globalDefault")), type="boolean"),
            AGE,
            Column("PreemptionPolicy", text("preemptionPolicy")),
        ),
    ),
)
