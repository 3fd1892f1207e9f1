"""Webhooks that take part in admission."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME
from shipwheel.kinds.declare import served

_GROUP = "admissionregistration.k8s.io"
_COLUMNS = (NAME, Column("Webhooks", lambda obj, now: len(obj.get("webhooks") or ()), type="integer"), AGE)

RESOURCES = (
    Resource(
        kind="MutatingWebhookConfiguration",
        plural="mutatingwebhookconfigurations",
        singular="mutatingwebhookconfiguration",
        categories=("api-extensions",),
        namespaced=False,
        versions=(served(_GROUP, "v1", "MutatingWebhookConfiguration"),),
        strategy=Strategy(),
        columns=_COLUMNS,
    ),
    Resource(
        kind="ValidatingWebhookConfiguration",
        plural="validatingwebhookconfigurations",
        singular="validatingwebhookconfiguration",
        categories=("api-extensions",),
        namespaced=False,
        versions=(served(_GROUP, "v1", "ValidatingWebhookConfiguration"),),
        strategy=Strategy(),
        columns=_COLUMNS,
    ),
)
