"""What a compiled expression consists of.

The runtime gives it as a message of `google.api.expr` (CheckedExpr), of which only the expression itself is read.
https://github.com/google/cel-spec/blob/master/proto/cel/expr/syntax.proto
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_VALUE = 2
"""Of the message that holds it, a `google.protobuf.Any`."""
_EXPRESSION = 4
_TEXT_CONSTANTS = (6, 7)


@dataclass(frozen=True, slots=True)
class Constant:
    size: int
    """Of a text or bytes, in bytes."""


@dataclass(frozen=True, slots=True)
class Ident:
    name: str


@dataclass(frozen=True, slots=True)
class Select:
    operand: Expr
    field: str
    is_test: bool
    """`has(...)`."""


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    target: Expr | None
    arguments: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Container:
    """A list, or a map or message with what stands in it."""

    is_list: bool
    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Comprehension:
    """What macros over lists and maps become."""

    variable: str
    over: Expr
    result_name: str
    start: Expr
    condition: Expr
    step: Expr
    result: Expr


Expr = Constant | Ident | Select | Call | Container | Comprehension
_EMPTY = Constant(0)


def tree(program: Any) -> Expr:
    """That of a compiled expression."""
    checked = _one(_fields(program.serialize()), _VALUE)
    return _expression(_one(_fields(checked), _EXPRESSION))


def _expression(data: bytes) -> Expr:
    for number, value in _pairs(data):
        parts = _fields(value) if isinstance(value, bytes) else {}
        match number:
            case 3:
                texts = [each for kind in _TEXT_CONSTANTS for each in parts.get(kind, ())]
                return Constant(sum(map(len, texts)))
            case 4:
                return Ident(_text(parts, 1))
            case 5:
                return Select(_expression(_one(parts, 1)), _text(parts, 2), bool(parts.get(3, [0])[-1]))
            case 6:
                target = _expression(_one(parts, 1)) if 1 in parts else None
                return Call(_text(parts, 2), target, tuple(map(_expression, parts.get(3, ()))))
            case 7:
                return Container(True, tuple(map(_expression, parts.get(1, ()))))
            case 8:
                entries = [_fields(each) for each in parts.get(2, ())]
                items = [each for entry in entries for key in (3, 4) for each in entry.get(key, ())]
                return Container(False, tuple(map(_expression, items)))
            case 9:
                over, start, condition, step, result = (_expression(_one(parts, key)) for key in (2, 4, 5, 6, 7))
                return Comprehension(_text(parts, 1), over, _text(parts, 3), start, condition, step, result)
    return _EMPTY


def _fields(data: bytes) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for number, value in _pairs(data):
        found.setdefault(number, []).append(value)
    return found


def _one(parts: dict[int, list[Any]], number: int) -> bytes:
    found = parts.get(number)
    return found[-1] if found else b""


def _text(parts: dict[int, list[Any]], number: int) -> str:
    return _one(parts, number).decode()


def _pairs(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) in protobuf's wire format."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        match key & 7:
            case 0:
                value, position = _varint(data, position)
                yield key >> 3, value
            case 2:
                size, position = _varint(data, position)
                yield key >> 3, data[position : position + size]
                position += size
            case wire:
                size = 8 if wire == 1 else 4
                yield key >> 3, data[position : position + size]
                position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
