"""Merge patch (RFC 7386): what the patch says is set, what it says is null is taken away.

As upstream's library does, nulls are also taken out of the arrays that the patch sets, which the RFC would keep.
"""

from __future__ import annotations

from typing import Any

from shipwheel.api.errors import bad_request
from shipwheel.api.meta import Obj
from shipwheel.api.patch.values import clone, json_type


def apply_merge_patch(original: Obj, patch: Any) -> Obj:
    """`original` with `patch` merged in; what the patch does not touch is not copied. Raises ApiError 400 when the
    patch is no object."""
    if patch is None:
        raise bad_request("Invalid JSON Patch")
    if not isinstance(patch, dict):
        raise bad_request(
            f"error decoding patch: json: cannot unmarshal {json_type(patch)} into Go value of type "
            "map[string]interface {}"
        )
    return _merged(original, patch)


def _merged(original: Obj, patch: Obj) -> Obj:
    result = {}
    for key, value in original.items():
        if key not in patch:
            result[key] = value
    for key, change in patch.items():
        if change is None:
            continue
        value = original.get(key)
        if not isinstance(value, dict):
            result[key] = _without_nulls(change)
        elif isinstance(change, dict):
            result[key] = _merged(value, change)
        else:
            result[key] = clone(change)
    return result


def _without_nulls(value: Any) -> Any:
    """Members of objects only: an item of an array that is null stays."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value
