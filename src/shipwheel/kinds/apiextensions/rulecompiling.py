"""Rules of custom resources, compiled (see `rules`).

The runtime sees objects as maps, so fields of formats that CEL has types for are texts: where a rule takes such a
field's value, the conversion is put around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from shipwheel.api.cel.checking import Schemas, fields_of, names
from shipwheel.api.cel.library import CelError, compile_in, environment
from shipwheel.api.meta import Obj
from shipwheel.kinds.apiextensions.fieldpath import FieldPathError, find_schema

_TEXT: Obj = {"type": "string"}
_METADATA: Obj = {"type": "object", "properties": {"name": _TEXT, "generateName": _TEXT}}
_CONVERSIONS = {
    "date-time": "timestamp({})",
    "date": "timestamp({} + 'T00:00:00Z')",
    "duration": "duration({})",
}
_WITH_OPTIONAL = "cel.bind(oldSelf, formerSelf.size() > 0 ? optional.of(formerSelf[0]) : optional.none(), {})"


@dataclass(frozen=True, slots=True)
class Rule:
    called: str
    """What messages name it by: its own message, or its text."""
    message: str
    reason: str
    path: str
    """The field below that it is about."""
    uses_former: bool
    is_optional: bool
    """`oldSelf` is an optional value, and the rule is asked without a former one too."""
    program: Any
    """None: it cannot be compiled, and `problem` says why."""
    problem: str
    message_program: Any


def has_rules(schema: Mapping[str, Any]) -> bool:
    """Whether there are rules anywhere in it."""
    if schema.get("x-kubernetes-validations"):
        return True
    below = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return any(has_rules(each) for each in below if isinstance(each, dict))


def with_metadata(schema: Mapping[str, Any]) -> Obj:
    """The schema of an object of its own, with what all of them have."""
    known = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": _METADATA}
    return {**schema, "properties": {**(schema.get("properties") or {}), **known}}


def compile_rule(rule: Obj, schema: Mapping[str, Any]) -> Rule:
    """`schema` is that of `self`."""
    text, message = rule.get("rule", "").strip(), (rule.get("message") or "").strip()
    is_optional = bool(rule.get("optionalOldSelf"))
    try:
        program, problem = compile_in(rule_environment(), _prepared(rule["rule"], schema, is_optional)), ""
    except CelError as error:
        program, problem = None, str(error)
    try:
        expression = rule.get("messageExpression")
        message_program = (
            compile_in(rule_environment(), _prepared(expression, schema, is_optional)) if expression else None
        )
    except CelError:
        message_program = None
    return Rule(
        called=message or text,
        message=message,
        reason=rule.get("reason") or "",
        path=_normalized(rule.get("fieldPath") or "", schema),
        uses_former=uses_former(rule["rule"]),
        is_optional=is_optional,
        program=program,
        problem=problem,
        message_program=message_program,
    )


def uses_former(expression: str) -> bool:
    """Whether it is a transition rule."""
    return "oldSelf" in names(expression)


def schemas_of(schema: Mapping[str, Any], *, is_optional: bool) -> Schemas:
    """What a rule's variables are."""
    roots: dict[str, Obj | None] = {"self": dict(schema), "oldSelf": None if is_optional else dict(schema)}
    return Schemas(roots, lambda reference: {}, {}, others=())


def _prepared(expression: str, schema: Mapping[str, Any], is_optional: bool) -> str:
    """The expression as the runtime can answer it."""
    taken = fields_of(expression, schemas_of(schema, is_optional=is_optional))
    for start, end, field in sorted(taken, key=lambda each: each[0], reverse=True):
        if field.get("type") == "string" and (conversion := _CONVERSIONS.get(field.get("format", ""))):
            expression = expression[:start] + conversion.format(expression[start:end]) + expression[end:]
    return _WITH_OPTIONAL.format(expression) if is_optional else expression


def _normalized(path: str, schema: Mapping[str, Any]) -> str:
    if not path:
        return ""
    try:
        steps, _ = find_schema(dict(schema), path, brackets=True)
    except FieldPathError:
        return ""
    return "".join(_steps(steps, schema)).removeprefix(".")


def _steps(steps: tuple[str, ...], schema: Any) -> Iterator[str]:
    for step in steps:
        named = schema.get("properties")
        yield f".{step}" if named else f"[{step}]"
        schema = named[step] if named else schema["additionalProperties"]


@cache
def rule_environment() -> Any:
    from cel_expr_python import cel

    kind = cel.Type
    return environment({"self": kind.DYN, "oldSelf": kind.DYN, "formerSelf": kind.List(kind.DYN)})
