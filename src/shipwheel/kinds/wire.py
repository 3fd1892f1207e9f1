"""Kubernetes' protobuf: objects as `application/vnd.kubernetes.protobuf`.

A body is four magic bytes and a `runtime.Unknown`, which names the kind and holds the object's own message. The
field numbers are in the table beside this file, derived by `tools/generate_protobuf.py`; a message is made when a
kind that needs it is first asked for. What differs from JSON is dealt with here: times, quantities, int-or-string
and free-form parts have messages of their own, and structs that Go embeds are messages inside the object's.

Zero values come along from Go clients, which write every field that is no pointer; `schema.conform` takes them out
again, as it does for JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import orjson

from shipwheel.api import protobuf
from shipwheel.api.codec import html_safe
from shipwheel.api.meta import GroupVersion, GroupVersionKind, Obj
from shipwheel.api.protobuf import Field, Message
from shipwheel.api.schema import DecodeError, conform
from shipwheel.kinds import catalog

MAGIC = b"k8s\x00"

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_RUNTIME = "io.k8s.apimachinery.pkg.runtime."
_CRD = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions."
_PREFIX = "io.k8s.api."
_TYPE_META = "TypeMeta"
_NOTHING: Obj = {}

_UNKNOWN = protobuf.parse_tables(
    """
TypeMeta apiVersion=1:string kind=2:string
Unknown typeMeta=1:TypeMeta raw=2:bytes contentEncoding=3:string contentType=4:string
"""
)["Unknown"]
_TIME = Message("Time", (Field("seconds", 1, "int64"), Field("nanos", 2, "int32")))
_INT_OR_STRING = Message(
    "IntOrString", (Field("type", 1, "int64"), Field("intVal", 2, "int32"), Field("strVal", 3, "string"))
)

FromWire = Callable[[Obj], Any]
ToWire = Callable[[Any], Obj | bytes]


# --- Objects


def encode_object(obj: Obj) -> bytes:
    """The body for an object of a built-in kind, which must carry `apiVersion` and `kind`.

    KeyError for a kind without protobuf (custom resources, Tables).
    """
    gvk = GroupVersionKind.of(obj)
    return envelope(str(gvk.group_version), gvk.kind, protobuf.encode(message_for(gvk), obj))


def encode_item(gvk: GroupVersionKind, obj: Obj) -> bytes:
    """The message alone, as it stands in a list; the same for every list that has the object."""
    return protobuf.encode(message_for(gvk), obj)


def list_metadata(metadata: Obj) -> bytes:
    """What a list's message begins with. In every list of the API, field 1 is the metadata and 2 an item."""
    return protobuf.delimited(1, protobuf.encode(_message(_META + "ListMeta"), metadata))


def list_item(item: bytes) -> bytes:
    return protobuf.delimited(2, item)


@cache
def opening(api_version: str, kind: str) -> bytes:
    """What a body begins with, up to the message."""
    return MAGIC + protobuf.encode(_UNKNOWN, {"typeMeta": {"apiVersion": api_version, "kind": kind}})


def announce(size: int) -> bytes:
    """What precedes a message of so many bytes, after the opening."""
    return protobuf.announced(2, size)


CLOSING = protobuf.encode(_UNKNOWN, {"contentEncoding": "", "contentType": ""})
"""What follows the message."""


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    """A body around an encoded message."""
    return b"".join((opening(api_version, kind), announce(len(raw)), raw, CLOSING))


def decode_object(body: bytes, *, default: GroupVersionKind | None = None) -> Obj:
    """The object in a body, with `apiVersion` and `kind`; those of `default` where it does not say.

    Raises DecodeError with upstream's message; KeyError for a kind without protobuf.
    """
    if not body:
        raise DecodeError("empty data")
    if not body.startswith(MAGIC):
        expected = " ".join(str(each) for each in MAGIC)
        raise DecodeError(f"provided data does not appear to be a protobuf message, expected prefix [{expected}]")
    if len(body) == len(MAGIC):
        raise DecodeError("empty body")
    unknown = _decode(_UNKNOWN, body[len(MAGIC) :])
    type_meta = unknown.get("typeMeta") or {}
    api_version, kind = type_meta.get("apiVersion", ""), type_meta.get("kind", "")
    if default is not None:
        api_version, kind = api_version or str(default.group_version), kind or default.kind
    if not kind:
        raise DecodeError(f"Object 'Kind' is missing in '{_go_type_meta(api_version, kind)}'")
    if not api_version:
        raise DecodeError(f"Object 'apiVersion' is missing in '{_go_type_meta(api_version, kind)}'")
    try:
        gv = GroupVersion.parse(api_version)
    except ValueError as error:
        raise DecodeError(str(error)) from None
    message = message_for(GroupVersionKind(gv.group, gv.version, kind))
    obj = {"kind": kind, "apiVersion": api_version, **_decode(message, unknown.get("raw", b""))}
    try:
        orjson.dumps(obj)  # what is nested deeper than can be written is refused when it comes in
    except orjson.JSONEncodeError:
        raise DecodeError("exceeded max depth") from None
    return obj


def _go_type_meta(api_version: str, kind: str) -> str:
    return f'runtime.TypeMeta{{APIVersion:"{api_version}", Kind:"{kind}"}}'


def _decode(message: Message, raw: bytes) -> Any:
    try:
        return protobuf.decode(message, raw)
    except (protobuf.DecodeError, orjson.JSONDecodeError) as error:
        raise DecodeError(str(error)) from None
    except RecursionError:
        raise DecodeError("exceeded max depth") from None


# --- Watches


def watch_frame(event_type: str, body: bytes) -> bytes:
    """One event of a watch: its length in four bytes, and a `WatchEvent` around an encoded object."""
    event = protobuf.delimited(1, event_type.encode()) + protobuf.delimited(2, protobuf.delimited(1, body))
    return len(event).to_bytes(4, "big") + event


def watch_frames(buffer: bytes) -> Iterator[tuple[str, Obj, int]]:
    """The events that `buffer` has in full: (type, object, where the next one begins)."""
    position = 0
    while len(buffer) - position >= 4:
        end = position + 4 + int.from_bytes(buffer[position : position + 4], "big")
        if len(buffer) < end:
            return
        event = _decode(_message(_META + "WatchEvent"), buffer[position + 4 : end])
        yield event.get("type", ""), event["object"], end
        position = end


# --- Messages


@cache
def message_for(gvk: GroupVersionKind) -> Message:
    """The message of a built-in kind; KeyError when there is none."""
    return _message(catalog.schema_for(gvk).name)


@cache
def _table() -> dict[str, str]:
    return orjson.loads((Path(__file__).parent / "protobuf.json").read_bytes())


_made: dict[str, Message] = {}


def _message(name: str) -> Message:
    """The message of a definition, and with it those it is made of."""
    name = name.removeprefix(_PREFIX)
    message = _made.get(name)
    if message is None:
        words = _table()[name].split()
        message = _made[name] = Message(name)
        special = _SPECIAL.get(name.rpartition(".")[2] if name.startswith(_CRD) else name)
        if special is not None:
            message.fields = tuple(_field(word, raw_bytes=True) for word in words)
            message.from_wire, message.to_wire = special
        elif words == ["items=1:[string]"]:
            message.fields = (_field(words[0]),)
            message.from_wire, message.to_wire = (lambda obj: obj.get("items", [])), (lambda items: {"items": items})
        else:
            message.fields = tuple(_field(word.removeprefix("^")) for word in words if word != _TYPE_META)
            spread = {word[1:].partition("=")[0]: word.rpartition(":")[2] for word in words if word[0] == "^"}
            dropped = frozenset(("kind", "apiVersion")) if _TYPE_META in words else frozenset()
            if spread:
                message.from_wire = _gather(tuple(spread))
            if spread or dropped:
                owners = {field: inner for inner, each in spread.items() for field in _json_fields(each)}
                message.to_wire = _scatter(owners, dropped)
    return message


_WORD = re.compile(r"(\S+)=(\d+):(?:\{(\w+):(\S+)\}|\[(\S+)\]|(\S+))")
_SCALARS = frozenset(("string", "bool", "int32", "int64", "uint32", "uint64", "double", "float", "base64"))


def _field(word: str, *, raw_bytes: bool = False) -> Field:
    match = _WORD.fullmatch(word)
    assert match is not None, word
    name, number, key, value, item, one = match.groups()

    def kind(text: str) -> str | Message:
        if text not in _SCALARS:
            return _message(text)
        return "bytes" if raw_bytes and text == "base64" else text

    if key:
        return Field(name, int(number), kind(value), "map", key=key)
    return Field(name, int(number), kind(item or one), "many" if item else "one")


def _json_fields(name: str) -> Iterator[str]:
    """The fields of a message as they stand in JSON, where it is spread into another."""
    for word in _table()[name].split():
        if word.startswith("^"):
            yield from _json_fields(word.rpartition(":")[2])
        else:
            yield word.partition("=")[0]


def _gather(inner: tuple[str, ...]) -> FromWire:
    def from_wire(obj: Obj) -> Obj:
        for name in inner:
            part = obj.pop(name, None)
            if part:
                obj.update(part)
        return obj

    return from_wire


def _scatter(owners: dict[str, str], dropped: frozenset[str]) -> ToWire:
    def to_wire(obj: Obj) -> Obj:
        out: Obj = {}
        for name, value in obj.items():
            owner = owners.get(name)
            if owner is not None:
                out.setdefault(owner, {})[name] = value
            elif name not in dropped:
                out[name] = value
        return out

    return to_wire


# --- Messages with a JSON form of their own


def _time_from_wire(wire: Obj) -> str | None:
    seconds = wire.get("seconds", 0)
    if not seconds and not wire.get("nanos"):
        return None
    return _moment(seconds, 0).isoformat(timespec="seconds") + "Z"


def _micro_time_from_wire(wire: Obj) -> str | None:
    seconds, nanos = wire.get("seconds", 0), wire.get("nanos", 0)
    if not seconds and not nanos:
        return None
    return _moment(seconds, nanos).isoformat(timespec="microseconds") + "Z"


def _moment(seconds: int, nanos: int) -> datetime:
    """In UTC, without saying so. Not `fromtimestamp`, which goes back no further than the platform does."""
    return datetime(1970, 1, 1) + timedelta(seconds=seconds, microseconds=nanos // 1000)


@lru_cache(maxsize=4096)
def _time_to_wire(text: str | None) -> bytes:
    """The same few moments stand in many objects, and many times in each."""
    if not text:
        return b""
    moment = datetime.fromisoformat(text)
    return protobuf.encode(_TIME, {"seconds": int(moment.timestamp() // 1), "nanos": moment.microsecond * 1000})


def _int_or_string_from_wire(wire: Obj) -> int | str:
    return wire.get("strVal", "") if wire.get("type") else wire.get("intVal", 0)


@lru_cache(maxsize=256, typed=True)
def _int_or_string_to_wire(value: int | str) -> bytes:
    if isinstance(value, str):
        return protobuf.encode(_INT_OR_STRING, {"type": 1, "intVal": 0, "strVal": value})
    return protobuf.encode(_INT_OR_STRING, {"type": 0, "intVal": value, "strVal": ""})


@lru_cache(maxsize=1024)
def _quantity_to_wire(text: Any) -> bytes:
    return protobuf.delimited(1, str(text).encode())


def _free_from_wire(name: str) -> FromWire:
    def from_wire(wire: Obj) -> Any:
        raw = wire.get(name)
        if not raw:
            return None
        return decode_object(raw) if raw.startswith(MAGIC) else orjson.loads(raw)

    return from_wire


def _free_to_wire(value: Any) -> bytes:
    return protobuf.delimited(1, orjson.dumps(value))


def _raw_to_wire(value: Any) -> bytes:
    return protobuf.delimited(1, html_safe(orjson.dumps(value)))


def _alternatives(plain: str, of: type, *, also: Obj = _NOTHING) -> tuple[FromWire, ToWire]:
    """A schema, or something of type `of`. To those who check the object the schema is anything at all: its zero
    values are taken out here."""

    def from_wire(wire: Obj) -> Any:
        if "schema" in wire:
            return conform(catalog.schema(_CRD + "v1.JSONSchemaProps"), wire["schema"])
        return wire.get(plain, of())

    def to_wire(value: Any) -> Obj:
        return {plain: value} if isinstance(value, of) else {"schema": value, **also}

    return from_wire, to_wire


_SPECIAL: dict[str, tuple[FromWire, ToWire]] = {
    _META + "Time": (_time_from_wire, _time_to_wire),
    _META + "MicroTime": (_micro_time_from_wire, _time_to_wire),
    _META + "FieldsV1": (_free_from_wire("Raw"), _free_to_wire),
    _RUNTIME + "RawExtension": (_free_from_wire("raw"), _raw_to_wire),
    "io.k8s.apimachinery.pkg.api.resource.Quantity": (
        lambda wire: wire.get("string", "0"),
        _quantity_to_wire,
    ),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": (_int_or_string_from_wire, _int_or_string_to_wire),
    "JSON": (_free_from_wire("raw"), _free_to_wire),
    "JSONSchemaPropsOrArray": _alternatives("jSONSchemas", list),
    "JSONSchemaPropsOrBool": _alternatives("allows", bool, also={"allows": True}),
    "JSONSchemaPropsOrStringArray": _alternatives("property", list),
}
"""By definition; those of custom resource definitions by their last name, since two versions have them."""
