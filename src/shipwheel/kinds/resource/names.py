"""Names in the API of devices, and the lists that its objects are made of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from shipwheel.api.errors import duplicate, invalid, required, too_long, too_many
from shipwheel.api.names import byte_length, is_c_identifier
from shipwheel.kinds.checks import Errors, check_rule, check_subdomain
from shipwheel.kinds.core.volumesources import check_csi_driver_name as check_driver_name

__all__ = [
    "check_driver_name",
    "check_full_name",
    "check_list",
    "check_name_in_domain",
    "check_parameters",
    "check_pool_name",
    "check_set",
    "check_uid",
]

_MAX_POOL_NAME = 253
_MAX_IDENTIFIER = 32
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


def check_pool_name(name: str, path: str, errors: Errors) -> None:
    if not name:
        errors.append(required(path))
        return
    if byte_length(name) > _MAX_POOL_NAME:
        errors.append(too_long(path, _MAX_POOL_NAME))
    for part in name.split("/"):
        check_subdomain(part, path, errors)


def check_name_in_domain(name: str, path: str, errors: Errors) -> None:
    """An identifier, perhaps with its domain before it: `dra.example.com/memory`."""
    domain, slash, identifier = name.rpartition("/")
    if "/" in domain:
        return
    if slash and not domain:
        errors.append(invalid(path, "", "the domain must not be empty"))
    elif slash:
        check_driver_name(domain, path, errors)
    if slash and not identifier:
        errors.append(invalid(path, "", "the name must not be empty"))
        return
    if byte_length(identifier) > _MAX_IDENTIFIER:
        errors.append(too_long(path, _MAX_IDENTIFIER))
    check_rule(is_c_identifier, identifier, path, errors)


def check_full_name(name: str, path: str, errors: Errors) -> None:
    """The same, with the domain."""
    check_name_in_domain(name, path, errors)
    if "/" not in name:
        errors.append(invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash"))


def check_uid(uid: str, path: str, errors: Errors) -> None:
    if not _UID(uid):
        detail = (
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase "
            "hexadecimal characters"
        )
        errors.append(invalid(path, uid, detail))


def check_parameters(value: Any, most: int, path: str, errors: Errors) -> None:
    """What only a driver understands: any JSON object of up to `most` bytes."""
    if value is None:
        errors.append(required(path))
    elif byte_length(json.dumps(value, separators=(",", ":"), ensure_ascii=False)) > most:
        errors.append(too_long(path, most))
    elif not isinstance(value, dict):
        errors.append(invalid(path, "<value omitted>", "must be a valid JSON object"))


def check_list(
    items: Sequence[Any] | None,
    most: int,
    check: Callable[[Any, str, Errors], None],
    path: str,
    errors: Errors,
) -> None:
    """At most so many, each of them good. Of too many nothing else is said."""
    if items and len(items) > most:
        errors.append(too_many(path, len(items), most))
        return
    for index, item in enumerate(items or ()):
        check(item, f"{path}[{index}]", errors)


def check_set(
    items: Sequence[Any] | None,
    most: int,
    check: Callable[[Any, str, Errors], None],
    key: Callable[[Any], Hashable],
    path: str,
    errors: Errors,
) -> None:
    """The same, and no two alike."""
    check_list(items, most, check, path, errors)
    seen: set[Hashable] = set()
    for index, item in enumerate(items or () if not items or len(items) <= most else ()):
        if key(item) in seen:
            errors.append(duplicate(f"{path}[{index}]", key(item)))
        seen.add(key(item))
