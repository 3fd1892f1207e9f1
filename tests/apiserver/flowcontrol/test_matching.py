"""Which flow schema a request belongs to."""

from __future__ import annotations

from typing import Any

import pytest

from shipwheel.api.meta import Obj, name_of
from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.flowcontrol.matching import distinguisher, first_match, in_order, matches
from shipwheel.apiserver.requestinfo import RequestInfo
from shipwheel.kinds.flowcontrol import mandatory, suggested

EVERYBODY = ("system:authenticated",)
BOB = UserInfo("bob", ("team", *EVERYBODY))


def info(verb: str, resource: str = "pods", namespace: str = "ns", sub: str = "", group: str = "") -> RequestInfo:
    return RequestInfo(verb, "/x", True, group, "v1", namespace, resource, sub)


def path(verb: str, where: str) -> RequestInfo:
    return RequestInfo(verb, where)


def schema(name: str, spec: Obj) -> Obj:
    return {"metadata": {"name": name}, "spec": spec}


DEFAULTS = in_order(schema(name, spec) for name, spec in {**suggested.FLOW_SCHEMAS, **mandatory.FLOW_SCHEMAS}.items())


def account(namespace: str, name: str) -> UserInfo:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", *EVERYBODY)
    return UserInfo(f"system:serviceaccount:{namespace}:{name}", groups)


NODE = UserInfo("system:node:n", ("system:nodes", *EVERYBODY))
MANAGER = UserInfo("system:kube-controller-manager", EVERYBODY)
LEASE = info("update", "leases", "kube-node-lease", group="coordination.k8s.io")


@pytest.mark.parametrize(
    ("user", "request_info", "expected"),
    [
        (UserInfo("root", ("system:masters", *EVERYBODY)), info("list"), "exempt"),
        (UserInfo("system:anonymous", ("system:unauthenticated",)), path("get", "/healthz"), "probes"),
        (UserInfo("system:anonymous", ("system:unauthenticated",)), path("get", "/livez/ping"), "probes"),
        (UserInfo("system:anonymous", ("system:unauthenticated",)), path("get", "/version"), "global-default"),
        (MANAGER, LEASE, "system-leader-election"),
        (account("kube-system", "x"), LEASE, "system-leader-election"),
        (NODE, LEASE, "system-node-high"),
        (NODE, info("patch", "nodes", "", "status"), "system-node-high"),
        (NODE, info("get", "nodes", ""), "system-node-high"),
        (NODE, info("list"), "system-nodes"),
        (MANAGER, info("list"), "kube-controller-manager"),
        (account("kube-system", "x"), info("list"), "kube-system-service-accounts"),
        (account("kube-system2", "x"), info("list"), "service-accounts"),
        (BOB, info("list"), "global-default"),
        (UserInfo("bob", ()), info("list"), None),
    ],
)
def test_the_default_schemas(user: UserInfo, request_info: RequestInfo, expected: str | None) -> None:
    found = first_match(DEFAULTS, request_info, user)
    assert (name_of(found) if found else None) == expected


def spec_of(subject: Obj, **rules: Any) -> Obj:
    return {"rules": [{"subjects": [subject], **rules}]}


def to(**rule: Any) -> list[Obj]:
    return [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], **rule}]


USER = {"kind": "User", "user": {"name": "bob"}}


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (USER, True),
        ({"kind": "User", "user": {"name": "*"}}, True),
        ({"kind": "User", "user": {"name": "bo"}}, False),
        ({"kind": "Group", "group": {"name": "team"}}, True),
        ({"kind": "Group", "group": {"name": "*"}}, True),
        ({"kind": "Group", "group": {"name": "teams"}}, False),
        ({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "ns"}}, False),
    ],
)
def test_subjects(subject: Obj, expected: bool) -> None:
    assert matches(spec_of(subject, resourceRules=to()), info("get"), BOB) is expected


@pytest.mark.parametrize(
    ("name", "namespace", "expected"),
    [("x", "ns", True), ("*", "ns", True), ("y", "ns", False), ("x", "other", False), ("*", "n", False)],
)
def test_service_accounts(name: str, namespace: str, expected: bool) -> None:
    subject = {"kind": "ServiceAccount", "serviceAccount": {"name": name, "namespace": namespace}}
    assert matches(spec_of(subject, resourceRules=to()), info("get"), account("ns", "x")) is expected


@pytest.mark.parametrize(
    ("rule", "request_info", "expected"),
    [
        (to(), info("get"), True),
        (to(verbs=["list", "get"]), info("get"), True),
        (to(verbs=["list"]), info("get"), False),
        (to(resources=["pods"]), info("get", sub="status"), False),
        (to(resources=["pods/status"]), info("get", sub="status"), True),
        (to(apiGroups=["apps"]), info("get"), False),
        (to(apiGroups=[""]), info("get"), True),
        (to(namespaces=["other"]), info("get"), False),
        (to(namespaces=["other", "ns"]), info("get"), True),
        (to(), info("get", namespace=""), False),
        (to(clusterScope=True, namespaces=[]), info("get", namespace=""), True),
        (to(clusterScope=True, namespaces=[]), info("get"), False),
        (to(), path("get", "/version"), False),
    ],
)
def test_resource_rules(rule: list[Obj], request_info: RequestInfo, expected: bool) -> None:
    assert matches(spec_of(USER, resourceRules=rule), request_info, BOB) is expected


@pytest.mark.parametrize(
    ("url", "where", "expected"),
    [
        ("*", "/anything", True),
        ("/healthz", "/healthz", True),
        ("/healthz", "/healthz/etcd", True),
        ("/healthz", "/healthzz", False),
        ("/apis/*", "/apis/apps", True),
        ("/apis/*", "/apis", False),
        ("/", "/version", True),
    ],
)
def test_paths(url: str, where: str, expected: bool) -> None:
    rules = [{"verbs": ["get"], "nonResourceURLs": [url]}]
    assert matches(spec_of(USER, nonResourceRules=rules), path("get", where), BOB) is expected
    assert not matches(spec_of(USER, nonResourceRules=rules), path("post", where), BOB)
    assert not matches(spec_of(USER, nonResourceRules=rules), info("get"), BOB)


def test_equal_precedences_go_by_name() -> None:
    schemas = [schema(name, {"matchingPrecedence": number}) for name, number in [("b", 5), ("c", 1), ("a", 5)]]
    assert [name_of(each) for each in in_order(schemas)] == ["c", "a", "b"]


def test_distinguishers() -> None:
    assert distinguisher({"distinguisherMethod": {"type": "ByUser"}}, info("get"), BOB) == "bob"
    assert distinguisher({"distinguisherMethod": {"type": "ByNamespace"}}, info("get"), BOB) == "ns"
    assert distinguisher({}, info("get"), BOB) == ""
