"""The three metrics APIs, which servers other than ours implement (metrics-server, adapters)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from shipwheel.api import quantity
from shipwheel.api.clock import parse_time
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersion, GroupVersionResource, Obj, name_of
from shipwheel.api.selectors import LabelSelector, from_label_selector
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.flags import parse_duration
from shipwheel.controllers.autoscaler.replicas import NoReplicas, PodMetric

_POD_METRICS = GroupVersionResource("metrics.k8s.io", "v1beta1", "pods")
_EXTERNAL = "/apis/external.metrics.k8s.io/v1beta1"
_CUSTOM_FAILED = "unable to fetch metrics from custom metrics API"


class MetricsClient:
    """Asks for metrics; every method raises NoReplicas when there are none."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def of_resource(
        self, namespace: str, selector: LabelSelector, resource: str, container: str
    ) -> dict[str, PodMetric]:
        """CPU or memory of pods, or of one container of each."""
        what = f"unable to get metrics for resource {resource}"
        try:
            items = (await self._client.list(_POD_METRICS, namespace, label_selector=str(selector)))["items"]
        except (ApiError, ConnectionFailed) as error:
            raise NoReplicas(f"{what}: unable to fetch metrics from resource metrics API: {error}") from error
        if not items:
            raise NoReplicas(f"{what}: no metrics returned from resource metrics API")
        return resource_metrics(items, resource, container)

    async def of_pods(self, namespace: str, selector: LabelSelector, metric: Obj) -> dict[str, PodMetric]:
        """A custom metric of pods."""
        what = f"unable to get metric {metric['name']}"
        query = {"labelSelector": str(selector)}
        try:
            items = await self._custom(f"namespaces/{namespace}/pods/*/{metric['name']}", query, metric)
        except NoReplicas as error:
            raise NoReplicas(f"{what}: {error}") from error
        if not items:
            raise NoReplicas(f"{what}: no metrics returned from custom metrics API")
        return {item["describedObject"]["name"]: _value_of(item) for item in items}

    async def of_object(self, namespace: str, target: Obj, metric: Obj) -> int:
        """A custom metric of one object, in thousandths. That of a Namespace is always that of the autoscaler's own."""
        kind, name = target["kind"], target["name"]
        what = f"unable to get metric {metric['name']}"
        gv = GroupVersion.parse(target.get("apiVersion") or "v1")
        try:
            if kind == "Namespace" and not gv.group:
                path = f"namespaces/{namespace}/metrics/{metric['name']}"
            else:
                path = f"namespaces/{namespace}/{await self._resource_name(gv.group, kind)}/{name}/{metric['name']}"
            items = await self._custom(path, {}, metric)
            if len(items) != 1:
                count = len(items)
                raise NoReplicas(
                    f"{_CUSTOM_FAILED}: the custom metrics API server returned {count} results "
                    "when we asked for exactly one"
                )
        except NoReplicas as error:
            raise NoReplicas(f"{what}: {error} on {kind} {namespace}/{name}") from error
        return quantity.milli(items[0]["value"])

    async def external(self, namespace: str, metric: Obj) -> int:
        """The sum of an external metric, in thousandths."""
        selector = metric.get("selector")
        what = f"unable to get external metric {namespace}/{metric['name']}/{shown_selector(selector)}"
        labels = str(from_label_selector(selector)) if selector is not None else ""
        query = {"labelSelector": labels} if labels else {}
        path = f"{_EXTERNAL}/namespaces/{namespace}/{metric['name']}"
        try:
            items = (await self._client.call("GET", path, query=query)).get("items") or []
        except (ApiError, ConnectionFailed) as error:
            raise NoReplicas(f"{what}: unable to fetch metrics from external metrics API: {error}") from error
        if not items:
            raise NoReplicas(f"{what}: no metrics returned from external metrics API")
        return min(sum(quantity.milli(item["value"]) for item in items), 2**63 - 1)

    async def _custom(self, path: str, query: dict[str, str], metric: Obj) -> list[Obj]:
        if metric.get("selector") is not None:
            query["metricLabelSelector"] = str(from_label_selector(metric["selector"]))
        try:
            version = await self._custom_version()
            answer = await self._client.call("GET", f"/apis/custom.metrics.k8s.io/{version}/{path}", query=query)
        except (ApiError, ConnectionFailed) as error:
            raise NoReplicas(f"{_CUSTOM_FAILED}: {error}") from error
        return answer.get("items") or []

    async def _custom_version(self) -> str:
        discovery = await self._client.resources()
        versions = {each.gvr.version for each in discovery.resources if each.gvr.group == "custom.metrics.k8s.io"}
        return next((version for version in ("v1beta2", "v1beta1") if version in versions), "v1beta2")

    async def _resource_name(self, group: str, kind: str) -> str:
        """The name by which custom metrics know a kind, whichever of its versions is named."""
        discovery = await self._client.resources()
        for each in discovery.preferred():
            if (each.gvr.group, each.kind.kind) == (group, kind):
                return str(each.gvr.group_resource)
        shown = f"{kind}.{group}" if group else kind
        missing = f'no matches for kind "{kind}" in group "{group}"'
        raise NoReplicas(f"{_CUSTOM_FAILED}: unable to map kind {shown} to resource: {missing}")


def shown_selector(selector: Obj | None) -> str:
    """A label selector as upstream's messages have it."""
    if selector is None:
        return "nil"
    labels = "".join(f"{key}: {value}," for key, value in sorted((selector.get("matchLabels") or {}).items()))
    expressions = "".join(
        "LabelSelectorRequirement{"
        f"Key:{each['key']},Operator:{each['operator']},Values:[{' '.join(each.get('values') or ())}],}},"
        for each in selector.get("matchExpressions") or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )


def resource_metrics(items: Iterable[Obj], resource: str, container: str) -> dict[str, PodMetric]:
    """PodMetrics as values by pod; a pod that lacks the resource in any container is left out."""
    found: dict[str, PodMetric] = {}
    for item in items:
        containers = item.get("containers") or []
        if container:
            containers = [each for each in containers if each["name"] == container]
        usages = [(each.get("usage") or {}).get(resource) for each in containers]
        if usages and all(usage is not None for usage in usages):
            total = sum(quantity.milli(usage) for usage in usages if usage is not None)
            found[name_of(item)] = PodMetric(total, _time(item), parse_duration(item.get("window") or "60s"))
    return found


def _value_of(item: Obj) -> PodMetric:
    return PodMetric(quantity.milli(item["value"]), _time(item), item.get("windowSeconds") or 60)


def _time(item: Obj) -> datetime:
    return parse_time(item["timestamp"])
