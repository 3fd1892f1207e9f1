"""The notation of `policy.py` turned into RBAC objects."""

from __future__ import annotations

from collections.abc import Iterator

from shipwheel.api.meta import Obj
from shipwheel.apiserver.authz import policy

_VERBS = {
    "READ": ["get", "list", "watch"],
    "WRITE": ["create", "delete", "deletecollection", "patch", "update"],
}
_API_VERSION = "rbac.authorization.k8s.io/v1"
_BOOTSTRAPPING = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_AUTOUPDATE = {"rbac.authorization.kubernetes.io/autoupdate": "true"}


def parse_rule(text: str) -> Obj:
    """`READ core: pods,services [a,b]` as a PolicyRule."""
    verbs_text, _, target = text.partition(" ")
    if verbs_text == "READ+WRITE":
        verbs = sorted(_VERBS["READ"] + _VERBS["WRITE"])
    else:
        verbs = _VERBS.get(verbs_text) or verbs_text.split(",")
    groups, colon, resources = target.partition(": ")
    if not colon:
        return {"nonResourceURLs": target.split(","), "verbs": verbs}
    resources, _, names = resources.partition(" [")
    rule: Obj = {
        "apiGroups": ["" if group == "core" else group for group in groups.split("|")],
        "resources": resources.split(","),
        "verbs": verbs,
    }
    if names:
        rule["resourceNames"] = names.rstrip("]").split(",")
    return rule


def _object(kind: str, name: str, namespace: str = "", labels: dict[str, str] | None = None) -> Obj:
    metadata: Obj = {"name": name, "labels": {**_BOOTSTRAPPING, **(labels or {})}, "annotations": dict(_AUTOUPDATE)}
    if namespace:
        metadata["namespace"] = namespace
    return {"kind": kind, "apiVersion": _API_VERSION, "metadata": metadata}


def _subjects(texts: list[str]) -> list[Obj]:
    subjects: list[Obj] = []
    for text in texts:
        kind, _, name = text.partition(":")
        if kind == "ServiceAccount":
            namespace, _, name = name.partition("/")
            subjects.append({"kind": kind, "namespace": namespace, "name": name})
        else:
            subjects.append({"kind": kind, "apiGroup": "rbac.authorization.k8s.io", "name": name})
    return subjects


def default_objects() -> Iterator[Obj]:
    """Every role and binding of a new cluster."""
    for name, rules in policy.CLUSTER_ROLES.items():
        role = _object("ClusterRole", name, labels=policy.LABELS.get(name))
        role["rules"] = [parse_rule(rule) for rule in rules]
        if name in policy.AGGREGATED:
            role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": policy.AGGREGATED[name]}]}
        yield role
    for (namespace, name), rules in policy.ROLES.items():
        role = _object("Role", name, namespace)
        role["rules"] = [parse_rule(rule) for rule in rules]
        yield role
    for name, (role_name, subjects) in policy.CLUSTER_ROLE_BINDINGS.items():
        yield _binding(_object("ClusterRoleBinding", name), "ClusterRole", role_name, subjects)
    for (namespace, name), (role_name, subjects) in policy.ROLE_BINDINGS.items():
        yield _binding(_object("RoleBinding", name, namespace), "Role", role_name, subjects)


def _binding(binding: Obj, kind: str, role: str, subjects: list[str]) -> Obj:
    binding["roleRef"] = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}
    binding["subjects"] = _subjects(subjects)
    return binding
