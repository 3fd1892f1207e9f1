"""From a pod's resources to the numbers that the kernel understands: QoS class, sums, cgroup values, OOM scores.

Sums follow KEP-753 (sidecars count with the containers, init containers as a maximum) and KEP-2837 (resources
of the pod as a whole).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shipwheel.api import quantity
from shipwheel.api.meta import Obj
from shipwheel.api.quantity import ZERO, Quantity
from shipwheel.kinds.podresources import aggregate, pod_limits, pod_requests, supports_pod_level
from shipwheel.kubelet import podspec

Amounts = dict[str, Quantity]

MINIMUM_SHARES = 2
MAXIMUM_SHARES = 262_144
SHARES_PER_CPU = 1024
MINIMUM_QUOTA = 1000
DEFAULT_PERIOD = 100_000
"""Microseconds of a CFS period."""

GUARANTEED_OOM_SCORE = -997
BEST_EFFORT_OOM_SCORE = 1000
POD_LEVEL = ("cpu", "memory")


def amounts(listed: Mapping[str, str | int] | None) -> Amounts:
    """A ResourceList, read."""
    return {name: quantity.parse(value) for name, value in (listed or {}).items()}


def requests_of(container: Obj) -> Amounts:
    return amounts((container.get("resources") or {}).get("requests"))


def limits_of(container: Obj) -> Amounts:
    return amounts((container.get("resources") or {}).get("limits"))


def pod_level(pod: Obj, part: str) -> Amounts:
    """The `requests` or `limits` of the pod as a whole, where they may be given."""
    listed = amounts((pod["spec"].get("resources") or {}).get(part))
    return {name: amount for name, amount in listed.items() if supports_pod_level(name)}


def add(left: Amounts, right: Amounts) -> Amounts:
    return {name: left.get(name, ZERO) + right.get(name, ZERO) for name in {**left, **right}}


def qos_class(pod: Obj) -> str:
    """`Guaranteed`, `Burstable` or `BestEffort`."""
    if (pod["spec"].get("resources") or {}).keys() & {"requests", "limits"}:
        return _qos([(pod_level(pod, "requests"), pod_level(pod, "limits"))])
    every = (*podspec.containers(pod), *podspec.init_containers(pod))
    return _qos([(requests_of(each), limits_of(each)) for each in every])


def _qos(parts: Iterable[tuple[Amounts, Amounts]]) -> str:
    requests: Amounts = {}
    limits: Amounts = {}
    guaranteed = True
    for wanted, capped in parts:
        own_requests = {name: each for name, each in wanted.items() if name in POD_LEVEL and each.sign() > 0}
        own_limits = {name: each for name, each in capped.items() if name in POD_LEVEL and each.sign() > 0}
        requests = add(requests, own_requests)
        limits = add(limits, own_limits)
        guaranteed = guaranteed and set(own_limits) >= set(POD_LEVEL)
    if not requests and not limits:
        return "BestEffort"
    if guaranteed and all(limits.get(name) == amount for name, amount in requests.items()):
        return "Guaranteed" if len(requests) == len(limits) else "Burstable"
    return "Burstable"


def cpu_shares(milli: int) -> int:
    """cgroup v1 CPU shares of so many thousandths of a CPU."""
    return max(MINIMUM_SHARES, min(MAXIMUM_SHARES, milli * SHARES_PER_CPU // 1000))


def cpu_weight(shares: int) -> int:
    """cgroup v2 CPU weight (1 to 10,000) of v1 shares (2 to 262,144)."""
    return 1 + (shares - 2) * 9999 // 262_142 if shares else 0


def cpu_quota(milli: int, period: int = DEFAULT_PERIOD) -> int:
    """Microseconds of CPU time in a period; 0 is no limit."""
    return max(MINIMUM_QUOTA, milli * period // 1000) if milli else 0


@dataclass(frozen=True, slots=True)
class CgroupValues:
    """What a pod's own cgroup is set to; None leaves a value alone."""

    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int = DEFAULT_PERIOD
    memory: int | None = None
    hugepages: Mapping[str, int] | None = None
    pids: int | None = None


def pod_cgroup(pod: Obj, *, enforce_cpu: bool = True, period: int = DEFAULT_PERIOD) -> CgroupValues:
    """The values of the pod's cgroup. A limit counts only if every container has one, else the pod as a whole
    is unlimited."""
    requests, limits = pod_requests(pod), pod_limits(pod)
    shares = cpu_shares(requests.get("cpu", ZERO).milli_value())
    quota = cpu_quota(limits.get("cpu", ZERO).milli_value(), period) if enforce_cpu else -1
    memory = limits.get("memory", ZERO).value()
    huge = {name: each.value() for name, each in requests.items() if name.startswith("hugepages-")}
    match qos_class(pod):
        case "Guaranteed":
            return CgroupValues(shares, quota, period, memory, huge)
        case "Burstable":
            return CgroupValues(
                shares,
                quota if _all_limited(pod, "cpu") else None,
                period,
                memory if _all_limited(pod, "memory") else None,
                huge,
            )
        case _:
            return CgroupValues(MINIMUM_SHARES, hugepages=huge)


def _all_limited(pod: Obj, name: str) -> bool:
    if pod_level(pod, "limits").get(name):
        return True
    every = (*podspec.containers(pod), *podspec.init_containers(pod))
    return all(limits_of(each).get(name) for each in every)


def effective_limit(pod: Obj, container: Obj, name: str) -> Quantity:
    """A container's own limit, else that of its pod as a whole, else zero."""
    return limits_of(container).get(name) or pod_level(pod, "limits").get(name, ZERO)


def container_cpu(
    pod: Obj, container: Obj, *, enforce: bool = True, period: int = DEFAULT_PERIOD
) -> tuple[int, int, int]:
    """(shares, quota, period) for a container; quota 0 and period 0 where limits are not enforced."""
    requests = requests_of(container)
    limit = effective_limit(pod, container, "cpu")
    wanted = requests.get("cpu", limit)
    shares = cpu_shares(wanted.milli_value())
    if not enforce:
        return shares, 0, 0
    return shares, cpu_quota(limit.milli_value(), period), period


def oom_score(pod: Obj, container: Obj, memory_capacity: int) -> int:
    """What is added to the container's OOM score: the less of the node's memory it asked for, the sooner it goes."""
    if podspec.is_node_critical(pod):
        return GUARANTEED_OOM_SCORE
    match qos_class(pod):
        case "Guaranteed":
            return GUARANTEED_OOM_SCORE
        case "BestEffort":
            return BEST_EFFORT_OOM_SCORE
    asked = requests_of(container).get("memory", ZERO).value()
    extra = _unclaimed_memory_share(pod)
    score = 1000 - 1000 * (asked + extra) // memory_capacity
    if container in podspec.sidecars(pod):
        least = min(requests_of(each).get("memory", ZERO).value() for each in podspec.containers(pod))
        score = min(score, 1000 - 1000 * (least + extra) // memory_capacity)
    score = max(score, 1000 + GUARANTEED_OOM_SCORE)
    return score - 1 if score == BEST_EFFORT_OOM_SCORE else score


def _unclaimed_memory_share(pod: Obj) -> int:
    """A container's part of the memory that was asked for the pod as a whole and not by its containers."""
    whole = pod_level(pod, "requests").get("memory")
    if whole is None:
        return 0
    claimed = aggregate(pod["spec"], "requests").get("memory", ZERO)
    remaining = max(0, whole.value() - claimed.value())
    return remaining // max(1, len(podspec.containers(pod)) + len(podspec.sidecars(pod)))
