"""Deployments: replica sets that follow one another as the pod template changes."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, dig, number, pod_template_columns, selector_text
from shipwheel.kinds.declare import STATUS, served
from shipwheel.kinds.scale import scale_subresource


def ready_of_desired(obj: Obj, now: datetime) -> str:
    """`2/3`: how many pods are ready, and how many shall be."""
    return f"{dig(obj, 'status', 'readyReplicas') or 0}/{obj['spec'].get('replicas') or 0}"


RESOURCES = (
    Resource(
        kind="Deployment",
        plural="deployments",
        singular="deployment",
        short_names=("deploy",),
        categories=("all",),
        versions=(served("apps", "v1", "Deployment"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Ready", ready_of_desired),
            Column("Up-to-date", number("status", "updatedReplicas")),
            Column("Available", number("status", "availableReplicas")),
            AGE,
            *pod_template_columns(
                "spec", "template", selector=lambda obj, now: selector_text(obj["spec"].get("selector"))
            ),
        ),
        subresources=(STATUS, scale_subresource(GroupResource("apps", "deployments"))),
    ),
)
