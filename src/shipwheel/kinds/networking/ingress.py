"""Ingresses: HTTP from outside to services, by host and path."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.errors import FieldError, invalid
from shipwheel.api.ip import ip_warnings
from shipwheel.api.meta import Obj, annotations_of
from shipwheel.api.resource import Column, Resource
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.columns import AGE, NAME, NONE, text
from shipwheel.kinds.core.service import load_balancer_addresses
from shipwheel.kinds.declare import STATUS, older, served
from shipwheel.kinds.networking.ingressspec import check_ingress_spec, check_ingress_status
from shipwheel.kinds.networking.olderingress import of_v1beta1, to_v1beta1
from shipwheel.kinds.strategies import BuiltinStrategy

_SHOWN = 3
_CLASS = "kubernetes.io/ingress.class"


class IngressStrategy(BuiltinStrategy):
    def validate(self, ingress: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = ingress.get("spec") or {}
        check_ingress_spec(spec, None, errors)
        annotation, name = annotations_of(ingress).get(_CLASS), spec.get("ingressClassName")
        if annotation is not None and name is not None and annotation != name:
            detail = "must match `ingressClassName` when both are specified"
            errors.append(invalid(f"annotations.{_CLASS}", annotation, detail))
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        check_ingress_spec(new.get("spec") or {}, old.get("spec") or {}, errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        if new.get("status") != old.get("status"):
            check_ingress_status(new.get("status") or {}, errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        if old is not None:
            return _address_warnings(new) if new.get("status") != old.get("status") else []
        if _CLASS in annotations_of(new) and (new.get("spec") or {}).get("ingressClassName") is None:
            return [f"annotation \"{_CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"]
        return []


def _address_warnings(ingress: Obj) -> list[str]:
    points = ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return [
        warning
        for index, point in enumerate(points)
        if point.get("ip")
        for warning in ip_warnings(point["ip"], f"status.loadBalancer.ingress[{index}]")
    ]


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
        versions=(
            served("networking.k8s.io", "v1", "Ingress"),
            older(
                "networking.k8s.io",
                "v1beta1",
                "Ingress",
                since="1.19",
                until="1.22",
                replacement="networking.k8s.io/v1",
                to_storage=of_v1beta1,
                from_storage=to_v1beta1,
            ),
            older(
                "extensions",
                "v1beta1",
                "Ingress",
                since="1.14",
                until="1.22",
                replacement="networking.k8s.io/v1",
                to_storage=of_v1beta1,
                from_storage=to_v1beta1,
            ),
        ),
        strategy=IngressStrategy(),
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
