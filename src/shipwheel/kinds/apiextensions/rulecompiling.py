"""Rules of custom resources compiled (see `rules`), and what is said of those that cannot be when a definition declares
them.

The runtime sees objects as maps. So that it does not miss what is wrong with a rule, it is compiled a second time with
the types of the fields that it names (`api.cel.checking`). Fields of formats that CEL has types for are texts in a map:
where a rule takes such a field's value, the conversion is put around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from shipwheel.api.cel.checking import Schemas, check, fields_of, names
from shipwheel.api.cel.library import CelError, compile_in, environment
from shipwheel.api.errors import invalid
from shipwheel.api.meta import Obj
from shipwheel.kinds.apiextensions.fieldpath import FieldPathError, find_schema
from shipwheel.kinds.apiextensions.structural import places
from shipwheel.kinds.checks import Errors

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
        program, problem = compile_in(_environment(), _prepared(rule["rule"], schema, is_optional)), ""
    except CelError as error:
        program, problem = None, str(error)
    try:
        expression = rule.get("messageExpression")
        message_program = compile_in(_environment(), _prepared(expression, schema, is_optional)) if expression else None
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


def rule_problem(rule: Obj, schema: Mapping[str, Any]) -> str:
    """Why a rule cannot be declared."""
    return _problem(rule["rule"], schema, rule, "BOOL", "cel expression must evaluate to a bool")


def message_problem(rule: Obj, schema: Mapping[str, Any]) -> str:
    """Why its `messageExpression` cannot."""
    found = _problem(rule["messageExpression"], schema, rule, "STRING", "messageExpression must evaluate to a string")
    return f"messageExpression {found}" if found.startswith("compilation failed") else found


def check_rules(schema: Obj, path: str, errors: Errors, *, is_root: bool = True, apart: str = "") -> None:
    """Whether the rules of a schema that is right otherwise can be compiled. `apart` is where the path to it passes a
    list whose items cannot be told apart."""
    typed = with_metadata(schema) if is_root or schema.get("x-kubernetes-embedded-resource") else schema
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        _check_rule(rule, typed, f"{path}.x-kubernetes-validations[{index}]", apart, errors)
    if schema.get("x-kubernetes-list-type") != "map" and schema.get("type") == "array":
        apart = apart or path
    for where, each in places(schema):
        if has_rules(each):
            check_rules(each, f"{path}.{where}", errors, is_root=False, apart=apart)


def _check_rule(rule: Obj, schema: Mapping[str, Any], path: str, apart: str, errors: Errors) -> None:
    if problem := rule_problem(rule, schema):
        errors.append(invalid(f"{path}.rule", _shown(rule), problem))
    elif rule.get("messageExpression") and (problem := message_problem(rule, schema)):
        errors.append(invalid(f"{path}.messageExpression", _shown(rule), problem))
    if problem:
        return
    if uses_former(rule["rule"]):
        if apart:
            detail = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {apart}"
            errors.append(invalid(f"{path}.rule", rule["rule"], detail))
    elif rule.get("optionalOldSelf") is not None:
        detail = "may not be set if oldSelf is not used in rule"
        errors.append(invalid(f"{path}.optionalOldSelf", rule["optionalOldSelf"], detail))


def _shown(rule: Obj) -> Obj:
    """The rule as upstream prints it."""
    names = ("rule", "message", "messageExpression", "reason", "fieldPath", "optionalOldSelf")
    empty = {"reason": None, "optionalOldSelf": None}
    return {f"{name[0].upper()}{name[1:]}": rule.get(name, empty.get(name, "")) for name in names}


def _problem(expression: str, schema: Mapping[str, Any], rule: Obj, wanted: str, otherwise: str) -> str:
    schemas = _schemas(schema, is_optional=bool(rule.get("optionalOldSelf")))
    try:
        compile_in(_environment(), expression)
    except CelError as error:
        return str(error)
    found, kind = check(expression, schemas)
    if found:
        return "compilation failed: " + "\n".join(found)
    return "" if kind.name() in (wanted, "DYN") else otherwise


def _schemas(schema: Mapping[str, Any], *, is_optional: bool) -> Schemas:
    roots: dict[str, Obj | None] = {"self": dict(schema), "oldSelf": None if is_optional else dict(schema)}
    return Schemas(roots, lambda reference: {}, {}, others=())


def _prepared(expression: str, schema: Mapping[str, Any], is_optional: bool) -> str:
    """The expression as the runtime can answer it."""
    taken = fields_of(expression, _schemas(schema, is_optional=is_optional))
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
def _environment() -> Any:
    from cel_expr_python import cel

    kind = cel.Type
    return environment({"self": kind.DYN, "oldSelf": kind.DYN, "formerSelf": kind.List(kind.DYN)})
