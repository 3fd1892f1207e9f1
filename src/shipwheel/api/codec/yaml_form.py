"""Objects as YAML, read and written as the YAML library behind upstream does.

That is YAML 1.1 with habits: `yes` and `on` are true, `0x1F`, `0777`, `0b1` and `1_000` are integers, but `1:30`
stays text and so does a date. libyaml finds the events; the tree is put together here, where a limit can be kept on
its depth (PyYAML's own composer can be made to overrun the stack), and here it is decided what a scalar means.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from shipwheel.api.codec.json_form import MAX_DEPTH, as_object
from shipwheel.api.meta import Obj
from shipwheel.api.schema import DecodeError

_STR, _INT, _FLOAT, _BOOL, _NULL, _BINARY, _TIMESTAMP = (
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "binary", "timestamp")
)
_PLAIN = "plain"
"""Tag of a scalar that was written without quotes or tag."""

_TRUE = frozenset(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INTEGERS: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"([-+]?)0[xX]([0-9a-fA-F]+)"), 16),
    (re.compile(r"([-+]?)0[bB]([01]+)"), 2),
    (re.compile(r"([-+]?)0[oO]?([0-7]+)"), 8),
    (re.compile(r"([-+]?)(0|[1-9][0-9]*)"), 10),
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}.*)?")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_SAFE_NODES = 400_000
_LONGEST_INTEGER = 100
"""In digits; with longer ones not even the attempt is made."""


def decode_yaml(raw: bytes, *, strict_duplicates: list[str] | None = None) -> Obj:
    """The first document of `raw`. Raises DecodeError with upstream's message.

    Keys that are given twice are named in one text appended to `strict_duplicates`, if given.
    """
    import yaml

    parser: Any = None
    try:
        parser = getattr(yaml, "CBaseLoader", yaml.BaseLoader)(raw)
        node = _Composer(parser).document()
    except yaml.MarkedYAMLError as error:
        raise DecodeError(f"yaml: {_where(error)}{error.problem or 'unknown problem parsing YAML content'}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DecodeError(f"yaml: {getattr(error, 'reason', error)}") from None
    finally:
        if parser is not None:
            parser.dispose()
    reader = _Reader()
    value = reader.read(node) if node is not None else None
    if strict_duplicates is not None and reader.repeated:
        strict_duplicates.append("yaml: unmarshal errors:\n  " + "\n  ".join(reader.repeated))
    return as_object(value)


def _where(error: Any) -> str:
    import yaml

    line = 0
    if error.problem_mark is not None and error.problem_mark.line:
        line = error.problem_mark.line + isinstance(error, yaml.scanner.ScannerError)
    elif error.context_mark is not None:
        line = error.context_mark.line
    return f"line {line}: " if line else ""


class _Node:
    """A scalar's text, the items of a sequence, or the pairs of a mapping."""

    __slots__ = ("line", "tag", "value")

    def __init__(self, tag: str, value: Any, line: int) -> None:
        self.tag = tag
        self.value = value
        self.line = line


class _Sequence(_Node):
    value: list[_Node]


class _Mapping(_Node):
    value: list[tuple[_Node, _Node]]


class _Composer:
    """Puts the events of one document together."""

    def __init__(self, parser: Any) -> None:
        import yaml

        self.parser = parser
        self.yaml: Any = yaml
        self.anchors: dict[str, _Node] = {}

    def document(self) -> _Node | None:
        self.parser.get_event()  # the stream's start
        if self.parser.check_event(self.yaml.StreamEndEvent):
            return None
        self.parser.get_event()  # the document's start
        return self.node(0)

    def node(self, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise DecodeError(f"yaml: exceeded max depth of {MAX_DEPTH}")
        event = self.parser.get_event()
        if isinstance(event, self.yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise DecodeError(f"yaml: unknown anchor '{event.anchor}' referenced")
            return self.anchors[event.anchor]
        line = event.start_mark.line
        node: _Node
        if isinstance(event, self.yaml.ScalarEvent):
            plain = event.tag is None and event.implicit[0]
            node = self.known(event, _Node(_PLAIN if plain else event.tag or _STR, event.value, line))
        elif isinstance(event, self.yaml.SequenceStartEvent):
            node = self.known(event, _Sequence(event.tag or "", [], line))
            while not self.parser.check_event(self.yaml.SequenceEndEvent):
                node.value.append(self.node(depth + 1))
            self.parser.get_event()
        else:
            node = self.known(event, _Mapping(event.tag or "", [], line))
            while not self.parser.check_event(self.yaml.MappingEndEvent):
                node.value.append((self.node(depth + 1), self.node(depth + 1)))
            self.parser.get_event()
        return node

    def known(self, event: Any, node: _Node) -> _Node:
        if event.anchor:
            self.anchors[event.anchor] = node
        return node


def resolve(text: str) -> Any:
    """What a plain scalar means."""
    if text in _NULLS:
        return None
    first = text[0]
    if first in "yYnNtTfFoO":
        return True if text in _TRUE else False if text in _FALSE else text
    if first not in "+-.0123456789":
        return text
    if _SPECIAL.fullmatch(text):
        return math.nan if "n" in text.lower().replace("inf", "") else float(text.replace(".", ""))
    if first == ".":
        return _to_float(text) if _NUMBER.fullmatch(text) else text
    if _DATE.fullmatch(text):
        return text
    plain = text.replace("_", "")
    for pattern, base in _INTEGERS:
        if match := pattern.fullmatch(plain):
            number = int(match[1] + match[2], base) if len(match[2]) <= _LONGEST_INTEGER else 2**64
            if -(2**63) <= number < 2**64:
                return number
    return _to_float(plain) if _NUMBER.fullmatch(plain) else text


def _to_float(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() and -(2**63) <= number < 2**64 else number


class _Reader:
    """Turns nodes into what JSON can say."""

    def __init__(self) -> None:
        self.repeated: list[str] = []
        self.count = 0
        self.depth = 0

    def read(self, node: _Node) -> Any:
        self.count += 1
        if self.count > _SAFE_NODES:
            raise DecodeError("yaml: document contains excessive aliasing")
        if self.depth >= MAX_DEPTH:
            raise DecodeError(f"yaml: exceeded max depth of {MAX_DEPTH}")
        self.depth += 1
        try:
            return self.value(node)
        finally:
            self.depth -= 1

    def value(self, node: _Node) -> Any:
        if isinstance(node.value, str):
            value = self.scalar(node)
            if isinstance(value, float) and not math.isfinite(value):
                raise DecodeError(f"error converting YAML to JSON: json: unsupported value: {_go_float(value)}")
            return value
        if isinstance(node, _Mapping):
            mapping: Obj = {}
            self.fill(node, mapping)
            return mapping
        return [self.read(item) for item in node.value]

    def fill(self, node: _Mapping, mapping: Obj) -> None:
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge" or (key_node.tag == _PLAIN and key_node.value == "<<"):
                self.merge(value_node, mapping)
                continue
            key = self.key(key_node)
            if key in mapping:
                self.repeated.append(f'line {value_node.line + 1}: key "{key}" already set in map')
            mapping[key] = self.read(value_node)

    def merge(self, node: _Node, mapping: Obj) -> None:
        self.count += 1
        if self.count > _SAFE_NODES or self.depth > MAX_DEPTH:
            raise DecodeError("yaml: document contains excessive aliasing")
        self.depth += 1
        if isinstance(node, _Mapping):
            self.fill(node, mapping)
        elif isinstance(node, _Sequence) and all(isinstance(item, _Mapping) for item in node.value):
            for item in reversed(node.value):
                self.merge(item, mapping)
        else:
            raise DecodeError("yaml: map merge requires map or sequence of maps as the value")
        self.depth -= 1

    def key(self, node: _Node) -> str:
        if not isinstance(node.value, str):
            kind = "map[interface {}]interface {}" if isinstance(node, _Mapping) else "[]interface {}"
            raise DecodeError(f"yaml: invalid map key: {kind}{{}}")
        value = self.scalar(node)
        match value:
            case bool():
                return "true" if value else "false"
            case None:
                raise DecodeError(
                    "error converting YAML to JSON: unsupported map key of type: %!s(<nil>), key: <nil>, value: <nil>"
                )
            case float():
                return _go_float(value)
        return str(value)

    def scalar(self, node: _Node) -> Any:
        tag, text = node.tag, node.value
        if tag == _PLAIN:
            return resolve(text)
        if tag == _BINARY:
            try:
                return base64.b64decode(text, validate=False).decode("utf-8", "replace")
            except binascii.Error:
                raise DecodeError("yaml: !!binary value contains invalid base64 data") from None
        if tag in (_INT, _FLOAT, _BOOL, _NULL):
            value = resolve(text)
            fits = {
                _INT: isinstance(value, int) and not isinstance(value, bool),
                _FLOAT: isinstance(value, int | float) and not isinstance(value, bool),
                _BOOL: isinstance(value, bool),
                _NULL: value is None,
            }
            if not fits[tag]:
                raise DecodeError(f"yaml: cannot decode !!str `{text}` as a !!{tag.rpartition(':')[2]}")
            return value
        return text


def _go_float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    return f"{value:g}"


# --- Writing


def encode_yaml(obj: Any) -> bytes:
    """Keys in alphabetical order, as upstream writes YAML."""
    import yaml

    return yaml.dump(
        obj, Dumper=_dumper_class(), default_flow_style=False, allow_unicode=True, width=2**31 - 1, encoding="utf-8"
    )


@cache
def _dumper_class() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    represent: Callable[[Any, str], Any] = _represent_text
    Dumper.add_representer(str, represent)
    return Dumper


def _represent_text(dumper: Any, text: str) -> Any:
    if "\n" in text:
        style = "|"
    elif not isinstance(resolve(text), str) or _BASE_60.fullmatch(text) or _DATE.fullmatch(text) or text == "<<":
        style = '"'
    else:
        style = None
    return dumper.represent_scalar(_STR, text, style=style)
