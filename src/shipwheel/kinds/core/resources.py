"""Resources: what their names mean, and what may be asked of them.

A resource is native (`cpu`, `hugepages-2Mi`) or extended (`example.com/gpu`). Extended ones and huge pages are
whole things that are not overcommitted: a request for them equals the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache

from shipwheel.api.errors import (
    FieldError,
    FieldErrorType,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
)
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_qualified_name
from shipwheel.api.quantity import Quantity, QuantityError, parse
from shipwheel.kinds.checks import NEGATIVE, Errors, check_label

HUGE_PAGES = "hugepages-"
QUOTA_HUGE_PAGES = "requests.hugepages-"
REQUESTS = "requests."
_NATIVE_DOMAIN = "kubernetes.io/"
_MILLI = 10**6

CONTAINER_RESOURCES = frozenset(("cpu", "memory", "ephemeral-storage"))
POD_LEVEL_RESOURCES = ("cpu", "memory")
"""What can be asked for a pod as a whole (KEP-2837), besides huge pages."""
INTEGER_RESOURCES = frozenset(
    (
        "pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
        "persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
    )
)  # fmt: skip
QUOTA_RESOURCES = INTEGER_RESOURCES | frozenset(
    (
        "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage",
        "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage",
    )
)  # fmt: skip
STANDARD_RESOURCES = QUOTA_RESOURCES | {"storage"}


def is_huge_page(name: str) -> bool:
    return name.startswith(HUGE_PAGES)


def is_native(name: str) -> bool:
    return "/" not in name or _NATIVE_DOMAIN in name


def is_extended(name: str) -> bool:
    if is_native(name) or name.startswith(REQUESTS):
        return False
    return not is_qualified_name(REQUESTS + name)


def is_overcommit_allowed(name: str) -> bool:
    return is_native(name) and not is_huge_page(name)


def is_integer_resource(name: str) -> bool:
    return name in INTEGER_RESOURCES or is_extended(name)


def is_quota_huge_page(name: str) -> bool:
    return name.startswith((HUGE_PAGES, QUOTA_HUGE_PAGES))


def is_standard_resource(name: str) -> bool:
    return name in STANDARD_RESOURCES or is_quota_huge_page(name)


def is_pod_level_resource(name: str) -> bool:
    return name in POD_LEVEL_RESOURCES or is_huge_page(name)


# Defaults


@lru_cache(maxsize=1024)
def _rounded(text: str | int | float) -> str | int | float:
    """The quantity in whole thousandths, as the API keeps resource lists."""
    quantity = parse(text)
    if quantity.nanos % _MILLI == 0:
        return text
    return str(Quantity(-(-quantity.nanos // _MILLI) * _MILLI, quantity.format))


def default_resource_list(resources: Obj | None) -> None:
    """Round what is finer than a thousandth."""
    for name, value in (resources or {}).items():
        rounded = _rounded(value)
        if rounded is not value:
            resources[name] = rounded  # type: ignore[index]


def default_requests_to_limits(resources: Obj) -> None:
    """What is limited but not requested is requested up to the limit."""
    limits = resources.get("limits")
    if not limits:
        return
    requests = resources.get("requests")
    if not requests:
        resources["requests"] = dict(limits)
        return
    for name, value in limits.items():
        requests.setdefault(name, value)


# Validation


@lru_cache(maxsize=1024)
def _name_complaints(name: str) -> tuple[str, ...]:
    """What is wrong with a resource's name in any place."""
    complaints = is_qualified_name(name)
    if complaints:
        return tuple(complaints)
    if "/" not in name and not is_standard_resource(name):
        return ("must be a standard resource type or fully qualified",)
    return ()


@lru_cache(maxsize=1024)
def _container_complaints(name: str) -> tuple[str, ...]:
    complaints = _name_complaints(name)
    if "/" not in name:
        if name not in CONTAINER_RESOURCES and not is_huge_page(name):
            return (*complaints, "must be a standard resource for containers")
    elif not is_native(name) and not is_extended(name):
        return (*complaints, "doesn't follow extended resource name standard")
    return complaints


def check_resource_name(name: str, path: str, errors: Errors) -> None:
    for complaint in _name_complaints(name):
        errors.append(invalid(path, name, complaint))


def check_container_resource_name(name: str, path: str, errors: Errors) -> None:
    for complaint in _container_complaints(name):
        errors.append(invalid(path, name, complaint))


def check_pod_resource_name(name: str, path: str, errors: Errors) -> None:
    complaints = _name_complaints(name)
    for complaint in complaints:
        errors.append(invalid(path, name, complaint))
    if not complaints and not is_pod_level_resource(name):
        errors.append(not_supported(path, name, ("cpu", "hugepages-", "memory")))


@lru_cache(maxsize=4096)
def _quantity_complaints(name: str, text: str) -> tuple[str, ...]:
    quantity = parse(text)
    complaints = [NEGATIVE] if quantity.nanos < 0 else []
    if is_integer_resource(name) and quantity.milli_value() % 1000:
        complaints.append("must be an integer")
    if is_huge_page(name) and not _is_whole_pages(name, quantity):
        complaints.append(f"{quantity} is not positive integer multiple of {name}")
    return tuple(complaints)


def _is_whole_pages(name: str, quantity: Quantity) -> bool:
    try:
        page = parse(name.removeprefix(HUGE_PAGES)).value()
    except QuantityError:
        return False
    return page > 0 and quantity.value() % page == 0


def check_resource_quantity(name: str, value: str, path: str, errors: Errors) -> None:
    """A quantity that makes sense for its resource: not negative, whole where things are whole."""
    for complaint in _quantity_complaints(name, value):
        errors.append(invalid(path, value, complaint))


def check_resource_requirements(
    resources: Obj,
    path: str,
    errors: Errors,
    *,
    claims: Collection[str] = (),
    check_name: Callable[[str, str, Errors], None] = check_container_resource_name,
) -> None:
    """Requests and limits. `claims` are the names of the pod's resource claims."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    names = {*limits, *requests}
    for name, value in limits.items():
        here = f"{path}.limits[{name}]"
        check_name(name, here, errors)
        check_resource_quantity(name, value, here, errors)
    for name, value in requests.items():
        here = f"{path}.requests[{name}]"
        check_name(name, here, errors)
        check_resource_quantity(name, value, here, errors)
        _check_request_against_limit(name, value, limits.get(name), path, errors)
    if any(map(is_huge_page, names)) and "cpu" not in names and "memory" not in names:
        errors.append(forbidden(path, "HugePages require cpu or memory"))
    if resources.get("claims"):
        _check_claims(resources["claims"], claims, f"{path}.claims", errors)


def _check_request_against_limit(name: str, request: str, limit: str | None, path: str, errors: Errors) -> None:
    if limit is None:
        if not is_overcommit_allowed(name):
            detail = "Limit must be set for non overcommitable resources"
            errors.append(required(f"{path}.limits", detail))
        return
    if request == limit:
        return
    asked, allowed = parse(request), parse(limit)
    if asked != allowed and not is_overcommit_allowed(name):
        errors.append(invalid(f"{path}.requests", request, f"must be equal to {name} limit of {limit}"))
    elif asked > allowed:
        detail = f"must be less than or equal to {name} limit of {limit}"
        errors.append(invalid(f"{path}.requests", request, detail))


def _check_claims(uses: list[Obj], claims: Collection[str], path: str, errors: Errors) -> None:
    seen: set[str] = set()
    for index, use in enumerate(uses):
        here = f"{path}[{index}]"
        name, request = use.get("name", ""), use.get("request", "")
        if not name:
            errors.append(required(here))
        elif name in seen:
            errors.append(duplicate(here, name))
        else:
            key = f"{name}/{request}" if request else name
            if request:
                check_label(request, f"{here}.request", errors)
            if key in seen:
                errors.append(duplicate(here, key))
            elif not request and any(each.startswith(f"{name}/") for each in seen):
                errors.append(duplicate(here, name))
            seen.add(key)
        if name not in claims:
            known = f": {', '.join(sorted(claims))}" if claims else " which is empty"
            detail = f"must be one of the names in pod.spec.resourceClaims{known}"
            errors.append(FieldError(FieldErrorType.NOT_FOUND, here, detail, name))
