"""API services: groups and versions, and who serves them."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj, condition
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, dig
from shipwheel.kinds.declare import STATUS, served


def _service(obj: Obj, now: datetime) -> str:
    service = dig(obj, "spec", "service")
    return f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"


def _available(obj: Obj, now: datetime) -> str:
    state = condition(obj, "Available")
    if state is None:
        return "Unknown"
    status = state.get("status", "")
    return status if status == "True" or not state.get("reason") else f"{status} ({state['reason']})"


RESOURCES = (
    Resource(
        kind="APIService",
        plural="apiservices",
        singular="apiservice",
        categories=("api-extensions",),
        namespaced=False,
        versions=(served("apiregistration.k8s.io", "v1", "APIService"),),
        strategy=Strategy(),
        columns=(NAME, Column("Service", _service), Column("Available", _available), AGE),
        subresources=(STATUS,),
        storage_prefix="apiregistration.k8s.io/apiservices",
    ),
)
