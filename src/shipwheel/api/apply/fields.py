"""Sets of fields in the form that `managedFields` writes them (FieldsV1), and the algebra on them.

A set is a tree of dictionaries whose keys are steps: `f:name` a field, `k:{"name":"x"}` the list item with these
keys, `v:"x"` the item of that value, `i:0` an index. A step is a member of the set when its node is empty or has
`.` in it; a node without both is only on the way to others. The decoded JSON is the set itself, so that reading
and writing `managedFields` costs nothing.

Two invariants hold for every set made here: keys are in upstream's order, and there is no node without members.
Sets are values: never changed once made, and so shared freely.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson

from shipwheel.api.patch.values import show

Fields = dict[str, Any]
"""A node of the tree; the root is no member of itself."""

Path = tuple[str, ...]
"""Steps from the root."""

MEMBER = "."


class FieldsError(ValueError):
    """The text is no set of fields."""


# Steps.


def field_step(name: str) -> str:
    return f"f:{name}"


@lru_cache(maxsize=4096, typed=True)
def value_step(value: Any) -> str:
    """The item of a set of scalars."""
    return f"v:{_dumps(value)}"


@lru_cache(maxsize=8192, typed=True)
def key_step(names: tuple[str, ...], *values: Any) -> str:
    """The item of a list whose keys, sorted by name, have these values."""
    return f"k:{{{','.join(f'{_dumps(n)}:{_dumps(v)}' for n, v in zip(names, values, strict=True))}}}"


def _dumps(value: Any) -> str:
    """JSON as Go writes it: what HTML would mistake is escaped."""
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    if not any(each in text for each in "<>&\u2028\u2029"):
        return text
    for each in "<>&\u2028\u2029":
        text = text.replace(each, f"\\u{ord(each):04x}")
    return text


def _canonical(step: str) -> str | None:
    """A step from somebody else in our form; None for a kind of step that we do not know."""
    if step.startswith("f:") or step == MEMBER:
        return step
    if len(step) < 2:
        raise FieldsError("key must be 2 characters long:")
    if step[1] != ":":
        raise FieldsError(f"missing colon: {step}")
    try:
        match step[0]:
            case "k":
                keys = json.loads(step[2:])
                return key_step(tuple(sorted(keys)), *(_frozen(keys[name]) for name in sorted(keys)))
            case "v":
                return value_step(_frozen(json.loads(step[2:])))
            case "i":
                return f"i:{int(step[2:])}"
    except (ValueError, TypeError, AttributeError) as error:
        raise FieldsError(f"parsing key as path element: {error}") from None
    return None


def _frozen(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise FieldsError("keys and values must be scalars")
    return value


@lru_cache(maxsize=8192)
def _rank(step: str) -> tuple[Any, ...]:
    """Where the step stands among its siblings: fields, then keys, then values, then indices."""
    match step[0]:
        case ".":
            return (0,)
        case "f":
            return 1, step
        case "k":
            return 2, [(name, _value_rank(value)) for name, value in sorted(json.loads(step[2:]).items())]
        case "v":
            return 3, _value_rank(json.loads(step[2:]))
    return 4, int(step[2:])


def _value_rank(value: Any) -> tuple[int, Any]:
    """Numbers, then texts, then booleans, then null."""
    if value is None:
        return 3, 0
    if isinstance(value, bool):
        return 2, value
    return (1, value) if isinstance(value, str) else (0, value)


def sort_steps(fields: Fields) -> Fields:
    """The same node with its steps in order."""
    for step in fields:
        if step[0] in "kvi":
            return {step: fields[step] for step in sorted(fields, key=_rank)}
    return {step: fields[step] for step in sorted(fields)}


# Reading.


def read_fields(value: Any) -> Fields:
    """A set that somebody else wrote, brought into our form. Raises FieldsError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise FieldsError(f"expected an object, got {show(value)}")
    fields = _read(value)
    return {step: node for step, node in fields.items() if step != MEMBER}


def _read(value: Mapping[str, Any]) -> Fields:
    """A node. One in which nothing is understood is a member without anything below it."""
    result: Fields = {}
    for step, below in value.items():
        known = _canonical(step)
        if known is None:
            continue
        if not isinstance(below, Mapping | None):
            raise FieldsError(f"expected an object, got {show(below)}")
        node = {} if known == MEMBER else _read(below or {})
        result[known] = union_nodes(result[known], node) if known in result else node
    return {} if result.keys() == {MEMBER} else sort_steps(result)


# Algebra.


def is_member(node: Fields) -> bool:
    return not node or MEMBER in node


def union(left: Fields, right: Fields) -> Fields:
    """All members of both."""
    if not left or not right:
        return left or right
    result = dict(left)
    grown = False
    for step, node in right.items():
        mine = left.get(step)
        if mine is None:
            result[step] = node
            grown = True
        elif mine is not node and mine != node:
            result[step] = union_nodes(mine, node)
    return sort_steps(result) if grown else result


def union_nodes(left: Fields, right: Fields) -> Fields:
    """The same for nodes below the root, which may be members themselves."""
    if not left:
        return right if MEMBER in right or not right else {MEMBER: {}, **right}
    if not right:
        return left if MEMBER in left else {MEMBER: {}, **left}
    return union(left, right)


def intersection(left: Fields, right: Fields) -> Fields:
    """The members that both have."""
    result: Fields = {}
    for step, node in left.items():
        other = right.get(step)
        if other is not None and step != MEMBER:
            below = intersection(node, other) if node and other else {}
            _put(result, step, below, member=is_member(node) and is_member(other))
    return result


def difference(left: Fields, right: Fields) -> Fields:
    """The members of `left` that `right` has not. What is below a member is judged by itself."""
    result: Fields = {}
    for step, node in left.items():
        other = right.get(step)
        if step == MEMBER:
            continue
        if other is None:
            result[step] = node
        else:
            below = difference(node, other) if node else {}
            _put(result, step, below, member=is_member(node) and not is_member(other))
    return result


def difference_below(left: Fields, right: Fields) -> Fields:
    """The members of `left` that neither are in `right` nor lie below a member of it."""
    result: Fields = {}
    for step, node in left.items():
        other = right.get(step)
        if step == MEMBER:
            continue
        if other is None:
            result[step] = node
        elif not is_member(other):
            _put(result, step, difference_below(node, other) if node else {}, member=is_member(node))
    return result


def _put(result: Fields, step: str, below: Fields, *, member: bool) -> None:
    """Enter a node, if anything is left of it."""
    if member:
        result[step] = {MEMBER: {}, **below} if below else {}
    elif below:
        result[step] = below


def has(fields: Fields, path: Path) -> bool:
    node: Fields | None = fields
    for step in path:
        node = node.get(step) if node else None
        if node is None:
            return False
    return bool(path) and is_member(node or {})


def single(path: Path) -> Fields:
    """The set of one member."""
    fields: Fields = {}
    for step in reversed(path):
        fields = {step: fields}
    return fields


def from_paths(paths: Iterable[Path]) -> Fields:
    fields: Fields = {}
    for path in paths:
        fields = union(fields, single(path))
    return fields


def members(fields: Fields, prefix: Path = ()) -> Iterator[Path]:
    """All members; those of a node before those below them."""
    for step, node in fields.items():
        if step != MEMBER and is_member(node):
            yield (*prefix, step)
    for step, node in fields.items():
        if step != MEMBER:
            yield from members(node, (*prefix, step))


def path_text(path: Path) -> str:
    """As messages show it: `.spec.containers[name="x"].image`."""
    return "".join(map(step_text, path))


def step_text(step: str) -> str:
    match step[0]:
        case "f":
            return f".{step[2:]}"
        case "k":
            keys = json.loads(step[2:])
            return f"[{','.join(f'{name}={value_text(keys[name])}' for name in sorted(keys))}]"
        case "v":
            return f"[={value_text(json.loads(step[2:]))}]"
    return f"[{step[2:]}]"


def value_text(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return "null" if value is None else show(value)


# Filters.

Filter = Callable[[Fields], Fields]
"""Which members of a set count."""


def everything(fields: Fields) -> Fields:
    return fields


def excluding(*paths: str) -> Filter:
    """All but these fields and what is below them: `excluding("status", "metadata.finalizers")`."""
    excluded = from_paths(tuple(map(field_step, path.split("."))) for path in paths)
    return lambda fields: difference_below(fields, excluded)


def only(*patterns: str) -> Filter:
    """What lies below these fields; `*` is any step: `only("spec.containers.*.resources")`."""
    steps = [tuple(step if step == "*" else field_step(step) for step in pattern.split(".")) for pattern in patterns]
    return lambda fields: _only(fields, steps)


def _only(fields: Fields, patterns: list[Path]) -> Fields:
    result: Fields = {}
    for step, node in fields.items():
        rests = [rest for first, *rest in patterns if first in ("*", step)]
        if step == MEMBER or not rests:
            continue
        if not all(rests):
            result[step] = node
        else:
            below = _only(node, [tuple(rest) for rest in rests])
            _put(result, step, below, member=is_member(node))
    return result
