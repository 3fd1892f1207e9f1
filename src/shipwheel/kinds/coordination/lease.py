"""Leases: who leads, and who is alive."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, text
from shipwheel.kinds.declare import served

RESOURCES = (
    Resource(
        kind="Lease",
        plural="leases",
        singular="lease",
        versions=(served("coordination.k8s.io", "v1", "Lease"),),
        strategy=Strategy(),
        columns=(NAME, Column("Holder", text("spec", "holderIdentity")), AGE),
    ),
)
