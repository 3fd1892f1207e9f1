"""LimitRanger: a namespace's LimitRanges give containers their defaults, and bounds to pods, containers and claims."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.quantity import Quantity, parse
from shipwheel.apiserver.admission.chain import Attempt, Plugin
from shipwheel.kinds.podresources import Resources, pod_limits, pod_requests

ANNOTATION = "kubernetes.io/limit-ranger"
_GROUPS = (("containers", "container"), ("initContainers", "init container"))


class LimitRanger(Plugin):
    name = "LimitRanger"
    kinds = frozenset({GroupResource("", "pods"), GroupResource("", "persistentvolumeclaims")})

    def __init__(self, ranges: Callable[[str], Sequence[Obj]]) -> None:
        self._ranges = ranges

    async def mutate(self, attempt: Attempt) -> None:
        if attempt.operation == "CREATE" and attempt.concerns("", "pods") and attempt.obj is not None:
            for limit_range in self._ranges(attempt.namespace):
                apply_defaults(limit_range, attempt.obj)

    async def validate(self, attempt: Attempt) -> None:
        obj = attempt.obj
        if obj is None or (attempt.old or {}).get("metadata", {}).get("deletionTimestamp"):
            return
        complaints: Callable[[Obj, Obj], Iterator[str]]
        if attempt.concerns("", "pods", "resize") or (attempt.operation == "CREATE" and attempt.concerns("", "pods")):
            complaints = pod_complaints
        elif attempt.concerns("", "persistentvolumeclaims"):
            complaints = claim_complaints
        else:
            return
        for limit_range in self._ranges(attempt.namespace):
            found = list(complaints(limit_range, obj))
            if found:
                raise attempt.forbid(found[0] if len(found) == 1 else f"[{', '.join(found)}]")


def apply_defaults(limit_range: Obj, pod: Obj) -> None:
    """Give containers the requests and limits that they do not say, and note which in an annotation."""
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    for limit in limit_range["spec"].get("limits") or ():
        if limit.get("type") == "Container":
            requests |= limit.get("defaultRequest") or {}
            limits |= limit.get("default") or {}
    notes: list[str] = []
    for field, label in _GROUPS:
        for container in pod["spec"].get(field) or ():
            for what, defaults in (("request", requests), ("limit", limits)):
                added = _fill(container, f"{what}s", defaults)
                if added:
                    notes.append(f"{', '.join(added)} {what} for {label} {container['name']}")
    if notes:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations[ANNOTATION] = "LimitRanger plugin set: " + "; ".join(notes)


def _fill(container: Obj, what: str, defaults: dict[str, str]) -> list[str]:
    if not defaults:
        return []
    amounts = container.setdefault("resources", {}).setdefault(what, {})
    missing = sorted(resource for resource in defaults if resource not in amounts)
    for resource in missing:
        amounts[resource] = defaults[resource]
    return missing


def pod_complaints(limit_range: Obj, pod: Obj) -> Iterator[str]:
    """Where a pod leaves the bounds of a LimitRange."""
    for limit in limit_range["spec"].get("limits") or ():
        kind = limit.get("type")
        if kind == "Container":
            for field, _ in _GROUPS:
                for container in pod["spec"].get(field) or ():
                    resources = container.get("resources") or {}
                    yield from _bounds(
                        kind, limit, _parsed(resources.get("requests")), _parsed(resources.get("limits"))
                    )
        elif kind == "Pod":
            yield from _bounds(kind, limit, pod_requests(pod, overhead=False), pod_limits(pod, overhead=False))


def claim_complaints(limit_range: Obj, claim: Obj) -> Iterator[str]:
    """Where a claim's request leaves the bounds of a LimitRange."""
    requests = _parsed((claim["spec"].get("resources") or {}).get("requests"))
    for limit in limit_range["spec"].get("limits") or ():
        kind = limit.get("type")
        if kind != "PersistentVolumeClaim":
            continue
        for resource, text in (limit.get("min") or {}).items():
            yield from _minimum(kind, resource, text, requests, {})
        for resource, text in (limit.get("max") or {}).items():
            request = requests.get(resource)
            if request is None:
                yield f"maximum {resource} usage per {kind} is {text}.  No request is specified"
            elif request > parse(text):
                yield f"maximum {resource} usage per {kind} is {text}, but request is {request}"


def _bounds(kind: str, limit: Obj, requests: Resources, limits: Resources) -> Iterator[str]:
    for resource, text in (limit.get("min") or {}).items():
        yield from _minimum(kind, resource, text, requests, limits)
    for resource, text in (limit.get("max") or {}).items():
        yield from _maximum(kind, resource, text, requests, limits)
    for resource, text in (limit.get("maxLimitRequestRatio") or {}).items():
        yield from _ratio(kind, resource, text, requests, limits)


def _minimum(kind: str, resource: str, text: str, requests: Resources, limits: Resources) -> Iterator[str]:
    least = parse(text)
    head = f"minimum {resource} usage per {kind} is {text}"
    request, limit = requests.get(resource), limits.get(resource)
    if request is None:
        yield f"{head}.  No request is specified"
    elif request < least:
        yield f"{head}, but request is {request}"
    elif limit is not None and limit < least:
        yield f"{head}, but limit is {limit}"


def _maximum(kind: str, resource: str, text: str, requests: Resources, limits: Resources) -> Iterator[str]:
    most = parse(text)
    head = f"maximum {resource} usage per {kind} is {text}"
    request, limit = requests.get(resource), limits.get(resource)
    if limit is None:
        yield f"{head}.  No limit is specified"
    elif limit > most:
        yield f"{head}, but limit is {limit}"
    elif request is not None and request > most:
        yield f"{head}, but request is {request}"


def _ratio(kind: str, resource: str, text: str, requests: Resources, limits: Resources) -> Iterator[str]:
    most = parse(text)
    head = f"{resource} max limit to request ratio per {kind} is {text}"
    request, limit = requests.get(resource), limits.get(resource)
    if not request:
        yield f"{head}, but no request is specified or request is 0"
    elif not limit:
        yield f"{head}, but no limit is specified or limit is 0"
    elif float(limit) / float(request) > float(most):
        yield f"{head}, but provided ratio is {float(limit) / float(request):f}"


def _parsed(amounts: dict[str, str] | None) -> dict[str, Quantity]:
    return {resource: parse(text) for resource, text in (amounts or {}).items()}
