"""A CustomResourceDefinition turned into a kind: the same `Resource` that built-in kinds are declared with."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from shipwheel.api.ages import since
from shipwheel.api.jsonpath import JsonPath
from shipwheel.api.meta import GroupResource, GroupVersion, Obj
from shipwheel.api.resource import Column, Resource, Strategy, Subresource, Version
from shipwheel.api.schema import Schema, apply_defaults, from_openapi, prune
from shipwheel.kinds.columns import AGE, NAME
from shipwheel.kinds.declare import READ_WRITE
from shipwheel.kinds.scale import scale_subresource, value_at

_ANYTHING: Obj = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


class CustomStrategy(Strategy):
    """Custom objects have no rules but their schema's. With a `status` subresource, status and the rest are written
    apart, and the generation counts the rest."""

    allow_unconditional_update = False


def served_versions(crd: Obj) -> list[Obj]:
    """The versions that are served, in the order of preference."""
    versions = [each for each in crd["spec"].get("versions") or () if each.get("served")]
    return sorted(versions, key=lambda each: version_key(each["name"]))


def version_key(version: str) -> tuple[int, int, int, int, str]:
    """Sorts versions the kube-aware way: GA, beta, alpha, each newest first; then anything else by name."""
    match = re.fullmatch(r"v([1-9]\d*)(?:(alpha|beta)([1-9]\d*))?", version)
    if match is None:
        return (1, 0, 0, 0, version)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (0, stage, -int(match[1]), -int(match[3] or 0), version)


def to_resource(crd: Obj) -> Resource:
    """The kind that an established definition makes."""
    spec = crd["spec"]
    group = spec["group"]
    names = (crd.get("status") or {}).get("acceptedNames") or spec["names"]
    storage = next(each for each in spec["versions"] if each.get("storage"))
    versions = served_versions(crd) or [storage]
    stored_schema = _schema_of(storage)
    made = tuple(_version(group, each, stored_schema, is_storage=each is storage) for each in versions)
    # Subresources are declared by version; one that any version has is found, and `Version.subresources` says where.
    subresources = _subresources(GroupResource(group, names["plural"]), versions)
    plural = names["plural"]
    if storage not in versions:
        made = (*made, _version(group, storage, stored_schema, is_storage=True))
    return Resource(
        kind=names["kind"],
        plural=plural,
        singular=names.get("singular") or names["kind"].lower(),
        list_kind=names.get("listKind") or f"{names['kind']}List",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        namespaced=spec["scope"] == "Namespaced",
        versions=made,
        storage_version=GroupVersion(group, storage["name"]),
        strategy=CustomStrategy(),
        columns=_columns(storage),
        subresources=subresources,
        selectable={path.removeprefix("."): _selectable(path) for each in versions for path in _selectable_paths(each)},
        custom=True,
    )


def _selectable_paths(version: Obj) -> list[str]:
    return [each["jsonPath"] for each in version.get("selectableFields") or ()]


def _schema_of(version: Obj) -> Schema:
    declared = (version.get("schema") or {}).get("openAPIV3Schema")
    return from_openapi(declared or _ANYTHING)


def _version(group: str, version: Obj, stored: Schema, *, is_storage: bool) -> Version:
    schema = stored if is_storage else _schema_of(version)
    deprecation = ""
    if version.get("deprecated"):
        deprecation = version.get("deprecationWarning") or f"{group}/{version['name']} is deprecated"
    declared = version.get("subresources") or {}
    return Version(
        group,
        version["name"],
        schema,
        to_storage=None if is_storage else _shaped_by(stored),
        from_storage=None if is_storage else _shaped_by(schema),
        deprecation=deprecation,
        columns=_columns(version),
        subresources=frozenset(name for name in ("status", "scale") if declared.get(name) is not None),
        field_labels={path.removeprefix("."): path.removeprefix(".") for path in _selectable_paths(version)},
    )


def _shaped_by(schema: Schema) -> Callable[[Obj], Obj]:
    """`None` conversion: the object as it is, by the rules of another version's schema."""

    def convert(obj: Obj) -> Obj:
        apply_defaults(schema, obj)
        prune(schema, obj)
        return obj

    return convert


def _subresources(resource: GroupResource, versions: list[Obj]) -> tuple[Subresource, ...]:
    found: list[Subresource] = []
    declared = [each.get("subresources") or {} for each in versions]
    if any(each.get("status") is not None for each in declared):
        found.append(Subresource("status", READ_WRITE))
    scale = next((each["scale"] for each in declared if each.get("scale")), None)
    if scale:
        found.append(_scale(resource, scale))
    return tuple(found)


def _scale(resource: GroupResource, declared: Obj) -> Subresource:
    selector = _steps(declared.get("labelSelectorPath") or "")

    def selector_of(obj: Obj) -> str:
        return (value_at(obj, selector) or "") if selector else ""

    wanted, actual = _steps(declared["specReplicasPath"]), _steps(declared["statusReplicasPath"])
    return scale_subresource(resource, selector_of, wanted=wanted, actual=actual)


def _steps(path: str) -> list[str]:
    """`.spec.replicas`, one of the plain paths that a scale is declared with."""
    return [step for step in path.split(".") if step]


def _columns(version: Obj) -> tuple[Column, ...]:
    declared = version.get("additionalPrinterColumns")
    if not declared:
        return (NAME, replace(AGE, type="date"))
    return (
        NAME,
        *(
            Column(
                each["name"],
                _cell(each["jsonPath"], each["type"]),
                type=each["type"],
                format=each.get("format", ""),
                description=each.get("description", ""),
                priority=each.get("priority", 0),
            )
            for each in declared
        ),
    )


def _cell(text: str, kind: str) -> Callable[[Obj, datetime], Any]:
    path = JsonPath(text)

    def value(obj: Obj, now: datetime) -> Any:
        found = path.first(obj)
        if found is None:
            return None
        if kind == "date":
            try:
                return since(found, now)
            except (ValueError, TypeError):
                return "<invalid>"
        if kind == "string":
            return found if isinstance(found, str) else _shown(found)
        if kind == "integer":
            return int(found) if isinstance(found, int | float) else None
        if kind == "number":
            return found if isinstance(found, int | float) else None
        if kind == "boolean":
            return found if isinstance(found, bool) else None
        return None

    return value


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    return str(value)


def _selectable(text: str) -> Callable[[Obj], str]:
    path = JsonPath(text)

    def read(obj: Obj) -> str:
        found = path.first(obj)
        return "" if found is None else _shown(found) if not isinstance(found, str) else found

    return read
