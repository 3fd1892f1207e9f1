"""Is a configuration of its schema's types? Unlike other writes, apply answers before defaulting and pruning.

All faults are told at once, each with its path, in upstream's words.
"""

from __future__ import annotations

from typing import Any, Final

from shipwheel.api.apply.compiled import key_defaults, list_relation, properties_of
from shipwheel.api.apply.fields import field_step, step_text
from shipwheel.api.apply.types import LEAF, MapList, MergeError, SetList
from shipwheel.api.meta import Obj
from shipwheel.api.patch.values import show
from shipwheel.api.schema.model import INT_OR_STRING, QUANTITY, Schema

_RAW_EXTENSION: Final = "io.k8s.apimachinery.pkg.runtime.RawExtension"
_GO_SCALARS: Final = {bool: "bool", int: "int64", float: "float64", str: "string"}


def check_configuration(config: Obj, schema: Schema) -> str:
    """What is wrong with a configuration; empty when nothing is."""
    faults: list[str] = []
    _Checker(faults).resource(config, schema, "", preserve=False)
    if len(faults) < 2:
        return "".join(faults)
    return "\n".join(["errors:", *(f"  {fault}" for fault in faults)])


class _Checker:
    def __init__(self, faults: list[str]) -> None:
        self._faults = faults

    def _complain(self, path: str, text: str) -> None:
        self._faults.append(f"{path}: {text}" if path else text)

    def resource(self, value: Any, schema: Schema, path: str, *, preserve: bool) -> None:
        self._map(value, properties_of(schema), schema, path, preserve=preserve)

    def value(self, value: Any, schema: Schema, path: str, *, preserve: bool) -> None:
        preserve = preserve or schema.preserve_unknown_fields
        if value is None or schema.name == _RAW_EXTENSION:
            return
        if schema.name in (QUANTITY, INT_OR_STRING) or schema.int_or_string:
            if isinstance(value, dict | list):
                self._complain(path, f"expected any scalar, got {_pointed(value)}")
            return
        match schema.type:
            case "object" if schema.embedded_resource:
                self.resource(value, schema, path, preserve=preserve)
            case "object":
                self._map(value, schema.properties, schema, path, preserve=preserve)
            case "array":
                self._list(value, schema, path, preserve=preserve)
            case "string" if schema.format in ("", "byte"):
                if not isinstance(value, str):
                    self._complain(path, f"expected string, got &value.valueUnstructured{{Value:{show(value)}}}")
            case "string":
                if isinstance(value, dict | list):
                    self._complain(path, f"expected any scalar, got {_pointed(value)}")
            case "integer" | "number":
                if not isinstance(value, int | float) or isinstance(value, bool):
                    self._complain(path, f"expected numeric (int or float), got {_go_type(value)}")
            case "boolean":
                if not isinstance(value, bool):
                    self._complain(path, f"expected boolean, got {_pointed(value)}")
            case _ if isinstance(value, dict) and schema.properties:
                self._map(value, schema.properties, schema, path, preserve=preserve)

    def _map(self, value: Any, properties: dict[str, Schema], schema: Schema, path: str, *, preserve: bool) -> None:
        if not isinstance(value, dict):
            self._complain(path, f"expected map, got {_pointed(value)}")
            return
        open_ended = preserve or schema.preserve_unknown_fields or not schema.properties
        undeclared = ""
        for name, each in value.items():
            here = path + step_text(field_step(name))
            field = properties.get(name) or schema.additional
            if field is not None:
                self.value(each, field, here, preserve=preserve or schema.preserve_unknown_fields)
            elif not open_ended:
                undeclared = undeclared or here
        if undeclared:
            self._complain(undeclared, "field not declared in schema")

    def _list(self, value: Any, schema: Schema, path: str, *, preserve: bool) -> None:
        if not isinstance(value, list):
            self._complain(path, f"expected list, got {_pointed(value)}")
            return
        relation, keys = list_relation(schema)
        items: SetList | MapList = SetList()
        if relation == "map":
            items = MapList(keys, key_defaults(schema, keys), lambda: LEAF)
        seen: set[str] = set()
        for index, item in enumerate(value):
            step = f"i:{index}"
            if relation != "atomic":
                try:
                    step = items.element(item)
                except MergeError as error:
                    self._complain(path, f"element {index}: {error}")
                    return
                if step in seen:
                    self._complain(path, f"duplicate entries for key {step_text(step)}")
                seen.add(step)
            if schema.items is not None:
                self.value(item, schema.items, path + step_text(step), preserve=preserve)


def _pointed(value: Any) -> str:
    return f"&{{{show(value)}}}"


def _go_type(value: Any) -> str:
    if isinstance(value, dict):
        return "map[string]interface {}"
    return "[]interface {}" if isinstance(value, list) else _GO_SCALARS[type(value)]
