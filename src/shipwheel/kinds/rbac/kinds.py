"""Roles and who has them."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, Value, text
from shipwheel.kinds.declare import served

_GROUP = "rbac.authorization.k8s.io"
_CREATED_AT = Column("Created At", text("metadata", "creationTimestamp"), type="date")


def _role(binding: Obj, now: datetime) -> str:
    reference = binding.get("roleRef") or {}
    return f"{reference.get('kind', '')}/{reference.get('name', '')}"


def _subjects(kind: str) -> Value:
    def value(binding: Obj, now: datetime) -> str:
        return ", ".join(
            f"{subject.get('namespace', '')}/{subject['name']}"
            if kind == "ServiceAccount"
            else subject["name"]
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

RESOURCES = (
    Resource(
        kind="Role",
        plural="roles",
        singular="role",
        versions=(served(_GROUP, "v1", "Role"),),
        strategy=Strategy(),
        columns=(NAME, _CREATED_AT),
    ),
    Resource(
        kind="RoleBinding",
        plural="rolebindings",
        singular="rolebinding",
        versions=(served(_GROUP, "v1", "RoleBinding"),),
        strategy=Strategy(),
        columns=_BINDING_COLUMNS,
    ),
    Resource(
        kind="ClusterRole",
        plural="clusterroles",
        singular="clusterrole",
        namespaced=False,
        versions=(served(_GROUP, "v1", "ClusterRole"),),
        strategy=Strategy(),
        columns=(NAME, _CREATED_AT),
    ),
    Resource(
        kind="ClusterRoleBinding",
        plural="clusterrolebindings",
        singular="clusterrolebinding",
        namespaced=False,
        versions=(served(_GROUP, "v1", "ClusterRoleBinding"),),
        strategy=Strategy(),
        columns=_BINDING_COLUMNS,
    ),
)
