"""The table-driven protobuf codec: known bytes, round trips of everything, and garbage."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.protobuf import DecodeError, Field, Message, decode, encode, in_order, parse_tables

TABLES = parse_tables(
    """
# one of each
enum Color RED=0 GREEN=1 BLUE=-2
Leaf name=1:string
All text=1:string raw=2:bytes text64=3:base64 yes=4:bool i32=5:int32 i64=6:int64 u32=7:uint32 u64=8:uint64
    s32=9:sint32 s64=10:sint64 real=11:double single=12:float f32=13:fixed32 f64=14:fixed64
    sf32=15:sfixed32 sf64=16:sfixed64 color=17:Color leaf=18:Leaf
    texts=19:[string] numbers=20:[int64] leaves=21:[Leaf] colors=22:[Color] reals=23:[double]
    labels=24:{string:string} by_number=25:{int64:Leaf} sizes=26:{string:uint64} self=2000:All
"""
)
ALL = TABLES["All"]
UNPACKED = parse_tables("List numbers=20:[int64]", packed=False)["List"]


@pytest.mark.parametrize(
    ("obj", "wire"),
    [
        ({}, ""),
        ({"text": "testing"}, "0a0774657374696e67"),
        ({"i64": 150}, "309601"),
        ({"i64": -1}, "30ffffffffffffffffff01"),
        ({"i32": -2}, "28feffffffffffffffff01"),
        ({"s32": -1}, "4801"),
        ({"u64": 2**64 - 1}, "40ffffffffffffffffff01"),
        ({"yes": False}, "2000"),
        ({"real": 1.0}, "59000000000000f03f"),
        ({"f32": 1}, "6d01000000"),
        ({"color": "GREEN"}, "880101"),
        ({"leaf": {"name": "a"}}, "92010" + "30a0161"),
        ({"text64": "AQI="}, "1a020102"),
        ({"numbers": [3, 270]}, "a201" + "03038e02"),
        ({"texts": ["a", ""]}, "9a0101619a0100"),
        ({"labels": {"k": "v"}}, "c201060a016b120176"),
        ({"self": {}}, "827d00"),
    ],
)
def test_known_bytes(obj: dict[str, Any], wire: str) -> None:
    assert encode(ALL, obj).hex() == wire
    assert decode(ALL, bytes.fromhex(wire)) == obj


def signed(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def unsigned(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


LEAF = st.fixed_dictionaries({}, optional={"name": st.text(max_size=200)})
COLOR = st.sampled_from(["RED", "GREEN", "BLUE", 77])
REAL = st.floats(allow_nan=False)
FLAT = {
    "text": st.text(),
    "raw": st.binary(),
    "yes": st.booleans(),
    "i32": signed(32),
    "i64": signed(64),
    "u32": unsigned(32),
    "u64": unsigned(64),
    "s32": signed(32),
    "s64": signed(64),
    "real": REAL,
    "single": st.floats(allow_nan=False, width=32),
    "f32": unsigned(32),
    "f64": unsigned(64),
    "sf32": signed(32),
    "sf64": signed(64),
    "color": COLOR,
    "leaf": LEAF,
    "texts": st.lists(st.text(), min_size=1),
    "numbers": st.lists(signed(64), min_size=1),
    "leaves": st.lists(LEAF, min_size=1),
    "colors": st.lists(COLOR, min_size=1),
    "reals": st.lists(REAL, min_size=1),
    "labels": st.dictionaries(st.text(), st.text(), min_size=1),
    "by_number": st.dictionaries(signed(64), LEAF, min_size=1),
    "sizes": st.dictionaries(st.text(), unsigned(64), min_size=1),
}
OBJECT = st.recursive(
    st.fixed_dictionaries({}, optional=FLAT),
    lambda inner: st.fixed_dictionaries({"self": inner}, optional={"text": st.text()}),
    max_leaves=3,
)


@given(OBJECT)
def test_what_is_written_is_read(obj: dict[str, Any]) -> None:
    assert decode(ALL, encode(ALL, obj)) == obj


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_read_but_never_crashes(raw: bytes) -> None:
    with contextlib.suppress(DecodeError):
        obj = decode(ALL, raw)
        assert decode(ALL, encode(ALL, obj)) == obj or "nan" in str(obj)


@given(OBJECT)
def test_unknown_fields_are_passed_over(obj: dict[str, Any]) -> None:
    assert decode(Message("Nothing"), encode(ALL, obj)) == {}


@given(st.dictionaries(st.text(max_size=200), st.text(max_size=200), min_size=1), st.randoms(use_true_random=False))
def test_in_order_two_spellings_are_the_same(texts: dict[str, str], chance: random.Random) -> None:
    message = parse_tables("Item id=1:string number=200:int64 texts=3:{string:string}")["Item"]
    items = list(texts.items())
    chance.shuffle(items)
    one, other = ({"id": "a", "number": 300, "texts": each} for each in (texts, dict(items)))
    assert in_order(encode(message, one)) == in_order(encode(message, other))
    assert decode(message, in_order(encode(message, one))) == one
    assert in_order(encode(message, one)) != in_order(encode(message, {**one, "id": "b"}))


@given(st.binary(max_size=64))
def test_in_order_garbage_is_refused_or_loses_nothing(raw: bytes) -> None:
    with contextlib.suppress(DecodeError):
        assert sorted(in_order(raw)) == sorted(raw)


def test_repeated_numbers_are_read_in_either_form() -> None:
    numbers = {"numbers": [1, -1, 300]}
    assert encode(UNPACKED, numbers) != encode(ALL, numbers)
    assert decode(ALL, encode(UNPACKED, numbers)) == decode(UNPACKED, encode(ALL, numbers)) == numbers


def test_a_map_entry_may_leave_out_its_defaults() -> None:
    assert decode(ALL, bytes.fromhex("c20100")) == {"labels": {"": ""}}
    assert decode(ALL, bytes.fromhex("ca0100")) == {"by_number": {0: {}}}


@pytest.mark.parametrize(
    "wire",
    [
        "0a05616263",  # a string cut short
        "30",  # no value
        "30ffffffffffffffffffffff01",  # an endless varint
        "5900",  # half a double
        "9201050a0161",  # a nested message beyond the end
        "a2010180",  # a packed value beyond its list
        "0b",  # a group
        "0a01ff",  # not UTF-8
    ],
)
def test_malformed(wire: str) -> None:
    with pytest.raises(DecodeError):
        decode(ALL, bytes.fromhex(wire))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="All has no field 'nope'"):
        encode(ALL, {"nope": 1})
    with pytest.raises(ValueError, match="Color has no value 'PINK'"):
        encode(ALL, {"color": "PINK"})


def test_a_message_may_have_a_form_of_its_own() -> None:
    quantity = Message(
        "Quantity",
        (Field("string", 1, "string"),),
        from_wire=lambda obj: obj.get("string", ""),
        to_wire=lambda text: {"string": text},
    )
    limits = Message("Limits", (Field("limits", 1, quantity, "map"),))
    obj = {"limits": {"cpu": "1", "memory": "2Gi"}}
    assert decode(limits, encode(limits, obj)) == obj
