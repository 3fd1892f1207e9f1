"""Roles and who has them."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.errors import FieldError, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_path_segment_name, name_is_dns_subdomain, name_is_path_segment
from shipwheel.api.objectmeta import validate_label_selector
from shipwheel.api.resource import Column, Resource, Strategy, Version
from shipwheel.api.selectors import SelectorError, from_label_selector
from shipwheel.kinds.columns import AGE, NAME, Value, text
from shipwheel.kinds.declare import older, served

_GROUP = "rbac.authorization.k8s.io"
_CREATED_AT = Column("Created At", text("metadata", "creationTimestamp"), type="date")


def _role(binding: Obj, now: datetime) -> str:
    reference = binding.get("roleRef") or {}
    return f"{reference.get('kind', '')}/{reference.get('name', '')}"


def _subjects(kind: str) -> Value:
    def value(binding: Obj, now: datetime) -> str:
        return ", ".join(
            f"{subject.get('namespace', '')}/{subject['name']}" if kind == "ServiceAccount" else subject["name"]
            for subject in binding.get("subjects") or ()
            if subject.get("kind") == kind
        )

    return value


_BINDING_COLUMNS = (
    NAME,
    Column("Role", _role),
    AGE,
    Column("Users", _subjects("User"), priority=1),
    Column("Groups", _subjects("Group"), priority=1),
    Column("ServiceAccounts", _subjects("ServiceAccount"), priority=1),
)


class RoleStrategy(Strategy):
    """Roles and cluster roles."""

    allow_create_on_update = True
    name_rule = staticmethod(name_is_path_segment)
    tracks_generation = False

    def __init__(self, *, namespaced: bool) -> None:
        self._namespaced = namespaced

    def validate(self, obj: Obj) -> list[FieldError]:
        errors = [
            error
            for position, rule in enumerate(obj.get("rules") or ())
            for error in _validate_rule(rule, f"rules[{position}]", namespaced=self._namespaced)
        ]
        aggregation = obj.get("aggregationRule")
        if aggregation is not None:
            path = "aggregationRule.clusterRoleSelectors"
            selectors = aggregation.get("clusterRoleSelectors") or ()
            if not selectors:
                errors.append(required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
            for position, selector in enumerate(selectors):
                errors += validate_label_selector(selector, f"{path}[{position}]")
                try:
                    from_label_selector(selector)
                except SelectorError:
                    errors.append(invalid(f"{path}[{position}]", None, "invalid label selector."))
        return errors


def _validate_rule(rule: Obj, path: str, *, namespaced: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    if not rule.get("verbs"):
        errors.append(required(f"{path}.verbs", "verbs must contain at least one value"))
    urls = rule.get("nonResourceURLs")
    if urls:
        if namespaced:
            errors.append(
                invalid(f"{path}.nonResourceURLs", urls, "namespaced rules cannot apply to non-resource URLs")
            )
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            why = "rules cannot apply to both regular resources and non-resource URLs"
            errors.append(invalid(f"{path}.nonResourceURLs", urls, why))
        return errors
    if not rule.get("apiGroups"):
        errors.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
    if not rule.get("resources"):
        errors.append(required(f"{path}.resources", "resource rules must supply at least one resource"))
    return errors


class BindingStrategy(Strategy):
    """Role bindings and cluster role bindings: what they grant never changes, only to whom."""

    allow_create_on_update = True
    name_rule = staticmethod(name_is_path_segment)
    tracks_generation = False

    def __init__(self, *, namespaced: bool) -> None:
        self._namespaced = namespaced

    def default(self, obj: Obj) -> None:
        reference = obj.get("roleRef")
        if isinstance(reference, dict) and not reference.get("apiGroup"):
            reference["apiGroup"] = _GROUP
        for subject in obj.get("subjects") or ():
            if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
                subject["apiGroup"] = _GROUP

    def validate(self, obj: Obj) -> list[FieldError]:
        reference = obj.get("roleRef") or {}
        kinds = ["Role", "ClusterRole"] if self._namespaced else ["ClusterRole"]
        errors: list[FieldError] = []
        if reference.get("apiGroup") != _GROUP:
            errors.append(not_supported("roleRef.apiGroup", reference.get("apiGroup", ""), [_GROUP]))
        if reference.get("kind") not in kinds:
            errors.append(not_supported("roleRef.kind", reference.get("kind", ""), kinds))
        name = reference.get("name", "")
        if not name:
            errors.append(required("roleRef.name"))
        else:
            errors += [invalid("roleRef.name", name, each) for each in is_path_segment_name(name)]
        for position, subject in enumerate(obj.get("subjects") or ()):
            errors += self._validate_subject(subject, f"subjects[{position}]")
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        if new.get("roleRef") != old.get("roleRef"):
            errors.append(invalid("roleRef", new.get("roleRef"), "cannot change roleRef"))
        return errors

    def _validate_subject(self, subject: Obj, path: str) -> list[FieldError]:
        kind, name, group = subject.get("kind", ""), subject.get("name", ""), subject.get("apiGroup", "")
        errors: list[FieldError] = []
        if not name:
            errors.append(required(f"{path}.name"))
        if kind == "ServiceAccount":
            if name:
                errors += [invalid(f"{path}.name", name, each) for each in name_is_dns_subdomain(name)]
            if group:
                errors.append(not_supported(f"{path}.apiGroup", group, [""]))
            if not self._namespaced and not subject.get("namespace"):
                errors.append(required(f"{path}.namespace"))
        elif kind in ("User", "Group"):
            if group != _GROUP:
                errors.append(not_supported(f"{path}.apiGroup", group, [_GROUP]))
        else:
            errors.append(not_supported(f"{path}.kind", kind, ["ServiceAccount", "User", "Group"]))
        return errors


def _versions(kind: str) -> tuple[Version, ...]:
    return (
        served(_GROUP, "v1", kind),
        older(_GROUP, "v1beta1", kind, since="1.17", until="1.22", replacement=f"{_GROUP}/v1"),
    )


RESOURCES = (
    Resource(
        kind="Role",
        plural="roles",
        singular="role",
        versions=_versions("Role"),
        strategy=RoleStrategy(namespaced=True),
        columns=(NAME, _CREATED_AT),
    ),
    Resource(
        kind="RoleBinding",
        plural="rolebindings",
        singular="rolebinding",
        versions=_versions("RoleBinding"),
        strategy=BindingStrategy(namespaced=True),
        columns=_BINDING_COLUMNS,
    ),
    Resource(
        kind="ClusterRole",
        plural="clusterroles",
        singular="clusterrole",
        namespaced=False,
        versions=_versions("ClusterRole"),
        strategy=RoleStrategy(namespaced=False),
        columns=(NAME, _CREATED_AT),
    ),
    Resource(
        kind="ClusterRoleBinding",
        plural="clusterrolebindings",
        singular="clusterrolebinding",
        namespaced=False,
        versions=_versions("ClusterRoleBinding"),
        strategy=BindingStrategy(namespaced=False),
        columns=_BINDING_COLUMNS,
    ),
)
