"""The autoscaler's loop on the fake API, with metrics APIs that answer what a test says."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest

from shipwheel.api import errors
from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.client.resources import DEPLOYMENTS, HORIZONTAL_POD_AUTOSCALERS, PODS
from shipwheel.controllers.autoscaler import HorizontalPodAutoscalerController
from tests.controllers.world import World, template

HPAS = HORIZONTAL_POD_AUTOSCALERS
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
UNSERVED = "the server could not find the requested resource"


@dataclass
class Cluster(World):
    """A Deployment `web` whose scale and metrics can be asked for."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """What each metrics path answers; an exception is raised."""
    selector: str = "app=web"
    conflicts: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.api.intercept = self.answer
        self.asked: list[str] = []

    def answer(self, method: str, path: str, body: Obj | None) -> Obj | None:
        if path.endswith("/scale"):
            name = path.split("/")[-2]
            if method == "PUT":
                assert body is not None
                if self.conflicts:
                    self.conflicts -= 1
                    raise errors.conflict(GroupResource("apps", "deployments"), name, errors.MODIFIED)
                self.api.change(DEPLOYMENTS, name, "default", lambda obj: obj["spec"].update(body["spec"]))
            deployment = self.api.get(DEPLOYMENTS, name, "default")
            if deployment is None:
                raise errors.not_found(GroupResource("apps", "deployments"), name)
            replicas = deployment["spec"]["replicas"]
            return {
                "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": name, "namespace": "default"},
                "spec": {"replicas": replicas}, "status": {"replicas": replicas, "selector": self.selector},
            }  # fmt: skip
        if "metrics.k8s.io" not in path:
            return None
        self.asked.append(path)
        answer = self.metrics.get(path)
        if answer is None:
            raise ApiError(404, "NotFound", UNSERVED)
        if isinstance(answer, Exception):
            raise answer
        return copy.deepcopy(answer)

    def add_web(self, replicas: int = 2, name: str = "web") -> None:
        labels = {"app": name}
        body = {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template(labels)},
        }
        self.api.create(DEPLOYMENTS, body)
        for index in range(replicas):
            spec = {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}
            pod = {"metadata": {"name": f"{name}-{index}", "namespace": "default", "labels": labels}, "spec": spec}
            self.start_pod(self.api.create(PODS, pod))
            self.api.change(PODS, f"{name}-{index}", "default", lambda obj: obj["status"].update(startTime=OLD))

    def use(self, cpu: str, pods: int = 2, name: str = "web") -> None:
        """Each pod uses so much."""
        self.metrics["/apis/metrics.k8s.io/v1beta1/namespaces/default/pods"] = {
            "metadata": {},
            "items": [
                {
                    "metadata": {"name": f"{name}-{index}", "namespace": "default"},
                    "timestamp": rfc3339(self.clock.now()),
                    "window": "30s",
                    "containers": [{"name": "c", "usage": {"cpu": cpu, "memory": "1Gi"}}],
                }
                for index in range(pods)
            ],
        }

    def add_hpa(self, *metrics: Obj, name: str = "web", target: str = "web", **spec: Any) -> None:
        reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
        full = {"scaleTargetRef": reference, "minReplicas": 1, "maxReplicas": 10, "metrics": list(metrics), **spec}
        self.api.create(HPAS, {"metadata": {"name": name, "namespace": "default"}, "spec": full})

    @property
    def replicas(self) -> int:
        return self.api.get(DEPLOYMENTS, "web", "default")["spec"]["replicas"]

    def status(self, name: str = "web") -> Obj:
        return self.api.get(HPAS, name, "default")["status"]

    def conditions(self, name: str = "web") -> dict[str, tuple[str, str, str]]:
        return {
            each["type"]: (each["status"], each["reason"], each["message"])
            for each in self.status(name).get("conditions") or ()
        }


OLD = "2020-01-01T00:00:00Z"


def cluster(replicas: int = 2, **options: Any) -> Cluster:
    made = Cluster((HorizontalPodAutoscalerController,), **options)
    made.add_web(replicas)
    return made


async def after_a_while(world: Cluster) -> None:
    """Long enough for pods not to be starting any more, and for one more look."""
    await world.pass_time(400, step=15)


async def test_up_to_what_the_metric_asks_for():
    world = cluster()
    async with world.running():
        await after_a_while(world)
        world.use("1")
        world.add_hpa(CPU)
        await world.settle(16)
        assert world.replicas == 4
        assert world.events("SuccessfulRescale") == [
            ("SuccessfulRescale", "New size: 4; reason: cpu resource utilization (percentage of request) above target")
        ]
        status = world.status()
        assert (status["currentReplicas"], status["desiredReplicas"]) in ((2, 4), (4, 4))
        assert status["lastScaleTime"]
        assert status["currentMetrics"] == [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "current": {"averageUtilization": 100, "averageValue": "1"}},
            }
        ]
        assert world.conditions()["ScalingActive"] == (
            "True",
            "ValidMetricFound",
            "the HPA was able to successfully calculate a replica count from "
            "cpu resource utilization (percentage of request)",
        )


async def test_down_only_after_the_window():
    world = cluster(4)
    async with world.running():
        await after_a_while(world)
        world.use("500m", 4)
        world.add_hpa(CPU)
        await world.settle(16)
        assert world.replicas == 4
        world.use("100m", 4)
        await world.pass_time(240, step=15)
        assert world.replicas == 4
        assert world.conditions()["AbleToScale"] == (
            "True",
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent recommendation",
        )
        await world.pass_time(120, step=15)
        assert world.replicas == 1
        assert world.events("SuccessfulRescale")[-1][1] == "New size: 1; reason: All metrics below target"


@pytest.mark.parametrize(
    ("replicas", "minimum", "reason"),
    [
        (12, 1, "New size: 10; reason: Current number of replicas above Spec.MaxReplicas"),
        (2, 3, "New size: 3; reason: Current number of replicas below Spec.MinReplicas"),
    ],
)
async def test_into_the_bounds_whatever_the_metrics(replicas, minimum, reason):
    world = cluster(replicas)
    async with world.running():
        world.add_hpa(CPU, minReplicas=minimum)
        await world.settle(1)
        assert world.events("SuccessfulRescale") == [("SuccessfulRescale", reason)]
        assert world.asked == []
        assert world.conditions()["AbleToScale"][1:] == (
            "SucceededRescale",
            f"the HPA controller was able to update the target scale to {world.replicas}",
        )


async def test_a_target_that_somebody_set_to_nothing_is_left_alone():
    world = cluster(0)
    async with world.running():
        world.add_hpa(CPU)
        await world.pass_time(30, step=15)
        assert world.replicas == 0
        assert world.conditions()["ScalingActive"] == (
            "False",
            "ScalingDisabled",
            "scaling is disabled since the replica count of the target is zero",
        )


async def test_no_metrics_api():
    world = cluster()
    async with world.running():
        world.add_hpa(CPU)
        await world.settle(1)
        cause = (
            "failed to get cpu utilization: unable to get metrics for resource cpu: "
            f"unable to fetch metrics from resource metrics API: {UNSERVED}"
        )
        assert world.conditions()["ScalingActive"] == (
            "False",
            "FailedGetResourceMetric",
            f"the HPA was unable to compute the replica count: {cause}",
        )
        assert world.events("FailedGetResourceMetric") == [("FailedGetResourceMetric", cause)]
        assert world.events("FailedComputeMetricsReplicas") == [
            (
                "FailedComputeMetricsReplicas",
                "invalid metrics (1 invalid out of 1), first error is: "
                f"failed to get cpu resource metric value: {cause}",
            )
        ]
        assert world.status()["currentMetrics"] == [{"type": ""}]
        world.use("1")
        await world.pass_time(400, step=15)
        assert world.replicas > 2


CUSTOM = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default"
EXTERNAL = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default"


def values(**by_name: str) -> Obj:
    items = [
        {"describedObject": {"name": name}, "value": value, "timestamp": "2026-01-01T00:00:00Z"}
        for name, value in by_name.items()
    ]
    return {"items": items}


POD_METRIC = {
    "type": "Pods",
    "pods": {"metric": {"name": "qps"}, "target": {"type": "AverageValue", "averageValue": "10"}},
}
SERVICE = {"kind": "Service", "name": "front", "apiVersion": "v1"}


def object_metric(**target: str) -> Obj:
    return {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": SERVICE, "target": target}}


def external_metric(**target: str) -> Obj:
    metric = {"name": "queue", "selector": {"matchLabels": {"q": "x"}}}
    return {"type": "External", "external": {"metric": metric, "target": target}}


SHOWN = "&LabelSelector{MatchLabels:map[string]string{q: x,},MatchExpressions:[]LabelSelectorRequirement{},}"
CONTAINER = {"name": "cpu", "container": "c", "target": {"type": "AverageValue", "averageValue": "250m"}}


@pytest.mark.parametrize(
    ("metric", "path", "answer", "replicas", "name", "current"),
    [
        (POD_METRIC, f"{CUSTOM}/pods/*/qps", values(**{"web-0": "15", "web-1": "25"}), 4, "pods metric qps",
         {"averageValue": "20"}),
        (object_metric(type="Value", value="100"), f"{CUSTOM}/services/front/hits", values(front="150"), 3,
         "Service metric hits", {"value": "150"}),
        (object_metric(type="AverageValue", averageValue="50"), f"{CUSTOM}/services/front/hits", values(front="150"), 3,
         "external metric hits(nil)", {"averageValue": "75"}),
        (external_metric(type="Value", value="5"), f"{EXTERNAL}/queue", {"items": [{"value": "6"}, {"value": "9"}]}, 4,
         f"external metric queue({SHOWN})", {"value": "15"}),
        (external_metric(type="AverageValue", averageValue="5"), f"{EXTERNAL}/queue", {"items": [{"value": "15"}]}, 3,
         f"external metric queue({SHOWN})", {"averageValue": "7500m"}),
    ],
)  # fmt: skip
async def test_other_sources(metric, path, answer, replicas, name, current):
    world = cluster()
    async with world.running():
        world.metrics[path] = answer
        world.add_hpa(metric)
        await world.settle(1)
        assert world.replicas == replicas
        assert world.events("SuccessfulRescale")[0][1] == f"New size: {replicas}; reason: {name} above target"
        (status,) = world.status()["currentMetrics"]
        (shown,) = (value for key, value in status.items() if key != "type")
        assert shown["current"] == current


async def test_one_container_s_use():
    world = cluster()
    async with world.running():
        await after_a_while(world)
        world.use("500m")
        world.add_hpa({"type": "ContainerResource", "containerResource": CONTAINER})
        await world.settle(1)
        assert world.replicas == 4
        assert world.status()["currentMetrics"] == [
            {
                "type": "ContainerResource",
                "containerResource": {"name": "cpu", "container": "c", "current": {"averageValue": "500m"}},
            }
        ]


@pytest.mark.parametrize(
    ("metric", "answer", "reason", "cause", "summary"),
    [
        (
            POD_METRIC,
            values(),
            "FailedGetPodsMetric",
            "unable to get metric qps: no metrics returned from custom metrics API",
            "failed to get pods metric value: ",
        ),
        (
            object_metric(type="Value", value="100"),
            values(a="1", b="2"),
            "FailedGetObjectMetric",
            "unable to get metric hits: unable to fetch metrics from custom metrics API: the custom metrics API server "
            "returned 2 results when we asked for exactly one on Service default/front",
            "failed to get object metric value: ",
        ),
        (
            object_metric(type="AverageValue", averageValue="100"),
            None,
            "FailedGetObjectMetric",
            f"unable to get metric hits: unable to fetch metrics from custom metrics API: {UNSERVED} "
            "on Service default/front",
            "failed to get object metric value: failed to get hits object metric: ",
        ),
        (
            external_metric(type="Value", value="5"),
            {"items": []},
            "FailedGetExternalMetric",
            f"unable to get external metric default/queue/{SHOWN}: no metrics returned from external metrics API",
            "failed to get queue external metric value: failed to get external metric queue: ",
        ),
        (
            external_metric(type="AverageValue", averageValue="5"),
            None,
            "FailedGetExternalMetric",
            f"unable to get external metric default/queue/{SHOWN}: unable to fetch metrics from external metrics API: "
            f"{UNSERVED}",
            "failed to get queue external metric value: failed to get queue external metric: ",
        ),
    ],
)
async def test_how_failures_are_told(metric, answer, reason, cause, summary):
    world = cluster()
    for path in (f"{CUSTOM}/pods/*/qps", f"{CUSTOM}/services/front/hits", f"{EXTERNAL}/queue"):
        world.metrics[path] = answer
    async with world.running():
        world.add_hpa(metric)
        await world.settle(1)
        assert world.events(reason) == [(reason, cause)]
        assert world.conditions()["ScalingActive"][1:] == (
            reason,
            f"the HPA was unable to compute the replica count: {cause}",
        )
        assert world.events("FailedComputeMetricsReplicas")[0][1] == (
            f"invalid metrics (1 invalid out of 1), first error is: {summary}{cause}"
        )
        assert world.replicas == 2


async def test_the_metric_of_a_namespace_is_that_of_the_autoscaler_s_own():
    world = cluster()
    metric = {
        "type": "Object",
        "object": {
            "metric": {"name": "hits"},
            "describedObject": {"kind": "Namespace", "name": "other", "apiVersion": "v1"},
            "target": {"type": "Value", "value": "1"},
        },
    }
    async with world.running():
        world.add_hpa(metric)
        await world.settle(1)
        assert world.asked == [f"{CUSTOM}/metrics/hits"]


@pytest.mark.parametrize(("cpu", "replicas"), [("100m", 3), ("1", 6)])
async def test_when_some_metrics_fail_it_only_goes_up(cpu, replicas):
    world = cluster(3)
    async with world.running():
        await after_a_while(world)
        world.use(cpu, 3)
        world.add_hpa(external_metric(type="Value", value="5"), CPU)
        await world.pass_time(400, step=15)
        assert world.replicas == replicas if replicas == 3 else world.replicas >= replicas
        active = world.conditions()["ScalingActive"]
        assert active[1] == ("ValidMetricFound" if replicas > 3 else "FailedGetExternalMetric")


async def test_the_largest_of_several_counts():
    world = cluster()
    async with world.running():
        world.metrics[f"{CUSTOM}/pods/*/qps"] = values(**{"web-0": "15", "web-1": "15"})
        world.metrics[f"{EXTERNAL}/queue"] = {"items": [{"value": "10"}]}
        world.add_hpa(POD_METRIC, external_metric(type="Value", value="5"))
        await world.settle(1)
        assert world.replicas == 4
        assert [each["type"] for each in world.status()["currentMetrics"]] == ["Pods", "External"]


@pytest.mark.parametrize(
    ("selector", "message", "event"),
    [
        ("", "the HPA target's scale is missing a selector", ("SelectorRequired", "selector is required")),
        ("a=b=c", "couldn't convert selector into a corresponding internal selector object: ", None),
    ],
)
async def test_a_target_without_a_usable_selector(selector, message, event):
    world = cluster(selector=selector)
    async with world.running():
        world.add_hpa(CPU)
        await world.settle(1)
        active = world.conditions()["ScalingActive"]
        assert active[:2] == ("False", "InvalidSelector")
        assert active[2].startswith(message)
        if event:
            assert world.events(event[0]) == [event]
        assert world.events("FailedComputeMetricsReplicas")


async def test_pods_of_two_autoscalers_are_nobody_s():
    world = cluster()
    world.use("1")
    async with world.running():
        world.add_hpa(CPU)
        world.add_hpa(CPU, name="other")
        await world.pass_time(30, step=15)
        for name in ("web", "other"):
            assert world.conditions(name)["ScalingActive"] == (
                "False",
                "AmbiguousSelector",
                "pods by selector app=web are controlled by multiple HPAs: [{other default} {web default}]",
            )
        world.api.delete(HPAS, "other", "default")
        await world.pass_time(30, step=15)
        assert world.conditions()["ScalingActive"][1] == "ValidMetricFound"


async def test_a_target_that_is_not_there():
    world = cluster()
    async with world.running():
        world.add_hpa(CPU, target="nothing")
        await world.settle(1)
        missing = 'deployments.apps "nothing" not found'
        assert world.conditions()["AbleToScale"] == (
            "False",
            "FailedGetScale",
            f"the HPA controller was unable to get the target's current scale: {missing}",
        )
        assert world.events("FailedGetScale") == [("FailedGetScale", missing)]


async def test_a_kind_that_nobody_serves():
    world = cluster()
    async with world.running():
        reference = {"apiVersion": "x.dev/v1", "kind": "Odd", "name": "web"}
        world.add_hpa(CPU, scaleTargetRef=reference)
        await world.settle(1)
        assert world.events("FailedGetScale") == [("FailedGetScale", 'no matches for kind "Odd" in group "x.dev"')]


@pytest.mark.parametrize(("conflicts", "replicas"), [(4, 10), (5, 12)])
async def test_others_may_write_the_target_meanwhile(conflicts, replicas):
    world = cluster(12, conflicts=conflicts)
    async with world.running():
        world.add_hpa(CPU)
        await world.settle(1)
        assert world.replicas == replicas
        if replicas == 12:
            assert world.conditions()["AbleToScale"][1] == "FailedUpdateScale"
            assert world.events("FailedRescale")[0][1].startswith(
                "New size: 10; reason: Current number of replicas above Spec.MaxReplicas; error: "
            )


async def test_a_look_every_quarter_of_a_minute_and_no_more():
    world = cluster()
    world.use("500m")
    async with world.running():
        world.add_hpa(CPU)
        await world.settle(1)
        world.asked.clear()
        await world.pass_time(150, step=5)
        assert len(world.asked) == 10
