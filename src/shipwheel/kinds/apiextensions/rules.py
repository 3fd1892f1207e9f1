"""Rules in CEL that custom resources follow (`x-kubernetes-validations`, KEP-2876).

A rule stands at a place of the schema and speaks of the value there (`self`) and of the one before (`oldSelf`, which
makes it a transition rule: without a former value it is not asked). Rules are compiled when the first object is
looked at, and kept with the schema. On an update, a rule that does not hold for a value that is as it was only warns
(KEP-4008, ratcheting).

What differs from upstream: of an evaluation's cost only the steps of loops are counted; lists that are sets or maps are
compared in their order; times, durations and bytes are texts inside lists and maps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shipwheel.api.cel.library import CelError, CostExceeded, evaluate
from shipwheel.api.cel.names import escape
from shipwheel.api.errors import FieldError, FieldErrorType, duplicate, forbidden, invalid, required
from shipwheel.api.meta import Obj
from shipwheel.api.schema import Schema
from shipwheel.api.schema.validation import NO_FIELD
from shipwheel.kinds.apiextensions.rulecompiling import Rule, compile_rule, has_rules, with_metadata

_BLOCKING = frozenset(
    (
        FieldErrorType.NOT_SUPPORTED,
        FieldErrorType.REQUIRED,
        FieldErrorType.TOO_LONG,
        FieldErrorType.TOO_MANY,
        FieldErrorType.TYPE_INVALID,
    )
)
_NOT_CHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)
_LONGEST_MESSAGE = 5 * 1024
_ABSENT: Any = object()
View = Callable[[Any], Any]


@dataclass(slots=True)
class Outcome:
    errors: list[FieldError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """Of rules that did not hold before either."""


def follow_rules(schema: Schema, new: Obj, found: list[FieldError], old: Any = _ABSENT) -> Outcome:
    """Which rules of its schema an object breaks. `found` is what is wrong with it otherwise: there are faults that
    leave the rules unasked. `old` is what it replaces."""
    outcome = Outcome()
    node = _tree(schema)
    if node is None:
        return outcome
    if any(error.type in _BLOCKING for error in found):
        outcome.errors.append(invalid(NO_FIELD, None, _NOT_CHECKED))
        return outcome
    with contextlib.suppress(_Stop):
        _follow(node, new, _Before(old, None, new), "", outcome)
    return outcome


class _Stop(Exception):
    """No further rules are asked."""


class _Before(NamedTuple):
    """What a value was, and what it is; `above` is the same for the nearest value around it that can be told."""

    value: Any
    above: _Before | None
    now: Any

    def is_unchanged(self) -> bool:
        if self.value is not _ABSENT:
            return bool(self.value == self.now)
        return self.above is not None and self.above.is_unchanged()

    def below(self, value: Any, now: Any) -> _Before:
        return _Before(value, self if self.value is not _ABSENT else self.above, now)


@dataclass(frozen=True, slots=True)
class _Node:
    """A place of the schema with rules, or with such places in it."""

    type: str
    rules: tuple[Rule, ...]
    view: View | None
    """What CEL sees of a value; None: the value."""
    properties: Mapping[str, _Node]
    items: _Node | None
    others: _Node | None
    """Of a map's values."""
    keys: tuple[tuple[str, Any], ...]
    """What tells the items of a list apart, with defaults, where they can be told."""


def _tree(schema: Schema) -> _Node | None:
    try:
        node: _Node | None = schema._rules
    except AttributeError:
        node = schema._rules = _node(schema.to_openapi(), is_root=True)
    return node


def _node(schema: Mapping[str, Any], *, is_root: bool = False) -> _Node | None:
    if not has_rules(schema):
        return None
    is_root = is_root or bool(schema.get("x-kubernetes-embedded-resource"))
    typed = with_metadata(schema) if is_root else schema
    properties = {
        name: node for name, each in (schema.get("properties") or {}).items() if (node := _node(each)) is not None
    }
    return _Node(
        type=schema.get("type", ""),
        rules=tuple(compile_rule(rule, typed) for rule in schema.get("x-kubernetes-validations") or ()),
        view=_view(typed),
        properties=properties,
        items=_node(schema["items"]) if isinstance(schema.get("items"), dict) else None,
        others=_node(others) if isinstance(others := schema.get("additionalProperties"), dict) else None,
        keys=_keys(schema),
    )


def _keys(schema: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    if schema.get("x-kubernetes-list-type") != "map":
        return ()
    declared = (schema.get("items") or {}).get("properties") or {}
    return tuple((key, declared.get(key, {}).get("default")) for key in schema.get("x-kubernetes-list-map-keys") or ())


# What CEL sees


def _view(schema: Mapping[str, Any]) -> View | None:
    if schema.get("x-kubernetes-int-or-string"):
        return None
    match schema.get("type"):
        case "number":
            return lambda value: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        case "array":
            return _view_of_items(schema.get("items"))
        case "object" if schema.get("properties"):
            return _view_of_fields(schema)
        case "object":
            return _view_of_values(schema.get("additionalProperties"))
    return None


def _view_of_items(schema: Any) -> View | None:
    each = _view(schema) if isinstance(schema, dict) else None
    return None if each is None else lambda value: [each(item) for item in value] if isinstance(value, list) else value


def _view_of_values(schema: Any) -> View | None:
    each = _view(schema) if isinstance(schema, dict) else None
    if each is None:
        return None
    return lambda value: {key: each(item) for key, item in value.items()} if isinstance(value, dict) else value


def _view_of_fields(schema: Mapping[str, Any]) -> View | None:
    """Only fields that the schema knows are seen, under the names they have in CEL."""
    fields = {name: (escape(name), _view(_typed(each))) for name, each in schema["properties"].items()}
    plain = all(name == called and view is None for name, (called, view) in fields.items())
    if plain and not schema.get("x-kubernetes-preserve-unknown-fields"):
        return None

    def view(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        seen = {}
        for name, item in value.items():
            called, below = fields.get(name, ("", None))
            if called:
                seen[called] = item if below is None or item is None else below(item)
        return seen

    return view


def _typed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return with_metadata(schema) if schema.get("x-kubernetes-embedded-resource") else schema


# Following


def _follow(node: _Node, value: Any, before: _Before, path: str, outcome: Outcome) -> None:
    if value is None:
        return
    if node.rules:
        _ask(node, value, before, path, outcome)
    if isinstance(value, list) and node.items is not None:
        former = _by_key(node.keys, before.value)
        for index, item in enumerate(value):
            then = former.get(_key(node.keys, item), _ABSENT) if former else _ABSENT
            _follow(node.items, item, before.below(then, item), f"{path}[{index}]", outcome)
    elif isinstance(value, dict):
        fields = before.value if isinstance(before.value, dict) else {}
        for name, item in value.items():
            if (below := node.properties.get(name)) is not None:
                where = f"{path}.{name}" if path else name
            elif (below := node.others) is not None:
                where = f"{path}[{name}]"
            else:
                continue
            _follow(below, item, before.below(fields.get(name, _ABSENT), item), where, outcome)


def _by_key(keys: tuple[tuple[str, Any], ...], items: Any) -> dict[str, Any]:
    return {_key(keys, item): item for item in items} if keys and isinstance(items, list) else {}


def _key(keys: tuple[tuple[str, Any], ...], item: Any) -> str:
    return repr([item.get(name, default) for name, default in keys]) if isinstance(item, dict) else ""


def _ask(node: _Node, value: Any, before: _Before, path: str, outcome: Outcome) -> None:
    view = node.view or (lambda same: same)
    former = None if before.value is _ABSENT else before.value
    data: Obj = {"self": view(value)}
    if any(rule.uses_former for rule in node.rules):
        seen = view(former)
        data |= {"oldSelf": seen, "formerSelf": [] if former is None else [seen]}
    for rule in node.rules:
        if rule.uses_former and former is None and not rule.is_optional:
            continue
        try:
            complaints = list(_complaints(rule, node, value, data, path))
        except CostExceeded as exceeded:
            why = f"'{exceeded}': no further validation rules will be run due to call cost exceeds limit for rule: "
            outcome.errors.append(invalid(path or NO_FIELD, node.type, f"{why}{rule.called}"))
            raise _Stop from None
        for error, may_ratchet in complaints:
            if may_ratchet and not rule.uses_former and before.is_unchanged():
                outcome.warnings.append(str(error))
            else:
                outcome.errors.append(error)


def _complaints(rule: Rule, node: _Node, value: Any, data: Obj, path: str) -> Iterator[tuple[FieldError, bool]]:
    """(what is wrong, whether it may be passed over where nothing has changed)"""
    here = path or NO_FIELD
    if rule.program is None:
        yield invalid(here, node.type, f"rule compile error: {rule.problem}"), False
        return
    try:
        holds, _ = evaluate(rule.program, data)
    except CostExceeded:
        raise
    except CelError as error:
        yield invalid(here, node.type, _unanswered(str(error), rule)), False
        return
    if holds is True:
        return
    where = ".".join(filter(None, (path, rule.path))) or NO_FIELD
    yield _broken(rule, node, where, value, _message(rule, data)), True


def _unanswered(why: str, rule: Rule) -> str:
    if why.startswith("no such overload"):
        return (
            f"'{why}': call arguments did not match a supported operator, function or macro signature for rule: "
            f"{rule.called}"
        )
    return f"{why} evaluating rule: {rule.called}"


def _message(rule: Rule, data: Obj) -> str:
    if rule.message_program is not None:
        try:
            made, _ = evaluate(rule.message_program, data)
        except CelError:
            made = ""
        text = made.strip() if isinstance(made, str) else ""
        if text and len(text.encode()) <= _LONGEST_MESSAGE and "\n" not in text:
            return text
    return rule.message or f"failed rule: {rule.called}"


def _broken(rule: Rule, node: _Node, where: str, value: Any, detail: str) -> FieldError:
    shown = node.type not in ("object", "array")
    match rule.reason:
        case "FieldValueForbidden":
            return forbidden(where, detail)
        case "FieldValueRequired":
            return required(where, detail)
        case "FieldValueDuplicate":
            return duplicate(where, value) if shown else FieldError(FieldErrorType.DUPLICATE, where)
    return invalid(where, value, detail) if shown else FieldError(FieldErrorType.INVALID, where, detail)
