"""Namespaces."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy, Subresource
from shipwheel.kinds.columns import AGE, NAME, text
from shipwheel.kinds.declare import STATUS, served

RESOURCES = (
    Resource(
        kind="Namespace",
        plural="namespaces",
        singular="namespace",
        short_names=("ns",),
        namespaced=False,
        versions=(served("", "v1", "Namespace"),),
        strategy=Strategy(),
        columns=(NAME, Column("Status", text("status", "phase")), AGE),
        verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
        subresources=(STATUS, Subresource("finalize", ("update",))),
        selectable={
            "status.phase": lambda namespace: (namespace.get("status") or {}).get("phase", ""),
            "name": lambda namespace: namespace["metadata"]["name"],
        },
    ),
)
