"""Network policies: who may talk to whom."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, label_selector
from shipwheel.kinds.declare import served

RESOURCES = (
    Resource(
        kind="NetworkPolicy",
        plural="networkpolicies",
        singular="networkpolicy",
        short_names=("netpol",),
        versions=(served("networking.k8s.io", "v1", "NetworkPolicy"),),
        strategy=Strategy(),
        columns=(NAME, Column("Pod-Selector", label_selector("spec", "podSelector")), AGE),
    ),
)
