"""Endpoints: the addresses behind a service, in the form that EndpointSlices replaced."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, NONE, with_more
from shipwheel.kinds.declare import deprecated, served


def _endpoints(obj: Obj, now: datetime) -> str:
    addresses = [
        address["ip"] if port is None else _host_port(address["ip"], port["port"])
        for subset in obj.get("subsets") or ()
        for port in subset.get("ports") or (None,)
        for address in subset.get("addresses") or ()
    ]
    if not obj.get("subsets"):
        return NONE
    return with_more(addresses, 3, empty="")


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


RESOURCES = (
    Resource(
        kind="Endpoints",
        plural="endpoints",
        singular="endpoints",
        short_names=("ep",),
        versions=(
            served(
                "",
                "v1",
                "Endpoints",
                deprecation=deprecated(
                    "v1", "Endpoints", "1.33", replacement="discovery.k8s.io/v1 EndpointSlice"
                ),
            ),
        ),
        strategy=Strategy(),
        columns=(NAME, Column("Endpoints", _endpoints), AGE),
        storage_prefix="services/endpoints",
    ),
)
