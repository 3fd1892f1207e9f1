"""What Endpoints and EndpointSlices have in common: which pods a Service reaches, and at which ports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from shipwheel.api.meta import Obj, condition, is_being_deleted, labels_of, name_of
from shipwheel.controllers import pods as podutil

HEADLESS = "service.kubernetes.io/headless"
LAST_CHANGE = "endpoints.kubernetes.io/last-change-trigger-time"
LEADER = "control-plane.alpha.kubernetes.io/leader"
"""Endpoints with this annotation are a lock of the old kind, and no Service's."""


def has_endpoints(service: Obj) -> bool:
    """Its endpoints are ours to make: it selects pods and is no alias."""
    return service["spec"].get("type") != "ExternalName" and service["spec"].get("selector") is not None


def is_headless(service: Obj) -> bool:
    return service["spec"].get("clusterIP") in (None, "", "None")


def selects(service: Obj, labels: dict[str, str]) -> bool:
    selector = service["spec"].get("selector")
    return selector is not None and all(labels.get(key) == value for key, value in selector.items())


def is_reachable(pod: Obj, *, even_if_terminating: bool) -> bool:
    """It has an address and has not ended."""
    if podutil.is_terminal(pod) or not addresses_of(pod):
        return False
    return even_if_terminating or not is_being_deleted(pod)


def addresses_of(pod: Obj) -> list[str]:
    status = pod.get("status") or {}
    addresses = [each["ip"] for each in status.get("podIPs") or () if each.get("ip")]
    return addresses or ([status["podIP"]] if status.get("podIP") else [])


def hostname_for(pod: Obj, service: Obj) -> str:
    """The pod's own name in DNS under a Service that governs its subdomain; empty when it has none."""
    spec = pod["spec"]
    governed = spec.get("subdomain") == name_of(service)
    return spec.get("hostname", "") if spec.get("hostname") and governed else ""


def find_port(pod: Obj, port: Obj) -> int | None:
    """The number behind a Service port on a pod; None when the pod has no port of that name."""
    target = port.get("targetPort", port.get("port"))
    if isinstance(target, int):
        return target
    spec = pod["spec"]
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    for container in (*(spec.get("containers") or ()), *sidecars):
        for declared in container.get("ports") or ():
            same_protocol = declared.get("protocol", "TCP") == port.get("protocol", "TCP")
            if declared.get("name") == target and same_protocol:
                return declared["containerPort"]
    return None


def services_for(services: Iterable[Obj], *label_sets: dict[str, str]) -> list[Obj]:
    """The services that select any of these labels."""
    return [each for each in services if any(selects(each, labels) for labels in label_sets)]


def affects_endpoints(new: Obj, old: Obj) -> bool:
    """A change of a pod that endpoints can show."""
    return _facts(new) != _facts(old)


def _facts(pod: Obj) -> tuple[Any, ...]:
    spec = pod["spec"]
    return (
        labels_of(pod),
        addresses_of(pod),
        is_being_deleted(pod),
        podutil.is_ready(pod),
        podutil.is_terminal(pod),
        spec.get("nodeName"),
        spec.get("hostname"),
        spec.get("subdomain"),
        pod["metadata"].get("uid"),
    )


class TriggerTimes:
    """When what changed the endpoints happened (for the programming-latency objective): the earliest of the
    changes since the last look at a Service. It is a little memory; everything else here is pure."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, dict[str, str]]] = {}

    def of(self, key: str, service: Obj, pods: Sequence[Obj]) -> str:
        """An RFC 3339 time, empty when nothing that has a time changed."""
        created = service["metadata"].get("creationTimestamp") or ""
        times = {name_of(pod): when for pod in pods if (when := _ready_transition(pod))}
        known = self._known.get(key)
        self._known[key] = (created, times)
        if known is None:
            return created
        changed = [when for name, when in times.items() if when > known[1].get(name, "")]
        if created > known[0]:
            changed.append(created)
        return min(changed, default="")

    def forget(self, key: str) -> None:
        self._known.pop(key, None)


def _ready_transition(pod: Obj) -> str:
    ready = condition(pod, "Ready")
    return (ready.get("lastTransitionTime") or "") if ready else ""
