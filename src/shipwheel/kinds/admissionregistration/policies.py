"""Policies in CEL that take part in admission, and where they hold."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, UNSET, Value, dig, format_selector, text
from shipwheel.kinds.declare import STATUS, served

_GROUP = "admissionregistration.k8s.io"


def _param_kind(policy: Obj, now: datetime) -> str:
    kind = dig(policy, "spec", "paramKind")
    return f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else UNSET


def _param_ref(binding: Obj, now: datetime) -> str:
    reference = dig(binding, "spec", "paramRef")
    if not reference:
        return UNSET
    if reference.get("name"):
        return f"{reference.get('namespace') or '*'}/{reference['name']}"
    return format_selector(reference["selector"]) if reference.get("selector") else UNSET


def _count(*path: str) -> Value:
    return lambda obj, now: len(dig(obj, *path) or ())


_BINDING_COLUMNS = (
    NAME,
    Column("PolicyName", text("spec", "policyName")),
    Column("ParamRef", _param_ref),
    AGE,
)


RESOURCES = (
    Resource(
        kind="ValidatingAdmissionPolicy",
        plural="validatingadmissionpolicies",
        singular="validatingadmissionpolicy",
        categories=("api-extensions",),
        namespaced=False,
        versions=(served(_GROUP, "v1", "ValidatingAdmissionPolicy"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Validations", _count("spec", "validations"), type="integer"),
            Column("ParamKind", _param_kind),
            AGE,
        ),
        subresources=(STATUS,),
    ),
    Resource(
        kind="ValidatingAdmissionPolicyBinding",
        plural="validatingadmissionpolicybindings",
        singular="validatingadmissionpolicybinding",
        categories=("api-extensions",),
        namespaced=False,
        versions=(served(_GROUP, "v1", "ValidatingAdmissionPolicyBinding"),),
        strategy=Strategy(),
        columns=_BINDING_COLUMNS,
    ),
    Resource(
        kind="MutatingAdmissionPolicy",
        plural="mutatingadmissionpolicies",
        singular="mutatingadmissionpolicy",
        categories=("api-extensions",),
        namespaced=False,
        versions=(served(_GROUP, "v1", "MutatingAdmissionPolicy"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Mutations", _count("spec", "mutations"), type="integer"),
            Column("ParamKind", _param_kind),
            AGE,
        ),
    ),
    Resource(
        kind="MutatingAdmissionPolicyBinding",
        plural="mutatingadmissionpolicybindings",
        singular="mutatingadmissionpolicybinding",
        categories=("api-extensions",),
        namespaced=False,
        versions=(served(_GROUP, "v1", "MutatingAdmissionPolicyBinding"),),
        strategy=Strategy(),
        columns=_BINDING_COLUMNS,
    ),
)
