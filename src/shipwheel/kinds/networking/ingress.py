"""Ingresses: HTTP from outside to services, by host and path."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, NONE, text
from shipwheel.kinds.core.service import load_balancer_addresses
from shipwheel.kinds.declare import STATUS, served

_SHOWN = 3


def _hosts(ingress: Obj, now: datetime) -> str:
    rules = ingress["spec"].get("rules") or ()
    hosts = [rule["host"] for rule in rules if rule.get("host")]
    if not hosts:
        return "*"
    shown = ",".join(hosts[:_SHOWN])
    return f"{shown} + {len(rules) - _SHOWN} more..." if len(hosts) >= _SHOWN and len(rules) > _SHOWN else shown


RESOURCES = (
    Resource(
        kind="Ingress",
        plural="ingresses",
        singular="ingress",
        short_names=("ing",),
        versions=(served("networking.k8s.io", "v1", "Ingress"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Class", text("spec", "ingressClassName", absent=NONE)),
            Column("Hosts", _hosts),
            Column("Address", lambda ingress, now: ",".join(load_balancer_addresses(ingress))),
            Column("Ports", lambda ingress, now: "80, 443" if ingress["spec"].get("tls") else "80"),
            AGE,
        ),
        subresources=(STATUS,),
        storage_prefix="ingress",
    ),
)
