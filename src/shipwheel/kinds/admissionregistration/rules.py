"""Which requests a webhook or a policy is asked about: rules, selectors, match conditions."""

from __future__ import annotations

from collections.abc import Collection

from shipwheel.api.errors import duplicate, invalid, not_supported, required, too_many
from shipwheel.api.meta import Obj, name_of
from shipwheel.api.names import is_path_segment_name, is_qualified_name
from shipwheel.api.objectmeta import validate_label_selector
from shipwheel.kinds.checks import Errors, check_rule

FAILURE_POLICIES = ("Fail", "Ignore")
MATCH_POLICIES = ("Equivalent", "Exact")
REINVOCATION_POLICIES = ("IfNeeded", "Never")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
MUTATING_OPERATIONS = ("*", "CONNECT", "CREATE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_MAX_CONDITIONS = 64
_STATIC = ".static.k8s.io"


def default_matching(obj: Obj) -> None:
    """Policy and selectors of a webhook, or of a policy's `matchConstraints`."""
    if obj.get("matchPolicy") is None:
        obj["matchPolicy"] = "Equivalent"
    for field in ("namespaceSelector", "objectSelector"):
        if obj.get(field) is None:
            obj[field] = {}


def default_rules(rules: Collection[Obj] | None) -> None:
    for rule in rules or ():
        if rule.get("scope") is None:
            rule["scope"] = "*"


def static_name_warnings(obj: Obj) -> list[str]:
    if not name_of(obj).endswith(_STATIC):
        return []
    return [
        f'metadata.name: names ending with "{_STATIC}" are reserved for static manifest-based configurations and '
        "cannot be managed via the API"
    ]


def check_operations_rule(rule: Obj, path: str, errors: Errors) -> None:
    """Operations on groups, versions and resources."""
    operations = rule.get("operations") or []
    if not operations:
        errors.append(required(f"{path}.operations"))
    _check_wildcard(operations, "operations", f"{path}.operations", errors)
    for index, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            errors.append(not_supported(f"{path}.operations[{index}]", operation, _OPERATIONS))
    for field, words in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        values = rule.get(field) or []
        if not values:
            errors.append(required(f"{path}.{field}"))
        _check_wildcard(values, words, f"{path}.{field}", errors)
    for index, version in enumerate(rule.get("apiVersions") or ()):
        if not version:
            errors.append(required(f"{path}.apiVersions[{index}]"))
    _check_resources(rule.get("resources") or [], f"{path}.resources", errors)
    scope = rule.get("scope")
    if scope is not None and scope not in _SCOPES:
        errors.append(not_supported(f"{path}.scope", scope, _SCOPES))


def _check_wildcard(values: list[str], words: str, path: str, errors: Errors) -> None:
    if len(values) > 1 and "*" in values:
        errors.append(invalid(path, values, f"if '*' is present, must not specify other {words}"))


def _check_resources(resources: list[str], path: str, errors: Errors) -> None:
    """Resources and subresources, none of which makes another superfluous."""
    if not resources:
        errors.append(required(path))
    whole: set[str] = set()
    everywhere: set[str] = set()
    has_plain = False
    for index, each in enumerate(resources):
        here = f"{path}[{index}]"
        if not each:
            errors.append(required(here))
            continue
        resource, slash, sub = each.partition("/")
        if not slash:
            has_plain = each != "*"
            continue
        if resource in whole:
            errors.append(invalid(here, each, f"if '{resource}/*' is present, must not specify {each}"))
        if sub in everywhere:
            errors.append(invalid(here, each, f"if '*/{sub}' is present, must not specify {each}"))
        if sub == "*":
            whole.add(resource)
        if resource == "*":
            everywhere.add(sub)
    if len(resources) > 1 and "*/*" in resources:
        errors.append(invalid(path, resources, "if '*/*' is present, must not specify other resources"))
    if "*" in resources and has_plain:
        detail = "if '*' is present, must not specify other resources without subresources"
        errors.append(invalid(path, resources, detail))


def check_match_resources(match: Obj, path: str, errors: Errors) -> None:
    policy = match.get("matchPolicy")
    if policy is None:
        errors.append(required(f"{path}.matchPolicy"))
    elif policy not in MATCH_POLICIES:
        errors.append(not_supported(f"{path}.matchPolicy", policy, MATCH_POLICIES))
    for field in ("namespaceSelector", "objectSelector"):
        if match.get(field) is None:
            errors.append(required(f"{path}.{field}"))
        else:
            errors += validate_label_selector(match[field], f"{path}.{field}")
    for field in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(match.get(field) or ()):
            here = f"{path}.{field}[{index}]"
            _check_names(rule.get("resourceNames") or [], f"{here}.resourceNames", errors)
            check_operations_rule(rule, here, errors)


def _check_names(names: list[str], path: str, errors: Errors) -> None:
    for index, name in enumerate(names):
        check_rule(is_path_segment_name, name, f"{path}[{index}]", errors)
        if name in names[:index]:
            errors.append(duplicate(f"{path}[{index}]", name))


def check_only_mutable(match: Obj, path: str, errors: Errors) -> None:
    """What is deleted cannot be changed any more."""
    for rule in match.get("resourceRules") or ():
        for operation in rule.get("operations") or ():
            if operation not in MUTATING_OPERATIONS:
                here = f"{path}.resourceRules.operations"
                errors.append(not_supported(here, operation, MUTATING_OPERATIONS))


def check_match_conditions(conditions: list[Obj], path: str, errors: Errors) -> None:
    if len(conditions) > _MAX_CONDITIONS:
        errors.append(too_many(path, len(conditions), _MAX_CONDITIONS))
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        here, name = f"{path}[{index}]", condition.get("name", "")
        if not condition.get("expression", "").strip():
            errors.append(required(f"{here}.expression"))
        if not name:
            errors.append(required(f"{here}.name"))
            continue
        check_rule(is_qualified_name, name, f"{here}.name", errors)
        if name in seen:
            errors.append(duplicate(f"{here}.name", name))
        seen.add(name)
