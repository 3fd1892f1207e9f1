"""Flow schemas: which requests belong together, and at which priority level they are served (KEP-1040)."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, forbidden, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import name_is_dns_label, name_is_dns_subdomain
from shipwheel.api.resource import Strategy
from shipwheel.kinds.checks import Errors, check_rule
from shipwheel.kinds.flowcontrol.conditions import check_conditions
from shipwheel.kinds.flowcontrol.mandatory import FLOW_SCHEMAS

_PRECEDENCE = 1000
_LAST_PRECEDENCE = 10000
_DISTINGUISHERS = ("ByNamespace", "ByUser")
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_SUBJECTS = {"Group": "group", "ServiceAccount": "serviceAccount", "User": "user"}


class FlowSchemaStrategy(Strategy):
    def default(self, schema: Obj) -> None:
        spec = schema.setdefault("spec", {})
        if not spec.get("matchingPrecedence"):
            spec["matchingPrecedence"] = _PRECEDENCE

    def validate(self, schema: Obj) -> list[FieldError]:
        errors: Errors = []
        name, spec = schema["metadata"].get("name", ""), schema["spec"]
        _check_spec(name, spec, errors)
        if name in FLOW_SCHEMAS and spec != FLOW_SCHEMAS[name]:
            errors.append(invalid("spec", spec, f"spec of '{name}' must equal the fixed value"))
        check_conditions(schema, errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        check_conditions(new, errors)
        return errors


def _check_spec(name: str, spec: Obj, errors: Errors) -> None:
    precedence, path = spec.get("matchingPrecedence", 0), "spec.matchingPrecedence"
    if precedence <= 0:
        errors.append(invalid(path, precedence, "must be a positive value"))
    if precedence > _LAST_PRECEDENCE:
        errors.append(invalid(path, precedence, f"must not be greater than {_LAST_PRECEDENCE}"))
    if precedence == 1 and name != "exempt":
        detail = "only the schema named 'exempt' may have matchingPrecedence 1"
        errors.append(invalid(path, precedence, detail))
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in _DISTINGUISHERS:
        errors.append(not_supported("spec.distinguisherMethod.type", method, _DISTINGUISHERS))
    level = (spec.get("priorityLevelConfiguration") or {}).get("name")
    if level:
        check_rule(name_is_dns_subdomain, level, "spec.priorityLevelConfiguration.name", errors)
    else:
        detail = "must reference a priority level"
        errors.append(required("spec.priorityLevelConfiguration.name", detail))
    for index, rule in enumerate(spec.get("rules") or ()):
        _check_rule(rule, f"spec.rules[{index}]", errors)


def _check_rule(rule: Obj, path: str, errors: Errors) -> None:
    if not rule.get("subjects"):
        errors.append(required(f"{path}.subjects", "subjects must contain at least one value"))
    for index, subject in enumerate(rule.get("subjects") or ()):
        _check_subject(subject, f"{path}.subjects[{index}]", errors)
    if not rule.get("resourceRules") and not rule.get("nonResourceRules"):
        detail = "at least one of resourceRules and nonResourceRules has to be non-empty"
        errors.append(required(path, detail))
    for index, each in enumerate(rule.get("resourceRules") or ()):
        _check_resource_rule(each, f"{path}.resourceRules[{index}]", errors)
    for index, each in enumerate(rule.get("nonResourceRules") or ()):
        _check_url_rule(each, f"{path}.nonResourceRules[{index}]", errors)


def _check_subject(subject: Obj, path: str, errors: Errors) -> None:
    kind = subject.get("kind", "")
    if kind not in _SUBJECTS:
        errors.append(not_supported(f"{path}.kind", kind, tuple(_SUBJECTS)))
        return
    field = _SUBJECTS[kind]
    named = subject.get(field)
    if named is None:
        detail = f"{field} is required when subject kind is '{kind}'"
        errors.append(required(f"{path}.{field}", detail))
    else:
        _check_named(named, kind, f"{path}.{field}", errors)
    for other, other_field in _SUBJECTS.items():
        if other != kind and subject.get(other_field) is not None:
            detail = f"{other_field} is forbidden when subject kind is not '{other}'"
            errors.append(forbidden(f"{path}.{other_field}", detail))


def _check_named(named: Obj, kind: str, path: str, errors: Errors) -> None:
    name, namespace = named.get("name"), named.get("namespace")
    if not name:
        errors.append(required(f"{path}.name"))
    if kind != "ServiceAccount":
        return
    if name and name != "*":
        check_rule(name_is_dns_subdomain, name, f"{path}.name", errors)
    if namespace:
        check_rule(name_is_dns_label, namespace, f"{path}.namespace", errors)
    else:
        errors.append(required(f"{path}.namespace", "must specify namespace for service account"))


def _check_wildcard(values: list[str], words: str, path: str, errors: Errors) -> bool:
    """Whether the list stands for everything; then nothing else may be in it."""
    if "*" not in values:
        return False
    if len(values) > 1:
        errors.append(invalid(path, values, f"if '*' is present, must not specify other {words}"))
    return True


def _check_verbs(rule: Obj, path: str, errors: Errors) -> None:
    verbs = rule.get("verbs") or []
    if not verbs:
        errors.append(required(f"{path}.verbs", "verbs must contain at least one value"))
    elif not _check_wildcard(verbs, "verbs", f"{path}.verbs", errors) and not set(verbs) <= set(_VERBS):
        errors.append(not_supported(f"{path}.verbs", verbs, _VERBS))


def _check_resource_rule(rule: Obj, path: str, errors: Errors) -> None:
    _check_verbs(rule, path, errors)
    for field, one, many in (("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")):
        if not rule.get(field):
            errors.append(required(f"{path}.{field}", f"resource rules must supply at least one {one}"))
        else:
            _check_wildcard(rule[field], many, f"{path}.{field}", errors)
    namespaces = rule.get("namespaces") or []
    if not namespaces and not rule.get("clusterScope"):
        detail = "resource rules that are not cluster scoped must supply at least one namespace"
        errors.append(required(f"{path}.namespaces", detail))
    elif not _check_wildcard(namespaces, "namespaces", f"{path}.namespaces", errors):
        for index, namespace in enumerate(namespaces):
            for complaint in name_is_dns_label(namespace):
                detail = f"each member of this list must be '*' or a DNS-1123 label; {complaint}"
                errors.append(invalid(f"{path}.namespaces[{index}]", namespace, detail))


def _check_url_rule(rule: Obj, path: str, errors: Errors) -> None:
    _check_verbs(rule, path, errors)
    urls, here = rule.get("nonResourceURLs") or [], f"{path}.nonResourceURLs"
    if not urls:
        errors.append(required(here, "nonResourceURLs must contain at least one value"))
    elif not _check_wildcard(urls, "non-resource URLs", here, errors):
        for index, url in enumerate(urls):
            complaint = _url_complaint(url)
            if complaint:
                errors.append(invalid(f"{here}[{index}]", url, complaint))


def _url_complaint(url: str) -> str:
    if not url:
        return "must not be empty"
    if url == "/":
        return ""
    if not url.startswith("/"):
        return "must start with slash"
    if " " in url:
        return "must not contain white-space"
    if "//" in url:
        return "must not contain double slash"
    stars = url.count("*")
    if stars > 1 or (stars == 1 and not url.endswith("/*")):
        return "wildcard can only do suffix matching"
    return ""
