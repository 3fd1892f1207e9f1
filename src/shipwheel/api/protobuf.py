"""Protocol Buffers from tables, without generated code.

A message is a name and a table of fields; objects are plain dictionaries keyed by the table's field names.
The generated classes of the usual library would cost megabytes and tens of milliseconds at start, and would
still have to be turned into dictionaries; here a message's readers and writers are made when first used.

What a dictionary has is written, what is on the wire appears in the dictionary: neither side adds or drops
default values, so one codec serves proto2 (the API's own types) and proto3 (CRI, CSI, device plugins). A
message with a JSON form of its own (a time is a string) gives `from_wire` and `to_wire`, which may return the encoded
message itself.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

_Reader = Callable[[bytes, int, int, dict[str, Any]], int]
"""(buffer, position after the tag, end of the message, object to fill) -> position after the value"""
_Writer = Callable[[bytearray, Any], None]


class DecodeError(ValueError):
    """The bytes are not such a message."""


@dataclass(frozen=True, slots=True)
class Enum:
    """Values by number; the wire has numbers, objects have names. An unknown number stays a number."""

    name: str
    names: Mapping[int, str]

    @property
    def numbers(self) -> dict[str, int]:
        return {name: number for number, name in self.names.items()}


@dataclass(frozen=True, slots=True)
class Field:
    """`type` is a scalar's protobuf name, `base64` (bytes that objects hold as base64 text), an `Enum` or a
    `Message`. A `map` is from `key`, a scalar, to `type`."""

    name: str
    number: int
    type: str | Enum | Message
    shape: Literal["one", "many", "map"] = "one"
    packed: bool = False
    key: str = "string"


class Message:
    """A table of fields and the code made from it.

    `fields` may be set after construction, so that messages can contain themselves.
    """

    def __init__(
        self,
        name: str,
        fields: Iterable[Field] = (),
        *,
        from_wire: Callable[[dict[str, Any]], Any] | None = None,
        to_wire: Callable[[Any], dict[str, Any] | bytes] | None = None,
    ) -> None:
        self.name = name
        self.fields = tuple(fields)
        self.from_wire = from_wire
        self.to_wire = to_wire
        self._readers: dict[int, _Reader] | None = None
        self._writers: dict[str, _Writer] | None = None
        self._inline_reading: dict[int, tuple[str, Message | None]] = {}
        self._inline_writing: dict[str, tuple[bytes, Message | None]] = {}

    def __repr__(self) -> str:
        return f"Message({self.name!r})"

    def read(self, raw: bytes, position: int, end: int) -> Any:
        """Decode `raw[position:end]`; IndexError or DecodeError when it is malformed."""
        readers = self._readers
        if readers is None:
            readers = self._readers = _readers_of(self)
            self._inline_reading = _inlined(self)
        inline = self._inline_reading
        obj: dict[str, Any] = {}
        while position < end:
            tag = raw[position]
            position += 1
            if tag > 0x7F:
                tag, position = _read_varint(raw, position - 1)
            plain = inline.get(tag)
            if plain is None:
                reader = readers.get(tag)
                position = _skip(raw, position, end, tag) if reader is None else reader(raw, position, end, obj)
                continue
            size = raw[position]
            position += 1
            if size > 0x7F:
                size, position = _read_varint(raw, position - 1)
            stop = position + size
            if stop > end:
                raise DecodeError("a length reaches beyond the message")
            name, message = plain
            obj[name] = raw[position:stop].decode() if message is None else message.read(raw, position, stop)
            position = stop
        if position > end:
            raise DecodeError(f"{self.name}: a value reaches beyond its message")
        return obj if self.from_wire is None else self.from_wire(obj)

    def write(self, out: bytearray, obj: Any) -> None:
        writers = self._writers
        if writers is None:
            writers = self._writers = {each.name: _writer_of(each) for each in self.fields}
            self._inline_writing = {
                name: (_tag(tag >> 3, LENGTH), each) for tag, (name, each) in _inlined(self).items()
            }
        if self.to_wire is not None:
            obj = self.to_wire(obj)
            if obj.__class__ is bytes:
                out += obj
                return
        inline = self._inline_writing
        for name, value in obj.items():
            plain = inline.get(name)
            if plain is None:
                writer = writers.get(name)
                if writer is not None:
                    if value is not None:
                        writer(out, value)
                elif value is not None:
                    raise ValueError(f"{self.name} has no field {name!r}")
            elif value is not None:
                tag, message = plain
                if message is None:
                    encoded = value.encode()
                else:
                    encoded = bytearray()
                    message.write(encoded, value)
                size = len(encoded)
                out += tag
                if size < 0x80:
                    out.append(size)
                else:
                    _write_varint(out, size)
                out += encoded


def _inlined(message: Message) -> dict[int, tuple[str, Message | None]]:
    """Single strings and messages, by their tags: `read` and `write` deal with them themselves. Nearly all fields are
    of these, and a call for each would double the cost."""
    return {
        each.number << 3 | LENGTH: (each.name, None if each.type == "string" else each.type)  # type: ignore[misc]
        for each in message.fields
        if each.shape == "one" and (each.type == "string" or isinstance(each.type, Message))
    }


def delimited(number: int, raw: bytes) -> bytes:
    """A field that holds bytes, text or an encoded message."""
    out = bytearray(_tag(number, LENGTH))
    _write_varint(out, len(raw))
    return bytes(out + raw)


def announced(number: int, size: int) -> bytes:
    """What precedes the `size` bytes of such a field."""
    out = bytearray(_tag(number, LENGTH))
    _write_varint(out, size)
    return bytes(out)


def encode(message: Message, obj: Any) -> bytes:
    """The wire form; ValueError when `obj` has a field or an enum's name that the table has not."""
    out = bytearray()
    message.write(out, obj)
    return bytes(out)


def decode(message: Message, raw: bytes) -> Any:
    """The object; fields that the table does not know are passed over. Raises DecodeError."""
    try:
        return message.read(raw, 0, len(raw))
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise DecodeError(f"{message.name}: {error}") from error


def in_order(raw: bytes) -> bytes:
    """A message's fields, not decoded, in an order that depends on nothing but them: the same for two encodings that
    differ in the order of their maps' entries (or of a list's items). It costs a fraction of decoding. Raises
    DecodeError."""
    fields, position, end = [], 0, len(raw)
    try:
        while position < end:
            start, tag = position, raw[position]
            if tag & 7 == 2 and tag <= 0x7F and raw[position + 1] <= 0x7F:
                position += 2 + raw[position + 1]
            else:
                tag, position = _read_varint(raw, position)
                position = _skip(raw, position, end, tag)
            fields.append(raw[start:position])
    except IndexError:
        raise DecodeError("the message is cut short") from None
    if position > end:
        raise DecodeError("a length reaches beyond the message")
    fields.sort()
    return b"".join(fields)


# --- Varints


def _read_varint(raw: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = raw[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift >= 70:
            raise DecodeError("a varint is longer than ten bytes")


def _write_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _read_length(raw: bytes, position: int, end: int) -> tuple[int, int]:
    """(start, end) of what a length announces."""
    length = raw[position]
    position += 1
    if length > 0x7F:
        length, position = _read_varint(raw, position - 1)
    if position + length > end:
        raise DecodeError("a length reaches beyond the message")
    return position, position + length


def _skip(raw: bytes, position: int, end: int, tag: int) -> int:
    match tag & 7:
        case 0:
            return _read_varint(raw, position)[1]
        case 1:
            return position + 8
        case 2:
            return _read_length(raw, position, end)[1]
        case 5:
            return position + 4
        case wire:
            raise DecodeError(f"unsupported wire type {wire}")


# --- Scalars: (wire type, from the number or bytes on the wire, to them)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _signed32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _unsigned64(value: int) -> int:
    return int(value) & 0xFFFFFFFFFFFFFFFF


def _zigzag(value: int) -> int:
    return (value << 1) ^ (value >> 63)


def _unzigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


_VARINTS: dict[str, tuple[Callable[[int], Any], Callable[[Any], int]]] = {
    "bool": (bool, int),
    "int32": (_signed32, _unsigned64),
    "int64": (_signed, _unsigned64),
    "uint32": (int, int),
    "uint64": (int, int),
    "sint32": (_unzigzag, _zigzag),
    "sint64": (_unzigzag, _zigzag),
}
_FIXED = {
    "double": (FIXED64, struct.Struct("<d")),
    "fixed64": (FIXED64, struct.Struct("<Q")),
    "sfixed64": (FIXED64, struct.Struct("<q")),
    "float": (FIXED32, struct.Struct("<f")),
    "fixed32": (FIXED32, struct.Struct("<I")),
    "sfixed32": (FIXED32, struct.Struct("<i")),
}


def _text(raw: bytes) -> str:
    return raw.decode()


def _to_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


_LENGTHS: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = {
    "string": (_text, str.encode),
    "bytes": (bytes, bytes),
    "base64": (_to_base64, base64.b64decode),
}

_Value = Callable[[bytes, int, int], tuple[Any, int]]
"""(buffer, position, end of the message) -> (value, position after it)"""


def _enum_number(enum: Enum) -> Callable[[Any], int]:
    numbers = enum.numbers

    def number(value: Any) -> int:
        if isinstance(value, int):
            return _unsigned64(value)
        try:
            return _unsigned64(numbers[value])
        except KeyError:
            raise ValueError(f"{enum.name} has no value {value!r}") from None

    return number


def _wire_of(kind: str | Enum | Message) -> int:
    if isinstance(kind, Enum) or kind in _VARINTS:
        return VARINT
    if isinstance(kind, Message) or kind in _LENGTHS:
        return LENGTH
    return _FIXED[kind][0]


def _default_of(kind: str | Enum | Message) -> Any:
    """What a map's entry means when it leaves its key or value out."""
    if isinstance(kind, Message):
        return kind.read(b"", 0, 0)
    if isinstance(kind, Enum):
        return kind.names.get(0, 0)
    if kind in ("string", "base64"):
        return ""
    if kind == "bytes":
        return b""
    return False if kind == "bool" else 0


def _value_reader(kind: str | Enum | Message) -> _Value:
    if isinstance(kind, Message):
        read = kind.read

        def message(raw: bytes, position: int, end: int) -> tuple[Any, int]:
            start, stop = _read_length(raw, position, end)
            return read(raw, start, stop), stop

        return message
    if isinstance(kind, Enum) or kind in _VARINTS:
        names = kind.names if isinstance(kind, Enum) else None
        convert = _signed32 if isinstance(kind, Enum) else _VARINTS[kind][0]

        def varint(raw: bytes, position: int, end: int) -> tuple[Any, int]:
            number, position = _read_varint(raw, position)
            value = convert(number)
            return (value if names is None else names.get(value, value)), position

        return varint
    if kind in _LENGTHS:
        from_bytes = _LENGTHS[kind][0]

        def length(raw: bytes, position: int, end: int) -> tuple[Any, int]:
            start, stop = _read_length(raw, position, end)
            return from_bytes(raw[start:stop]), stop

        return length
    layout = _FIXED[kind][1]

    def fixed(raw: bytes, position: int, end: int) -> tuple[Any, int]:
        return layout.unpack_from(raw, position)[0], position + layout.size

    return fixed


def _value_writer(kind: str | Enum | Message) -> _Writer:
    """Writes a value without its tag."""
    if isinstance(kind, Message):
        write = kind.write

        def message(out: bytearray, value: Any) -> None:
            inner = bytearray()
            write(inner, value)
            size = len(inner)
            if size < 0x80:
                out.append(size)
            else:
                _write_varint(out, size)
            out += inner

        return message
    if isinstance(kind, Enum) or kind in _VARINTS:
        to_number = _enum_number(kind) if isinstance(kind, Enum) else _VARINTS[kind][1]

        def varint(out: bytearray, value: Any) -> None:
            _write_varint(out, to_number(value))

        return varint
    if kind in _LENGTHS:
        to_bytes = _LENGTHS[kind][1]

        def length(out: bytearray, value: Any) -> None:
            encoded = to_bytes(value)
            _write_varint(out, len(encoded))
            out += encoded

        return length
    layout = _FIXED[kind][1]

    def fixed(out: bytearray, value: Any) -> None:
        out += layout.pack(value)

    return fixed


# --- Fields


def _readers_of(message: Message) -> dict[int, _Reader]:
    readers: dict[int, _Reader] = {}
    for each in message.fields:
        value = _value_reader(each.type)
        wire = _wire_of(each.type)
        if each.shape == "one":
            readers[each.number << 3 | wire] = _read_one(each.name, value)
        elif each.shape == "many":
            readers[each.number << 3 | wire] = _read_many(each.name, value)
            if wire != LENGTH:
                readers[each.number << 3 | LENGTH] = _read_packed(each.name, value)
        else:
            entry = Message(f"{message.name}.{each.name}", (Field("key", 1, each.key), Field("value", 2, each.type)))
            readers[each.number << 3 | LENGTH] = _read_map(each, _value_reader(entry))
    return readers


def _read_one(name: str, value: _Value) -> _Reader:
    def read(raw: bytes, position: int, end: int, obj: dict[str, Any]) -> int:
        obj[name], position = value(raw, position, end)
        return position

    return read


def _read_many(name: str, value: _Value) -> _Reader:
    def read(raw: bytes, position: int, end: int, obj: dict[str, Any]) -> int:
        item, position = value(raw, position, end)
        items = obj.get(name)
        if items is None:
            obj[name] = [item]
        else:
            items.append(item)
        return position

    return read


def _read_packed(name: str, value: _Value) -> _Reader:
    def read(raw: bytes, position: int, end: int, obj: dict[str, Any]) -> int:
        position, stop = _read_length(raw, position, end)
        items = obj.setdefault(name, [])
        while position < stop:
            item, position = value(raw, position, stop)
            items.append(item)
        if position != stop:
            raise DecodeError(f"{name}: a packed value reaches beyond its list")
        return stop

    return read


def _read_map(each: Field, entry: _Value) -> _Reader:
    name, key, kind = each.name, each.key, each.type

    def read(raw: bytes, position: int, end: int, obj: dict[str, Any]) -> int:
        pair, position = entry(raw, position, end)
        value = pair["value"] if "value" in pair else _default_of(kind)
        obj.setdefault(name, {})[pair["key"] if "key" in pair else _default_of(key)] = value
        return position

    return read


def _tag(number: int, wire: int) -> bytes:
    out = bytearray()
    _write_varint(out, number << 3 | wire)
    return bytes(out)


def _writer_of(each: Field) -> _Writer:
    value = _value_writer(each.type)
    tag = _tag(each.number, _wire_of(each.type))
    listed = _tag(each.number, LENGTH)

    def one(out: bytearray, item: Any) -> None:
        out += tag
        value(out, item)

    def many(out: bytearray, items: Iterable[Any]) -> None:
        for item in items:
            out += tag
            value(out, item)

    def packed(out: bytearray, items: Iterable[Any]) -> None:
        inner = bytearray()
        for item in items:
            value(inner, item)
        if inner:
            out += listed
            _write_varint(out, len(inner))
            out += inner

    if each.shape == "one":
        return one
    if each.shape == "many":
        return packed if each.packed else many
    if each.key == each.type == "string":
        return _texts_writer(listed)

    key = _writer_of(Field("key", 1, each.key))
    entry_value = _writer_of(Field("value", 2, each.type))

    def mapping(out: bytearray, items: Mapping[Any, Any]) -> None:
        for name, item in items.items():
            inner = bytearray()
            key(inner, name)
            entry_value(inner, item)
            out += listed
            _write_varint(out, len(inner))
            out += inner

    return mapping


def _texts_writer(tag: bytes) -> _Writer:
    """Writes maps from text to text: labels, annotations, node selectors."""

    def mapping(out: bytearray, items: Mapping[str, str]) -> None:
        for name, item in items.items():
            key, value = name.encode(), item.encode()
            inner = bytearray(b"\x0a")
            _write_varint(inner, len(key))
            inner += key
            inner.append(0x12)
            _write_varint(inner, len(value))
            inner += value
            out += tag
            _write_varint(out, len(inner))
            out += inner

    return mapping


# --- Tables as text


def parse_tables(text: str, *, packed: bool = True) -> dict[str, Message]:
    """Messages by name, from one line each; `packed` is proto3's habit for repeated numbers.

        enum Protocol TCP=0 UDP=1
        PortMapping protocol=1:Protocol container_port=2:int32
        Pod name=1:string labels=2:{string:string} ports=3:[PortMapping]

    A line that begins with white space goes on with the one before; `#` begins a comment line.
    """
    lines: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and lines:
            lines[-1] += line
        else:
            lines.append(line)
    enums: dict[str, Enum] = {}
    messages: dict[str, tuple[Message, list[str]]] = {}
    for line in lines:
        name, *rest = line.split()
        if name == "enum":
            pairs = [each.split("=") for each in rest[1:]]
            enums[rest[0]] = Enum(rest[0], {int(number): value for value, number in pairs})
        else:
            messages[name] = (Message(name), rest)

    def kind(text: str) -> str | Enum | Message:
        if text in _VARINTS or text in _LENGTHS or text in _FIXED:
            return text
        return enums[text] if text in enums else messages[text][0]

    for message, declared in messages.values():
        message.fields = tuple(_parse_field(each, kind, packed) for each in declared)
    return {name: message for name, (message, _) in messages.items()}


def _parse_field(text: str, kind: Callable[[str], str | Enum | Message], packed: bool) -> Field:
    name, _, rest = text.partition("=")
    number, _, declared = rest.partition(":")
    if declared.startswith("{"):
        key, _, value = declared[1:-1].partition(":")
        return Field(name, int(number), kind(value), "map", key=key)
    if declared.startswith("["):
        item = kind(declared[1:-1])
        return Field(name, int(number), item, "many", packed=packed and _wire_of(item) != LENGTH)
    return Field(name, int(number), kind(declared))
