"""Questions about pods that controllers share, and how a pod is made of a template.

All functions are pure; `now` is the wall time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from shipwheel.api.clock import parse_time
from shipwheel.api.meta import Obj, annotations_of, condition, is_being_deleted, is_condition_true

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

_PHASE_ORDER = {"Pending": 0, "Unknown": 1, "Running": 2}


def phase_of(pod: Obj) -> str:
    return (pod.get("status") or {}).get("phase", "")


def is_terminal(pod: Obj) -> bool:
    """Its containers have ended for good."""
    return phase_of(pod) in ("Succeeded", "Failed")


def is_active(pod: Obj) -> bool:
    return not is_terminal(pod) and not is_being_deleted(pod)


def is_terminating(pod: Obj) -> bool:
    """On its way out, but not there yet."""
    return not is_terminal(pod) and is_being_deleted(pod)


def is_ready(pod: Obj) -> bool:
    return is_condition_true(pod, "Ready")


def ready_since(pod: Obj) -> datetime | None:
    """When a ready pod became ready; None when it is not."""
    entry = condition(pod, "Ready")
    if entry is None or entry.get("status") != "True":
        return None
    return parse_time(entry["lastTransitionTime"]) if entry.get("lastTransitionTime") else None


def is_available(pod: Obj, min_ready_seconds: int, now: datetime) -> bool:
    """Ready, for at least `min_ready_seconds`."""
    if not is_ready(pod):
        return False
    if min_ready_seconds == 0:
        return True
    since = ready_since(pod)
    return since is not None and since + timedelta(seconds=min_ready_seconds) <= now


def next_availability(pods: Iterable[Obj], min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until the next of the pods that are ready but not yet available will be; None: there is none."""
    if min_ready_seconds == 0:
        return None
    waits = [
        (since + timedelta(seconds=min_ready_seconds) - now).total_seconds()
        for pod in pods
        if (since := ready_since(pod)) is not None and not is_available(pod, min_ready_seconds, now)
    ]
    return max(min(waits), 0.0) if waits else None


def deletion_cost(pod: Obj) -> int:
    """What its owner says it would cost to delete it first (KEP-2255); 0 when it says nothing sensible."""
    text = annotations_of(pod).get(DELETION_COST, "0")
    try:
        cost = int(text)
    except ValueError:
        return 0
    if text.startswith("+") or (len(text) > 1 and text.lstrip("-").startswith("0")):
        return 0
    return cost if -(2**31) <= cost < 2**31 else 0


def restarts(pod: Obj) -> tuple[int, int]:
    """The most restarts of any container, and of any sidecar."""
    status = pod.get("status") or {}
    sidecars = {
        container["name"]
        for container in pod["spec"].get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    }
    return (
        max((each.get("restartCount", 0) for each in status.get("containerStatuses") or ()), default=0),
        max(
            (
                each.get("restartCount", 0)
                for each in status.get("initContainerStatuses") or ()
                if each["name"] in sidecars
            ),
            default=0,
        ),
    )


def by_deletion_preference(pods: Sequence[Obj], related: Iterable[Obj], now: datetime) -> list[Obj]:
    """Pods in the order in which a replica set that is too big gives them up.

    First those that do least: not assigned, not running, not ready; then by deletion cost; then those that
    share a node with most of the `related` pods; then the ones ready for the shortest time, with most restarts,
    youngest. Times are compared on a logarithmic scale (KEP-2185), so that it is not always the same pods that
    live longest.
    """
    on_node: dict[str, int] = {}
    for pod in related:
        if is_active(pod):
            node = pod["spec"].get("nodeName", "")
            on_node[node] = on_node.get(node, 0) + 1

    def rank(pod: Obj) -> tuple[Any, ...]:
        node = pod["spec"].get("nodeName", "")
        regular, sidecar = restarts(pod)
        return (
            bool(node),
            _PHASE_ORDER.get(phase_of(pod), 0),
            is_ready(pod),
            deletion_cost(pod),
            -on_node.get(node, 0),
            _age_rank(ready_since(pod), now),
            -regular,
            -sidecar,
            _age_rank(_created(pod), now),
            pod["metadata"].get("uid", ""),
        )

    return sorted(pods, key=rank)


def _created(pod: Obj) -> datetime | None:
    text = pod["metadata"].get("creationTimestamp")
    return parse_time(text) if text else None


def _age_rank(since: datetime | None, now: datetime) -> int:
    """The binary logarithm of an age in nanoseconds; what has no age yet comes first."""
    if since is None:
        return -2
    nanoseconds = (now - since).total_seconds() * 1e9
    return int(math.log2(nanoseconds)) if nanoseconds > 0 else -1


def pod_from_template(template: Obj, owner_reference: Obj | None, name_prefix: str) -> Obj:
    """A pod to create: the template's labels, annotations, finalizers and spec, and a name to be generated."""
    meta = template.get("metadata") or {}
    metadata: Obj = {"generateName": generate_name_prefix(name_prefix)}
    for key in ("labels", "annotations", "finalizers"):
        if meta.get(key):
            metadata[key] = copy.copy(meta[key])
    if owner_reference:
        metadata["ownerReferences"] = [owner_reference]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec") or {}}


def generate_name_prefix(name: str) -> str:
    """`NAME-`, or the name itself where the dash would make it no valid prefix."""
    from shipwheel.api.names import is_dns1123_subdomain

    prefix = f"{name}-"
    return name if is_dns1123_subdomain(f"{prefix}x") else prefix
