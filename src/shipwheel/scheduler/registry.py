"""The plugins there are: ours and third-party ones.

A third-party plugin is a class like those in `plugins`, published under the entry point group `shipwheel.scheduler`
by the name that configurations use.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points

from shipwheel.scheduler.framework import POINTS, PluginFactory
from shipwheel.scheduler.plugins.basics import (
    ImageLocality,
    NodeAffinity,
    NodeName,
    NodePorts,
    NodeUnschedulable,
    PrioritySort,
    SchedulingGates,
    TaintToleration,
)
from shipwheel.scheduler.plugins.binder import DefaultBinder
from shipwheel.scheduler.plugins.dynamicresources import DynamicResources
from shipwheel.scheduler.plugins.features import NodeDeclaredFeatures
from shipwheel.scheduler.plugins.interpod import InterPodAffinity
from shipwheel.scheduler.plugins.legacy import NodePreferAvoidPods, SelectorSpread
from shipwheel.scheduler.plugins.preemption import DefaultPreemption
from shipwheel.scheduler.plugins.resources import NodeResourcesBalancedAllocation, NodeResourcesFit
from shipwheel.scheduler.plugins.spread import PodTopologySpread
from shipwheel.scheduler.plugins.volumebinding import VolumeBinding
from shipwheel.scheduler.plugins.volumes import NodeVolumeLimits, VolumeRestrictions, VolumeZone

ENTRY_POINTS = "shipwheel.scheduler"

PLUGINS: tuple[PluginFactory, ...] = (
    SchedulingGates,
    PrioritySort,
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    DynamicResources,
    DefaultPreemption,
    NodeResourcesBalancedAllocation,
    ImageLocality,
    DefaultBinder,
    NodeDeclaredFeatures,
    SelectorSpread,
    NodePreferAvoidPods,
)


@cache
def factories() -> Mapping[str, PluginFactory]:
    """Plugins by name."""
    found: dict[str, PluginFactory] = {factory.name: factory for factory in PLUGINS}  # type: ignore[attr-defined]
    for entry in entry_points(group=ENTRY_POINTS):
        found.setdefault(entry.name, entry.load())
    return found


def points_of(factory: PluginFactory) -> set[str]:
    """The extension points that a plugin has methods for."""
    return {point for point, method in POINTS.items() if hasattr(factory, method)}
