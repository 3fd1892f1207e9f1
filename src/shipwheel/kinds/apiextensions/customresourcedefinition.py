"""Custom resource definitions: kinds that users bring."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import NAME, text
from shipwheel.kinds.declare import STATUS, served

RESOURCES = (
    Resource(
        kind="CustomResourceDefinition",
        plural="customresourcedefinitions",
        singular="customresourcedefinition",
        short_names=("crd", "crds"),
        categories=("api-extensions",),
        namespaced=False,
        versions=(served("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),),
        strategy=Strategy(),
        columns=(NAME, Column("Created At", text("metadata", "creationTimestamp"), type="date")),
        subresources=(STATUS,),
        storage_prefix="apiextensions.k8s.io/customresourcedefinitions",
    ),
)
