"""The plugins there are, which of them a profile has by default, and third-party ones.

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
from shipwheel.scheduler.plugins.interpod import InterPodAffinity
from shipwheel.scheduler.plugins.resources import NodeResourcesBalancedAllocation, NodeResourcesFit
from shipwheel.scheduler.plugins.spread import PodTopologySpread

ENTRY_POINTS = "shipwheel.scheduler"

DEFAULTS: tuple[tuple[PluginFactory, int], ...] = (
    (SchedulingGates, 0),
    (PrioritySort, 0),
    (NodeUnschedulable, 0),
    (NodeName, 0),
    (TaintToleration, 3),
    (NodeAffinity, 2),
    (NodePorts, 0),
    (NodeResourcesFit, 1),
    (PodTopologySpread, 2),
    (InterPodAffinity, 2),
    (NodeResourcesBalancedAllocation, 1),
    (ImageLocality, 1),
    (DefaultBinder, 0),
)
"""In the order they run in, with their weights."""


@cache
def factories() -> Mapping[str, PluginFactory]:
    """Plugins by name."""
    found: dict[str, PluginFactory] = {factory.name: factory for factory, _ in DEFAULTS}  # type: ignore[attr-defined]
    for entry in entry_points(group=ENTRY_POINTS):
        found.setdefault(entry.name, entry.load())
    return found


def points_of(factory: PluginFactory) -> set[str]:
    """The extension points that a plugin has methods for."""
    return {point for point, method in POINTS.items() if hasattr(factory, method)}
