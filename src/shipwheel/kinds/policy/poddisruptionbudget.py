"""Pod disruption budgets: how many pods may be missing at a time, on purpose."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, Value, number
from shipwheel.kinds.declare import STATUS, served


def _limit(field: str) -> Value:
    def value(budget: Obj, now: datetime) -> str:
        limit = (budget.get("spec") or {}).get(field)
        return "N/A" if limit is None else str(limit)

    return value


RESOURCES = (
    Resource(
        kind="PodDisruptionBudget",
        plural="poddisruptionbudgets",
        singular="poddisruptionbudget",
        short_names=("pdb",),
        versions=(served("policy", "v1", "PodDisruptionBudget"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Min Available", _limit("minAvailable")),
            Column("Max Unavailable", _limit("maxUnavailable")),
            Column("Allowed Disruptions", number("status", "disruptionsAllowed"), type="integer"),
            AGE,
        ),
        subresources=(STATUS,),
    ),
)
