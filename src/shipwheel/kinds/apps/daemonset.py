"""Daemon sets: a pod on each node."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import (
    AGE,
    NAME,
    dig,
    format_labels,
    label_selector,
    number,
    pod_template_columns,
)
from shipwheel.kinds.declare import STATUS, served

RESOURCES = (
    Resource(
        kind="DaemonSet",
        plural="daemonsets",
        singular="daemonset",
        short_names=("ds",),
        categories=("all",),
        versions=(served("apps", "v1", "DaemonSet"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Desired", number("status", "desiredNumberScheduled"), type="integer"),
            Column("Current", number("status", "currentNumberScheduled"), type="integer"),
            Column("Ready", number("status", "numberReady"), type="integer"),
            Column("Up-to-date", number("status", "updatedNumberScheduled"), type="integer"),
            Column("Available", number("status", "numberAvailable"), type="integer"),
            Column(
                "Node Selector",
                lambda obj, now: format_labels(dig(obj, "spec", "template", "spec", "nodeSelector")),
            ),
            AGE,
            *pod_template_columns("spec", "template", selector=label_selector("spec", "selector")),
        ),
        subresources=(STATUS,),
    ),
)
