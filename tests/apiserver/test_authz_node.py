"""What a node may do: its own things, and what its pods refer to."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj
from shipwheel.apiserver.authz.node import node_of, references, selects
from shipwheel.apiserver.authz.rules import parse_rule


def test_who_is_a_node() -> None:
    assert node_of("system:node:n1", ("system:nodes",)) == "n1"
    assert node_of("system:node:n1", ("others",)) == ""
    assert node_of("n1", ("system:nodes",)) == ""


@pytest.mark.parametrize(
    ("selector", "only"),
    [
        ("metadata.name=n1", True),
        ("metadata.name==n1", True),
        ("spec.unschedulable=false,metadata.name=n1", True),
        ("metadata.name=n10", False),
        ("metadata.name!=n1", False),
        ("x.metadata.name=n1", False),
        ("", False),
    ],
)
def test_selectors_that_let_one_through(selector: str, only: bool) -> None:
    assert selects(selector, "metadata.name", "n1") == only


def test_references() -> None:
    def secret(name: str) -> tuple[str, str, str]:
        return "secrets", "ns", name

    def config(name: str) -> tuple[str, str, str]:
        return "configmaps", "ns", name

    pod: Obj = {
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": {
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "from"}}, {"configMapRef": {"name": "cfrom"}}]}],
            "containers": [
                {"env": [{"name": "A", "value": "x"}, {"valueFrom": {"secretKeyRef": {"name": "env"}}}]},
                {"env": [{"valueFrom": {"configMapKeyRef": {"name": "cenv"}}}, {"valueFrom": {"fieldRef": {}}}]},
            ],
            "volumes": [
                {"name": "a", "secret": {"secretName": "vol"}},
                {"name": "b", "configMap": {"name": "cvol"}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "d", "ephemeral": {"volumeClaimTemplate": {}}},
                {"name": "e", "projected": {"sources": [{"secret": {"name": "pro"}}, {"configMap": {"name": "cpro"}}]}},
                {"name": "f", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "csi"}}},
                {"name": "g", "rbd": {"secretRef": {"name": "rbd"}}},
                {"name": "h", "emptyDir": {}},
            ],
        },
    }
    assert set(references(pod)) == {
        ("serviceaccounts", "ns", "sa"),
        *map(secret, ("pull", "from", "env", "vol", "pro", "csi", "rbd")),
        *map(config, ("cfrom", "cenv", "cvol", "cpro")),
        ("persistentvolumeclaims", "ns", "claim"),
        ("persistentvolumeclaims", "ns", "p-d"),
    }


READ = ["get", "list", "watch"]
WRITE = ["create", "delete", "deletecollection", "patch", "update"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("READ core: pods,services", {"apiGroups": [""], "resources": ["pods", "services"], "verbs": READ}),
        ("WRITE apps|batch: *", {"apiGroups": ["apps", "batch"], "resources": ["*"], "verbs": WRITE}),
        (
            "READ+WRITE core: pods/status",
            {"apiGroups": [""], "resources": ["pods/status"], "verbs": sorted(READ + WRITE)},
        ),
        (
            "get,update core: configmaps [a,b]",
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "update"], "resourceNames": ["a", "b"]},
        ),
        ("get /healthz,/version/*", {"nonResourceURLs": ["/healthz", "/version/*"], "verbs": ["get"]}),
        ("* *: *", {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}),
    ],
)
def test_the_notation_of_rules(text: str, rule: Obj) -> None:
    assert parse_rule(text) == rule
