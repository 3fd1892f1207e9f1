"""Endpoint slices: the addresses behind a service, a hundred at a time."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, text, with_more
from shipwheel.kinds.declare import served

_SHOWN = 3


def _ports(endpoint_slice: Obj, now: datetime) -> str:
    return with_more([_port(port) for port in endpoint_slice.get("ports") or ()], _SHOWN)


def _port(port: Obj) -> str:
    if port.get("port") is not None:
        return str(port["port"])
    return port["name"] if port.get("name") is not None else "*"


def _endpoints(endpoint_slice: Obj, now: datetime) -> str:
    endpoints = endpoint_slice.get("endpoints") or ()
    return with_more([address for each in endpoints for address in each.get("addresses") or ()], _SHOWN)


RESOURCES = (
    Resource(
        kind="EndpointSlice",
        plural="endpointslices",
        singular="endpointslice",
        versions=(served("discovery.k8s.io", "v1", "EndpointSlice"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("AddressType", text("addressType")),
            Column("Ports", _ports),
            Column("Endpoints", _endpoints),
            AGE,
        ),
    ),
)
