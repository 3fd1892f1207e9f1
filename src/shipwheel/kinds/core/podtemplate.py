"""Pod templates: a pod to be, kept for whoever makes it."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import NAME, dig, format_labels, pod_template_columns
from shipwheel.kinds.declare import served

RESOURCES = (
    Resource(
        kind="PodTemplate",
        plural="podtemplates",
        singular="podtemplate",
        versions=(served("", "v1", "PodTemplate"),),
        strategy=Strategy(),
        columns=(
            NAME,
            *pod_template_columns("template", priority=0),
            Column("Pod Labels", lambda obj, now: format_labels(dig(obj, "template", "metadata", "labels"))),
        ),
    ),
)
