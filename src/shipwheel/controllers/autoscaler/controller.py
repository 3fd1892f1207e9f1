"""The HorizontalPodAutoscaler loop: every quarter of a minute, for each autoscaler."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    GroupVersion,
    GroupVersionResource,
    Obj,
    key_of,
    labels_of,
    namespace_of,
    split_key,
)
from shipwheel.api.quantity import BINARY_SI, DECIMAL_SI, Quantity, milli
from shipwheel.api.selectors import LabelSelector, SelectorError, from_label_selector, parse_label_selector
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.informer import EventType
from shipwheel.client.resources import HORIZONTAL_POD_AUTOSCALERS
from shipwheel.controllers.autoscaler import behavior as taming
from shipwheel.controllers.autoscaler import replicas as counting
from shipwheel.controllers.autoscaler.metrics import MetricsClient
from shipwheel.controllers.autoscaler.replicas import NoReplicas, Tolerances
from shipwheel.controllers.framework import Context, is_conflict


class _Failed(Exception):
    """Nothing can be done this time; the conditions say why."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one metric asks for: replicas, its name in messages, its status."""

    replicas: int
    name: str
    status: Obj


class HorizontalPodAutoscalerController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._hpas = ctx.informer(HORIZONTAL_POD_AUTOSCALERS)
        self._pods = ctx.pods()
        self._metrics = MetricsClient(ctx.client)
        self._memories: dict[str, taming.Memory] = {}
        self._selectors: dict[str, LabelSelector] = {}
        config = ctx.config
        self._settings = counting.Settings(
            config.horizontal_pod_autoscaler_cpu_initialization_period,
            config.horizontal_pod_autoscaler_initial_readiness_delay,
        )
        self._loop = ctx.loop(
            "horizontalpodautoscaler",
            self.reconcile,
            workers=config.concurrent_horizontal_pod_autoscaler_syncs,
            informers=(self._hpas, self._pods),
        )
        self._hpas.add_handler(self._on_hpa)

    async def run(self) -> None:
        await self._loop.run()

    def _on_hpa(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        """Changes of the status (mostly ours) wait for the next regular look."""
        if new is not None and old is not None and new["spec"] == old["spec"]:
            return
        hpa = new if new is not None else old
        if hpa is not None:
            self._loop.add(hpa)

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        hpa = self._hpas.get(namespace, name)
        if hpa is None:
            self._memories.pop(key, None)
            self._selectors.pop(key, None)
            return None
        sync = _Sync(
            self, self._ctx, self._metrics, self._settings, hpa, self._memories.setdefault(key, taming.Memory())
        )
        await sync.run()
        return self._ctx.config.horizontal_pod_autoscaler_sync_period

    def rivals(self, hpa: Obj, selector: LabelSelector) -> list[str]:
        """All autoscalers (this one too) that control any of the pods, if there is more than this one. Their
        targets' selectors are known from their own last looks."""
        self._selectors[key_of(hpa)] = selector
        namespace = namespace_of(hpa)
        pods = self.pods(namespace, selector)
        rivals = sorted(
            other
            for other, theirs in self._selectors.items()
            if split_key(other)[0] == namespace and any(theirs.matches(labels_of(pod)) for pod in pods)
        )
        return rivals if len(rivals) > 1 else []

    def pods(self, namespace: str, selector: LabelSelector) -> list[Obj]:
        return [pod for pod in self._pods.list(namespace) if selector.matches(labels_of(pod))]


class _Sync:
    """One look at one autoscaler."""

    def __init__(
        self,
        controller: HorizontalPodAutoscalerController,
        ctx: Context,
        metrics: MetricsClient,
        settings: counting.Settings,
        hpa: Obj,
        memory: taming.Memory,
    ) -> None:
        self._controller = controller
        self._ctx = ctx
        self._metrics = metrics
        self._settings = settings
        self._hpa = hpa
        self._spec = hpa["spec"]
        self._namespace = namespace_of(hpa)
        self._memory = memory
        self._status: Obj = copy.deepcopy(hpa.get("status") or {})
        tolerance = ctx.config.horizontal_pod_autoscaler_tolerance
        self._tolerances = _tolerances(self._spec.get("behavior"), tolerance)

    async def run(self) -> None:
        with suppress(_Failed):
            await self._scale()
        if self._status != (self._hpa.get("status") or {}):
            await self._ctx.client.update(
                HORIZONTAL_POD_AUTOSCALERS, {**self._hpa, "status": self._status}, subresource="status"
            )

    async def _scale(self) -> None:
        gvr, scale = await self._current_scale()
        current = (scale.get("spec") or {}).get("replicas") or 0
        message = "the HPA controller was able to get the target's current scale"
        self._condition("AbleToScale", "True", "SucceededGetScale", message)
        now = self._ctx.clock.monotonic()
        if not self._memory.recommendations:
            self._memory.recommendations.append((now, current))
        desired, reason, statuses = await self._desired(scale, current, now)
        if desired != current:
            await self._rescale(gvr, scale, current, desired, reason)
        self._report(current, desired, statuses, rescaled=desired != current)

    async def _desired(self, scale: Obj, current: int, now: float) -> tuple[int, str, list[Obj] | None]:
        """(the replicas to have, why, the metrics' status; None: they were not asked)."""
        minimum = self._spec.get("minReplicas")
        minimum = 1 if minimum is None else minimum
        maximum = self._spec["maxReplicas"]
        if current == 0 and minimum != 0:
            message = "scaling is disabled since the replica count of the target is zero"
            self._condition("ScalingActive", "False", "ScalingDisabled", message)
            return 0, "", None
        if current > maximum:
            return maximum, "Current number of replicas above Spec.MaxReplicas", None
        if current < minimum:
            return minimum, "Current number of replicas below Spec.MinReplicas", None
        wanted, statuses = await self._ask_metrics(scale, current)
        reason = ""
        if wanted.replicas > current:
            reason = f"{wanted.name} above target"
        elif wanted.replicas < current:
            reason = "All metrics below target"
        tamed = taming.tame(
            self._memory,
            self._spec.get("behavior"),
            current,
            wanted.replicas,
            minimum,
            maximum,
            self._ctx.config.horizontal_pod_autoscaler_downscale_stabilization,
            now,
        )
        for each in tamed.conditions:
            self._condition(each.type, each.status, each.reason, each.message)
        return tamed.replicas, reason, statuses

    # The target

    async def _current_scale(self) -> tuple[GroupVersionResource, Obj]:
        """(the target's resource, its scale)."""
        target = self._spec["scaleTargetRef"]
        try:
            gv = GroupVersion.parse(target.get("apiVersion") or "v1")
            discovery = await self._ctx.client.resources()
            candidates = [
                each for each in discovery.resources if each.gvr.group == gv.group and each.kind.kind == target["kind"]
            ]
            if not candidates:
                raise ValueError(f'no matches for kind "{target["kind"]}" in group "{gv.group}"')
            candidates.sort(key=lambda each: not each.preferred)
            gvr = candidates[0].gvr
            scale = await self._ctx.client.get(gvr, target["name"], self._namespace, subresource="scale")
            return gvr, scale
        except (ApiError, ConnectionFailed, ValueError) as error:
            self._event("Warning", "FailedGetScale", str(error))
            message = f"the HPA controller was unable to get the target's current scale: {error}"
            self._condition("AbleToScale", "False", "FailedGetScale", message)
            raise _Failed from error

    async def _rescale(self, gvr: GroupVersionResource, scale: Obj, current: int, desired: int, reason: str) -> None:
        client, name = self._ctx.client, self._spec["scaleTargetRef"]["name"]
        path = gvr.path(self._namespace, name, "scale")
        try:
            try:
                await client.call("PUT", path, body={**scale, "spec": {"replicas": desired}})
            except ApiError as error:
                if not is_conflict(error):
                    raise
                fresh = await client.get(gvr, name, self._namespace, subresource="scale")
                await client.call("PUT", path, body={**fresh, "spec": {"replicas": desired}})
        except (ApiError, ConnectionFailed) as error:
            self._event("Warning", "FailedRescale", f"New size: {desired}; reason: {reason}; error: {error}")
            message = f"the HPA controller was unable to update the target scale: {error}"
            self._condition("AbleToScale", "False", "FailedUpdateScale", message)
            self._report(current, self._status.get("desiredReplicas") or 0, None, rescaled=False)
            raise _Failed from error
        message = f"the HPA controller was able to update the target scale to {desired}"
        self._condition("AbleToScale", "True", "SucceededRescale", message)
        self._event("Normal", "SuccessfulRescale", f"New size: {desired}; reason: {reason}")
        taming.remember(self._memory, self._spec.get("behavior"), current, desired, self._ctx.clock.monotonic())

    # Metrics

    async def _ask_metrics(self, scale: Obj, current: int) -> tuple[_Wanted, list[Obj]]:
        """The largest number that any metric asks for. When some cannot be had, it may not be less than now."""
        selector = self._selector((scale.get("status") or {}).get("selector") or "")
        reported = (scale.get("status") or {}).get("replicas") or 0
        metrics = self._spec.get("metrics") or ()
        best: _Wanted | None = None
        statuses: list[Obj] = []
        failures: list[tuple[str, str]] = []
        for metric in metrics:
            try:
                wanted = await self._ask(metric, selector, current, reported)
            except NoReplicas as error:
                failed = "FailedGet" + metric["type"] + "Metric"
                self._event("Warning", failed, str(error))
                failures.append((failed, str(error)))
                continue
            statuses.append(wanted.status)
            if best is None or wanted.replicas > best.replicas:
                best = wanted
        if best is None or (failures and best.replicas < current):
            reason, error_text = failures[0] if failures else ("InvalidMetricSourceType", "no metrics")
            message = f"the HPA was unable to compute the replica count: {error_text}"
            self._condition("ScalingActive", "False", reason, message)
            summary = f"invalid metrics ({len(failures)} invalid out of {len(metrics)}), first error is: {error_text}"
            self._event("Warning", "FailedComputeMetricsReplicas", summary)
            self._report(current, self._status.get("desiredReplicas") or 0, statuses, rescaled=False)
            raise _Failed
        message = f"the HPA was able to successfully calculate a replica count from {best.name}"
        self._condition("ScalingActive", "True", "ValidMetricFound", message)
        return best, statuses

    def _selector(self, text: str) -> LabelSelector:
        if not text:
            self._event("Warning", "SelectorRequired", "selector is required")
            message = "the HPA target's scale is missing a selector"
            self._condition("ScalingActive", "False", "InvalidSelector", message)
            raise _Failed
        try:
            selector = parse_label_selector(text)
        except SelectorError as error:
            message = f"couldn't convert selector into a corresponding internal selector object: {error}"
            self._event("Warning", "InvalidSelector", message)
            self._condition("ScalingActive", "False", "InvalidSelector", message)
            raise _Failed from error
        rivals = self._controller.rivals(self._hpa, selector)
        if rivals:
            shown = " ".join(f"{{{name} {namespace}}}" for namespace, name in map(split_key, rivals))
            message = f"pods by selector {text} are controlled by multiple HPAs: [{shown}]"
            self._event("Warning", "AmbiguousSelector", message)
            self._condition("ScalingActive", "False", "AmbiguousSelector", message)
            raise _Failed
        return selector

    async def _ask(self, metric: Obj, selector: LabelSelector, current: int, reported: int) -> _Wanted:
        match metric["type"]:
            case "Resource":
                return await self._ask_resource(metric["resource"], "resource", "Resource", selector, current)
            case "ContainerResource":
                source = metric["containerResource"]
                return await self._ask_resource(source, "containerResource", "ContainerResource", selector, current)
            case "Pods":
                return await self._ask_pods(metric["pods"], selector, current)
            case "Object":
                return await self._ask_object(metric["object"], selector, current, reported)
            case "External":
                return await self._ask_external(metric["external"], selector, current, reported)
        raise NoReplicas(f'unknown metric source type "{metric["type"]}"')

    async def _ask_resource(self, source: Obj, field: str, kind: str, selector: LabelSelector, current: int) -> _Wanted:
        resource, container, target = source["name"], source.get("container", ""), source["target"]
        metrics = await self._metrics.of_resource(self._namespace, selector, resource, container)
        pods = self._controller.pods(self._namespace, selector)
        groups = counting.group(pods, metrics, resource, self._settings, self._ctx.clock.now())
        status: Obj
        if target.get("averageValue") is not None:
            wanted = counting.by_average(
                pods, metrics, milli(target["averageValue"]), current, self._tolerances, groups
            )
            status = {"averageValue": _amount(wanted.average, resource)}
            name = f"{resource} resource"
        else:
            requests = counting.requests_of(pods, resource, container)
            percent = target["averageUtilization"]
            wanted = counting.by_utilization(pods, metrics, requests, percent, current, self._tolerances, groups)
            status = {"averageUtilization": wanted.percent, "averageValue": _amount(wanted.average, resource)}
            what = "container resource" if container else "resource"
            name = f"{resource} {what} utilization (percentage of request)"
        shown: Obj = {"name": resource, "current": status}
        if container:
            shown["container"] = container
        return _Wanted(wanted.replicas, name, {"type": kind, field: shown})

    async def _ask_pods(self, source: Obj, selector: LabelSelector, current: int) -> _Wanted:
        metric = source["metric"]
        metrics = await self._metrics.of_pods(self._namespace, selector, metric)
        pods = self._controller.pods(self._namespace, selector)
        groups = counting.group(pods, metrics, "", self._settings, self._ctx.clock.now())
        target = milli(source["target"]["averageValue"])
        wanted = counting.by_average(pods, metrics, target, current, self._tolerances, groups)
        status = {"metric": metric, "current": {"averageValue": _amount(wanted.average)}}
        return _Wanted(wanted.replicas, f"pods metric {metric['name']}", {"type": "Pods", "pods": status})

    async def _ask_object(self, source: Obj, selector: LabelSelector, current: int, reported: int) -> _Wanted:
        metric, target, described = source["metric"], source["target"], source["describedObject"]
        usage = await self._metrics.of_object(self._namespace, described, metric)
        replicas, shown = self._by_target(usage, target, selector, current, reported)
        name = f"{described['kind']} metric {metric['name']}"
        if target["type"] == "AverageValue":
            name = f"external metric {metric['name']}({_shown(metric.get('selector'))})"
        status = {"metric": metric, "describedObject": described, "current": shown}
        return _Wanted(replicas, name, {"type": "Object", "object": status})

    async def _ask_external(self, source: Obj, selector: LabelSelector, current: int, reported: int) -> _Wanted:
        metric, target = source["metric"], source["target"]
        wanted = metric.get("selector")
        chosen = from_label_selector(wanted) if wanted is not None else LabelSelector()
        usage = await self._metrics.external(self._namespace, metric, chosen)
        replicas, shown = self._by_target(usage, target, selector, current, reported)
        name = f"external metric {metric['name']}({_shown(metric.get('selector'))})"
        status = {"metric": metric, "current": shown}
        return _Wanted(replicas, name, {"type": "External", "external": status})

    def _by_target(
        self, usage: int, target: Obj, selector: LabelSelector, current: int, reported: int
    ) -> tuple[int, Obj]:
        """(replicas, present value) of a value that is one for all pods."""
        if target.get("averageValue") is not None:
            wanted = counting.by_value_per_pod(usage, milli(target["averageValue"]), reported, self._tolerances)
            return wanted.replicas, {"averageValue": _amount(wanted.average)}
        ready = 0
        if current:
            ready = counting.ready_count(self._controller.pods(self._namespace, selector))
        replicas = counting.by_value(usage, milli(target["value"]), ready, current, self._tolerances)
        return replicas, {"value": _amount(usage)}

    # Status

    def _report(self, current: int, desired: int, statuses: list[Obj] | None, *, rescaled: bool) -> None:
        status = self._status
        status["currentReplicas"] = current
        status["desiredReplicas"] = desired
        if self._hpa["metadata"].get("generation"):
            status["observedGeneration"] = self._hpa["metadata"]["generation"]
        if statuses is not None:
            status["currentMetrics"] = statuses
        if rescaled:
            status["lastScaleTime"] = rfc3339(self._ctx.clock.now())

    def _condition(self, kind: str, value: str, reason: str, message: str) -> None:
        conditions = self._status.setdefault("conditions", [])
        entry = next((each for each in conditions if each["type"] == kind), None)
        if entry is None:
            entry = {"type": kind}
            conditions.append(entry)
        if entry.get("status") != value:
            entry["lastTransitionTime"] = rfc3339(self._ctx.clock.now())
        entry.update(status=value, reason=reason, message=message)

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._ctx.recorder.event(self._hpa, "Warning" if kind == "Warning" else "Normal", reason, message)


def _shown(selector: Obj | None) -> str:
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


def _tolerances(behavior: Obj | None, default: float) -> Tolerances:
    def of(direction: str) -> float:
        text = ((behavior or {}).get(direction) or {}).get("tolerance")
        return default if text is None else milli(text) / 1000

    return Tolerances(of("scaleDown"), of("scaleUp"))


def _amount(thousandths: int, resource: str = "") -> str:
    return str(Quantity.of_milli(thousandths, BINARY_SI if resource == "memory" else DECIMAL_SI))
