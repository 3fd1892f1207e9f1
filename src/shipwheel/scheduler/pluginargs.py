"""The arguments of plugins in the configuration: which there are, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from shipwheel.api.errors import FieldError, FieldErrorType, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.client.flags import parse_duration

_STRATEGIES = ("LeastAllocated", "MostAllocated", "RequestedToCapacityRatio")


def check(plugin: str, args: Obj, path: str) -> list[FieldError | str]:
    """Everything that is wrong with a plugin's arguments; those of third-party plugins are theirs."""
    if plugin not in _FIELDS:
        return [f'strict decoding error: unknown field "{path}.{name}"' for name in args] if plugin in _PLAIN else []
    errors: list[FieldError | str] = [
        f'strict decoding error: unknown field "{path}.{name}"'
        for name in args
        if name not in (*_FIELDS[plugin], "apiVersion", "kind")
    ]
    kind = args.get("kind", f"{plugin}Args")
    if kind != f"{plugin}Args":
        errors.append(invalid(f"{path}.kind", kind, "has to match plugin args"))
    errors += _CHECKS[plugin](args, path)
    return errors


def _preemption(args: Obj, path: str) -> Iterable[FieldError]:
    percentage = args.get("minCandidateNodesPercentage", 10)
    absolute = args.get("minCandidateNodesAbsolute", 100)
    if not _is_number(percentage) or not 0 <= percentage <= 100:
        yield invalid(f"{path}.minCandidateNodesPercentage", percentage, "not in valid range [0, 100]")
    if not _is_number(absolute) or absolute < 0:
        yield invalid(f"{path}.minCandidateNodesAbsolute", absolute, "not in valid range [0, inf)")
    elif percentage == 0 and absolute == 0:
        detail = "minCandidateNodesPercentage and minCandidateNodesAbsolute cannot be zero at the same time"
        yield FieldError(FieldErrorType.INVALID, path, detail, "0,0")


def _interpod(args: Obj, path: str) -> Iterable[FieldError]:
    weight = args.get("hardPodAffinityWeight", 1)
    if not _is_number(weight) or not 0 <= weight <= 100:
        yield invalid(f"{path}.hardPodAffinityWeight", weight, "not in valid range [0, 100]")


def _node_affinity(args: Obj, path: str) -> Iterable[FieldError]:
    added = args.get("addedAffinity")
    if added is None:
        return
    here = f"{path}.addedAffinity"
    if not isinstance(added, dict):
        yield invalid(here, added, "must be an object")
        return
    needed, wished = (f"{kind}DuringSchedulingIgnoredDuringExecution" for kind in ("required", "preferred"))
    for name in added:
        if name not in (needed, wished):
            yield FieldError(FieldErrorType.NOT_SUPPORTED, f"{here}.{name}", "unknown field")
    if needed in added and not (added[needed] or {}).get("nodeSelectorTerms"):
        yield required(f"{here}.{needed}.nodeSelectorTerms", "must have at least one node selector term")


def _resources(given: Any, path: str, most: int = 100) -> Iterable[FieldError]:
    if not isinstance(given, list):
        yield invalid(path, given, "must be a list")
        return
    seen = set()
    for index, each in enumerate(given):
        name, weight = each.get("name", ""), each.get("weight", 1)
        if not name:
            yield required(f"{path}[{index}].name")
        if name in seen:
            yield FieldError(FieldErrorType.DUPLICATE, f"{path}[{index}].name", value=name)
        seen.add(name)
        if not _is_number(weight) or not 1 <= weight <= most:
            yield invalid(
                f"{path}[{index}].weight", weight, f"resource weight of {name} not in valid range [1, {most}]"
            )


def _fit(args: Obj, path: str) -> Iterable[FieldError]:
    for index, name in enumerate(args.get("ignoredResourceGroups") or ()):
        if "/" in name:
            detail = "resource group name can't contain '/'"
            yield invalid(f"{path}.ignoredResourceGroups[{index}]", name, detail)
    strategy = args.get("scoringStrategy")
    if strategy is None:
        return
    here = f"{path}.scoringStrategy"
    kind = strategy.get("type", "LeastAllocated")
    if kind not in _STRATEGIES:
        yield not_supported(f"{here}.type", kind, _STRATEGIES)
    if strategy.get("resources"):
        yield from _resources(strategy["resources"], f"{here}.resources")
    if kind == "RequestedToCapacityRatio":
        shape = (strategy.get("requestedToCapacityRatio") or {}).get("shape") or []
        yield from _shape(shape, f"{here}.requestedToCapacityRatio.shape")


def _shape(points: list[Obj], path: str) -> Iterable[FieldError]:
    if not points:
        yield required(path, "at least one point must be specified")
    last = -1
    for index, point in enumerate(points):
        utilization, score = point.get("utilization", 0), point.get("score", 0)
        if not 0 <= utilization <= 100:
            yield invalid(f"{path}[{index}].utilization", utilization, "not in valid range [0, 100]")
        elif utilization <= last:
            detail = "utilization values must be sorted in increasing order"
            yield invalid(f"{path}[{index}].utilization", utilization, detail)
        if not 0 <= score <= 10:
            yield invalid(f"{path}[{index}].score", score, "not in valid range [0, 10]")
        last = utilization


def _balanced(args: Obj, path: str) -> Iterable[FieldError]:
    if args.get("resources"):
        yield from _resources(args["resources"], f"{path}.resources", most=1)


def _spread(args: Obj, path: str) -> Iterable[FieldError]:
    kind = args.get("defaultingType", "System")
    given = args.get("defaultConstraints") or []
    if kind not in ("System", "List"):
        yield not_supported(f"{path}.defaultingType", kind, ("System", "List"))
    if kind == "System" and given:
        yield invalid(f"{path}.defaultingType", kind, "when .defaultConstraints are not empty")
    seen = set()
    for index, each in enumerate(given):
        here = f"{path}.defaultConstraints[{index}]"
        if not _is_number(each.get("maxSkew")) or each["maxSkew"] <= 0:
            yield invalid(f"{here}.maxSkew", each.get("maxSkew"), "must be greater than zero")
        if not each.get("topologyKey"):
            yield required(f"{here}.topologyKey", "can not be empty")
        action = each.get("whenUnsatisfiable")
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            yield not_supported(f"{here}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway"))
        if each.get("labelSelector") is not None:
            detail = "constraint must not define a selector, as they deduced for each pod"
            yield FieldError(FieldErrorType.FORBIDDEN, f"{here}.labelSelector", detail)
        pair = (each.get("topologyKey"), action)
        if pair in seen:
            shown = f"{{{pair[0]}, {pair[1]}}}"
            yield FieldError(FieldErrorType.DUPLICATE, f"{here}.{{topologyKey, whenUnsatisfiable}}", value=shown)
        seen.add(pair)


def _binding(args: Obj, path: str) -> Iterable[FieldError]:
    seconds = args.get("bindTimeoutSeconds", 600)
    if not _is_number(seconds) or seconds < 0:
        yield invalid(
            f"{path}.bindTimeoutSeconds", seconds, "invalid BindTimeoutSeconds, should not be a negative value"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _devices(args: Obj, path: str) -> Iterable[FieldError]:
    for field, least, complaint in (
        ("filterTimeout", 0, "must be zero or positive"),
        ("bindingTimeout", 1, "must be at least 1 second"),
    ):
        value = args.get(field)
        if value is None:
            continue
        try:
            seconds = parse_duration(value)
        except (ValueError, TypeError, AttributeError) as error:
            yield invalid(f"{path}.{field}", value, str(error))
            continue
        if seconds < least:
            yield invalid(f"{path}.{field}", value, complaint)


_CHECKS: Mapping[str, Callable[[Obj, str], Iterable[FieldError]]] = {
    "DefaultPreemption": _preemption,
    "DynamicResources": _devices,
    "InterPodAffinity": _interpod,
    "NodeAffinity": _node_affinity,
    "NodeResourcesFit": _fit,
    "NodeResourcesBalancedAllocation": _balanced,
    "PodTopologySpread": _spread,
    "VolumeBinding": _binding,
}
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "DefaultPreemption": ("minCandidateNodesPercentage", "minCandidateNodesAbsolute"),
    "DynamicResources": ("filterTimeout", "bindingTimeout"),
    "InterPodAffinity": ("hardPodAffinityWeight", "ignorePreferredTermsOfExistingPods"),
    "NodeAffinity": ("addedAffinity",),
    "NodeResourcesFit": ("ignoredResources", "ignoredResourceGroups", "scoringStrategy"),
    "NodeResourcesBalancedAllocation": ("resources",),
    "PodTopologySpread": ("defaultConstraints", "defaultingType"),
    "VolumeBinding": ("bindTimeoutSeconds",),
}
_PLAIN = {
    "SchedulingGates", "PrioritySort", "NodeUnschedulable", "NodeName", "TaintToleration", "NodePorts",
    "NodeDeclaredFeatures", "VolumeRestrictions", "NodeVolumeLimits", "VolumeZone", "ImageLocality", "DefaultBinder",
    "SelectorSpread", "NodePreferAvoidPods",
}  # fmt: skip
"""Without arguments."""
