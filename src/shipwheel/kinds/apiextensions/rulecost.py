"""What a rule in CEL can cost at most, as far as the schema bounds what it looks at.

Whoever declares a rule that looks at lists within lists without bounds is told to bound them, before it keeps a server
busy. The unit, the limits and what each operation costs are upstream's; but where upstream takes the size of a value
that no schema bounds for infinite (what functions make), it counts as nothing here, and so does what Kubernetes' own
functions do with large values: no rule is refused that upstream takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shipwheel.api.cel import tree
from shipwheel.api.cel.names import escape

RULE_LIMIT = 10_000_000
DEFINITION_LIMIT = 100_000_000

_REQUEST = 3 * 1024 * 1024
"""No object is larger, in bytes."""
_TRAVERSAL, _REGEX = 0.1, 0.25
_LIST, _MAP = 10, 30
_COMPARED = frozenset(("_<_", "_<=_", "_>_", "_>=_"))
_SMALLEST = {"integer": 1, "number": 1, "boolean": 4, "string": 2, "array": 2}
_FORMATS = {"duration": (4, 32), "date": (12, 12), "date-time": (22, 35)}
"""The shortest and the longest text of each, as JSON."""


@dataclass(frozen=True, slots=True)
class _Value:
    """What is known of an intermediate result."""

    cost: int
    size: int = 0
    schema: Mapping[str, Any] | None = None


def cost(program: Any, schema: Mapping[str, Any]) -> int:
    """Of one evaluation; `schema` is that of `self` and `oldSelf`."""
    roots = {name: _Value(0, largest(schema), schema) for name in ("self", "oldSelf")}
    return _cost(tree.tree(program), roots).cost


def cost_message(what: str, estimated: int, limit: int) -> str:
    """Why it is refused."""
    factor = estimated / limit
    shown = "more than 100x" if factor > 100 else f"{factor:.6f}x" if factor < 1.5 else f"{factor:.1f}x"
    return (
        f"{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and "
        "maxLength where arrays, maps, and strings are declared)"
    )


# How large things are


def largest(schema: Mapping[str, Any]) -> int:
    """How many items a list or map can have, or bytes a text."""
    if schema.get("x-kubernetes-int-or-string") or schema.get("type") == "string":
        return _longest(schema)
    match schema.get("type"):
        case "array":
            items = smallest(schema.get("items") or {})
            return int(schema.get("maxItems", (_REQUEST - 2) // (items + 1)))
        case "object" if isinstance(others := schema.get("additionalProperties"), dict):
            return int(schema.get("maxProperties", (_REQUEST - 2) // (smallest(others) + 6)))
    return 1 if schema.get("type") in ("integer", "number", "boolean") else 0


def _longest(schema: Mapping[str, Any]) -> int:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]][1]
    if "maxLength" in schema:
        return int(schema["maxLength"]) * (1 if schema.get("format") == "byte" else 4)
    if schema.get("enum"):
        return max((len(each.encode()) for each in schema["enum"] if isinstance(each, str)), default=0)
    return _REQUEST - 2


def smallest(schema: Mapping[str, Any]) -> int:
    """How few bytes a value takes as JSON."""
    if schema.get("x-kubernetes-int-or-string"):
        return 1
    if schema.get("format") in _FORMATS and schema.get("type") == "string":
        return _FORMATS[schema["format"]][0]
    if schema.get("type") != "object":
        return _SMALLEST.get(schema.get("type", ""), 1)
    fields = schema.get("properties") or {}
    needed = [name for name in schema.get("required") or () if name in fields and fields[name].get("default") is None]
    return 2 + sum(len(name) + smallest(fields[name]) + 4 for name in needed)


def at_most(schema: Mapping[str, Any]) -> int:
    """How many such values an object can hold."""
    return _REQUEST // (smallest(schema) + 1)


# What operations cost


def _cost(expression: tree.Expr, variables: Mapping[str, _Value]) -> _Value:
    match expression:
        case tree.Constant(size):
            return _Value(0, size)
        case tree.Ident(name):
            known = variables.get(name, _Value(0))
            return _Value(1, known.size, known.schema)
        case tree.Select():
            return _select(expression, variables)
        case tree.Container(is_list, items):
            inside = sum(_cost(each, variables).cost for each in items)
            return _Value(inside + (_LIST if is_list else _MAP), len(items))
        case tree.Comprehension():
            return _loop(expression, variables)
    return _call(expression, variables)


def _select(expression: tree.Select, variables: Mapping[str, _Value]) -> _Value:
    operand = _cost(expression.operand, variables)
    if expression.is_test:
        return _Value(operand.cost, 1)
    return _of_schema(operand.cost + 1, _field(operand.schema, expression.field))


def _field(schema: Mapping[str, Any] | None, called: str) -> Mapping[str, Any] | None:
    fields = (schema or {}).get("properties") or {}
    return next((each for name, each in fields.items() if escape(name) == called), None)


def _of_schema(spent: int, schema: Any) -> _Value:
    return _Value(spent, largest(schema), schema) if isinstance(schema, dict) else _Value(spent)


def _loop(expression: tree.Comprehension, variables: Mapping[str, _Value]) -> _Value:
    over, start = _cost(expression.over, variables), _cost(expression.start, variables)
    inside = {
        **variables,
        expression.variable: _Value(0) if over.schema is None else _items(over.schema),
        expression.result_name: start,
    }
    turn = _cost(expression.condition, inside).cost + _cost(expression.step, inside).cost
    result = _cost(expression.result, inside)
    spent = over.cost + start.cost + over.size * turn + result.cost
    if isinstance(expression.start, tree.Container):
        return _Value(spent, over.size, _list_of(expression.step, inside))
    return _Value(spent, result.size, result.schema)


def _list_of(step: tree.Expr, variables: Mapping[str, _Value]) -> Mapping[str, Any] | None:
    """The schema of what a loop puts together, item by item (`result + [item]`)."""
    match step:
        case tree.Call("_?_:_", _, (_, yes, _)):
            return _list_of(yes, variables)
        case tree.Call("_+_", _, (_, tree.Container(_, (item,)))):
            found = _cost(item, variables).schema
            return None if found is None else {"type": "array", "items": found}
    return None


def _items(schema: Mapping[str, Any]) -> _Value:
    """What a loop goes over: a list's items, or a map's keys, whose length nothing bounds."""
    return _of_schema(0, schema.get("items"))


def _call(expression: tree.Call, variables: Mapping[str, _Value]) -> _Value:
    given = [_cost(each, variables) for each in (expression.target, *expression.arguments) if each is not None]
    spent = sum(each.cost for each in given)
    sizes = [each.size for each in given]
    match expression.function:
        case "_&&_" | "_||_":
            return _Value(spent, 1)
        case "_?_:_":
            condition, yes, no = given
            longer = max(yes, no, key=lambda each: each.size)
            return _Value(condition.cost + max(yes.cost, no.cost), longer.size, longer.schema)
        case "startsWith" | "endsWith" if len(given) == 2:
            return _Value(spent + _part(sizes[1], _TRAVERSAL), 1)
        case "@in":
            return _Value(spent + sizes[1], 1)
        case "matches" if len(given) == 2:
            return _Value(spent + _part(sizes[0] + 1, _TRAVERSAL) * _part(sizes[1], _REGEX), 1)
        case "contains" if len(given) == 2:
            return _Value(spent + _part(sizes[0], _TRAVERSAL) * _part(sizes[1], _TRAVERSAL), 1)
        case "_[_]":
            return _of_schema(spent + 1, _element(given[0].schema))
        case "_+_" if all(sizes):
            is_text = given[0].schema is None or given[0].schema.get("type") == "string"
            return _Value(spent + (_part(sum(sizes), _TRAVERSAL) if is_text else 1), sum(sizes))
        case "_==_" | "_!=_":
            return _Value(spent + _part(min(sizes), _TRAVERSAL), 1)
        case function if function in _COMPARED:
            return _Value(spent + max(1, _part(min(sizes), _TRAVERSAL)), 1)
    return _Value(spent + 1)


def _part(size: int, factor: float) -> int:
    return int(-(-size * factor // 1))


def _element(schema: Mapping[str, Any] | None) -> Any:
    """The schema of a list's items or a map's values."""
    return None if schema is None else schema.get("items") or schema.get("additionalProperties")
