"""What objects count for in a ResourceQuota."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.kinds.quota import (
    CLAIMS,
    PODS,
    RESOURCE_CLAIMS,
    SERVICES,
    count,
    counts_alike,
    covers,
    resource_of,
    usage,
)

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def shown(resource: GroupResource, obj: Obj) -> dict[str, str]:
    return {name: str(amount) for name, amount in usage(resource, obj, NOW).items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("count/deployments.apps", GroupResource("apps", "deployments")),
        ("count/pods", PODS),
        ("pods", PODS),
        ("requests.cpu", PODS),
        ("limits.memory", PODS),
        ("requests.nvidia.com/gpu", PODS),
        ("requests.hugepages-2Mi", PODS),
        ("requests.deviceclass.resource.kubernetes.io/gpu", PODS),
        ("services.nodeports", SERVICES),
        ("gold.storageclass.storage.k8s.io/requests.storage", CLAIMS),
        ("gpu.deviceclass.resource.k8s.io/devices", RESOURCE_CLAIMS),
        ("secrets", GroupResource("", "secrets")),
        ("nonsense", None),
    ],
)
def test_what_a_name_counts(name, expected):
    assert resource_of(name) == expected


def pod(spec: Obj | None = None, **status: str) -> Obj:
    resources = {"requests": {"cpu": "250m", "memory": "64Mi", "nvidia.com/gpu": "1"}, "limits": {"cpu": "1"}}
    body = {"containers": [{"name": "c", "resources": resources}], **(spec or {})}
    return {"metadata": {"name": "p", "namespace": "d"}, "spec": body, "status": status}


def test_a_pod():
    assert shown(PODS, pod()) == {
        "count/pods": "1",
        "pods": "1",
        "cpu": "250m",
        "requests.cpu": "250m",
        "memory": "64Mi",
        "requests.memory": "64Mi",
        "requests.nvidia.com/gpu": "1",
        "limits.cpu": "1",
    }


def test_a_device_class_asked_for_as_an_extended_resource():
    name = "deviceclass.resource.kubernetes.io/gpu"
    asks = {"containers": [{"name": "c", "resources": {"requests": {name: "2"}, "limits": {name: "2"}}}]}
    assert shown(PODS, pod(asks)) == {"count/pods": "1", "pods": "1", f"requests.{name}": "2"}


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_an_object_but_takes_nothing(phase):
    assert shown(PODS, pod(phase=phase)) == {"count/pods": "1"}


@pytest.mark.parametrize(("overdue", "counts"), [(-1, True), (1, False)])
def test_a_pod_that_should_have_ended_long_ago(overdue, counts):
    leaving = pod()
    deleted = NOW - timedelta(seconds=30 + overdue)
    leaving["metadata"] |= {"deletionTimestamp": rfc3339(deleted), "deletionGracePeriodSeconds": 30}
    assert ("pods" in shown(PODS, leaving)) is counts


@pytest.mark.parametrize(
    ("spec", "balancers", "node_ports"),
    [
        ({"type": "ClusterIP", "ports": [{}]}, "0", "0"),
        ({"type": "NodePort", "ports": [{}, {}]}, "0", "2"),
        ({"type": "LoadBalancer", "ports": [{}, {}]}, "1", "2"),
        ({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False, "ports": [{"nodePort": 1}, {}]}, "1", "1"),
    ],
)
def test_services(spec, balancers, node_ports):
    found = shown(SERVICES, {"metadata": {}, "spec": spec})
    assert (found["services.loadbalancers"], found["services.nodeports"]) == (balancers, node_ports)


def test_claims_count_for_their_class_too():
    claim = {
        "metadata": {},
        "spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "5Gi"}}},
        "status": {"allocatedResources": {"storage": "8Gi"}},
    }
    found = shown(CLAIMS, claim)
    assert found["requests.storage"] == found["gold.storageclass.storage.k8s.io/requests.storage"] == "8Gi"
    assert found["gold.storageclass.storage.k8s.io/persistentvolumeclaims"] == "1"


def test_device_requests_count_by_their_worst_alternative():
    requests = [
        {"exactly": {"deviceClassName": "gpu", "count": 2}},
        {
            "firstAvailable": [
                {"deviceClassName": "gpu", "count": 1},
                {"deviceClassName": "gpu", "allocationMode": "All"},
            ]
        },
    ]
    found = shown(RESOURCE_CLAIMS, {"metadata": {}, "spec": {"devices": {"requests": requests}}})
    assert found["gpu.deviceclass.resource.k8s.io/devices"] == "34"


def quota(*scopes: str, hard: dict[str, str] | None = None, **selector: object) -> Obj:
    spec: Obj = {"hard": hard or {"pods": "1"}, "scopes": list(scopes)}
    if selector:
        spec["scopeSelector"] = {"matchExpressions": [selector]}
    return {"metadata": {"name": "q"}, "spec": spec}


BEST_EFFORT = {"containers": [{"name": "c"}]}
CROSS = {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["x"]}]}}}


@pytest.mark.parametrize(
    ("made", "spec", "expected"),
    [
        (quota(), {}, True),
        (quota("Terminating"), {"activeDeadlineSeconds": 5}, True),
        (quota("Terminating"), {}, False),
        (quota("NotTerminating"), {}, True),
        (quota("BestEffort"), BEST_EFFORT, True),
        (quota("BestEffort"), {}, False),
        (quota("NotBestEffort"), {}, True),
        (quota("BestEffort", "NotTerminating"), BEST_EFFORT, True),
        (quota("BestEffort", "Terminating"), BEST_EFFORT, False),
        (quota("CrossNamespacePodAffinity"), CROSS, True),
        (quota("CrossNamespacePodAffinity"), {}, False),
        (quota(scopeName="PriorityClass", operator="In", values=["high"]), {"priorityClassName": "high"}, True),
        (quota(scopeName="PriorityClass", operator="In", values=["high"]), {"priorityClassName": "low"}, False),
        (quota(scopeName="PriorityClass", operator="NotIn", values=["high"]), {"priorityClassName": "low"}, True),
        (quota(scopeName="PriorityClass", operator="Exists"), {}, False),
        (quota(scopeName="PriorityClass", operator="DoesNotExist"), {}, True),
    ],
)
def test_scopes(made, spec, expected):
    assert covers(made, PODS, pod(spec)) is expected


def test_a_scope_about_pods_covers_nothing_else():
    assert not covers(quota("NotTerminating"), SERVICES, {"metadata": {}, "spec": {}})


def test_everything_named_is_counted():
    pods = [pod(), pod(), pod(phase="Succeeded")]
    found = count(
        quota(hard={"pods": "9", "requests.cpu": "9", "services": "9", "other": "9"}),
        lambda kind: pods if kind == PODS else [],
        NOW,
    )
    assert {name: str(amount) for name, amount in found.items()} == {
        "pods": "2",
        "requests.cpu": "500m",
        "services": "0",
    }


@pytest.mark.parametrize(
    ("resource", "one", "other", "alike"),
    [
        (PODS, pod(), pod(), True),
        (PODS, pod(), pod(phase="Running"), True),
        (PODS, pod(), pod(phase="Failed"), False),
        (PODS, pod(), pod({"activeDeadlineSeconds": 5}), False),
        (PODS, pod({"activeDeadlineSeconds": 9}), pod({"activeDeadlineSeconds": 5}), True),
        (CLAIMS, {"metadata": {}, "spec": {}}, {"metadata": {}, "spec": {"volumeAttributesClassName": "g"}}, False),
        (
            CLAIMS,
            {"metadata": {}, "spec": {"volumeAttributesClassName": "g"}},
            {"metadata": {}, "spec": {}, "status": {"currentVolumeAttributesClassName": "g"}},
            True,
        ),
        (SERVICES, {"metadata": {}, "spec": {}}, {"metadata": {}, "spec": {"type": "LoadBalancer"}}, False),
    ],
)
def test_whether_a_change_matters_to_quotas(resource, one, other, alike):
    assert counts_alike(resource, one, other, NOW) is alike
