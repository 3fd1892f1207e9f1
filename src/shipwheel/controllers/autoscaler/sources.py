"""What one metric of an autoscaler asks for: the metric's source is asked, and its value turned into replicas.

Failures are told three times (a condition, an event about the metric, an event about all metrics), each with other
words around the same cause, which is why `MetricFailed` carries more than one text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.api.quantity import BINARY_SI, DECIMAL_SI, Quantity, milli
from shipwheel.api.selectors import LabelSelector
from shipwheel.controllers.autoscaler import replicas as counting
from shipwheel.controllers.autoscaler.metrics import MetricsClient, shown_selector
from shipwheel.controllers.autoscaler.replicas import NoReplicas, Settings, Tolerances


class MetricFailed(Exception):
    """One metric gave no number. Its text is the cause; `reason` is the condition's, `summary` the text for the event
    about all metrics."""

    def __init__(self, reason: str, cause: str, summary: str) -> None:
        super().__init__(cause)
        self.reason = reason
        self.summary = summary


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one metric asks for: replicas, its name in messages, its status."""

    replicas: int
    name: str
    status: Obj


@dataclass(frozen=True, slots=True)
class Target:
    """What is scaled: its pods, how many there should be (`current`) and are (`reported`)."""

    namespace: str
    selector: LabelSelector
    current: int
    reported: int


class Sources:
    """Asks for metrics. `pods` gives those of a namespace that a selector chooses."""

    def __init__(
        self, client: MetricsClient, clock: Clock, settings: Settings, pods: Callable[[str, LabelSelector], list[Obj]]
    ) -> None:
        self._client = client
        self._clock = clock
        self._settings = settings
        self._pods = pods

    async def ask(self, metric: Obj, target: Target, tolerances: Tolerances) -> Wanted:
        """What a metric of `spec.metrics` wants; MetricFailed."""
        match metric["type"]:
            case "Resource":
                return await self._ask_resource(metric["resource"], target, tolerances)
            case "ContainerResource":
                return await self._ask_container(metric["containerResource"], target, tolerances)
            case "Pods":
                return await self._ask_pods(metric["pods"], target, tolerances)
            case "Object":
                return await self._ask_object(metric["object"], target, tolerances)
            case "External":
                return await self._ask_external(metric["external"], target, tolerances)
        cause = f'unknown metric source type "{metric["type"]}"'
        raise MetricFailed("InvalidMetricSourceType", cause, cause)

    # CPU and memory

    async def _ask_resource(self, source: Obj, target: Target, tolerances: Tolerances) -> Wanted:
        resource = source["name"]
        try:
            wanted, current = await self._of_resource(source, "", target, tolerances)
        except NoReplicas as error:
            summary = f"failed to get {resource} resource metric value: {error}"
            raise MetricFailed("FailedGetResourceMetric", str(error), summary) from error
        name = f"{resource} resource"
        if "averageUtilization" in current:
            name += " utilization (percentage of request)"
        status = {"type": "Resource", "resource": {"name": resource, "current": current}}
        return Wanted(wanted, name, status)

    async def _ask_container(self, source: Obj, target: Target, tolerances: Tolerances) -> Wanted:
        resource, container = source["name"], source["container"]
        try:
            wanted, current = await self._of_resource(source, container, target, tolerances)
        except NoReplicas as error:
            summary = f"failed to get {container} container metric value: {error}"
            raise MetricFailed("FailedGetContainerResourceMetric", str(error), summary) from error
        name = f"{resource} resource"
        if "averageUtilization" in current:
            name = f"{resource} container resource utilization (percentage of request)"
        shown = {"name": resource, "container": container, "current": current}
        return Wanted(wanted, name, {"type": "ContainerResource", "containerResource": shown})

    async def _of_resource(
        self, source: Obj, container: str, target: Target, tolerances: Tolerances
    ) -> tuple[int, Obj]:
        """(replicas, present value)."""
        resource, aim = source["name"], source["target"]
        what = "usage" if aim.get("averageValue") is not None else "utilization"
        try:
            metrics = await self._client.of_resource(target.namespace, target.selector, resource, container)
            pods = self._pods(target.namespace, target.selector)
            groups = counting.group(pods, metrics, resource, self._settings, self._clock.now())
            if what == "usage":
                wanted = counting.by_average(
                    pods, metrics, milli(aim["averageValue"]), target.current, tolerances, groups
                )
                return wanted.replicas, {"averageValue": _amount(wanted.average, resource)}
            percent = aim["averageUtilization"]

            def requests() -> dict[str, int]:
                return counting.requests_of(pods, resource, container)

            wanted = counting.by_utilization(pods, metrics, requests, percent, target.current, tolerances, groups)
            current = {"averageUtilization": wanted.percent, "averageValue": _amount(wanted.average, resource)}
            return wanted.replicas, current
        except NoReplicas as error:
            raise NoReplicas(f"failed to get {resource} {what}: {error}") from error

    # Custom and external metrics

    async def _ask_pods(self, source: Obj, target: Target, tolerances: Tolerances) -> Wanted:
        metric = source["metric"]
        try:
            metrics = await self._client.of_pods(target.namespace, target.selector, metric)
            pods = self._pods(target.namespace, target.selector)
            groups = counting.group(pods, metrics, "", self._settings, self._clock.now())
            aim = milli(source["target"]["averageValue"])
            wanted = counting.by_average(pods, metrics, aim, target.current, tolerances, groups)
        except NoReplicas as error:
            summary = f"failed to get pods metric value: {error}"
            raise MetricFailed("FailedGetPodsMetric", str(error), summary) from error
        status = {"metric": metric, "current": {"averageValue": _amount(wanted.average)}}
        return Wanted(wanted.replicas, f"pods metric {metric['name']}", {"type": "Pods", "pods": status})

    async def _ask_object(self, source: Obj, target: Target, tolerances: Tolerances) -> Wanted:
        metric, aim, described = source["metric"], source["target"], source["describedObject"]
        averages = aim["type"] == "AverageValue"
        try:
            usage = await self._client.of_object(target.namespace, described, metric)
            wanted, current = self._by_aim(usage, aim, target, tolerances)
        except NoReplicas as error:
            around = f"failed to get {metric['name']} object metric: " if averages else ""
            summary = f"failed to get object metric value: {around}{error}"
            raise MetricFailed("FailedGetObjectMetric", str(error), summary) from error
        name = _external_name(metric) if averages else f"{described['kind']} metric {metric['name']}"
        status = {"metric": metric, "describedObject": described, "current": current}
        return Wanted(wanted, name, {"type": "Object", "object": status})

    async def _ask_external(self, source: Obj, target: Target, tolerances: Tolerances) -> Wanted:
        metric, aim = source["metric"], source["target"]
        try:
            usage = await self._client.external(target.namespace, metric)
            wanted, current = self._by_aim(usage, aim, target, tolerances)
        except NoReplicas as error:
            name = metric["name"]
            around = f"{name} external metric" if aim.get("averageValue") is not None else f"external metric {name}"
            summary = f"failed to get {name} external metric value: failed to get {around}: {error}"
            raise MetricFailed("FailedGetExternalMetric", str(error), summary) from error
        status = {"metric": metric, "current": current}
        return Wanted(wanted, _external_name(metric), {"type": "External", "external": status})

    def _by_aim(self, usage: int, aim: Obj, target: Target, tolerances: Tolerances) -> tuple[int, Obj]:
        """(replicas, present value) of a value that is one for all pods."""
        if aim.get("averageValue") is not None:
            wanted = counting.by_value_per_pod(usage, milli(aim["averageValue"]), target.reported, tolerances)
            return wanted.replicas, {"averageValue": _amount(wanted.average)}

        def ready() -> int:
            return counting.ready_count(self._pods(target.namespace, target.selector))

        replicas = counting.by_value(usage, milli(aim["value"]), ready, target.current, tolerances)
        return replicas, {"value": _amount(usage)}


def _external_name(metric: Obj) -> str:
    return f"external metric {metric['name']}({shown_selector(metric.get('selector'))})"


def _amount(thousandths: int, resource: str = "") -> str:
    return str(Quantity.of_milli(thousandths, BINARY_SI if resource == "memory" else DECIMAL_SI))
