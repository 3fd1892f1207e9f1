"""What a kind's fields are: a structural schema, built-in or custom.

The source is OpenAPI as the API writes it, with its `x-kubernetes-*` extensions: the generated table of built-in
definitions and a CustomResourceDefinition are read by the same code. A node is read when somebody first looks at
it, and definitions are shared, so an API server holds only the schemas its requests have touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Resolve = Callable[[str], "Schema"]

MISSING: Final[Any] = object()
"""The `default` of a schema that declares none (null is a default one can declare)."""

_NO_PROPERTIES: Final[dict[str, Schema]] = {}

QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING: Final = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
TIME: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.Time"
MICRO_TIME: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"
OBJECT_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


_COMPILED: Final = ("_conform", "_default", "_merge_type", "_rules", "_zero")
"""What others make of a schema and keep with it."""


class Schema:
    """One node. Read only; attributes not yet read are filled on first use."""

    __slots__ = (
        "_base",
        "_conform",
        "_default",
        "_merge_type",
        "_raw",
        "_resolve",
        "_rules",
        "_zero",
        "additional",
        "all_of",
        "always",
        "any_of",
        "default",
        "description",
        "embedded_in",
        "embedded_resource",
        "enum",
        "exclusive_maximum",
        "exclusive_minimum",
        "format",
        "go_type",
        "int_or_string",
        "items",
        "list_map_keys",
        "list_type",
        "map_type",
        "max_items",
        "max_length",
        "max_properties",
        "maximum",
        "min_items",
        "min_length",
        "min_properties",
        "minimum",
        "multiple_of",
        "name",
        "not_",
        "nullable",
        "one_of",
        "patch_merge_key",
        "patch_strategy",
        "pattern",
        "pointer",
        "preserve_unknown_fields",
        "properties",
        "required",
        "type",
        "unions",
        "unique_items",
        "validations",
    )

    name: str
    """Of the definition, `io.k8s.api.core.v1.Container`; empty for a node that has none."""
    type: str
    """`object`, `array`, `string`, `integer`, `number`, `boolean`; empty: anything."""
    format: str
    description: str
    properties: dict[str, Schema]
    items: Schema | None
    additional: Schema | None
    """What a map's values are; None when the object is no map."""
    required: tuple[str, ...]
    enum: tuple[Any, ...]
    default: Any
    """`MISSING` when there is none."""
    nullable: bool
    int_or_string: bool
    preserve_unknown_fields: bool
    embedded_resource: bool
    list_type: str
    """`atomic`, `set` or `map`."""
    list_map_keys: tuple[str, ...]
    map_type: str
    """`granular` or `atomic`."""
    patch_strategy: tuple[str, ...]
    """Of `merge`, `replace`, `retainKeys`; empty: replace."""
    patch_merge_key: str
    unions: tuple[Mapping[str, Any], ...]

    go_type: str
    """How upstream's messages call the field's type, where schema and name do not tell."""
    embedded_in: str
    """The Go struct inside the definition's own that the field belongs to; messages name it too."""
    pointer: bool
    """The field tells zero from absent; otherwise a zero value is written as no value."""
    always: bool
    """The field is written even when it was not given."""

    pattern: str
    minimum: float | None
    maximum: float | None
    exclusive_minimum: bool
    exclusive_maximum: bool
    multiple_of: float | None
    min_length: int | None
    max_length: int | None
    min_items: int | None
    max_items: int | None
    unique_items: bool
    min_properties: int | None
    max_properties: int | None
    all_of: tuple[Schema, ...]
    any_of: tuple[Schema, ...]
    one_of: tuple[Schema, ...]
    not_: Schema | None
    validations: tuple[Mapping[str, Any], ...]
    """CEL rules (`x-kubernetes-validations`) as they were written."""

    _base: Schema | None
    """The definition that the node refers to."""
    _raw: Mapping[str, Any]
    _resolve: Resolve | None
    _conform: Any
    _default: Any
    _zero: bytes
    _merge_type: Any
    _rules: Any

    def __init__(self, raw: Mapping[str, Any], resolve: Resolve | None = None, *, name: str = "") -> None:
        self._raw = raw
        self._resolve = resolve
        if resolve is None or "$ref" not in raw:
            self.name = name

    def __repr__(self) -> str:
        return f"Schema({self.name or dict(self._raw)})"

    def __getattr__(self, attribute: str) -> Any:
        """Called for a slot that is still empty: read the node, then look again."""
        if attribute not in Schema.__slots__ or attribute in _COMPILED:
            raise AttributeError(attribute)
        _read(self)
        return object.__getattribute__(self, attribute)

    @property
    def definition(self) -> Schema:
        """Where the node is a reference, the definition it leads to; otherwise itself."""
        return self._base or self

    def find(self, name: str) -> Schema:
        """Another definition of the same set, by its full name; KeyError when there is none."""
        if self._resolve is None:
            raise KeyError(name)
        return self._resolve(name)

    def to_openapi(self) -> Mapping[str, Any]:
        """The node as it was written; `$ref` names a definition."""
        return self._raw


def from_openapi(json_schema: Mapping[str, Any], resolve: Resolve | None = None, *, name: str = "") -> Schema:
    """The schema that a piece of OpenAPI describes. `resolve` finds what `$ref` names, custom schemas have none."""
    reference = json_schema.get("$ref")
    if reference is not None and resolve is not None and len(json_schema) == 1:
        return resolve(reference)
    return Schema(json_schema, resolve, name=name)


_OVERRIDES = {
    "default": "default",
    "x-kubernetes-patch-merge-key": "patch_merge_key",
    "x-kubernetes-map-type": "map_type",
    "x-kubernetes-list-type": "list_type",
    "description": "description",
    "nullable": "nullable",
}


def _read(schema: Schema) -> None:
    raw, resolve = schema._raw, schema._resolve
    reference = raw.get("$ref")
    if reference is not None and resolve is not None:
        schema._base = resolve(reference)
        _copy(schema._base, schema)
        for word, attribute in _OVERRIDES.items():
            if word in raw:
                setattr(schema, attribute, raw[word])
        if "x-kubernetes-patch-strategy" in raw:
            schema.patch_strategy = tuple(raw["x-kubernetes-patch-strategy"].split(","))
        _declare(schema, raw.get("x-go"))
        return
    schema._base = None
    get = raw.get

    def child(word: str) -> Schema | None:
        node = get(word)
        if node is True:
            node = {"x-kubernetes-preserve-unknown-fields": True}
        return from_openapi(node, resolve) if isinstance(node, Mapping) else None

    def children(word: str) -> tuple[Schema, ...]:
        return tuple(from_openapi(node, resolve) for node in get(word) or ())

    properties = get("properties")
    schema.properties = (
        {name: from_openapi(node, resolve) for name, node in properties.items()} if properties else _NO_PROPERTIES
    )
    schema.items = child("items")
    schema.additional = child("additionalProperties")
    schema.type = get("type") or ""
    schema.format = get("format") or ""
    schema.description = get("description") or ""
    schema.required = tuple(get("required") or ())
    schema.enum = tuple(get("enum") or ())
    schema.default = get("default", MISSING)
    schema.nullable = get("nullable", False)
    schema.int_or_string = get("x-kubernetes-int-or-string", False)
    schema.preserve_unknown_fields = get("x-kubernetes-preserve-unknown-fields", False)
    schema.embedded_resource = get("x-kubernetes-embedded-resource", False)
    schema.list_type = get("x-kubernetes-list-type") or "atomic"
    schema.list_map_keys = tuple(get("x-kubernetes-list-map-keys") or ())
    schema.map_type = get("x-kubernetes-map-type") or "granular"
    strategy = get("x-kubernetes-patch-strategy")
    schema.patch_strategy = tuple(strategy.split(",")) if strategy else ()
    schema.patch_merge_key = get("x-kubernetes-patch-merge-key") or ""
    schema.unions = tuple(get("x-kubernetes-unions") or ())
    _declare(schema, get("x-go"))
    schema.pattern = get("pattern") or ""
    schema.minimum = get("minimum")
    schema.maximum = get("maximum")
    schema.exclusive_minimum = get("exclusiveMinimum", False)
    schema.exclusive_maximum = get("exclusiveMaximum", False)
    schema.multiple_of = get("multipleOf")
    schema.min_length = get("minLength")
    schema.max_length = get("maxLength")
    schema.min_items = get("minItems")
    schema.max_items = get("maxItems")
    schema.unique_items = get("uniqueItems", False)
    schema.min_properties = get("minProperties")
    schema.max_properties = get("maxProperties")
    schema.all_of = children("allOf")
    schema.any_of = children("anyOf")
    schema.one_of = children("oneOf")
    schema.not_ = child("not")
    schema.validations = tuple(get("x-kubernetes-validations") or ())


def _declare(schema: Schema, declared: str | None) -> None:
    """Read `VolumeSource>*v1.HostPathVolumeSource?`; without it the field is optional as such fields usually are.
    Custom resources have no Go types: every zero counts there."""
    if declared is None:
        schema.go_type = schema.embedded_in = ""
        struct = bool(schema.name) and schema.type == "object"
        schema.pointer, schema.always = struct or schema._resolve is None, False
        return
    schema.embedded_in, _, declared = declared.rpartition(">")
    schema.go_type = declared.removeprefix("*").removesuffix("?")
    schema.pointer = declared.startswith("*")
    schema.always = not declared.endswith("?") and not schema.pointer


_COPIED = tuple(slot for slot in Schema.__slots__ if not slot.startswith("_"))


def _copy(source: Schema, target: Schema) -> None:
    for slot in _COPIED:
        setattr(target, slot, getattr(source, slot))
