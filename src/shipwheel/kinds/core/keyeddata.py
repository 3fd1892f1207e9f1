"""What ConfigMaps and Secrets have in common: data under keys, not too much of it, which may be sealed."""

from __future__ import annotations

from collections.abc import Iterable

from shipwheel.api.errors import forbidden, invalid
from shipwheel.api.meta import Obj
from shipwheel.api.names import byte_length, is_config_map_key
from shipwheel.kinds.checks import Errors

MAX_SIZE = 1024 * 1024
_SEALED = "field is immutable when `immutable` is set"


def check_keys(keys: Iterable[str], path: str, errors: Errors) -> None:
    for key in keys:
        for complaint in is_config_map_key(key):
            errors.append(invalid(f"{path}[{key}]", key, complaint))


def text_size(data: Obj) -> int:
    """Bytes of plain texts."""
    return sum(map(byte_length, data.values()))


def encoded_size(data: Obj) -> int:
    """Bytes that base64 texts stand for."""
    return sum(len(text) // 4 * 3 - text[-2:].count("=") for text in data.values())


def check_sealed(new: Obj, old: Obj, fields: Iterable[str], errors: Errors) -> None:
    """What was once declared immutable stays as it is, and stays immutable (KEP-1412)."""
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        errors.append(forbidden("immutable", _SEALED))
    for field in fields:
        if (new.get(field) or {}) != (old.get(field) or {}):
            errors.append(forbidden(field, _SEALED))
