"""What a review says of the labels and fields of the objects asked about (KEP-4601).

A selector comes as text or as requirements. What cannot be read is left out: the question then is about more
objects, and who may see those may see these. The answer tells of it as an evaluation error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shipwheel.api.errors import forbidden, invalid, required
from shipwheel.api.meta import Obj
from shipwheel.api.objectmeta import validate_label_requirement
from shipwheel.api.selectors import (
    FieldTerm,
    LabelSelector,
    SelectorError,
    from_label_selector,
    parse_field_selector,
    parse_label_selector,
)
from shipwheel.kinds.checks import Errors

FIELDS = "fieldSelector"
LABELS = "labelSelector"


def check_selectors(resource: Obj, path: str, errors: Errors) -> None:
    for field, check in ((FIELDS, _check_field_requirements), (LABELS, _check_label_requirements)):
        selector = resource.get(field)
        if selector is None:
            continue
        here, raw, requirements = f"{path}.{field}", selector.get("rawSelector"), selector.get("requirements") or []
        if raw and requirements:
            errors.append(invalid(f"{here}.rawSelector", raw, "may not specified at the same time as requirements"))
        if not raw and not requirements:
            detail = f"when {here} is specified, requirements or rawSelector is required"
            errors.append(required(f"{here}.requirements", detail))
        check(requirements, f"{here}.requirements", errors)


def _check_field_requirements(requirements: list[Obj], path: str, errors: Errors) -> None:
    for index, requirement in enumerate(requirements):
        here, operator = f"{path}[{index}]", requirement.get("operator")
        if not requirement.get("key"):
            errors.append(required(f"{here}.key", "must be specified"))
        if operator in ("In", "NotIn") and not requirement.get("values"):
            errors.append(required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        if operator in ("Exists", "DoesNotExist") and requirement.get("values"):
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden(f"{here}.values", detail))


def _check_label_requirements(requirements: list[Obj], path: str, errors: Errors) -> None:
    for index, requirement in enumerate(requirements):
        errors += validate_label_requirement(requirement, f"{path}[{index}]", allow_unknown_operators=True)


def readable(resource: Obj, field: str) -> tuple[str, str]:
    """The selector as text, as far as it can be read, and what is to be said when that is not all of it."""
    selector = resource.get(field) or {}
    parse, of_requirement = _READERS[field]
    raw = selector.get("rawSelector")
    read = parse if raw else of_requirement
    parts, failed = [], False
    for source in [raw] if raw else selector.get("requirements") or ():
        try:
            parts.append(str(read(source)))
        except SelectorError:
            failed = True
    partially = "partially " if parts else ""
    complaint = f"spec.resourceAttributes.{field} {partially}ignored due to parse error" if failed else ""
    return ",".join(parts), complaint


def _label_requirement(requirement: Obj) -> LabelSelector:
    return from_label_selector({"matchExpressions": [requirement]})


def _field_term(requirement: Obj) -> FieldTerm:
    """Fields are only compared, and with one value each."""
    operator, values = requirement.get("operator"), requirement.get("values") or []
    if operator not in ("In", "NotIn") or len(values) != 1:
        raise SelectorError(f'"{operator}" is not a valid field selector operator')
    return FieldTerm(requirement.get("key", ""), "=" if operator == "In" else "!=", values[0])


_Reader = Callable[[Any], object]
_READERS: dict[str, tuple[_Reader, _Reader]] = {
    FIELDS: (parse_field_selector, _field_term),
    LABELS: (parse_label_selector, _label_requirement),
}
