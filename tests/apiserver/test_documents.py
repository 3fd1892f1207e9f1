"""Paths that are no resources: which methods and forms they know, what every answer says of itself."""

from __future__ import annotations

import re

import orjson
import pytest
import yaml

from tests.apiserver.world import Asker

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("path", ["/api", "/apis", "/apis/apps", "/apis/apps/v1", "/version", "/openid/v1/jwks"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_documents_are_only_read(ask: Asker, method: str, path: str) -> None:
    answer = await ask(method, path)
    assert answer.status == 405
    status = orjson.loads(answer.body)
    assert (status["reason"], status["message"], status["details"]) == (
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
        {},
    )


@pytest.mark.parametrize("path", ["/nothing", "/apis/no.such.group", "/apis/no.such.group/v1/things", "/openapi"])
async def test_paths_below_no_api(ask: Asker, path: str) -> None:
    answer = await ask("GET", path)
    assert (answer.status, answer.body) == (404, b"404 page not found\n")
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"
    assert answer.header("X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize(
    "path", ["/api/v2", "/apis/apps/v9", "/apis/apps/v1/things", "/api/v1/configmaps/of-which-namespace"]
)
async def test_paths_below_an_api(ask: Asker, path: str) -> None:
    answer = await ask("GET", path)
    status = orjson.loads(answer.body)
    assert (answer.status, status["reason"], status["details"]) == (404, "NotFound", {})
    assert status["message"] == "the server could not find the requested resource"


async def test_discovery_in_other_forms(ask: Asker) -> None:
    plain = orjson.loads((await ask("GET", "/apis")).body)
    answer = await ask("GET", "/apis", accept="application/yaml")
    assert answer.header("Content-Type") == "application/yaml"
    assert yaml.safe_load(answer.body) == plain
    answer = await ask("GET", "/apis/apps/v1", accept="application/vnd.kubernetes.protobuf")
    assert answer.body.startswith(b"k8s\0")
    answer = await ask("GET", "/apis", accept="text/html")
    assert answer.status == 406


async def test_every_answer_has_a_name_and_is_not_kept(ask: Asker) -> None:
    one = await ask("GET", "/api/v1/namespaces/default")
    two = await ask("GET", "/api/v1/namespaces/nowhere")
    assert one.header("Audit-Id") != two.header("Audit-Id")
    assert one.header("Cache-Control") == two.header("Cache-Control") == "no-cache, private"
    named = await ask("GET", "/version", headers=[("Audit-ID", "mine")])
    assert named.header("Audit-Id") == "mine"


async def test_health_one_by_one(ask: Asker) -> None:
    verbose = (await ask("GET", "/readyz?verbose&exclude=etcd")).body.decode().splitlines()
    assert "[+]etcd excluded: ok" in verbose
    assert verbose[-1] == "readyz check passed"
    listed = orjson.loads((await ask("GET", "/")).body)["paths"]
    for line in verbose[:-1]:
        name = line.removeprefix("[+]").split()[0]
        assert f"/readyz/{name}" in listed
        assert (await ask("GET", f"/readyz/{name}")).body == b"ok"
    assert (await ask("GET", "/readyz/nothing")).status == 404
    results = (await ask("GET", "/metrics/slis")).body.decode()
    assert 'kubernetes_healthcheck{name="ping",type="readyz"} 1.0' in results


@pytest.mark.parametrize("path", ["/api", "/api/v1"])
async def test_the_oldest_documents_leave_out_their_version_but_in_protobuf(ask: Asker, path: str) -> None:
    assert "apiVersion" not in orjson.loads((await ask("GET", path)).body)
    assert (await ask("GET", path, accept="application/vnd.kubernetes.protobuf")).body.startswith(b"k8s\0")


async def test_every_document_of_the_index_is_there_and_not_sent_twice(ask: Asker) -> None:
    index = orjson.loads((await ask("GET", "/openapi/v3")).body)["paths"]
    assert {"api/v1", "apis/apps/v1", "api", "apis", "apis/apps", "version", "openid/v1/jwks"} <= index.keys()
    for path in ("version", "apis/apps", "apis/scheduling.k8s.io/v1"):
        url = index[path]["serverRelativeURL"]
        answer = await ask("GET", url)
        document = orjson.loads(answer.body)
        assert next(iter(document["paths"])).startswith(f"/{path}/")
        assert answer.header("Cache-Control") == "public, immutable"
        again = await ask("GET", url, headers=[("If-None-Match", answer.header("ETag"))])
        assert (again.status, again.body) == (304, b"")
    pods = orjson.loads((await ask("GET", "/openapi/v2")).body)["definitions"]["io.k8s.api.core.v1.PodSpec"]
    assert pods["properties"]["restartPolicy"]["enum"] == ["Always", "Never", "OnFailure"]


async def test_metrics(ask: Asker, namespace: str) -> None:
    await ask("POST", f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "a"}})
    await ask("GET", "/apis/apps/v1beta1/deployments")
    text = (await ask("GET", "/metrics")).body.decode()
    for sample in (
        'apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="configmaps"',
        'apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="configmaps"',
        'apiserver_current_inflight_requests{request_kind="mutating"} 0.0',
        'apiserver_storage_objects{resource="deployments.apps"} 0.0',
        'apiserver_resource_objects{group="rbac.authorization.k8s.io",resource="clusterroles"}',
        'apiserver_requested_deprecated_apis{group="apps",removed_release="1.16",resource="deployments",subresource="",'
        'version="v1beta1"} 1.0',
        'etcd_request_duration_seconds_count{group="",operation="create",resource="configmaps"}',
        'authenticated_user_requests{username="admin"}',
        'authorization_attempts_total{result="allowed"}',
        'kube_apiserver_clusterip_allocator_allocated_ips{cidr="10.96.0.0/12"} 1.0',
        "kube_apiserver_nodeport_allocator_available_ports 2768.0",
        'kubernetes_build_info{git_version="v1.36',
    ):
        assert sample in text, sample


async def test_json_for_people(ask: Asker) -> None:
    path = "/api/v1/namespaces/default"
    plain = (await ask("GET", path)).body
    assert b"\n" not in plain
    for pretty in (
        await ask("GET", f"{path}?pretty=true"),
        await ask("GET", path, headers=[("User-Agent", "curl/8.0")]),
    ):
        assert pretty.body.startswith(b'{\n  "kind": "Namespace",\n  "apiVersion": "v1",\n')
        assert orjson.loads(pretty.body) == orjson.loads(plain)
    assert b"\n" not in (await ask("GET", f"{path}?pretty=0", headers=[("User-Agent", "curl/8.0")])).body
    listed = await ask("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles?pretty=1")
    assert listed.body.startswith(b'{\n  "kind": "ClusterRoleList",\n')


@pytest.mark.parametrize("form", ["Table", "PartialObjectMetadataList"])
async def test_other_kinds_in_yaml(ask: Asker, form: str) -> None:
    asked = f"as={form};g=meta.k8s.io;v=v1"
    json = await ask("GET", "/api/v1/namespaces?resourceVersion=0", accept=f"application/json;{asked}")
    answer = await ask("GET", "/api/v1/namespaces?resourceVersion=0", accept=f"application/yaml;{asked}")
    assert (json.header("Content-Type"), answer.header("Content-Type")) == ("application/json", "application/yaml")
    assert yaml.safe_load(answer.body)["kind"] == orjson.loads(json.body)["kind"] == form


@pytest.mark.parametrize(
    ("path", "accept", "representations"),
    [
        ("/version", "text/plain", "application/json"),
        ("/version", "application/*", "application/json"),
        ("/.well-known/openid-configuration", "application/yaml", "application/json"),
        ("/api", "application/*", "application/json, application/yaml, application/vnd.kubernetes.protobuf"),
        ("/apis/apps/v1", "text/plain", "application/json, application/yaml, application/vnd.kubernetes.protobuf"),
    ],
)
async def test_documents_in_forms_they_do_not_have(ask: Asker, path: str, accept: str, representations: str) -> None:
    answer = await ask("GET", path, accept=accept)
    assert answer.status == 406
    assert f"Available representations: {representations}".encode() in answer.body


async def test_openapi_has_no_other_forms(ask: Asker) -> None:
    for path in ("/openapi/v2", "/openapi/v3/api/v1"):
        answer = await ask("GET", path, accept="application/yaml")
        assert (answer.status, answer.body) == (406, b"")


async def test_some_deletions_answer_with_what_they_removed(ask: Asker, namespace: str) -> None:
    services = f"/api/v1/namespaces/{namespace}/services"
    await ask("POST", services, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    assert orjson.loads((await ask("DELETE", f"{services}/s")).body)["kind"] == "Service"
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    await ask("POST", maps, {"metadata": {"name": "c"}})
    assert orjson.loads((await ask("DELETE", f"{maps}/c")).body)["kind"] == "Status"


async def test_users_by_certificate_are_told_which(ask: Asker) -> None:
    review = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    answer = await ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    (credential,) = orjson.loads(answer.body)["status"]["userInfo"]["extra"][
        "authentication.kubernetes.io/credential-id"
    ]
    assert re.fullmatch(r"X509SHA256=[0-9a-f]{64}", credential)
