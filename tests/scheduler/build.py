"""The scheduler's parts put together as tests need them: a table of a world, and the default profile over it."""

from __future__ import annotations

from typing import Any

from shipwheel.scheduler.configuration import ProfileConfig
from shipwheel.scheduler.framework import Handle, Profile
from shipwheel.scheduler.listers import Listers
from shipwheel.scheduler.nodes import NodeRules
from shipwheel.scheduler.pods import Shapes
from shipwheel.scheduler.profiles import build
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
    return build(ProfileConfig(args=args or {}), handle)
