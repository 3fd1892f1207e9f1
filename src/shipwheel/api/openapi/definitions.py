"""Schemas as the OpenAPI documents show them, with everything they refer to.

A `Definitions` gathers what a document's operations mention, follows the references, and writes each definition
once, in the dialect of v2 (Swagger) or v3. The dialects differ in three points: what stands beside a reference,
defaults, and (for custom resources) how much of JSON Schema they can say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from shipwheel.api.meta import GroupVersion, GroupVersionKind, Obj
from shipwheel.api.openapi.descriptions import describe
from shipwheel.api.openapi.names import definition_name
from shipwheel.api.schema import Schema
from shipwheel.api.schema.conform import zero
from shipwheel.api.schema.model import INT_OR_STRING, OBJECT_META, QUANTITY
from shipwheel.api.scheme import Scheme

Dialect = Literal["v2", "v3"]
Find = Callable[[str], Schema]
"""Finds a built-in definition by its full name; KeyError when there is none."""

_PLACES: dict[Dialect, str] = {"v2": "#/definitions/", "v3": "#/components/schemas/"}
_LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_GVK = "x-kubernetes-group-version-kind"
_OURS = {"$ref", "x-go", "description", "default"}

_SCALARS: dict[Dialect, dict[str, Obj]] = {
    "v2": {
        INT_OR_STRING: {"format": "int-or-string", "type": "string"},
        QUANTITY: {"type": "string"},
    },
    "v3": {
        INT_OR_STRING: {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
        QUANTITY: {"oneOf": [{"type": "string"}, {"type": "number"}]},
    },
}


class Definitions:
    def __init__(self, dialect: Dialect, find: Find, *, group_version: GroupVersion | None = None) -> None:
        self.dialect = dialect
        self.find = find
        self.group_version = group_version
        """Kinds that belong to every group are shown as this one's; None: as all."""
        self.written: dict[str, Obj] = {}

    def sorted(self) -> dict[str, Obj]:
        return dict(sorted(self.written.items()))

    def reference(self, name: str) -> Obj:
        """A reference to a built-in definition, which is written with all it needs."""
        if name not in self.written:
            self._write(self.find(name))
        return {"$ref": _PLACES[self.dialect] + name}

    def kind(self, gvk: GroupVersionKind, schema: Schema) -> Obj:
        """A reference to the schema of a kind: built in, or custom."""
        if schema.name:
            if schema.name not in self.written:
                self._write(schema)
            return {"$ref": _PLACES[self.dialect] + schema.name}
        name = definition_name(gvk)
        if name not in self.written:
            self.written[name] = self._custom(gvk, schema)
        return {"$ref": _PLACES[self.dialect] + name}

    def list_of(self, gvk: GroupVersionKind, schema: Schema, list_kind: str) -> Obj:
        """A reference to the list of a kind."""
        if schema.name:
            try:
                return self.reference(schema.name.rpartition(".")[0] + f".{list_kind}")
            except KeyError:
                pass  # a list is no definition of its own where a package does not publish it
        list_gvk = GroupVersionKind(gvk.group, gvk.version, list_kind)
        name = definition_name(list_gvk) if not schema.name else schema.name.rpartition(".")[0] + f".{list_kind}"
        if name not in self.written:
            self.written[name] = {}
            self.written[name] = self._list(gvk, schema, list_gvk)
        return {"$ref": _PLACES[self.dialect] + name}

    def _list(self, gvk: GroupVersionKind, schema: Schema, list_gvk: GroupVersionKind) -> Obj:
        texts = describe(_LIST_META.replace("ListMeta", "Status"))
        return {
            "description": f"{list_gvk.kind} is a list of {gvk.kind}",
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"description": texts.get("apiVersion", ""), "type": "string"},
                "items": {
                    "description": f"The {gvk.kind} objects.",
                    "items": self.kind(gvk, schema),
                    "type": "array",
                },
                "kind": {"description": texts.get("kind", ""), "type": "string"},
                "metadata": self._beside(self.reference(_LIST_META), {"description": "Standard list metadata."}),
            },
            _GVK: [{"group": list_gvk.group, "kind": list_gvk.kind, "version": list_gvk.version}],
        }

    # --- Built-in definitions

    def _write(self, schema: Schema) -> None:
        todo = [schema]
        while todo:
            each = todo.pop()
            if each.name not in self.written:
                self.written[each.name] = {}
                self.written[each.name] = self._definition(each, todo)

    def _definition(self, schema: Schema, todo: list[Schema]) -> Obj:
        texts = describe(schema.name)
        out: Obj = {"description": texts[""]} if texts.get("") else {}
        scalar = _SCALARS[self.dialect].get(schema.name)
        if scalar is not None:
            return out | scalar
        for key, value in schema.to_openapi().items():
            if key == "properties":
                out[key] = {
                    name: self._property(value[name], child, texts.get(name, ""), todo)
                    for name, child in schema.properties.items()
                }
            elif key == _GVK:
                out[key] = self._kinds(value)
            elif key not in _OURS:
                out[key] = value
        return out

    def _kinds(self, kinds: list[dict[str, str]]) -> list[dict[str, str]]:
        gv = self.group_version
        if gv is None or len(kinds) < 2:
            return kinds
        shown = {("", "v1"), (gv.group, gv.version)}
        return [each for each in kinds if (each["group"], each["version"]) in shown] or kinds

    def _property(self, raw: Mapping[str, Any], schema: Schema, text: str, todo: list[Schema]) -> Obj:
        beside: Obj = {"description": text} if text else {}
        if self.dialect == "v3":
            if "default" in raw:
                beside["default"] = raw["default"]
            elif schema.always and _starts_as_zero(schema):
                beside["default"] = {} if schema.properties or schema.type == "object" else zero(schema)
        return self._node(raw, schema, beside, todo)

    def _node(self, raw: Mapping[str, Any], schema: Schema, beside: Obj, todo: list[Schema]) -> Obj:
        if "$ref" in raw:
            todo.append(schema.definition)
            reference = {"$ref": _PLACES[self.dialect] + schema.name}
            extra = {key: value for key, value in raw.items() if key not in _OURS}
            return self._beside(reference, beside | extra)
        out = dict(beside)
        for key, value in raw.items():
            if key == "items" and schema.items is not None:
                out[key] = self._node(value, schema.items, {}, todo)
            elif key == "additionalProperties" and schema.additional is not None:
                out[key] = self._node(value, schema.additional, {}, todo)
            elif key not in _OURS:
                out[key] = value
        return out

    def _beside(self, reference: Obj, beside: Obj) -> Obj:
        """v3 ignores what stands beside a reference, so it goes into `allOf` there."""
        if not beside:
            return reference
        return {"allOf": [reference], **beside} if self.dialect == "v3" else reference | beside

    # --- Custom resources

    def _custom(self, gvk: GroupVersionKind, schema: Schema) -> Obj:
        raw = schema.to_openapi()
        if self.dialect == "v2" and raw.get("x-kubernetes-preserve-unknown-fields"):
            # kubectl would refuse all other fields if any were named.
            return {"type": "object", _GVK: [{"group": gvk.group, "kind": gvk.kind, "version": gvk.version}]}
        out = self._custom_node(raw)
        texts = describe("io.k8s.api.core.v1.Pod")
        properties = dict(out.get("properties") or {})
        properties["apiVersion"] = {"description": texts.get("apiVersion", ""), "type": "string"}
        properties["kind"] = {"description": texts.get("kind", ""), "type": "string"}
        metadata = {"description": texts.get("metadata", "")}
        properties["metadata"] = self._beside(self.reference(OBJECT_META), metadata)
        out["properties"] = properties
        out.setdefault("type", "object")
        out[_GVK] = [{"group": gvk.group, "kind": gvk.kind, "version": gvk.version}]
        return out

    def _custom_node(self, raw: Mapping[str, Any]) -> Obj:
        if self.dialect == "v3":
            return dict(raw)
        return _for_v2(raw)


def _starts_as_zero(schema: Schema) -> bool:
    """v3 gives such a field a default. Times and bytes are null at first, and quantities have no schema for it."""
    if schema.name:
        return bool(schema.properties)
    return schema.type in ("string", "integer", "number", "boolean") and schema.format != "byte"


_V2_DROPPED = {
    "nullable",
    "oneOf",
    "anyOf",
    "allOf",
    "not",
    "default",
    "additionalProperties",
    "x-kubernetes-validations",
}


def _for_v2(raw: Mapping[str, Any]) -> Obj:
    """What Swagger 2 can say of a structural schema; kubectl reads more strictly than it should, so the rest goes."""
    if raw.get("x-kubernetes-preserve-unknown-fields"):
        kept = {key: value for key, value in raw.items() if key.startswith("x-kubernetes-") or key == "description"}
        return {key: value for key, value in kept.items() if key != "x-kubernetes-validations"}
    if raw.get("nullable"):
        raw = {key: value for key, value in raw.items() if key not in ("type", "items", "properties", "nullable")}
    out: Obj = {}
    for key, value in raw.items():
        if key == "properties":
            out[key] = {name: _for_v2(child) for name, child in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, Mapping):
            out[key] = _for_v2(value)
        elif key not in _V2_DROPPED:
            out[key] = value
    if raw.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
    return out


def finder(scheme: Scheme) -> Find:
    """How to find the definitions that belong to no kind (`Status`): any built-in schema knows its set."""
    for resource in scheme:
        for version in resource.versions:
            if version.schema.name:
                return version.schema.find
    raise KeyError("no built-in kind in the scheme")
