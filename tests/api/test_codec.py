"""Objects to bytes and back, and the words for bytes that are none."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.codec import decode_json, decode_yaml, encode, encode_yaml
from shipwheel.api.codec.go_json import complaint
from shipwheel.api.codec.json_form import find_duplicates
from shipwheel.api.codec.yaml_form import resolve
from shipwheel.api.schema import DecodeError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e300, 1e300) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
objects = st.dictionaries(texts.filter(lambda key: key not in ("kind", "apiVersion")), values, max_size=5)

PARSE = "couldn't get version/kind; json parse error: "


@given(objects)
def test_json_round_trip(obj: dict):
    duplicates: list[str] = []
    assert decode_json(encode(obj), strict_duplicates=duplicates) == obj
    assert duplicates == []


def test_the_head_comes_first():
    obj = {"spec": {}, "metadata": {"name": "n"}, "apiVersion": "v1", "status": {}, "kind": "Pod"}
    assert list(orjson.loads(encode(obj))) == ["kind", "apiVersion", "metadata", "spec", "status"]
    assert encode({"apiVersion": "v1", "items": []}) == b'{"apiVersion":"v1","items":[]}'
    assert next(iter(obj)) == "spec"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "unexpected end of JSON input"),
        (b'{"a": 1', "unexpected end of JSON input"),
        (b"hello", "invalid character 'h' looking for beginning of value"),
        (b"{a: 1}", "invalid character 'a' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a": 1 "b"}', "invalid character '\"' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"{} {}", "invalid character '{' after top-level value"),
        (b"nul", "unexpected end of JSON input"),
        (b"nulL", "invalid character 'L' in literal null (expecting 'l')"),
        (b'{"a": 01}', "invalid character '1' after object key:value pair"),
        (b'{"a": 1.}', "invalid character '}' after decimal point in numeric literal"),
        (b'{"a": -}', "invalid character '}' in numeric literal"),
        (b'{"a": "\\x"}', "invalid character 'x' in string escape code"),
        (b'{"a": "\\u00g0"}', "invalid character 'g' in \\u hexadecimal character escape"),
        (b'{"a": "\n"}', "invalid character '\\n' in string literal"),
        (b"{'a': 1}", "invalid character '\\'' looking for beginning of object key string"),
        (b"[]", "json: cannot unmarshal array into Go value of type struct { APIVersion string"
         ' "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'),
        (b'{"kind": 5}', "json: cannot unmarshal number into Go struct field .kind of type string"),
        (b'{"apiVersion": {}}', "json: cannot unmarshal object into Go struct field .apiVersion of type string"),
    ],
)  # fmt: skip
def test_what_is_no_object_is_refused_in_gos_words(raw: bytes, says: str):
    with pytest.raises(DecodeError) as caught:
        decode_json(raw)
    assert str(caught.value) == PARSE + says


@given(values)
def test_the_scanner_has_no_complaint_about_json(value: object):
    assert complaint(json.dumps(value)) is None
    assert complaint(json.dumps(value, indent=2, ensure_ascii=False)) is None


@given(st.text('{}[]",:0123456789.eE+-truefalsn \\u', max_size=20))
def test_the_scanner_complains_when_python_does(text: str):
    try:
        json.loads(text)
        fine = True
    except ValueError:
        fine = False
    assert (complaint(text) is None) == fine


def test_go_takes_broken_text():
    assert decode_json(b'{"a": "\xff"}') == {"a": "\ufffd"}
    assert decode_json(b'{"a": "\\ud800"}') == {"a": "\ufffd"}
    assert decode_json(b"null") == {}


@pytest.mark.parametrize("depth", [260, 1000, 1500, 200_000])
@pytest.mark.parametrize("strict", [True, False])
def test_nested_too_deep(depth: int, strict: bool):
    raw = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(DecodeError, match="exceeded max depth"):
        decode_json(raw, strict_duplicates=[] if strict else None)


def test_nested_as_deep_as_can_be():
    raw = b'{"a":' + b"[" * 250 + b"]" * 250 + b"}"
    assert encode(decode_json(raw)) == raw


@pytest.mark.parametrize("raw", [b"a: " + b"[" * 10**6, b"- " * 10**5 + b"x", b"{a: " * 10**5, b"? " * 10**5])
def test_yaml_nested_too_deep(raw: bytes):
    with pytest.raises(DecodeError, match="exceeded max depth"):
        decode_yaml(raw)


@pytest.mark.parametrize("raw", [b"a: &a [*a]", b"a: &a {<<: *a}", b"a: &a {<<: [*a, *a, *a]}"])
def test_yaml_that_contains_itself(raw: bytes):
    with pytest.raises(DecodeError, match=r"depth|aliasing"):
        decode_yaml(raw)


def test_numbers_of_any_length():
    digits = "1" * 10_000
    assert decode_json(b'{"a": 18446744073709551616, "b": "\xff"}')["a"] == 2.0**64
    assert decode_json(b'{"a": -9223372036854775808, "b": "\xff"}')["a"] == -(2.0**63)
    for number in (digits, "1e400"):
        with pytest.raises(DecodeError, match=rf"cannot unmarshal number {number[:8]}"):
            decode_json(f'{{"a": {number}}}'.encode(), strict_duplicates=[])
    assert find_duplicates(f'{{"a": {digits}, "a": 1}}'.encode()) == ["a"]
    with pytest.raises(DecodeError, match="unsupported value"):
        decode_yaml(f"a: {digits}".encode())


def test_an_anchor_must_be_known():
    with pytest.raises(DecodeError, match="yaml: unknown anchor 'b' referenced"):
        decode_yaml(b"a: *b")


def test_duplicates_are_named_where_they_are():
    raw = b'{"kind":"A","spec":{"x":1,"x":2,"list":[{"y":1},{"z":{"q":1,"q":2}}]},"kind":"B","kind":"C"}'
    duplicates: list[str] = []
    obj = decode_json(raw, strict_duplicates=duplicates)
    assert obj["kind"] == "C"
    assert obj["spec"]["x"] == 2
    assert duplicates == [
        'duplicate field "spec.x"',
        'duplicate field "spec.list[1].z.q"',
        'duplicate field "kind"',
    ]


def test_spaces_and_escapes_are_no_duplicates():
    assert find_duplicates(b'{ "a" : "\\u003c", "b" : { "a" : 1.50 } }\n') == []


# --- YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True), ("On", True), ("y", True), ("n", False), ("OFF", False), ("oN", "oN"),
        ("~", None), ("null", None), ("nULL", "nULL"),
        ("1", 1), ("-12", -12), ("+3", 3), ("0x1F", 31), ("0777", 511), ("0o17", 15), ("0b101", 5), ("1_000", 1000),
        ("0778", 778), ("1.5", 1.5), (".5", 0.5), ("1.0", 1), ("1e3", 1000), ("1e30", 1e30), ("1.2.3", "1.2.3"),
        ("1:30", "1:30"), ("2024-01-02", "2024-01-02"), ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
        ("-", "-"), (".", "."), ("+", "+"), ("100m", "100m"), ("18446744073709551615", 18446744073709551615),
        ("true story", "true story"), ("0x", "0x"), ("08", 8),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: object):
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_yaml_is_read_as_upstream_reads_it():
    raw = b"""
kind: ConfigMap
data:
  yes: "yes"
  1: plain
  1.5: x
  quoted: 'on'
  text: !!str 5
  folded: >-
    a
    b
base: &base {a: 1, b: 2}
merged:
  a: 0
  <<: *base
  b: 3
list: [*base, on]
---
second: document
"""
    assert decode_yaml(raw) == {
        "kind": "ConfigMap",
        "data": {"true": "yes", "1": "plain", "1.5": "x", "quoted": "on", "text": "5", "folded": "a b"},
        "base": {"a": 1, "b": 2},
        "merged": {"a": 1, "b": 3},
        "list": [{"a": 1, "b": 2}, True],
    }


def test_yaml_duplicates():
    duplicates: list[str] = []
    assert decode_yaml(b"a: 1\nb: {c: 1, c: 2}\na: 2\n", strict_duplicates=duplicates) == {"a": 2, "b": {"c": 2}}
    assert duplicates == [
        'yaml: unmarshal errors:\n  line 2: key "c" already set in map\n  line 3: key "a" already set in map'
    ]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"a: b: c\n", "yaml: mapping values are not allowed in this context"),
        (b"x: 1\na: b: c\n", "yaml: line 2: mapping values are not allowed in this context"),
        (b"a: .nan\n", "error converting YAML to JSON: json: unsupported value: .nan"),
    ],
)
def test_what_is_no_yaml(raw: bytes, says: str):
    with pytest.raises(DecodeError) as caught:
        decode_yaml(raw)
    assert str(caught.value) == says


def test_aliases_cannot_be_used_to_fill_the_memory():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(DecodeError, match="excessive aliasing"):
        decode_yaml("\n".join(lines).encode())


def test_yaml_is_written_with_sorted_keys_and_quotes_where_needed():
    obj = {"b": ["x", {"c": 1}], "a": {"on": "yes", "n": "5", "date": "2024-01-02", "t": "plain text", "m": "l1\nl2\n"}}
    assert encode_yaml(obj).decode() == (
        "a:\n"
        '  date: "2024-01-02"\n'
        "  m: |\n    l1\n    l2\n"
        '  "n": "5"\n'
        '  "on": "yes"\n'
        "  t: plain text\n"
        "b:\n- x\n- c: 1\n"
    )


@given(objects)
def test_yaml_round_trip(obj: dict):
    again = decode_yaml(encode_yaml(obj))
    assert again == json.loads(json.dumps(obj))
