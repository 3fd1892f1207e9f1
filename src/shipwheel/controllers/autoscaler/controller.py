"""The HorizontalPodAutoscaler loop: every quarter of a minute, for each autoscaler."""

from __future__ import annotations

import copy

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    GroupVersion,
    GroupVersionResource,
    Obj,
    key_of,
    labels_of,
    name_of,
    namespace_of,
    split_key,
)
from shipwheel.api.quantity import parse
from shipwheel.api.selectors import LabelSelector, SelectorError, parse_label_selector
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.informer import EventType
from shipwheel.client.resources import HORIZONTAL_POD_AUTOSCALERS
from shipwheel.controllers.autoscaler import behavior as taming
from shipwheel.controllers.autoscaler.meter import Meter, Observation
from shipwheel.controllers.autoscaler.metrics import MetricsClient
from shipwheel.controllers.autoscaler.replicas import Settings, Tolerances
from shipwheel.controllers.autoscaler.sources import MetricFailed, Sources, Target, Wanted
from shipwheel.controllers.framework import Context, is_conflict

_ATTEMPTS = 5
"""To write a scale that others write too."""


class _Failed(Exception):
    """Nothing can be done this time; the conditions say why."""


class HorizontalPodAutoscalerController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._hpas = ctx.informer(HORIZONTAL_POD_AUTOSCALERS)
        self._pods = ctx.pods()
        self._meter = Meter(ctx)
        self._memories: dict[str, taming.Memory] = {}
        self._selectors: dict[str, LabelSelector] = {}
        config = ctx.config
        settings = Settings(
            config.horizontal_pod_autoscaler_cpu_initialization_period,
            config.horizontal_pod_autoscaler_initial_readiness_delay,
        )
        self.sources = Sources(MetricsClient(ctx.client), ctx.clock, settings, self.pods)
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
        self._meter.autoscalers.set(len(self._hpas))
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
        sync = _Sync(self, self._ctx, self._meter, hpa, self._memories.setdefault(key, taming.Memory()))
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
        meter: Meter,
        hpa: Obj,
        memory: taming.Memory,
    ) -> None:
        self._controller = controller
        self._ctx = ctx
        self._meter = meter
        self._hpa = hpa
        self._spec = hpa["spec"]
        self._namespace = namespace_of(hpa)
        self._memory = memory
        self._status: Obj = copy.deepcopy(hpa.get("status") or {})
        tolerance = ctx.config.horizontal_pod_autoscaler_tolerance
        self._tolerances = _tolerances(self._spec.get("behavior"), tolerance)

    async def run(self) -> None:
        with self._meter.reconciliation() as at:
            try:
                await self._scale(at)
            except _Failed:
                at.error = "internal"
            if self._status != (self._hpa.get("status") or {}):
                await self._write_status()

    async def _write_status(self) -> None:
        try:
            await self._ctx.client.update(
                HORIZONTAL_POD_AUTOSCALERS, {**self._hpa, "status": self._status}, subresource="status"
            )
        except (ApiError, ConnectionFailed) as error:
            self._event("Warning", "FailedUpdateStatus", str(error))
            raise

    async def _scale(self, at: Observation) -> None:
        gvr, scale = await self._current_scale()
        current = (scale.get("spec") or {}).get("replicas") or 0
        message = "the HPA controller was able to get the target's current scale"
        self._condition("AbleToScale", "True", "SucceededGetScale", message)
        now = self._ctx.clock.monotonic()
        if not self._memory.recommendations:
            self._memory.recommendations.append((now, current))
        desired, reason, statuses = await self._desired(scale, current, now)
        if desired != current:
            await self._rescale(gvr, scale, current, desired, reason, statuses)
            at.action = "scale_up" if desired > current else "scale_down"
        self._report(current, desired, statuses, rescaled=desired != current)
        self._meter.desired.labels(self._namespace, name_of(self._hpa)).set(desired)

    async def _desired(self, scale: Obj, current: int, now: float) -> tuple[int, str, list[Obj]]:
        """(the replicas to have, why, the metrics' status)."""
        minimum = self._spec.get("minReplicas")
        minimum = 1 if minimum is None else minimum
        maximum = self._spec["maxReplicas"]
        if current == 0 and minimum != 0:
            message = "scaling is disabled since the replica count of the target is zero"
            self._condition("ScalingActive", "False", "ScalingDisabled", message)
            return 0, "", []
        if current > maximum:
            return maximum, "Current number of replicas above Spec.MaxReplicas", []
        if current < minimum:
            return minimum, "Current number of replicas below Spec.MinReplicas", []
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

    async def _rescale(
        self, gvr: GroupVersionResource, scale: Obj, current: int, desired: int, reason: str, statuses: list[Obj]
    ) -> None:
        try:
            await self._write_scale(gvr, scale, desired)
        except (ApiError, ConnectionFailed) as error:
            self._event("Warning", "FailedRescale", f"New size: {desired}; reason: {reason}; error: {error}")
            message = f"the HPA controller was unable to update the target scale: {error}"
            self._condition("AbleToScale", "False", "FailedUpdateScale", message)
            self._report(current, self._status.get("desiredReplicas") or 0, statuses, rescaled=False)
            raise _Failed from error
        message = f"the HPA controller was able to update the target scale to {desired}"
        self._condition("AbleToScale", "True", "SucceededRescale", message)
        self._event("Normal", "SuccessfulRescale", f"New size: {desired}; reason: {reason}")
        taming.remember(self._memory, self._spec.get("behavior"), current, desired, self._ctx.clock.monotonic())

    async def _write_scale(self, gvr: GroupVersionResource, scale: Obj, desired: int) -> None:
        """Write the number of replicas; when somebody else has just changed the target, on top of that."""
        client, name = self._ctx.client, self._spec["scaleTargetRef"]["name"]
        path = gvr.path(self._namespace, name, "scale")
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                await client.call("PUT", path, body={**scale, "spec": {"replicas": desired}})
                return
            except ApiError as error:
                if not is_conflict(error) or not attempts_left:
                    raise
            scale = await client.get(gvr, name, self._namespace, subresource="scale")

    # Metrics

    async def _ask_metrics(self, scale: Obj, current: int) -> tuple[Wanted, list[Obj]]:
        """(what the metric that asks for most asks for, the metrics' status). When some metrics cannot be had, it may
        not be less than now. A metric that failed has a status without anything in it."""
        status = scale.get("status") or {}
        selector = self._selector(status.get("selector") or "", current)
        target = Target(self._namespace, selector, current, status.get("replicas") or 0)
        best: Wanted | None = None
        statuses: list[Obj] = []
        failures: list[MetricFailed] = []
        metrics = self._spec.get("metrics") or ()
        for metric in metrics:
            try:
                with self._meter.metric(
                    metric["type"], (self._hpa.get("status") or {}).get("currentReplicas") or 0
                ) as at:
                    wanted = await self._controller.sources.ask(metric, target, self._tolerances)
                    at.wanted = wanted.replicas
            except MetricFailed as failure:
                self._event("Warning", failure.reason, str(failure))
                failures.append(failure)
                statuses.append({"type": ""})
                continue
            statuses.append(wanted.status)
            if best is None or wanted.replicas > best.replicas:
                best = wanted
        if best is None or (failures and best.replicas < current):
            reason, cause, summary = "InvalidMetricSourceType", "no metrics", "no metrics"
            if failures:
                reason, cause, summary = failures[0].reason, str(failures[0]), failures[0].summary
            message = f"the HPA was unable to compute the replica count: {cause}"
            self._condition("ScalingActive", "False", reason, message)
            counted = f"invalid metrics ({len(failures)} invalid out of {len(metrics)}), first error is: {summary}"
            raise self._cannot_compute(counted, current, statuses)
        message = f"the HPA was able to successfully calculate a replica count from {best.name}"
        self._condition("ScalingActive", "True", "ValidMetricFound", message)
        return best, statuses

    def _cannot_compute(self, why: str, current: int, statuses: list[Obj]) -> _Failed:
        """Say that there is no number to be had; returns what to raise."""
        self._report(current, self._status.get("desiredReplicas") or 0, statuses, rescaled=False)
        self._event("Warning", "FailedComputeMetricsReplicas", why)
        return _Failed()

    def _selector(self, text: str, current: int) -> LabelSelector:
        """The target's selector, when it is there and no other autoscaler's pods are meant by it."""
        if not text:
            self._event("Warning", "SelectorRequired", "selector is required")
            message = "the HPA target's scale is missing a selector"
            self._condition("ScalingActive", "False", "InvalidSelector", message)
            raise self._cannot_compute("selector is required", current, [])
        try:
            selector = parse_label_selector(text)
        except SelectorError as error:
            message = f"couldn't convert selector into a corresponding internal selector object: {error}"
            raise self._bad_selector("InvalidSelector", message, current) from error
        rivals = self._controller.rivals(self._hpa, selector)
        if rivals:
            shown = " ".join(f"{{{name} {namespace}}}" for namespace, name in map(split_key, rivals))
            message = f"pods by selector {text} are controlled by multiple HPAs: [{shown}]"
            raise self._bad_selector("AmbiguousSelector", message, current)
        return selector

    def _bad_selector(self, reason: str, message: str, current: int) -> _Failed:
        self._event("Warning", reason, message)
        self._condition("ScalingActive", "False", reason, message)
        return self._cannot_compute(message, current, [])

    # Status

    def _report(self, current: int, desired: int, statuses: list[Obj], *, rescaled: bool) -> None:
        status = self._status
        status["currentReplicas"] = current
        status["desiredReplicas"] = desired
        if self._hpa["metadata"].get("generation"):
            status["observedGeneration"] = self._hpa["metadata"]["generation"]
        if statuses:
            status["currentMetrics"] = statuses
        else:
            status.pop("currentMetrics", None)
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


def _tolerances(behavior: Obj | None, default: float) -> Tolerances:
    def of(direction: str) -> float:
        text = ((behavior or {}).get(direction) or {}).get("tolerance")
        return default if text is None else float(parse(text))

    return Tolerances(of("scaleDown"), of("scaleUp"))
