"""Secrets."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, text
from shipwheel.kinds.declare import served

RESOURCES = (
    Resource(
        kind="Secret",
        plural="secrets",
        singular="secret",
        versions=(served("", "v1", "Secret"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Type", text("type")),
            Column("Data", lambda obj, now: len(obj.get("data") or ())),
            AGE,
        ),
        selectable={"type": lambda secret: secret.get("type", "")},
    ),
)
