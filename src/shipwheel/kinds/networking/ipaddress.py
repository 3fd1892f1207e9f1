"""IP addresses: one for each address a service holds (KEP-1880)."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, NONE
from shipwheel.kinds.declare import served


def _parent(address: Obj, now: datetime) -> str:
    parent = (address.get("spec") or {}).get("parentRef")
    if not parent:
        return NONE
    resource = str(GroupResource(parent.get("group", ""), parent.get("resource", ""))).lower()
    namespace = f"/{parent['namespace']}" if parent.get("namespace") else ""
    return f"{resource}{namespace}/{parent.get('name', '')}"


RESOURCES = (
    Resource(
        kind="IPAddress",
        plural="ipaddresses",
        singular="ipaddress",
        short_names=("ip",),
        namespaced=False,
        versions=(served("networking.k8s.io", "v1", "IPAddress"),),
        strategy=Strategy(),
        columns=(NAME, Column("ParentRef", _parent), AGE),
    ),
)
