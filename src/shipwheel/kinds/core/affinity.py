"""Where a pod may and may not run: node selectors, affinity, tolerations, spreading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shipwheel.api.errors import duplicate, forbidden, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import (
    is_qualified_name,
    is_valid_label_value,
    name_is_dns_label,
    name_is_dns_subdomain,
)
from shipwheel.api.objectmeta import validate_label_selector
from shipwheel.kinds.checks import Errors, check_one_of, check_positive, check_rule

TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_WRONG_OPERATOR = "not a valid selector operator"


def check_affinity(affinity: Obj, path: str, errors: Errors) -> None:
    if nodes := affinity.get("nodeAffinity"):
        _check_node_affinity(nodes, f"{path}.nodeAffinity", errors)
    for field in ("podAffinity", "podAntiAffinity"):
        if pods := affinity.get(field):
            _check_pod_affinity(pods, f"{path}.{field}", errors)


# Nodes


def _check_node_affinity(affinity: Obj, path: str, errors: Errors) -> None:
    if (wanted := affinity.get(_REQUIRED)) is not None:
        check_node_selector(wanted, f"{path}.{_REQUIRED}", errors)
    for index, term in enumerate(affinity.get(_PREFERRED) or ()):
        here = f"{path}.{_PREFERRED}[{index}]"
        _check_weight(term.get("weight", 0), here, errors)
        check_node_selector_term(term.get("preference") or {}, f"{here}.preference", errors, any_value=True)


def _check_weight(weight: int, path: str, errors: Errors) -> None:
    if not 0 < weight <= 100:
        errors.append(invalid(f"{path}.weight", weight, "must be in the range 1-100"))


def check_node_selector(selector: Obj, path: str, errors: Errors) -> None:
    """A `core/v1 NodeSelector`: at least one term, of which one has to match."""
    terms = selector.get("nodeSelectorTerms")
    here = f"{path}.nodeSelectorTerms"
    if not terms:
        errors.append(required(here, "must have at least one node selector term"))
        return
    for index, term in enumerate(terms):
        check_node_selector_term(term, f"{here}[{index}]", errors)


def check_node_selector_term(term: Obj, path: str, errors: Errors, *, any_value: bool = False) -> None:
    """`any_value`: values need not be possible labels, as it has always been for preferences."""
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        _check_node_requirement(requirement, f"{path}.matchExpressions[{index}]", errors, any_value)
    for index, requirement in enumerate(term.get("matchFields") or ()):
        _check_node_field(requirement, f"{path}.matchFields[{index}]", errors)


def _check_node_requirement(requirement: Obj, path: str, errors: Errors, any_value: bool) -> None:
    operator, values = requirement.get("operator", ""), requirement.get("values") or ()
    here = f"{path}.values"
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(required(here, "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden(here, detail))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            detail = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            errors.append(required(here, detail))
    else:
        errors.append(invalid(f"{path}.operator", operator, _WRONG_OPERATOR))
    check_rule(is_qualified_name, requirement.get("key", ""), f"{path}.key", errors)
    if not any_value:
        for index, value in enumerate(values):
            check_rule(is_valid_label_value, value, f"{here}[{index}]", errors)


def _check_node_field(requirement: Obj, path: str, errors: Errors) -> None:
    operator, values = requirement.get("operator", ""), requirement.get("values") or ()
    if operator in ("In", "NotIn"):
        if len(values) != 1:
            detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            errors.append(required(f"{path}.values", detail))
    else:
        errors.append(invalid(f"{path}.operator", operator, _WRONG_OPERATOR))
    key = requirement.get("key", "")
    if key != "metadata.name":
        errors.append(invalid(f"{path}.key", key, "not a valid field selector key"))
        return
    for index, value in enumerate(values):
        check_rule(name_is_dns_subdomain, value, f"{path}.values[{index}]", errors)


# Pods


def _check_pod_affinity(affinity: Obj, path: str, errors: Errors) -> None:
    for index, term in enumerate(affinity.get(_REQUIRED) or ()):
        _check_pod_affinity_term(term, f"{path}.{_REQUIRED}[{index}]", errors)
    for index, weighted in enumerate(affinity.get(_PREFERRED) or ()):
        here = f"{path}.{_PREFERRED}[{index}]"
        _check_weight(weighted.get("weight", 0), here, errors)
        _check_pod_affinity_term(weighted.get("podAffinityTerm") or {}, f"{here}.podAffinityTerm", errors)


def _check_pod_affinity_term(term: Obj, path: str, errors: Errors) -> None:
    for field in ("labelSelector", "namespaceSelector"):
        errors += validate_label_selector(term.get(field), f"{path}.{field}")
    for namespace in term.get("namespaces") or ():
        check_rule(name_is_dns_label, namespace, f"{path}.namespace", errors)
    check_label_keys(term, path, errors)
    topology_key = term.get("topologyKey", "")
    if not topology_key:
        errors.append(required(f"{path}.topologyKey", "can not be empty"))
    check_rule(is_qualified_name, topology_key, f"{path}.topologyKey", errors)


def check_label_keys(term: Obj, path: str, errors: Errors) -> None:
    """`matchLabelKeys` and `mismatchLabelKeys` (KEP-3633): labels whose values are taken from the pod itself.

    On create they are merged into the label selector, so there they stand at most once more.
    """
    selector = term.get("labelSelector")
    match, mismatch = term.get("matchLabelKeys") or (), term.get("mismatchLabelKeys") or ()
    for field, keys in (("matchLabelKeys", match), ("mismatchLabelKeys", mismatch)):
        if keys and selector is None:
            detail = "must not be specified when labelSelector is not set"
            errors.append(forbidden(f"{path}.{field}", detail))
        elif keys:
            for index, key in enumerate(keys):
                check_rule(is_qualified_name, key, f"{path}.{field}[{index}]", errors)
    if selector is not None and match:
        seen = set(selector.get("matchLabels") or ())
        for expression in selector.get("matchExpressions") or ():
            key = expression.get("key", "")
            if key in match and key in seen:
                detail = "exists in both matchLabelKeys and labelSelector"
                errors.append(invalid(f"{path}[{match.index(key)}]", key, detail))
            seen.add(key)
    for index, key in enumerate(match):
        if key in mismatch:
            detail = "exists in both matchLabelKeys and mismatchLabelKeys"
            errors.append(invalid(f"{path}.matchLabelKeys[{index}]", key, detail))


def merge_label_keys(pod: Obj) -> None:
    """Put what `matchLabelKeys` and `mismatchLabelKeys` mean for this pod into its label selectors."""
    spec = pod["spec"]
    terms = list(spec.get("topologySpreadConstraints") or ())
    affinity = spec.get("affinity") or {}
    for field in ("podAffinity", "podAntiAffinity"):
        pods = affinity.get(field) or {}
        terms += pods.get(_REQUIRED) or ()
        terms += [each.get("podAffinityTerm") or {} for each in pods.get(_PREFERRED) or ()]
    labels = pod["metadata"].get("labels") or {}
    for term in terms:
        selector = term.get("labelSelector")
        if selector is None:
            continue
        for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
            for key in term.get(field) or ():
                if key in labels:
                    requirement = {"key": key, "operator": operator, "values": [labels[key]]}
                    selector["matchExpressions"] = [*(selector.get("matchExpressions") or ()), requirement]


# Taints


def check_tolerations(tolerations: list[Obj], path: str, errors: Errors) -> None:
    for index, toleration in enumerate(tolerations):
        _check_toleration(toleration, f"{path}[{index}]", errors)


def _check_toleration(toleration: Obj, path: str, errors: Errors) -> None:
    get: Callable[..., Any] = toleration.get
    key, operator, value, effect = (
        get("key", ""),
        get("operator", ""),
        get("value", ""),
        get("effect", ""),
    )
    if key:
        check_rule(is_qualified_name, key, f"{path}.key", errors)
    elif operator != "Exists":
        detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        errors.append(invalid(f"{path}.operator", operator, detail))
    if get("tolerationSeconds") is not None and effect != "NoExecute":
        detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        errors.append(invalid(f"{path}.effect", effect, detail))
    if operator in ("Equal", ""):
        complaints = is_valid_label_value(value)
        if complaints:
            errors.append(invalid(f"{path}.operator", value, ";".join(complaints)))
    elif operator == "Exists":
        if value:
            detail = "value must be empty when `operator` is 'Exists'"
            errors.append(invalid(f"{path}.operator", value, detail))
    elif operator in ("Lt", "Gt"):
        errors.append(not_supported(f"{path}.operator", operator, ("Equal", "Exists", "Lt", "Gt")))
    else:
        errors.append(not_supported(f"{path}.operator", operator, ("Equal", "Exists")))
    if effect:
        check_one_of(effect, TAINT_EFFECTS, f"{path}.effect", errors)


# Spreading


def check_topology_spread(constraints: list[Obj], path: str, errors: Errors) -> None:
    seen: list[tuple[str, str]] = [
        (each.get("topologyKey", ""), each.get("whenUnsatisfiable", "")) for each in constraints
    ]
    for index, constraint in enumerate(constraints):
        here = f"{path}[{index}]"
        key, action = seen[index]
        check_positive(constraint.get("maxSkew", 0), f"{here}.maxSkew", errors)
        if not key:
            errors.append(required(f"{here}.topologyKey", "can not be empty"))
        check_one_of(action, ("DoNotSchedule", "ScheduleAnyway"), f"{here}.whenUnsatisfiable", errors)
        if seen[index] in seen[index + 1 :]:
            shown = f"{{{key}, {action}}}"
            errors.append(duplicate(f"{here}.{{topologyKey, whenUnsatisfiable}}", shown))
        domains = constraint.get("minDomains")
        if domains is not None:
            check_positive(domains, f"{here}.minDomains", errors)
            if action != "DoNotSchedule":
                detail = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                errors.append(invalid(f"{here}.minDomains", domains, detail))
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if constraint.get(field) is not None:
                check_one_of(constraint[field], ("Honor", "Ignore"), f"{here}.{field}", errors)
        check_label_keys(constraint, here, errors)
        errors += validate_label_selector(constraint.get("labelSelector"), f"{here}.labelSelector")
