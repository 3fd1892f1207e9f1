"""Small checks that validation of many kinds is made of.

Checks append what is wrong to the list they are given, so that a good object costs no lists. Paths are written
as upstream writes them (`spec.ports[0].name`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shipwheel.api.errors import FieldError, FieldErrorType, forbidden, invalid, not_supported, required
from shipwheel.api.ip import is_valid_cidr_for_legacy_field, is_valid_ip_for_legacy_field
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_dns1123_label, is_dns1123_subdomain, is_in_range, is_valid_port_name

Errors = list[FieldError]
Rule = Callable[[str], list[str]]
"""A text's complaints, as in `api.names`."""

NEGATIVE = "must be greater than or equal to 0"
NOT_POSITIVE = "must be greater than zero"
IMMUTABLE = "field is immutable"
MAX_INT32 = 2**31 - 1


def check_rule(rule: Rule, value: str, path: str, errors: Errors) -> None:
    for complaint in rule(value):
        errors.append(invalid(path, value, complaint))


def check_required(rule: Rule, value: str | None, path: str, errors: Errors) -> None:
    """The value is there and keeps the rule."""
    if not value:
        errors.append(required(path))
    else:
        check_rule(rule, value, path, errors)


def check_label(value: str, path: str, errors: Errors) -> None:
    check_rule(is_dns1123_label, value, path, errors)


def check_subdomain(value: str, path: str, errors: Errors) -> None:
    check_rule(is_dns1123_subdomain, value, path, errors)


def check_nonnegative(value: int | None, path: str, errors: Errors) -> None:
    if value is not None and value < 0:
        errors.append(invalid(path, value, NEGATIVE))


def check_positive(value: int | None, path: str, errors: Errors) -> None:
    if value is not None and value <= 0:
        errors.append(invalid(path, value, NOT_POSITIVE))


def check_range(value: int, low: int, high: int, path: str, errors: Errors) -> None:
    for complaint in is_in_range(value, low, high):
        errors.append(invalid(path, value, complaint))


def check_one_of(value: Any, supported: Sequence[str], path: str, errors: Errors) -> None:
    if value not in supported:
        errors.append(not_supported(path, value, tuple(supported)))


def check_enum(value: str | None, supported: Sequence[str], path: str, errors: Errors) -> None:
    """A required word out of a few."""
    if not value:
        errors.append(required(path))
    elif value not in supported:
        errors.append(not_supported(path, value, tuple(supported)))


def check_immutable(new: Any, old: Any, path: str, errors: Errors, detail: str = IMMUTABLE) -> None:
    if new != old and not (not new and not old and not isinstance(new, bool) and not isinstance(old, bool)):
        shown = "" if new is None and isinstance(old, str) else new
        errors.append(invalid(path, shown, detail))


def check_port(port: int | str | None, path: str, errors: Errors) -> None:
    """A port's number, or its name."""
    if isinstance(port, str):
        check_rule(is_valid_port_name, port, path, errors)
    else:
        check_range(port or 0, 1, 65535, path, errors)


def check_ip(text: str, path: str, errors: Errors) -> None:
    """An address in a field older than the strict rules."""
    check_rule(is_valid_ip_for_legacy_field, text, path, errors)


def check_cidr(text: str, path: str, errors: Errors) -> None:
    check_rule(is_valid_cidr_for_legacy_field, text, path, errors)


def check_relative_path(path_value: str, path: str, errors: Errors) -> None:
    """A path that stays below where it starts."""
    if path_value.startswith("/"):
        errors.append(invalid(path, path_value, "must be a relative path"))
    check_no_backsteps(path_value, path, errors)


def check_no_backsteps(path_value: str, path: str, errors: Errors) -> None:
    if ".." in path_value and ".." in path_value.split("/"):
        errors.append(invalid(path, path_value, "must not contain '..'"))


def check_local_path(path_value: str, path: str, errors: Errors) -> None:
    """A relative path whose first part does not look like one of the atomic writer's own (`..data`)."""
    check_relative_path(path_value, path, errors)
    if path_value.startswith("..") and not path_value.startswith("../"):
        errors.append(invalid(path, path_value, "must not start with '..'"))


def check_only(obj: Obj, allowed: Iterable[str], detail: str, path: str, errors: Errors) -> None:
    """Nothing but the allowed fields is set."""
    for field, value in obj.items():
        if field not in allowed and value not in (None, "", 0, False, [], {}):
            errors.append(forbidden(f"{path}.{field}", detail))


def wrong(path: str, detail: str) -> FieldError:
    """Something is invalid, whatever its value."""
    return FieldError(FieldErrorType.INVALID, path, detail)


def valid_values(values: Sequence[str]) -> str:
    """What to say beside `Required value` where there is a choice."""
    return f"valid values: [{' '.join(json.dumps(value) for value in values)}]"


def check_fixed(new: Obj, old: Obj, path: str, errors: Errors, detail: str = IMMUTABLE) -> None:
    """The field at `path` (`spec.selector`) is what it was."""
    check_immutable(_at(new, path), _at(old, path), path, errors, detail)


def _at(obj: Any, path: str) -> Any:
    for field in path.split("."):
        obj = (obj or {}).get(field)
    return obj
