"""Resource quotas: how much a namespace may hold."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, invalid, required
from shipwheel.api.meta import Obj
from shipwheel.api.quantity import parse
from shipwheel.api.resource import Column, Resource
from shipwheel.kinds.checks import IMMUTABLE, NEGATIVE, Errors
from shipwheel.kinds.columns import AGE, NAME
from shipwheel.kinds.core.resources import (
    QUOTA_RESOURCES,
    check_resource_name,
    default_resource_list,
    is_integer_resource,
    is_quota_huge_page,
)
from shipwheel.kinds.declare import STATUS, served
from shipwheel.kinds.strategies import BuiltinStrategy

_PODS = {"pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"}
_OF_SCOPE = {
    "Terminating": _PODS,
    "NotTerminating": _PODS,
    "NotBestEffort": _PODS,
    "PriorityClass": _PODS,
    "CrossNamespacePodAffinity": _PODS,
    "BestEffort": {"pods"},
    "VolumeAttributesClass": {"persistentvolumeclaims", "requests.storage"},
}
"""The scopes, and what each can be applied to."""
_EXISTS_ONLY = ("BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity")
_OPPOSITES = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_MUST_EXIST = (
    "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)


class ResourceQuotaStrategy(BuiltinStrategy):
    returns_deleted = True
    tracks_generation = False

    def default(self, quota: Obj) -> None:
        default_resource_list((quota.get("spec") or {}).get("hard"))
        status = quota.get("status") or {}
        default_resource_list(status.get("hard"))
        default_resource_list(status.get("used"))

    def validate(self, quota: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = quota.get("spec") or {}
        _check_amounts(spec.get("hard"), "spec.hard", errors)
        _check_scopes(spec, errors)
        if spec.get("scopeSelector") is not None:
            _check_scope_selector(spec, "spec.scopeSelector.matchExpressions", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        scopes, before = ((quota.get("spec") or {}).get("scopes") or [] for quota in (new, old))
        if set(scopes) != set(before):
            errors.append(invalid("spec.scopes", scopes, IMMUTABLE))
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        if not new["metadata"].get("resourceVersion"):
            errors.append(required("resourceVersion"))
        status = new.get("status") or {}
        for field in ("hard", "used"):
            _check_amounts(status.get(field), f"status.{field}", errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        if old is not None:
            return []
        hard = (new.get("spec") or {}).get("hard") or {}
        warnings = []
        for name in ("cpu", "memory", "storage", "ephemeral-storage"):
            request, limit = f"requests.{name}", f"limits.{name}"
            if request not in hard and name in ("cpu", "memory"):
                request = name
            if request in hard and limit in hard and parse(hard[request]) > parse(hard[limit]):
                warnings.append(
                    f"ResourceQuota {request} ({hard[request]}) should be less than {limit} ({hard[limit]})"
                )
        return warnings


def _check_amounts(amounts: Obj | None, path: str, errors: Errors) -> None:
    for name, value in (amounts or {}).items():
        here = f"{path}[{name}]"
        check_resource_name(name, here, errors)
        if "/" not in name and not _is_quota_resource(name):
            errors.append(invalid(here, name, "must be a standard resource for quota"))
        amount = parse(value)
        if amount.nanos < 0:
            errors.append(invalid(here, value, NEGATIVE))
        if is_integer_resource(name) and amount.milli_value() % 1000:
            errors.append(invalid(here, value, "must be an integer"))


def _is_quota_resource(name: str) -> bool:
    return name in QUOTA_RESOURCES or is_quota_huge_page(name)


def _check_scopes(spec: Obj, errors: Errors) -> None:
    scopes = spec.get("scopes") or []
    for scope in scopes:
        if scope not in _OF_SCOPE:
            errors.append(invalid("spec.scopes", scopes, "unsupported scope"))
        for _ in _out_of_scope(spec, scope):
            errors.append(invalid("spec.scopes", scopes, "unsupported scope applied to resource"))
    _check_opposites(set(scopes), scopes, "spec.scopes", errors)


def _check_scope_selector(spec: Obj, path: str, errors: Errors) -> None:
    selector = spec["scopeSelector"]
    scopes: set[str] = set()
    for requirement in selector.get("matchExpressions") or ():
        scope, operator = requirement.get("scopeName", ""), requirement.get("operator", "")
        values = requirement.get("values") or []
        if scope not in _OF_SCOPE:
            errors.append(invalid(f"{path}.scopeName", scope, "unsupported scope"))
        for _ in _out_of_scope(spec, scope):
            errors.append(invalid(path, selector, "unsupported scope applied to resource"))
        if scope in _EXISTS_ONLY and operator != "Exists":
            errors.append(invalid(f"{path}.operator", operator, _MUST_EXIST))
        if operator in ("In", "NotIn"):
            if not values:
                detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                errors.append(required(f"{path}.values", detail))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                errors.append(invalid(f"{path}.values", values, detail))
        else:
            errors.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
        scopes.add(scope)
    _check_opposites(scopes, spec.get("scopes") or [], path, errors)


def _out_of_scope(spec: Obj, scope: str) -> list[str]:
    """Standard resources of the quota that the scope cannot be applied to."""
    fitting = _OF_SCOPE.get(scope)
    if fitting is None:
        return []
    return [name for name in spec.get("hard") or () if _is_quota_resource(name) and name not in fitting]


def _check_opposites(scopes: set[str], shown: list[str], path: str, errors: Errors) -> None:
    for pair in _OPPOSITES:
        if pair <= scopes:
            errors.append(invalid(path, shown, "conflicting scopes"))


def _amounts(quota: Obj, *, limits: bool) -> str:
    status = quota.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    return ", ".join(
        f"{name}: {used.get(name, '0')}/{hard[name]}" for name in sorted(hard) if name.startswith("limits.") == limits
    )


RESOURCES = (
    Resource(
        kind="ResourceQuota",
        plural="resourcequotas",
        singular="resourcequota",
        short_names=("quota",),
        versions=(served("", "v1", "ResourceQuota"),),
        strategy=ResourceQuotaStrategy(),
        columns=(
            NAME,
            Column("Request", lambda quota, now: _amounts(quota, limits=False)),
            Column("Limit", lambda quota, now: _amounts(quota, limits=True)),
            AGE,
        ),
        subresources=(STATUS,),
    ),
)
