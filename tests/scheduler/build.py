"""The scheduler's parts put together as tests need them: a table of a world, and the default profile over it."""

from __future__ import annotations

from typing import Any

from shipwheel.scheduler.framework import Handle, Profile
from shipwheel.scheduler.listers import Listers
from shipwheel.scheduler.nodes import NodeRules
from shipwheel.scheduler.pods import Shapes
from shipwheel.scheduler.registry import DEFAULTS, points_of
from shipwheel.scheduler.table import NodeTable, PodEntry

from .model import Obj, World

SHAPES = Shapes()


def listers_of(world: World) -> Listers:
    listers = Listers()
    for name, labels in world.namespaces.items():
        listers.namespaces.put({"metadata": {"name": name, "labels": labels}})
    return listers


def entry(pod: Obj, node: str, *, nominated: bool = False) -> PodEntry:
    meta = pod["metadata"]
    return PodEntry(f"{meta['namespace']}/{meta['name']}", pod, SHAPES.of(pod), node, nominated)


def table_of(world: World, listers: Listers) -> NodeTable:
    table = NodeTable(listers.namespace_labels)
    for node in world.nodes:
        table.set_node(node)
    for pod, name in world.placed:
        table.add(entry(pod, name))
    return table


def handle_of(world: World) -> Handle:
    listers = listers_of(world)
    table = table_of(world, listers)
    return Handle(table, NodeRules(table), listers)


def profile_of(handle: Handle, args: dict[str, Any] | None = None) -> Profile:
    """The default profile; `args` by plugin."""
    points: dict[str, list[Any]] = {}
    weights = {}
    for factory, weight in DEFAULTS:
        plugin = factory((args or {}).get(factory.name) or {}, handle)
        weights[plugin.name] = weight
        for point in points_of(factory):
            if point != "score" or weight:
                points.setdefault(point, []).append(plugin)
    return Profile("default-scheduler", points, weights, handle)
