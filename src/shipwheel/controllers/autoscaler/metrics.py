"""The three metrics APIs, which servers other than ours implement (metrics-server, adapters)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from shipwheel.api import quantity
from shipwheel.api.clock import parse_time
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersion, GroupVersionKind, GroupVersionResource, Obj, name_of
from shipwheel.api.selectors import LabelSelector, from_label_selector
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.flags import parse_duration
from shipwheel.controllers.autoscaler.replicas import NoReplicas, PodMetric

_POD_METRICS = GroupVersionResource("metrics.k8s.io", "v1beta1", "pods")
_EXTERNAL = "/apis/external.metrics.k8s.io/v1beta1"


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
        items = await self._custom(f"namespaces/{namespace}/pods/*/{metric['name']}", query, metric, what)
        return {item["describedObject"]["name"]: _value_of(item) for item in items}

    async def of_object(self, namespace: str, target: Obj, metric: Obj) -> int:
        """A custom metric of one object, in thousandths."""
        kind, name = target["kind"], target["name"]
        what = f"unable to get metric {metric['name']}"
        place = f"on {kind} {namespace}/{name}"
        gv = GroupVersion.parse(target.get("apiVersion") or "v1")
        if kind == "Namespace" and not gv.group:
            path = f"namespaces/{name}/metrics/{metric['name']}"
        else:
            resource = await self._resource_name(gv, kind)
            path = f"namespaces/{namespace}/{resource}/{name}/{metric['name']}"
        try:
            items = await self._custom(path, {}, metric, what)
        except NoReplicas as error:
            raise NoReplicas(f"{error} {place}") from error
        return quantity.milli(items[0]["value"])

    async def external(self, namespace: str, metric: Obj, selector: LabelSelector) -> int:
        """The sum of an external metric, in thousandths."""
        what = f"unable to get external metric {namespace}/{metric['name']}/{selector}"
        query = {} if selector.is_everything else {"labelSelector": str(selector)}
        path = f"{_EXTERNAL}/namespaces/{namespace}/{metric['name']}"
        try:
            items = (await self._client.call("GET", path, query=query)).get("items") or []
        except (ApiError, ConnectionFailed) as error:
            raise NoReplicas(f"{what}: unable to fetch metrics from external metrics API: {error}") from error
        if not items:
            raise NoReplicas(f"{what}: no metrics returned from external metrics API")
        return min(sum(quantity.milli(item["value"]) for item in items), 2**63 - 1)

    async def _custom(self, path: str, query: dict[str, str], metric: Obj, what: str) -> list[Obj]:
        if metric.get("selector") is not None:
            query["metricLabelSelector"] = str(from_label_selector(metric["selector"]))
        try:
            version = await self._custom_version()
            answer = await self._client.call("GET", f"/apis/custom.metrics.k8s.io/{version}/{path}", query=query)
        except (ApiError, ConnectionFailed) as error:
            raise NoReplicas(f"{what}: unable to fetch metrics from custom metrics API: {error}") from error
        items = answer.get("items") or []
        if not items:
            raise NoReplicas(f"{what}: no metrics returned from custom metrics API")
        return items

    async def _custom_version(self) -> str:
        discovery = await self._client.resources()
        versions = {each.gvr.version for each in discovery.resources if each.gvr.group == "custom.metrics.k8s.io"}
        return next((version for version in ("v1beta2", "v1beta1") if version in versions), "v1beta2")

    async def _resource_name(self, gv: GroupVersion, kind: str) -> str:
        discovery = await self._client.resources()
        resource = discovery.by_kind.get(GroupVersionKind(gv.group, gv.version, kind))
        if resource is None:
            raise NoReplicas(f'no matches for kind "{kind}" in version "{gv}"')
        return str(resource.gvr.group_resource)


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
