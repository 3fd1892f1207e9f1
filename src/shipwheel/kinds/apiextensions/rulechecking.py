"""What is said of rules in CEL when a definition declares them: that they cannot be compiled, or can cost too much.

The runtime sees objects as maps. So that it does not miss what is wrong with a rule, it is compiled a second time with
the types of the fields that it names (`api.cel.checking`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shipwheel.api.cel.checking import check
from shipwheel.api.cel.library import CelError, compile_in
from shipwheel.api.errors import forbidden, invalid
from shipwheel.api.meta import Obj
from shipwheel.kinds.apiextensions.rulecompiling import (
    has_rules,
    rule_environment,
    schemas_of,
    uses_former,
    with_metadata,
)
from shipwheel.kinds.apiextensions.rulecost import DEFINITION_LIMIT, RULE_LIMIT, at_most, cost, cost_message
from shipwheel.kinds.apiextensions.structural import places
from shipwheel.kinds.checks import Errors

_SHARE = 100
"""A rule that costs less than a hundredth of what all may cost is not named when these cost too much."""
_NAMED = 4


@dataclass(frozen=True, slots=True)
class _Place:
    path: str
    schema: Obj
    times: int | None
    """How often such a value can occur; None: nothing bounds it."""
    apart: str
    """Where the path passes a list whose items cannot be told apart."""


@dataclass(slots=True)
class _Costs:
    limited: bool
    of_rules: list[tuple[int, str]] = field(default_factory=list)


def check_rules(schema: Obj, path: str, errors: Errors, *, limited: bool = True) -> None:
    """The rules of a schema that is right otherwise. `limited`: also what they cost (not where all is as it was)."""
    costs = _Costs(limited)
    found: Errors = []
    _check(_Place(path, with_metadata(schema), 1, ""), costs, found)
    total = sum(each for each, _ in costs.of_rules)
    if limited and total > DEFINITION_LIMIT:
        for each, where in sorted(costs.of_rules, reverse=True)[:_NAMED]:
            if each >= DEFINITION_LIMIT / _SHARE:
                detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
                found.append(forbidden(where, detail))
        what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        found.append(forbidden(path, cost_message(what, total, DEFINITION_LIMIT)))
    errors += found


def _check(place: _Place, costs: _Costs, errors: Errors) -> None:
    schema = place.schema
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        here = replace(place, path=f"{place.path}.x-kubernetes-validations[{index}]")
        _check_rule(rule, here, costs, errors)
    told_apart = schema.get("x-kubernetes-list-type") == "map" or schema.get("type") != "array"
    apart = place.apart or ("" if told_apart else place.path)
    for where, each in places(schema):
        if has_rules(each):
            typed = with_metadata(each) if each.get("x-kubernetes-embedded-resource") else each
            _check(_Place(f"{place.path}.{where}", typed, _times(place, where), apart), costs, errors)


def _times(place: _Place, where: str) -> int | None:
    bound = {"items": "maxItems", "additionalProperties": "maxProperties"}.get(where)
    if bound is None or place.times is None:
        return place.times
    most = place.schema.get(bound)
    return None if most is None else place.times * int(most)


def _check_rule(rule: Obj, place: _Place, costs: _Costs, errors: Errors) -> None:
    path, schema = place.path, place.schema
    if problem := _rule_problem(rule, schema):
        errors.append(invalid(f"{path}.rule", _shown(rule), problem))
    elif rule.get("messageExpression") and (problem := _message_problem(rule, schema)):
        errors.append(invalid(f"{path}.messageExpression", _shown(rule), problem))
    if problem:
        return
    if costs.limited:
        _check_cost(rule, place, costs, errors)
    if uses_former(rule["rule"]):
        if place.apart:
            detail = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {place.apart}"
            errors.append(invalid(f"{path}.rule", rule["rule"], detail))
    elif rule.get("optionalOldSelf") is not None:
        detail = "may not be set if oldSelf is not used in rule"
        errors.append(invalid(f"{path}.optionalOldSelf", rule["optionalOldSelf"], detail))


def _check_cost(rule: Obj, place: _Place, costs: _Costs, errors: Errors) -> None:
    once = cost(compile_in(rule_environment(), rule["rule"]), place.schema)
    estimated = once * (at_most(place.schema) if place.times is None else place.times)
    where = f"{place.path}.rule"
    if estimated > RULE_LIMIT:
        errors.append(forbidden(where, cost_message("estimated rule cost", estimated, RULE_LIMIT)))
    costs.of_rules.append((estimated, where))


def _rule_problem(rule: Obj, schema: Mapping[str, Any]) -> str:
    """Why a rule cannot be declared."""
    return _problem(rule["rule"], schema, rule, "BOOL", "cel expression must evaluate to a bool")


def _message_problem(rule: Obj, schema: Mapping[str, Any]) -> str:
    """Why its `messageExpression` cannot."""
    found = _problem(rule["messageExpression"], schema, rule, "STRING", "messageExpression must evaluate to a string")
    return f"messageExpression {found}" if found.startswith("compilation failed") else found


def _problem(expression: str, schema: Mapping[str, Any], rule: Obj, wanted: str, otherwise: str) -> str:
    schemas = schemas_of(schema, is_optional=bool(rule.get("optionalOldSelf")))
    try:
        compile_in(rule_environment(), expression)
    except CelError as error:
        return str(error)
    found, kind = check(expression, schemas)
    if found:
        return "compilation failed: " + "\n".join(found)
    return "" if kind.name() in (wanted, "DYN") else otherwise


def _shown(rule: Obj) -> Obj:
    """The rule as upstream prints it."""
    names = ("rule", "message", "messageExpression", "reason", "fieldPath", "optionalOldSelf")
    empty = {"reason": None, "optionalOldSelf": None}
    return {f"{name[0].upper()}{name[1:]}": rule.get(name, empty.get(name, "")) for name in names}
