"""Limit ranges."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import NAME, text
from shipwheel.kinds.declare import served

RESOURCES = (
    Resource(
        kind="LimitRange",
        plural="limitranges",
        singular="limitrange",
        short_names=("limits",),
        versions=(served("", "v1", "LimitRange"),),
        strategy=Strategy(),
        columns=(NAME, Column("Created At", text("metadata", "creationTimestamp"), type="date")),
    ),
)
