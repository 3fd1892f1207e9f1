"""Service CIDRs: the ranges that service addresses come from (KEP-1880)."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME
from shipwheel.kinds.declare import STATUS, served

RESOURCES = (
    Resource(
        kind="ServiceCIDR",
        plural="servicecidrs",
        singular="servicecidr",
        namespaced=False,
        versions=(served("networking.k8s.io", "v1", "ServiceCIDR"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("CIDRs", lambda obj, now: ",".join((obj.get("spec") or {}).get("cidrs") or ())),
            AGE,
        ),
        subresources=(STATUS,),
    ),
)
