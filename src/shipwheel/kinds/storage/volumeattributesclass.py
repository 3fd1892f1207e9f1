"""Volume attributes classes: what may be changed about a volume that exists (KEP-3751)."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, text
from shipwheel.kinds.declare import served

RESOURCES = (
    Resource(
        kind="VolumeAttributesClass",
        plural="volumeattributesclasses",
        singular="volumeattributesclass",
        short_names=("vac",),
        namespaced=False,
        versions=(served("storage.k8s.io", "v1", "VolumeAttributesClass"),),
        strategy=Strategy(),
        columns=(NAME, Column("DriverName", text("driverName")), AGE),
    ),
)
