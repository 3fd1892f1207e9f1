"""JSON values as the patches see them: copied, compared by type and value, shown as Go shows them."""

from __future__ import annotations

import marshal
from typing import Any


def clone(value: Any) -> Any:
    """A deep copy of a JSON value. (There and back through `marshal` is the quickest that keeps every number.)"""
    return marshal.loads(marshal.dumps(value)) if isinstance(value, dict | list) else value


def same(left: Any, right: Any) -> bool:
    """Equality of JSON: unlike Python's, 1 is neither 1.0 nor true."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(each, right[key]) for key, each in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def json_type(value: Any) -> str:
    """The type's name in complaints of Go's decoder."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case str():
            return "string"
        case int() | float():
            return "number"
        case dict():
            return "object"
    return "array"


def show(value: Any) -> str:
    """A value as Go's `%v` prints it: `map[a:1 b:[x y]]`."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case dict():
            return f"map[{' '.join(f'{key}:{show(value[key])}' for key in sorted(value))}]"
        case list():
            return f"[{' '.join(map(show, value))}]"
    return str(value)
