"""Custom resource definitions of v1beta1: what all versions have alike stands once, at the top; there need be no
schema, and unknown fields are kept unless one says otherwise."""

from __future__ import annotations

from typing import Any

from shipwheel.api.meta import Obj

_AT_TOP = {
    "validation": "schema",
    "subresources": "subresources",
    "additionalPrinterColumns": "additionalPrinterColumns",
}
"""What is said at the top, and how today's versions call it."""


def of_v1beta1(crd: Obj) -> Obj:
    spec = dict(crd.get("spec") or {})
    if not spec.get("scope"):
        spec["scope"] = "Namespaced"
    name = spec.pop("version", None)
    versions = [dict(version) for version in spec.get("versions") or ()]
    if not versions and name:
        versions = [{"name": name, "served": True, "storage": True}]
    for top, field in _AT_TOP.items():
        said = spec.pop(top, None)
        if said is not None:
            for version in versions:
                version.setdefault(field, said)
    spec["versions"] = [_with_columns(version, "JSONPath", "jsonPath") for version in versions]
    if spec.get("preserveUnknownFields") is None:
        spec["preserveUnknownFields"] = True
    if spec.get("conversion") is not None:
        spec["conversion"] = _conversion_of_v1beta1(spec["conversion"])
    return {**crd, "spec": spec}


def to_v1beta1(crd: Obj) -> Obj:
    spec = dict(crd.get("spec") or {})
    versions = [_with_columns(version, "jsonPath", "JSONPath") for version in spec.get("versions") or ()]
    if versions:
        spec["version"] = versions[0]["name"]
    for top, field in _AT_TOP.items():
        said = [version.get(field) for version in versions]
        if said and all(each == said[0] for each in said):
            for version in versions:
                version.pop(field, None)
            if said[0] is not None:
                spec[top] = said[0]
    spec["versions"] = versions
    if spec.get("conversion") is not None:
        spec["conversion"] = _conversion_to_v1beta1(spec["conversion"])
    return {**crd, "spec": spec}


def _with_columns(version: Obj, old: str, new: str) -> Obj:
    """A copy whose columns call their path by the other name."""
    columns = version.get("additionalPrinterColumns")
    if not columns:
        return dict(version)
    renamed = [{new if key == old else key: value for key, value in column.items()} for column in columns]
    return {**version, "additionalPrinterColumns": renamed}


def _conversion_of_v1beta1(conversion: Obj) -> Obj:
    client, versions = conversion.get("webhookClientConfig"), conversion.get("conversionReviewVersions")
    if conversion.get("strategy") == "Webhook" and not versions:
        versions = ["v1beta1"]
    webhook: dict[str, Any] = {}
    if client is not None:
        webhook["clientConfig"] = client
    if versions:
        webhook["conversionReviewVersions"] = versions
    kept = {
        key: value
        for key, value in conversion.items()
        if key not in ("webhookClientConfig", "conversionReviewVersions")
    }
    return {**kept, "webhook": webhook} if webhook else kept


def _conversion_to_v1beta1(conversion: Obj) -> Obj:
    webhook = conversion.get("webhook") or {}
    older = {key: value for key, value in conversion.items() if key != "webhook"}
    if webhook.get("clientConfig") is not None:
        older["webhookClientConfig"] = webhook["clientConfig"]
    if webhook.get("conversionReviewVersions"):
        older["conversionReviewVersions"] = webhook["conversionReviewVersions"]
    return older
