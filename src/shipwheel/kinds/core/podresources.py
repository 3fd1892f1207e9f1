"""Resources of a pod as a whole (KEP-2837): what it asks for, beside or instead of what its containers ask for."""

from __future__ import annotations

from shipwheel.api.errors import forbidden, invalid
from shipwheel.api.meta import Obj
from shipwheel.api.quantity import parse
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.core.resources import (
    check_pod_resource_name,
    check_resource_requirements,
    is_huge_page,
    is_overcommit_allowed,
    is_pod_level_resource,
)
from shipwheel.kinds.podresources import aggregate

# Defaults


def default_pod_resources(spec: Obj) -> None:
    """Fill in what the pod's own resources leave out, where they say something at all."""
    resources = spec.get("resources")
    if not resources:
        return
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    if requests or limits:
        limits = dict(limits)
        for name, quantity in aggregate(spec, "limits").items():
            if is_huge_page(name) and name not in requests:
                limits.setdefault(name, str(quantity))
        if limits:
            resources["limits"] = limits
    if not limits:
        return
    requests = dict(requests)
    for name, quantity in aggregate(spec, "requests").items():
        if is_pod_level_resource(name) and is_overcommit_allowed(name):
            requests.setdefault(name, str(quantity))
    for name, limit in limits.items():
        if is_pod_level_resource(name):
            requests.setdefault(name, limit)
    if requests:
        resources["requests"] = requests


# Validation


def check_pod_resources(spec: Obj, path: str, errors: Errors) -> None:
    resources = spec["resources"]
    if (spec.get("os") or {}).get("name") == "windows":
        errors.append(forbidden(path, "may not be set for a windows pod"))
        return
    if resources.get("claims") is not None:
        detail = "claims may not be set for Resources at pod-level"
        errors.append(forbidden(f"{path}.claims", detail))
    check_resource_requirements(resources, path, errors, check_name=check_pod_resource_name)
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, needed in aggregate(spec, "requests").items():
        if name in requests and needed > parse(requests[name]):
            detail = f"must be greater than or equal to aggregate container requests of {needed}"
            errors.append(invalid(f"{path}.requests[{name}]", requests[name], detail))
    for name, needed in aggregate(spec, "limits").items():
        if is_huge_page(name) and name in limits and needed > parse(limits[name]):
            detail = f"must be greater than or equal to aggregate container limits of {needed}"
            errors.append(invalid(f"{path}.limits[{name}]", limits[name], detail))
    for index, container in enumerate(spec.get("containers") or ()):
        for name, limit in ((container.get("resources") or {}).get("limits") or {}).items():
            if name in limits and parse(limit) > parse(limits[name]):
                detail = f"must be less than or equal to pod limits of {limits[name]}"
                errors.append(invalid(f"{path}.containers[{index}][{name}].limits", limit, detail))
