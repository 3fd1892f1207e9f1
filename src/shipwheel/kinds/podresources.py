"""What a pod as a whole asks for: the sums that scheduling, quotas, limits and QoS are about (KEP-753, KEP-2837).

Containers and sidecars run together and add up; init containers run one after the other beside the sidecars started
before them, so the largest counts. What is said for the whole pod stands for the sum. Overhead comes on top.
"""

from __future__ import annotations

from shipwheel.api.meta import Obj
from shipwheel.api.quantity import Quantity, parse

Resources = dict[str, Quantity]

_POD_LEVEL = ("cpu", "memory")


def supports_pod_level(resource: str) -> bool:
    """Whether a resource can be asked for by the pod as a whole."""
    return resource in _POD_LEVEL or resource.startswith("hugepages-")


def pod_requests(pod: Obj, *, overhead: bool = True) -> Resources:
    """The sum of requests by resource."""
    spec = pod["spec"]
    total = aggregate(spec, "requests")
    for resource, quantity in _of(spec, "requests").items():
        if supports_pod_level(resource):
            total[resource] = quantity
    if overhead:
        _add(total, _parsed(spec.get("overhead")))
    return total


def pod_limits(pod: Obj, *, overhead: bool = True) -> Resources:
    """The sum of limits by resource; overhead is added only to what has a limit."""
    spec = pod["spec"]
    total = aggregate(spec, "limits")
    for resource, quantity in _of(spec, "limits").items():
        if supports_pod_level(resource):
            total[resource] = quantity
    if overhead:
        for resource, quantity in _parsed(spec.get("overhead")).items():
            if resource in total:
                total[resource] = total[resource] + quantity
    return total


def aggregate(spec: Obj, what: str) -> Resources:
    """What the containers need together, `what` being `requests` or `limits`."""
    total: Resources = {}
    for container in spec.get("containers") or ():
        _add(total, _of(container, what))
    sidecars: Resources = {}
    peak: Resources = {}
    for container in spec.get("initContainers") or ():
        wanted = _of(container, what)
        if container.get("restartPolicy") == "Always":
            _add(total, wanted)
            _add(sidecars, wanted)
            running = sidecars
        else:
            running = dict(wanted)
            _add(running, sidecars)
        _raise_to(peak, running)
    _raise_to(total, peak)
    return total


def _of(holder: Obj, what: str) -> Resources:
    return _parsed((holder.get("resources") or {}).get(what))


def _parsed(amounts: dict[str, str] | None) -> Resources:
    return {resource: parse(text) for resource, text in amounts.items()} if amounts else {}


def _add(total: Resources, more: Resources) -> None:
    for resource, quantity in more.items():
        total[resource] = total[resource] + quantity if resource in total else quantity


def _raise_to(total: Resources, least: Resources) -> None:
    for resource, quantity in least.items():
        if resource not in total or total[resource] < quantity:
            total[resource] = quantity
