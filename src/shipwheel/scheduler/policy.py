"""The scheduler's Policy of the years before component configuration: predicates and priorities by name.

Courses and books still teach it (`--policy-config-file`). Upstream took it away in v1.23; here it is read into a
profile of today's plugins, as upstream itself did before that. What it does not name is not there; what it leaves out
altogether (`predicates` or `priorities` missing) is as it was by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from shipwheel.api.errors import FieldError, invalid, not_supported
from shipwheel.api.meta import Obj
from shipwheel.scheduler.configuration import (
    Configuration,
    ConfigurationError,
    PluginSet,
    ProfileConfig,
    Reader,
    extender,
)

ALWAYS = ("SchedulingGates", "PrioritySort", "DefaultPreemption", "DefaultBinder")
"""A policy has no say in these."""
MANDATORY = ("NodeUnschedulable", "TaintToleration")
"""Predicates that there always were."""

_GENERAL = ("NodeName", "NodePorts", "NodeAffinity", "NodeResourcesFit")
PREDICATES: Mapping[str, tuple[str, ...]] = {
    "GeneralPredicates": _GENERAL,
    "PodFitsResources": ("NodeResourcesFit",),
    "PodFitsHostPorts": ("NodePorts",),
    "PodFitsPorts": ("NodePorts",),
    "HostName": ("NodeName",),
    "MatchNodeSelector": ("NodeAffinity",),
    "PodToleratesNodeTaints": ("TaintToleration",),
    "CheckNodeUnschedulable": ("NodeUnschedulable",),
    # What the kubelet reports has been taints for long, which everybody looks at.
    "CheckNodeCondition": ("TaintToleration", "NodeUnschedulable"),
    "CheckNodeMemoryPressure": ("TaintToleration",),
    "CheckNodeDiskPressure": ("TaintToleration",),
    "CheckNodePIDPressure": ("TaintToleration",),
    "NoDiskConflict": ("VolumeRestrictions",),
    "NoVolumeZoneConflict": ("VolumeZone",),
    "MaxEBSVolumeCount": ("NodeVolumeLimits",),
    "MaxGCEPDVolumeCount": ("NodeVolumeLimits",),
    "MaxAzureDiskVolumeCount": ("NodeVolumeLimits",),
    "MaxCinderVolumeCount": ("NodeVolumeLimits",),
    "MaxCSIVolumeCountPred": ("NodeVolumeLimits",),
    "CheckVolumeBinding": ("VolumeBinding",),
    "MatchInterPodAffinity": ("InterPodAffinity",),
    "EvenPodsSpread": ("PodTopologySpread",),
}
PRIORITIES: Mapping[str, str] = {
    "LeastRequestedPriority": "NodeResourcesFit",
    "MostRequestedPriority": "NodeResourcesFit",
    "RequestedToCapacityRatioPriority": "NodeResourcesFit",
    "BalancedResourceAllocation": "NodeResourcesBalancedAllocation",
    "SelectorSpreadPriority": "SelectorSpread",
    "ServiceSpreadingPriority": "SelectorSpread",
    "InterPodAffinityPriority": "InterPodAffinity",
    "NodePreferAvoidPodsPriority": "NodePreferAvoidPods",
    "NodeAffinityPriority": "NodeAffinity",
    "TaintTolerationPriority": "TaintToleration",
    "ImageLocalityPriority": "ImageLocality",
    "EvenPodsSpreadPriority": "PodTopologySpread",
    "EqualPriority": "",
}
_STRATEGIES = {
    "LeastRequestedPriority": "LeastAllocated",
    "MostRequestedPriority": "MostAllocated",
    "RequestedToCapacityRatioPriority": "RequestedToCapacityRatio",
}
DEFAULT_PREDICATES = (
    "GeneralPredicates", "NoVolumeZoneConflict", "MaxEBSVolumeCount", "MaxCSIVolumeCountPred", "MatchInterPodAffinity",
    "NoDiskConflict", "PodToleratesNodeTaints", "CheckVolumeBinding", "EvenPodsSpread",
)  # fmt: skip
DEFAULT_PRIORITIES: Mapping[str, int] = {
    "SelectorSpreadPriority": 1,
    "InterPodAffinityPriority": 1,
    "LeastRequestedPriority": 1,
    "BalancedResourceAllocation": 1,
    "NodePreferAvoidPodsPriority": 10000,
    "NodeAffinityPriority": 1,
    "TaintTolerationPriority": 1,
    "ImageLocalityPriority": 1,
}
_FIELDS: Mapping[str, Any] = {
    "kind": str, "apiVersion": str, "predicates": list, "priorities": list, "extenders": list,
    "hardPodAffinitySymmetricWeight": int, "alwaysCheckAllPredicates": bool,
}  # fmt: skip


def load(path: str, scheduler_name: str) -> Configuration:
    """What a policy file (JSON or YAML) means. ConfigurationError says what is wrong with it."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ConfigurationError([f"{path}: {error}"]) from error
    return parse(content, scheduler_name)


def parse(content: Any, scheduler_name: str) -> Configuration:
    """See `load`."""
    if not isinstance(content, dict) or content.get("kind") != "Policy" or content.get("apiVersion") != "v1":
        raise ConfigurationError([invalid("kind", (content or {}).get("kind"), "must be a Policy of apiVersion v1")])
    reader = Reader()
    given = reader.fields(content, "", _FIELDS)
    filters = _filters(reader, given.get("predicates"))
    scores, args = _scores(reader, given.get("priorities"))
    weight = given.get("hardPodAffinitySymmetricWeight", 1)
    if not 0 <= weight <= 100:
        reader.errors.append(invalid("hardPodAffinitySymmetricWeight", weight, "not in valid range [0-100]"))
    args["InterPodAffinity"] = {"hardPodAffinityWeight": weight}
    extenders = tuple(
        extender(reader, each, f"extenders[{index}]") for index, each in enumerate(given.get("extenders") or ())
    )
    if reader.errors:
        raise ConfigurationError(reader.errors)
    plugins = {point: PluginSet(tuple((name, 0) for name in ALWAYS)) for point in ("multiPoint",)}
    plugins["preFilter"] = plugins["filter"] = PluginSet(tuple((name, 0) for name in filters))
    plugins["score"] = plugins["preScore"] = PluginSet(tuple(scores.items()))
    plugins["reserve"] = plugins["preBind"] = plugins["filter"]
    profile = ProfileConfig(scheduler_name=scheduler_name, plugins=plugins, args=args, only=True)
    return Configuration(profiles=(profile,), extenders=extenders)


def _filters(reader: Reader, given: list[Any] | None) -> list[str]:
    names = list(DEFAULT_PREDICATES)
    if given is not None:
        names = []
        for index, each in enumerate(given):
            path = f"predicates[{index}]"
            predicate = reader.fields(each, path, {"name": str, "argument": dict})
            name = predicate.get("name", "")
            if predicate.get("argument"):
                reader.errors.append(invalid(f"{path}.argument", "", "predicates of one's own are not supported"))
            if name not in PREDICATES:
                reader.errors.append(not_supported(f"{path}.name", name, sorted(PREDICATES)))
            else:
                names.append(name)
    found = dict.fromkeys(MANDATORY)
    for name in names:
        found.update(dict.fromkeys(PREDICATES[name]))
    return list(found)


def _scores(reader: Reader, given: list[Any] | None) -> tuple[dict[str, int], dict[str, Obj]]:
    weights = dict(DEFAULT_PRIORITIES)
    args: dict[str, Obj] = {}
    if given is not None:
        weights = {}
        for index, each in enumerate(given):
            path = f"priorities[{index}]"
            priority = reader.fields(each, path, {"name": str, "weight": int, "argument": dict})
            name, weight = priority.get("name", ""), priority.get("weight", 0)
            if name not in PRIORITIES:
                reader.errors.append(not_supported(f"{path}.name", name, sorted(PRIORITIES)))
                continue
            if weight <= 0:
                reader.errors.append(invalid(f"{path}.weight", weight, "must be a positive number"))
            weights[name] = weight
            _strategy(reader, name, priority.get("argument"), path, args)
    found: dict[str, int] = {}
    for name, weight in weights.items():
        if PRIORITIES[name]:
            found[PRIORITIES[name]] = found.get(PRIORITIES[name], 0) + weight
    return found, args


def _strategy(reader: Reader, name: str, argument: Obj | None, path: str, args: dict[str, Obj]) -> None:
    """How room is scored; one plugin does it, so only one of its priorities can be asked for."""
    if argument and name != "RequestedToCapacityRatioPriority":
        reader.errors.append(invalid(f"{path}.argument", "", f"{name} takes none"))
    if name not in _STRATEGIES:
        return
    if "NodeResourcesFit" in args:
        reader.errors.append(invalid(f"{path}.name", name, "only one priority about requested resources can be given"))
    strategy: Obj = {"type": _STRATEGIES[name]}
    if name == "RequestedToCapacityRatioPriority":
        ratio = (argument or {}).get("requestedToCapacityRatioArguments") or {}
        if not ratio.get("shape"):
            where = f"{path}.argument.requestedToCapacityRatioArguments.shape"
            reader.errors.append(FieldError("FieldValueRequired", where))
        strategy["requestedToCapacityRatio"] = {"shape": ratio.get("shape") or ()}
        strategy["resources"] = ratio.get("resources") or ()
    args["NodeResourcesFit"] = {"scoringStrategy": strategy}
