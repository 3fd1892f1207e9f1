"""The quality of service that a pod gets, by what its containers ask for.

Guaranteed: everything is limited and requested alike. BestEffort: nothing is asked. Burstable: anything between.
Only CPU and memory count.
"""

from __future__ import annotations

from shipwheel.api.meta import Obj
from shipwheel.api.quantity import Quantity, parse

_COUNTED = ("cpu", "memory")


def qos_class(pod: Obj) -> str:
    """`Guaranteed`, `Burstable` or `BestEffort` (of `spec`; the status is not looked at)."""
    spec = pod["spec"]
    whole = spec.get("resources")
    if whole is not None:
        asking = [whole] if whole.get("requests") or whole.get("limits") else []
        everything_limited = _limits_all(whole) if whole.get("limits") else True
    else:
        containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        asking = [container.get("resources") or {} for container in containers]
        everything_limited = all(map(_limits_all, asking))
    if not any(resources.get("requests") or resources.get("limits") for resources in asking):
        return "BestEffort"
    requests, limits = _sum(asking, "requests"), _sum(asking, "limits")
    if not requests and not limits:
        return "BestEffort"
    return "Guaranteed" if everything_limited and requests == limits else "Burstable"


def _limits_all(resources: Obj) -> bool:
    limits = resources.get("limits") or {}
    return all(name in limits and parse(limits[name]).nanos > 0 for name in _COUNTED)


def _sum(asking: list[Obj], field: str) -> dict[str, Quantity]:
    total: dict[str, Quantity] = {}
    for resources in asking:
        amounts = resources.get(field) or {}
        for name in _COUNTED:
            if name in amounts:
                quantity = parse(amounts[name])
                if quantity.nanos > 0:
                    total[name] = total[name] + quantity if name in total else quantity
    return total
