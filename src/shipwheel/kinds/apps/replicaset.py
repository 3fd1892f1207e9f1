"""Replica sets: so many pods alike."""

from __future__ import annotations

from shipwheel.api.meta import GroupResource
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, label_selector, number, pod_template_columns
from shipwheel.kinds.declare import STATUS, served
from shipwheel.kinds.scale import scale_subresource

RESOURCES = (
    Resource(
        kind="ReplicaSet",
        plural="replicasets",
        singular="replicaset",
        short_names=("rs",),
        categories=("all",),
        versions=(served("apps", "v1", "ReplicaSet"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Desired", number("spec", "replicas"), type="integer"),
            Column("Current", number("status", "replicas"), type="integer"),
            Column("Ready", number("status", "readyReplicas"), type="integer"),
            AGE,
            *pod_template_columns("spec", "template", selector=label_selector("spec", "selector")),
        ),
        subresources=(STATUS, scale_subresource(GroupResource("apps", "replicasets"))),
        selectable={"status.replicas": lambda rs: str((rs.get("status") or {}).get("replicas", 0))},
    ),
)
