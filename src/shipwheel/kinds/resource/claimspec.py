"""What a claim asks for: requests for devices, what they must have in common, and words to their drivers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from shipwheel.api.errors import forbidden, invalid, required, too_long
from shipwheel.api.meta import Obj
from shipwheel.api.names import byte_length, is_dns1123_subdomain, is_valid_label_value
from shipwheel.api.objectmeta import validate_label_name
from shipwheel.kinds.checks import (
    NOT_POSITIVE,
    Errors,
    check_enum,
    check_label,
    check_one_of,
    check_required,
    check_rule,
)
from shipwheel.kinds.resource.expressions import ExpressionError
from shipwheel.kinds.resource.expressions import selector as compiled
from shipwheel.kinds.resource.names import (
    check_driver_name,
    check_full_name,
    check_list,
    check_parameters,
    check_set,
)

MAX_REQUESTS = 32
MAX_CONFIGS = 32
TAINT_EFFECTS = ("NoExecute", "NoSchedule", "None")
_MAX_CONSTRAINTS = 32
_MAX_SELECTORS = 32
_MAX_ALTERNATIVES = 8
_MAX_EXPRESSION = 10 * 1024
_MAX_PARAMETERS = 10 * 1024
_MODES = ("All", "ExactCount")
_UNKNOWN_REQUEST = (
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
)
_ONE_KIND = "exactly one of `exactly` or `firstAvailable` is required"


def _wishes(devices: Obj) -> Iterator[Obj]:
    """What says how many devices of which class: of each request the one, or the alternatives."""
    for request in devices.get("requests") or ():
        if request.get("exactly") is not None:
            yield request["exactly"]
        yield from request.get("firstAvailable") or ()


def default_devices(devices: Obj) -> None:
    for wish in _wishes(devices):
        if not wish.get("allocationMode"):
            wish["allocationMode"] = "ExactCount"
        if wish["allocationMode"] == "ExactCount" and not wish.get("count"):
            wish["count"] = 1


def check_devices(devices: Obj, path: str, errors: Errors) -> None:
    named = partial(check_request_name, known=request_names(devices))
    check_set(devices.get("requests"), MAX_REQUESTS, _check_request, _name, f"{path}.requests", errors)

    def check_constraint(constraint: Obj, here: str, errors: Errors) -> None:
        check_set(constraint.get("requests"), MAX_REQUESTS, named, str, f"{here}.requests", errors)
        for field in ("matchAttribute", "distinctAttribute"):
            if constraint.get(field) is not None:
                check_full_name(constraint[field], f"{here}.{field}", errors)
                return
        detail = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        errors.append(required(here, detail))

    def check_config(config: Obj, here: str, errors: Errors) -> None:
        check_set(config.get("requests"), MAX_REQUESTS, named, str, f"{here}.requests", errors)
        check_configuration(config, here, errors)

    check_list(devices.get("constraints"), _MAX_CONSTRAINTS, check_constraint, f"{path}.constraints", errors)
    check_list(devices.get("config"), MAX_CONFIGS, check_config, f"{path}.config", errors)


def request_names(devices: Obj) -> frozenset[str]:
    """The requests, and as `request/subrequest` their alternatives."""
    names = set()
    for request in devices.get("requests") or ():
        name = _name(request)
        names.add(name)
        names.update(f"{name}/{_name(each)}" for each in request.get("firstAvailable") or ())
    return frozenset(names)


def check_request_name(name: str, path: str, errors: Errors, *, known: frozenset[str]) -> None:
    parts = name.split("/")
    if len(parts) <= 2:
        for part in parts:
            check_label(part, path, errors)
    if name not in known:
        errors.append(invalid(path, name, _UNKNOWN_REQUEST))


def _name(named: Obj) -> str:
    name: str = named.get("name", "")
    return name


def _check_request(request: Obj, path: str, errors: Errors) -> None:
    check_label(_name(request), f"{path}.name", errors)
    exactly, alternatives = request.get("exactly"), request.get("firstAvailable")
    if exactly is not None and alternatives:
        errors.append(invalid(path, None, f"{_ONE_KIND}, but multiple fields are set"))
    elif alternatives:
        here = f"{path}.firstAvailable"
        check_set(alternatives, _MAX_ALTERNATIVES, _check_alternative, _name, here, errors)
    elif exactly is not None:
        _check_wish(exactly, f"{path}.exactly", errors)
    else:
        errors.append(required(path, _ONE_KIND))


def _check_alternative(wish: Obj, path: str, errors: Errors) -> None:
    check_label(_name(wish), f"{path}.name", errors)
    _check_wish(wish, path, errors)


def _check_wish(wish: Obj, path: str, errors: Errors) -> None:
    check_required(is_dns1123_subdomain, wish.get("deviceClassName"), f"{path}.deviceClassName", errors)
    check_selectors(wish.get("selectors"), f"{path}.selectors", errors)
    mode, count = wish.get("allocationMode", ""), wish.get("count", 0)
    if mode == "All" and count != 0:
        errors.append(invalid(f"{path}.count", count, "must not be specified when allocationMode is 'All'"))
    elif mode == "ExactCount" and count <= 0:
        errors.append(invalid(f"{path}.count", count, NOT_POSITIVE))
    check_one_of(mode, _MODES, f"{path}.allocationMode", errors)
    for index, toleration in enumerate(wish.get("tolerations") or ()):
        _check_toleration(toleration, f"{path}.tolerations[{index}]", errors)


def check_selectors(selectors: list[Obj] | None, path: str, errors: Errors) -> None:
    check_list(selectors, _MAX_SELECTORS, _check_selector, path, errors)


def _check_selector(selector: Obj, path: str, errors: Errors) -> None:
    expression = (selector.get("cel") or {}).get("expression", "")
    if selector.get("cel") is None:
        errors.append(required(f"{path}.cel"))
    elif byte_length(expression) > _MAX_EXPRESSION:
        errors.append(too_long(f"{path}.cel.expression", _MAX_EXPRESSION))
    else:
        try:
            compiled(expression)
        except ExpressionError as error:
            errors.append(invalid(f"{path}.cel.expression", expression, str(error)))


def _check_toleration(toleration: Obj, path: str, errors: Errors) -> None:
    key, operator, value = (toleration.get(field, "") for field in ("key", "operator", "value"))
    if key:
        errors += validate_label_name(key, f"{path}.key")
    check_enum(operator, ("Equal", "Exists"), f"{path}.operator", errors)
    if operator == "Exists" and value:
        errors.append(invalid(f"{path}.value", value, "must be empty for operator `Exists`"))
    elif operator == "Equal":
        check_rule(is_valid_label_value, value, f"{path}.value", errors)
    if toleration.get("effect"):
        check_one_of(toleration["effect"], TAINT_EFFECTS, f"{path}.effect", errors)


def check_configuration(config: Obj, path: str, errors: Errors) -> None:
    opaque = config.get("opaque")
    if opaque is None:
        errors.append(required(f"{path}.opaque"))
        return
    check_driver_name(opaque.get("driver", ""), f"{path}.opaque.driver", errors)
    check_parameters(opaque.get("parameters"), _MAX_PARAMETERS, f"{path}.opaque.parameters", errors)


# Access for administrators

ADMIN_LABEL = "resource.kubernetes.io/admin-access"
_ADMIN = f"admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace"


def admin_access_path(requests: list[Obj], path: str) -> str:
    """Where access to devices in use is asked for; empty when nowhere."""
    for index, request in enumerate(requests):
        if (request.get("exactly") or request).get("adminAccess"):
            return f"{path}[{index}].adminAccess"
    return ""


def check_admin_access(requests: list[Obj], namespace: Obj | None, path: str, errors: Errors) -> None:
    """Only claims in namespaces that an administrator has labelled may look at devices that others use."""
    here = admin_access_path(requests, path)
    labels = ((namespace or {}).get("metadata") or {}).get("labels") or {}
    if here and labels.get(ADMIN_LABEL) != "true":
        errors.append(forbidden(here, _ADMIN))
