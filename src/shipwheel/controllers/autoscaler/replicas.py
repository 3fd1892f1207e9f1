"""From metrics to a number of replicas. Values are in thousandths, as quantities' milli values.

What is not known is assumed to speak against the change: pods without metrics count as idle when scaling up and as
fully used when scaling down; pods that are not ready yet count as idle when scaling up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shipwheel.api import quantity
from shipwheel.api.clock import parse_time
from shipwheel.api.meta import Obj, condition, is_being_deleted, name_of
from shipwheel.controllers import pods as podutil
from shipwheel.kinds.podresources import pod_requests, supports_pod_level

_MAX = 2**31 - 1


class NoReplicas(Exception):
    """The number cannot be worked out, and why."""


@dataclass(frozen=True, slots=True)
class PodMetric:
    """One pod's value, measured over `window` seconds until `timestamp`."""

    value: int
    timestamp: datetime
    window: float = 60.0


Metrics = Mapping[str, PodMetric]


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How far from 1 the ratio of use to target may be before anything changes."""

    down: float
    up: float

    def allow(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class Settings:
    """Seconds for which a new pod's CPU says nothing (see the flags of these names)."""

    cpu_initialization_period: float
    initial_readiness_delay: float


@dataclass(frozen=True, slots=True)
class Groups:
    """Pods by what is known of them."""

    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def group(pods: Iterable[Obj], metrics: Metrics, resource: str, settings: Settings, now: datetime) -> Groups:
    ready = 0
    unready: set[str] = set()
    missing: set[str] = set()
    ignored: set[str] = set()
    for pod in pods:
        name, phase = name_of(pod), podutil.phase_of(pod)
        if is_being_deleted(pod) or phase == "Failed":
            ignored.add(name)
        elif phase == "Pending":
            unready.add(name)
        elif name not in metrics:
            missing.add(name)
        elif resource == "cpu" and _is_starting(pod, metrics[name], settings, now):
            unready.add(name)
        else:
            ready += 1
    return Groups(ready, frozenset(unready), frozenset(missing), frozenset(ignored))


def _is_starting(pod: Obj, metric: PodMetric, settings: Settings, now: datetime) -> bool:
    """A pod that is starting uses CPU in a way that means nothing."""
    ready = condition(pod, "Ready")
    started = (pod.get("status") or {}).get("startTime")
    if ready is None or not started:
        return True
    start, changed = parse_time(started), parse_time(ready["lastTransitionTime"])
    is_unready = ready["status"] == "False"
    if start + timedelta(seconds=settings.cpu_initialization_period) > now:
        return is_unready or metric.timestamp < changed + timedelta(seconds=metric.window)
    return is_unready and start + timedelta(seconds=settings.initial_readiness_delay) > changed


def requests_of(pods: Iterable[Obj], resource: str, container: str = "") -> dict[str, int]:
    """What each pod (or one container of each) requests; NoReplicas when one requests nothing."""
    return {name_of(pod): _request(pod, resource, container) for pod in pods}


def _request(pod: Obj, resource: str, container: str) -> int:
    spec, name = pod["spec"], name_of(pod)
    whole = (spec.get("resources") or {}).get("requests") or {}
    if whole and not container and supports_pod_level(resource):
        amount = pod_requests(pod).get(resource)
        if amount is None:
            raise NoReplicas(f"missing pod-level request for {resource} in Pod {name}")
        return amount.milli_value()
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    total = 0
    found = False
    for each in (*spec["containers"], *sidecars):
        if container not in ("", each["name"]):
            continue
        text = ((each.get("resources") or {}).get("requests") or {}).get(resource)
        if text is None:
            raise NoReplicas(f"missing request for {resource} in container {each['name']} of Pod {name}")
        total += quantity.milli(text)
        found = True
    if container and not found:
        raise NoReplicas(f"container {container} not found in Pod {name}")
    return total


@dataclass(frozen=True, slots=True)
class Proposal:
    """Replicas wanted, and the present use to report: its average, and for utilization the percentage."""

    replicas: int
    average: int
    percent: int = 0


def by_utilization(
    pods: Sequence[Obj],
    metrics: Metrics,
    requests_by_pod: Callable[[], Mapping[str, int]],
    target_percent: int,
    current: int,
    tolerances: Tolerances,
    groups: Groups,
) -> Proposal:
    """So many that the use is `target_percent` of the requests, which are only asked for when there are metrics.
    NoReplicas without metrics to go by."""
    known = _usable(pods, metrics, groups)
    requests = requests_by_pod()

    def ratio(values: Mapping[str, int]) -> tuple[float, int, int]:
        used = sum(value for name, value in values.items() if name in requests)
        wanted = sum(requests[name] for name in values if name in requests)
        count = sum(name in requests for name in values)
        if wanted == 0:
            raise NoReplicas("no metrics returned matched known pods")
        percent = used * 100 // wanted
        return percent / target_percent, percent, used // count

    first, percent, average = ratio(known)
    fallback = max(100, target_percent)
    assumed_full = {name: requests[name] * fallback // 100 for name in groups.missing if name in requests}
    count = _count(known, first, lambda values: ratio(values)[0], assumed_full, current, tolerances, groups)
    return Proposal(count, average, percent)


def by_average(
    pods: Sequence[Obj],
    metrics: Metrics,
    target: int,
    current: int,
    tolerances: Tolerances,
    groups: Groups,
) -> Proposal:
    """So many that each pod has `target` of something on average. NoReplicas without metrics to go by."""
    known = _usable(pods, metrics, groups)

    def ratio(values: Mapping[str, int]) -> float:
        return sum(values.values()) // len(values) / target

    average = sum(known.values()) // len(known)
    assumed_full = dict.fromkeys(groups.missing, target)
    count = _count(known, ratio(known), ratio, assumed_full, current, tolerances, groups)
    return Proposal(count, average)


def _usable(pods: Sequence[Obj], metrics: Metrics, groups: Groups) -> dict[str, int]:
    if not pods:
        raise NoReplicas("no pods returned by selector while calculating replica count")
    known = {
        name: metric.value
        for name, metric in metrics.items()
        if name not in groups.ignored and name not in groups.unready
    }
    if not known:
        raise NoReplicas("did not receive metrics for targeted pods (pods might be unready)")
    return known


def _count(
    known: Mapping[str, int],
    first: float,
    ratio: Callable[[Mapping[str, int]], float],
    assumed_full: Mapping[str, int],
    current: int,
    tolerances: Tolerances,
    groups: Groups,
) -> int:
    """The replicas for a first ratio, corrected by what is not known."""
    up_with_unready = bool(groups.unready) and first > 1.0
    if not up_with_unready and not groups.missing:
        return current if tolerances.allow(first) else _clip(first * groups.ready)
    values = dict(known)
    if first < 1.0:
        values |= assumed_full
    elif first > 1.0:
        values |= dict.fromkeys(groups.missing, 0)
    if up_with_unready:
        values |= dict.fromkeys(groups.unready, 0)
    corrected = ratio(values)
    turned = (first < 1.0 < corrected) or (first > 1.0 > corrected)
    if tolerances.allow(corrected) or turned:
        return current
    count = _clip(corrected * len(values))
    wrong_way = (corrected < 1.0 and count > current) or (corrected > 1.0 and count < current)
    return current if wrong_way else count


def by_value(usage: int, target: int, ready: Callable[[], int], current: int, tolerances: Tolerances) -> int:
    """So many that one value, which does not depend on the number of pods, comes to its target. The pods that are
    ready are only counted when there is something to change."""
    ratio = usage / target
    if current == 0:
        return _clip(ratio)
    return current if tolerances.allow(ratio) else _clip(ratio * ready())


def by_value_per_pod(usage: int, target: int, current: int, tolerances: Tolerances) -> Proposal:
    """So many that one value shared among the pods comes to `target` for each."""
    ratio = usage / (target * current) if current else math.inf
    count = current if tolerances.allow(ratio) else _clip(usage / target)
    return Proposal(count, math.ceil(usage / current) if current else 0)


def ready_count(pods: Iterable[Obj]) -> int:
    """NoReplicas when there are no pods at all."""
    pods = list(pods)
    if not pods:
        raise NoReplicas("unable to calculate ready pods: no pods returned by selector while calculating replica count")
    return sum(podutil.phase_of(pod) == "Running" and podutil.is_ready(pod) for pod in pods)


def _clip(number: float) -> int:
    return _MAX if number > _MAX else math.ceil(number)
