"""The OpenAPI documents: complete, consistent, and named as generated clients expect."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from shipwheel.api.meta import GroupVersion
from shipwheel.api.openapi import build_v2, build_v3, encode_v2
from shipwheel.api.openapi.descriptions import describe
from shipwheel.api.openapi.gnostic import message
from shipwheel.api.protobuf import decode
from shipwheel.api.resource import Resource, Subresource, Version
from shipwheel.api.schema import from_openapi
from shipwheel.api.scheme import Scheme
from shipwheel.kinds import builtin_resources

CRONTAB = Resource(
    kind="CronTab",
    plural="crontabs",
    custom=True,
    versions=(
        Version(
            "stable.example.com",
            "v1",
            from_openapi(
                {
                    "type": "object",
                    "description": "What runs when.",
                    "properties": {
                        "spec": {
                            "type": "object",
                            "properties": {
                                "replicas": {"type": "integer", "minimum": 1, "default": 1},
                                "when": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}]},
                                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                "maybe": {"type": "string", "nullable": True},
                            },
                        }
                    },
                }
            ),
        ),
    ),
    subresources=(Subresource("status", ("get", "patch", "update")),),
)


@pytest.fixture(scope="module")
def scheme() -> Scheme:
    return Scheme([*builtin_resources(), CRONTAB])


@pytest.fixture(scope="module")
def v2(scheme: Scheme) -> dict:
    return build_v2(scheme)


@pytest.fixture(scope="module")
def v3(scheme: Scheme) -> dict[str, dict]:
    return {str(gv): build_v3(scheme, gv) for gv in scheme.group_versions()}


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    if isinstance(node, list):
        return set().union(*map(references, node))
    return set()


def operations(document: dict) -> list[dict]:
    return [
        operation for item in document["paths"].values() for method, operation in item.items() if method != "parameters"
    ]


def test_every_reference_of_v3_leads_somewhere(v3: dict[str, dict]):
    for document in v3.values():
        known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        assert references(document) <= known


def test_every_reference_of_v2_leads_somewhere(v2: dict):
    known = {f"#/definitions/{name}" for name in v2["definitions"]}
    known |= {f"#/parameters/{name}" for name in v2["parameters"]}
    assert references(v2) <= known


def test_operation_ids_are_unique(v2: dict):
    ids = Counter(each["operationId"] for each in operations(v2))
    assert [name for name, count in ids.items() if count > 1] == []
    assert len(ids) > 500


def test_path_parameters_are_declared(v3: dict[str, dict]):
    for document in v3.values():
        for path, item in document["paths"].items():
            wanted = {part[1:-1] for part in path.split("/") if part.startswith("{")}
            for method, operation in item.items():
                if method == "parameters":
                    continue
                declared = [*item.get("parameters", ()), *operation.get("parameters", ())]
                assert wanted == {each["name"] for each in declared if each["in"] == "path"}, (path, method)


@pytest.mark.parametrize(
    ("gv", "path", "method", "id_", "action"),
    [
        ("v1", "/api/v1/namespaces/{namespace}/pods", "post", "createCoreV1NamespacedPod", "post"),
        ("v1", "/api/v1/pods", "get", "listCoreV1PodForAllNamespaces", "list"),
        ("v1", "/api/v1/nodes", "delete", "deleteCoreV1CollectionNode", "deletecollection"),
        ("v1", "/api/v1/namespaces/{namespace}/pods/{name}/exec", "get",
         "connectCoreV1GetNamespacedPodExec", "connect"),
        ("v1", "/api/v1/nodes/{name}/proxy/{path}", "put", "connectCoreV1PutNodeProxyWithPath", "connect"),
        ("v1", "/api/v1/namespaces/{namespace}/pods/{name}/log", "get", "readCoreV1NamespacedPodLog", "get"),
        ("v1", "/api/v1/watch/pods", "get", "watchCoreV1PodListForAllNamespaces", "watchlist"),
        ("apps/v1", "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale", "patch",
         "patchAppsV1NamespacedDeploymentScale", "patch"),
        ("rbac.authorization.k8s.io/v1", "/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}", "put",
         "replaceRbacAuthorizationV1ClusterRole", "put"),
        ("stable.example.com/v1", "/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}/status", "get",
         "readStableExampleComV1NamespacedCronTabStatus", "get"),
    ],
)  # fmt: skip
def test_operations_have_upstreams_names(v3: dict, gv: str, path: str, method: str, id_: str, action: str):
    operation = v3[gv]["paths"][path][method]
    assert operation["operationId"] == id_
    assert operation["x-kubernetes-action"] == action


def test_what_kubectl_looks_for(v3: dict[str, dict]):
    """kubectl decides by the patch operation's own parameters whether the server validates fields and dry-runs."""
    patch = v3["apps/v1"]["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert {"fieldValidation", "dryRun"} <= {each["name"] for each in patch["parameters"]}
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "kind": "Deployment", "version": "v1"}
    schema = v3["apps/v1"]["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]
    assert schema["x-kubernetes-group-version-kind"] == [{"group": "apps", "kind": "Deployment", "version": "v1"}]


def test_schemas_differ_by_dialect(v2: dict, v3: dict[str, dict]):
    name = "io.k8s.api.core.v1.Container"
    resources = v3["v1"]["components"]["schemas"][name]["properties"]["resources"]
    assert resources["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.ResourceRequirements"}]
    assert resources["default"] == {}
    assert v2["definitions"][name]["properties"]["resources"] == {
        "$ref": "#/definitions/io.k8s.api.core.v1.ResourceRequirements",
        "description": resources["description"],
    }
    ports = v3["v1"]["components"]["schemas"][name]["properties"]["ports"]
    assert ports["x-kubernetes-list-map-keys"] == ["containerPort", "protocol"]
    assert "x-go" not in str(v3["v1"]["components"]["schemas"][name])


def test_prose_comes_along(v3: dict[str, dict]):
    deployment = v3["apps/v1"]["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]
    assert deployment["description"] == "Deployment enables declarative updates for Pods and ReplicaSets."
    assert describe("io.k8s.api.core.v1.PodSpec")["containers"].startswith("List of containers belonging to the pod.")
    assert describe("com.example.Nothing") == {}


def test_custom_resources(v2: dict, v3: dict[str, dict]):
    schemas = v3["stable.example.com/v1"]["components"]["schemas"]
    crontab = schemas["com.example.stable.v1.CronTab"]
    assert crontab["x-kubernetes-group-version-kind"] == [
        {"group": "stable.example.com", "kind": "CronTab", "version": "v1"}
    ]
    assert crontab["properties"]["spec"]["properties"]["replicas"] == {"type": "integer", "minimum": 1, "default": 1}
    assert crontab["properties"]["metadata"]["allOf"] == [
        {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    ]
    crontabs = schemas["com.example.stable.v1.CronTabList"]
    assert crontabs["properties"]["items"]["items"] == {"$ref": "#/components/schemas/com.example.stable.v1.CronTab"}
    spec = v2["definitions"]["com.example.stable.v1.CronTab"]["properties"]["spec"]["properties"]
    assert spec == {
        "replicas": {"type": "integer", "minimum": 1},
        "when": {"x-kubernetes-int-or-string": True},
        "free": {"x-kubernetes-preserve-unknown-fields": True},
        "maybe": {},
    }
    create = v2["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs"]["post"]
    assert create["produces"] == ["application/json", "application/yaml"]


def test_a_custom_resource_of_unknown_fields():
    unknown = from_openapi({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    anything = Resource("Any", "anys", custom=True, versions=(Version("example.com", "v1", unknown),))
    scheme = Scheme([*builtin_resources(), anything])
    gvk = [{"group": "example.com", "kind": "Any", "version": "v1"}]
    assert build_v2(scheme)["definitions"]["com.example.v1.Any"] == {
        "type": "object",
        "x-kubernetes-group-version-kind": gvk,
    }
    found = build_v3(scheme, GroupVersion("example.com", "v1"))["components"]["schemas"]["com.example.v1.Any"]
    assert found["x-kubernetes-preserve-unknown-fields"] is True
    assert found["properties"].keys() == {"apiVersion", "kind", "metadata"}


def test_v2_as_protobuf(v2: dict):
    document = decode(message(), encode_v2(v2))
    assert document["swagger"] == "2.0"
    assert len(document["paths"]["path"]) == len(v2["paths"])
    definitions = {each["name"]: each["value"] for each in document["definitions"]["additional_properties"]}
    assert definitions.keys() == v2["definitions"].keys()
    pod = definitions["io.k8s.api.core.v1.Pod"]
    assert pod["type"] == {"value": ["object"]}
    (extension,) = pod["vendor_extension"]
    assert extension == {
        "name": "x-kubernetes-group-version-kind",
        "value": {"yaml": '[{"group":"","kind":"Pod","version":"v1"}]'},
    }


def test_a_scheme_without_built_in_kinds_has_no_documents():
    with pytest.raises(KeyError):
        build_v3(Scheme([CRONTAB]), GroupVersion("stable.example.com", "v1"))
