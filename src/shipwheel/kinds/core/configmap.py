"""ConfigMaps."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME
from shipwheel.kinds.declare import served

RESOURCES = (
    Resource(
        kind="ConfigMap",
        plural="configmaps",
        singular="configmap",
        short_names=("cm",),
        versions=(served("", "v1", "ConfigMap"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Data", lambda obj, now: len(obj.get("data") or ()) + len(obj.get("binaryData") or ())),
            AGE,
        ),
    ),
)
