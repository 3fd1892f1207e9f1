from __future__ import annotations

import pytest

from shipwheel.apiserver.requestinfo import RequestInfo, _parse


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/v1/pods", RequestInfo("list", "/api/v1/pods", True, "", "v1", "", "pods")),
        (
            "GET",
            "/api/v1/namespaces/n/pods/p",
            RequestInfo("get", "/api/v1/namespaces/n/pods/p", True, "", "v1", "n", "pods", "", "p"),
        ),
        (
            "PUT",
            "/apis/apps/v1/namespaces/n/deployments/d/status",
            RequestInfo(
                "update", "/apis/apps/v1/namespaces/n/deployments/d/status", True, "apps", "v1", "n", "deployments",
                "status", "d",
            ),
        ),
        (
            "DELETE",
            "/apis/apps/v1/namespaces/n/deployments",
            RequestInfo(
                "deletecollection", "/apis/apps/v1/namespaces/n/deployments", True, "apps", "v1", "n", "deployments"
            ),
        ),
        (
            "GET",
            "/api/v1/namespaces/n",
            RequestInfo("get", "/api/v1/namespaces/n", True, "", "v1", "n", "namespaces", "", "n"),
        ),
        (
            "PUT",
            "/api/v1/namespaces/n/finalize",
            RequestInfo("update", "/api/v1/namespaces/n/finalize", True, "", "v1", "n", "namespaces", "finalize", "n"),
        ),
        ("GET", "/api/v1/watch/pods", RequestInfo("watch", "/api/v1/watch/pods", True, "", "v1", "", "pods")),
        ("GET", "/apis/apps/v1", RequestInfo("get", "/apis/apps/v1")),
        ("POST", "/healthz", RequestInfo("post", "/healthz")),
        (
            "GET",
            "/api/v1/namespaces/n/pods/p/proxy/a%2Fb/c",
            RequestInfo(
                "get", "/api/v1/namespaces/n/pods/p/proxy/a/b/c", True, "", "v1", "n", "pods", "proxy", "p", "/a%2Fb/c"
            ),
        ),
        (
            "GET",
            "/api/v1/nodes/n/proxy/",
            RequestInfo("get", "/api/v1/nodes/n/proxy/", True, "", "v1", "", "nodes", "proxy", "n", "/"),
        ),
        (
            "GET",
            "/api/v1/namespaces/n/services/s/proxy/a/",
            RequestInfo(
                "get", "/api/v1/namespaces/n/services/s/proxy/a/", True, "", "v1", "n", "services", "proxy", "s", "/a/"
            ),
        ),
    ],
)  # fmt: skip
def test_what_a_request_is_about(method: str, path: str, expected: RequestInfo) -> None:
    assert _parse(method, path, False) == expected


def test_a_watch_of_one_object_keeps_its_name() -> None:
    info = _parse("GET", "/api/v1/namespaces/n/pods/p", True)
    assert (info.verb, info.name) == ("watch", "p")
