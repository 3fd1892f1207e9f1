"""What the server says it serves: two forms that agree, kept by clients as long as nothing changes."""

from __future__ import annotations

import orjson
import pytest

from shipwheel.api.meta import GroupVersionResource
from shipwheel.client import discovery
from shipwheel.client.client import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def test_the_old_form_and_the_aggregated_one_agree(admin: Client) -> None:
    fetched = await discovery.discover(admin, None)
    old = {path: await admin.call("GET", path) for path in ("/api", "/apis")}
    assert set(fetched.discovery.resources) == set((await discovery._one_by_one(admin, old)).resources)


@pytest.mark.parametrize(
    ("gvr", "kind", "namespaced", "short", "categories", "subresources"),
    [
        ("/v1/pods", "Pod", True, {"po"}, {"all"},
         {"attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "proxy", "resize",
          "status"}),
        ("/v1/nodes", "Node", False, {"no"}, set(), {"proxy", "status"}),
        ("/v1/serviceaccounts", "ServiceAccount", True, {"sa"}, set(), {"token"}),
        ("apps/v1/deployments", "Deployment", True, {"deploy"}, {"all"}, {"scale", "status"}),
        ("batch/v1/cronjobs", "CronJob", True, {"cj"}, {"all"}, {"status"}),
        ("policy/v1/poddisruptionbudgets", "PodDisruptionBudget", True, {"pdb"}, set(), {"status"}),
        ("certificates.k8s.io/v1/certificatesigningrequests", "CertificateSigningRequest", False, {"csr"}, set(),
         {"approval", "status"}),
        ("apiextensions.k8s.io/v1/customresourcedefinitions", "CustomResourceDefinition", False, {"crd", "crds"},
         {"api-extensions"}, {"status"}),
    ],
)  # fmt: skip
async def test_facts(
    admin: Client, gvr: str, kind: str, namespaced: bool, short: set[str], categories: set[str], subresources: set[str]
) -> None:
    found = (await admin.resources()).by_gvr[GroupVersionResource(*gvr.split("/"))]
    assert (found.kind.kind, found.namespaced) == (kind, namespaced)
    assert (set(found.short_names), set(found.categories)) == (short, categories)
    assert found.subresources == subresources
    assert {"get", "list", "watch", "create", "update", "patch", "delete"} <= found.verbs


@pytest.mark.parametrize("path", ["/api", "/apis"])
async def test_nothing_is_sent_twice(admin: Client, path: str) -> None:
    first = await admin.request("GET", path, accept=V2)
    assert first.header("Content-Type") == V2
    assert "Accept" in first.header("Vary")
    etag = first.header("ETag")
    again = await admin.request("GET", path, accept=V2, headers=[("If-None-Match", etag)])
    assert (again.status, again.body, again.header("ETag")) == (304, b"", etag)
    other = await admin.request("GET", path, accept=V2, headers=[("If-None-Match", '"other"')])
    assert (other.status, other.body) == (200, first.body)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (f"{V2},application/json", "APIGroupDiscoveryList"),
        (V2.replace("v=v2", "v=v2beta1"), "APIGroupDiscoveryList"),
        (f"application/json,{V2}", "APIGroupList"),
        (V2.replace("v=v2", "v=v9") + ",application/json", "APIGroupList"),
        ("*/*", "APIGroupList"),
    ],
)
async def test_the_form_that_was_asked_for(admin: Client, accept: str, kind: str) -> None:
    assert orjson.loads((await admin.request("GET", "/apis", accept=accept)).body)["kind"] == kind


async def test_groups_prefer_their_newest_version(admin: Client) -> None:
    groups = {each["name"]: each for each in (await admin.call("GET", "/apis"))["groups"]}
    for name, group in groups.items():
        assert group["preferredVersion"] == group["versions"][0]
        assert (await admin.call("GET", f"/apis/{name}"))["versions"] == group["versions"]
    assert groups["autoscaling"]["preferredVersion"]["version"] == "v2"
