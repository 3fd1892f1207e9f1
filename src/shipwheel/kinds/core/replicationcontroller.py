"""Replication controllers: what ReplicaSets were before there were selectors with expressions."""

from __future__ import annotations

from shipwheel.api.meta import GroupResource
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, format_labels, number, pod_template_columns
from shipwheel.kinds.declare import STATUS, served
from shipwheel.kinds.scale import map_selector, scale_subresource

RESOURCES = (
    Resource(
        kind="ReplicationController",
        plural="replicationcontrollers",
        singular="replicationcontroller",
        short_names=("rc",),
        categories=("all",),
        versions=(served("", "v1", "ReplicationController"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Desired", number("spec", "replicas"), type="integer"),
            Column("Current", number("status", "replicas"), type="integer"),
            Column("Ready", number("status", "readyReplicas"), type="integer"),
            AGE,
            *pod_template_columns(
                "spec", "template", selector=lambda rc, now: format_labels(rc["spec"].get("selector"))
            ),
        ),
        subresources=(STATUS, scale_subresource(GroupResource("", "replicationcontrollers"), map_selector)),
        selectable={"status.replicas": lambda rc: str((rc.get("status") or {}).get("replicas", 0))},
        storage_prefix="controllers",
    ),
)
