"""Ingress classes: which controller serves an ingress."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj, annotations_of, name_of
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NONE, text
from shipwheel.kinds.declare import served

_DEFAULT = "ingressclass.kubernetes.io/is-default-class"


def _name(ingress_class: Obj, now: datetime) -> str:
    default = annotations_of(ingress_class).get(_DEFAULT) == "true"
    return f"{name_of(ingress_class)} (default)" if default else name_of(ingress_class)


def _parameters(ingress_class: Obj, now: datetime) -> str:
    parameters = (ingress_class.get("spec") or {}).get("parameters")
    if not parameters:
        return NONE
    group = parameters.get("apiGroup")
    kind = f"{parameters['kind']}.{group}" if group is not None else parameters["kind"]
    return f"{kind}/{parameters['name']}"


RESOURCES = (
    Resource(
        kind="IngressClass",
        plural="ingressclasses",
        singular="ingressclass",
        namespaced=False,
        versions=(served("networking.k8s.io", "v1", "IngressClass"),),
        strategy=Strategy(),
        columns=(
            Column("Name", _name, format="name"),
            Column("Controller", text("spec", "controller")),
            Column("Parameters", _parameters),
            AGE,
        ),
    ),
)
