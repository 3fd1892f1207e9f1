"""Ingress classes: which controller serves an ingress."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.errors import FieldError, forbidden, not_supported, required, too_long
from shipwheel.api.meta import Obj, annotations_of, name_of
from shipwheel.api.names import byte_length, is_domain_prefixed_path, name_is_dns_label
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import Errors, check_fixed, check_rule
from shipwheel.kinds.columns import AGE, NONE, text
from shipwheel.kinds.declare import older, served
from shipwheel.kinds.networking.ingressspec import check_typed_reference

_MAX_CONTROLLER = 250
_SCOPES = ("Cluster", "Namespace")
_DEFAULT = "ingressclass.kubernetes.io/is-default-class"


class IngressClassStrategy(Strategy):
    def default(self, ingress_class: Obj) -> None:
        parameters = (ingress_class.get("spec") or {}).get("parameters")
        if parameters is not None and parameters.get("scope") is None:
            parameters["scope"] = "Cluster"

    def validate(self, ingress_class: Obj) -> list[FieldError]:
        spec = ingress_class.get("spec") or {}
        errors: Errors = []
        controller = spec.get("controller", "")
        if byte_length(controller) > _MAX_CONTROLLER:
            errors.append(too_long("spec.controller", _MAX_CONTROLLER))
        errors += is_domain_prefixed_path(controller, "spec.controller")
        if spec.get("parameters") is not None:
            _check_parameters(spec["parameters"], "spec.parameters", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        check_fixed(new, old, "spec.controller", errors)
        return errors + self.validate(new)


def _check_parameters(parameters: Obj, path: str, errors: Errors) -> None:
    check_typed_reference(parameters, path, errors)
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope is None:
        errors.append(required(f"{path}.scope"))
    if scope not in _SCOPES:
        errors.append(not_supported(f"{path}.scope", scope or "", _SCOPES))
    elif scope == "Namespace":
        if namespace is None:
            errors.append(required(f"{path}.namespace", "`parameters.scope` is set to 'Namespace'"))
        else:
            check_rule(name_is_dns_label, namespace, f"{path}.namespace", errors)
    elif namespace is not None:
        errors.append(forbidden(f"{path}.namespace", "`parameters.scope` is set to 'Cluster'"))


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
        versions=(
            served("networking.k8s.io", "v1", "IngressClass"),
            older(
                "networking.k8s.io",
                "v1beta1",
                "IngressClass",
                since="1.19",
                until="1.22",
                replacement="networking.k8s.io/v1",
            ),
        ),
        strategy=IngressClassStrategy(),
        columns=(
            Column("Name", _name, format="name"),
            Column("Controller", text("spec", "controller")),
            Column("Parameters", _parameters),
            AGE,
        ),
    ),
)
