"""Stateful sets: pods with names and storage of their own."""

from __future__ import annotations

from shipwheel.api.meta import GroupResource
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.apps.deployment import ready_of_desired
from shipwheel.kinds.columns import AGE, NAME, pod_template_columns
from shipwheel.kinds.declare import STATUS, served
from shipwheel.kinds.scale import scale_subresource

RESOURCES = (
    Resource(
        kind="StatefulSet",
        plural="statefulsets",
        singular="statefulset",
        short_names=("sts",),
        categories=("all",),
        versions=(served("apps", "v1", "StatefulSet"),),
        strategy=Strategy(),
        columns=(NAME, Column("Ready", ready_of_desired), AGE, *pod_template_columns("spec", "template")),
        subresources=(STATUS, scale_subresource(GroupResource("apps", "statefulsets"))),
    ),
)
