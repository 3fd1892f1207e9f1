"""Resource quotas."""

from __future__ import annotations

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME
from shipwheel.kinds.declare import STATUS, served


def _amounts(quota: Obj, *, limits: bool) -> str:
    status = quota.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    return ", ".join(
        f"{name}: {used.get(name, '0')}/{hard[name]}"
        for name in sorted(hard)
        if name.startswith("limits.") == limits
    )


RESOURCES = (
    Resource(
        kind="ResourceQuota",
        plural="resourcequotas",
        singular="resourcequota",
        short_names=("quota",),
        versions=(served("", "v1", "ResourceQuota"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Request", lambda quota, now: _amounts(quota, limits=False)),
            Column("Limit", lambda quota, now: _amounts(quota, limits=True)),
            AGE,
        ),
        subresources=(STATUS,),
    ),
)
