"""Priority classes: names for how much a pod matters."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, number, text
from shipwheel.kinds.declare import served

RESOURCES = (
    Resource(
        kind="PriorityClass",
        plural="priorityclasses",
        singular="priorityclass",
        short_names=("pc",),
        namespaced=False,
        versions=(served("scheduling.k8s.io", "v1", "PriorityClass"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Value", number("value"), type="integer"),
            Column("Global-Default", lambda obj, now: bool(obj.get("globalDefault")), type="boolean"),
            AGE,
            Column("PreemptionPolicy", text("preemptionPolicy")),
        ),
    ),
)
