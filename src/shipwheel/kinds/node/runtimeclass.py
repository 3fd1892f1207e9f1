"""Runtime classes: ways a node can run a container."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, text
from shipwheel.kinds.declare import served

RESOURCES = (
    Resource(
        kind="RuntimeClass",
        plural="runtimeclasses",
        singular="runtimeclass",
        namespaced=False,
        versions=(served("node.k8s.io", "v1", "RuntimeClass"),),
        strategy=Strategy(),
        columns=(NAME, Column("Handler", text("handler")), AGE),
    ),
)
