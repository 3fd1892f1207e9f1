"""Pod disruption budgets: how many pods may be missing at a time, on purpose."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.errors import FieldError, invalid, not_supported
from shipwheel.api.meta import Obj
from shipwheel.api.names import name_is_path_segment
from shipwheel.api.objectmeta import validate_conditions, validate_label_selector
from shipwheel.api.resource import Column, Resource
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.columns import AGE, NAME, Value, number
from shipwheel.kinds.declare import STATUS, older, served
from shipwheel.kinds.strategies import BuiltinStrategy
from shipwheel.kinds.workload import check_at_most_all, check_counts, check_number_or_percent

_EVICTION_POLICIES = ("AlwaysAllow", "IfHealthyBudget")
_COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")


class PodDisruptionBudgetStrategy(BuiltinStrategy):
    name_rule = staticmethod(name_is_path_segment)
    allow_unconditional_update = False

    def validate(self, budget: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = budget.get("spec") or {}
        if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
            errors.append(invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
        for field in ("minAvailable", "maxUnavailable"):
            if spec.get(field) is not None:
                check_number_or_percent(spec[field], f"spec.{field}", errors)
                check_at_most_all(spec[field], f"spec.{field}", errors)
        errors += validate_label_selector(spec.get("selector"), "spec.selector")
        policy = spec.get("unhealthyPodEvictionPolicy")
        if policy is not None and policy not in _EVICTION_POLICIES:
            errors.append(not_supported("spec.unhealthyPodEvictionPolicy", policy, _EVICTION_POLICIES))
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        status = new.get("status") or {}
        errors: Errors = validate_conditions(status.get("conditions"), "status.conditions")
        check_counts(status, _COUNTS, errors)
        return errors


# An empty selector is everything today and was nothing in v1beta1. What the one has a word for and the other has
# not is said with a label that no pod has.
_ABSENT_LABEL = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match"


def _with_selector(budget: Obj, selector: Obj) -> Obj:
    return {**budget, "spec": {**(budget.get("spec") or {}), "selector": selector}}


def _asks_for_label(operator: str) -> Obj:
    return {"matchExpressions": [{"key": _ABSENT_LABEL, "operator": operator}]}


def _of_v1beta1(budget: Obj) -> Obj:
    selector = (budget.get("spec") or {}).get("selector")
    if selector is None:
        return budget
    if not selector:
        return _with_selector(budget, _asks_for_label("Exists"))
    if selector == _asks_for_label("DoesNotExist"):
        return _with_selector(budget, {})
    terms = [each for each in selector.get("matchExpressions") or () if each.get("key") != _ABSENT_LABEL]
    rest = {key: value for key, value in selector.items() if key != "matchExpressions"}
    return _with_selector(budget, {**rest, "matchExpressions": terms} if terms else rest)


def _to_v1beta1(budget: Obj) -> Obj:
    selector = (budget.get("spec") or {}).get("selector")
    if selector == _asks_for_label("Exists"):
        return _with_selector(budget, {})
    return _with_selector(budget, _asks_for_label("DoesNotExist")) if selector == {} else budget


def _limit(field: str) -> Value:
    def value(budget: Obj, now: datetime) -> str:
        limit = (budget.get("spec") or {}).get(field)
        return "N/A" if limit is None else str(limit)

    return value


RESOURCES = (
    Resource(
        kind="PodDisruptionBudget",
        plural="poddisruptionbudgets",
        singular="poddisruptionbudget",
        short_names=("pdb",),
        versions=(
            served("policy", "v1", "PodDisruptionBudget"),
            older(
                "policy",
                "v1beta1",
                "PodDisruptionBudget",
                since="1.21",
                until="1.25",
                replacement="policy/v1",
                to_storage=_of_v1beta1,
                from_storage=_to_v1beta1,
            ),
        ),
        strategy=PodDisruptionBudgetStrategy(),
        columns=(
            NAME,
            Column("Min Available", _limit("minAvailable")),
            Column("Max Unavailable", _limit("maxUnavailable")),
            Column("Allowed Disruptions", number("status", "disruptionsAllowed"), type="integer"),
            AGE,
        ),
        subresources=(STATUS,),
    ),
)
