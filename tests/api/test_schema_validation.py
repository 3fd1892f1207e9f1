"""Value validation: the messages are those that an upstream server gives for the same schema and object."""

from __future__ import annotations

import pytest

from shipwheel.api.schema import from_openapi, validate
from shipwheel.api.schema.formats import fits


def errors(spec: dict, value: object, **kwargs: object) -> list[str]:
    schema = from_openapi({"type": "object", "properties": {"spec": spec}})
    return [str(each) for each in validate(schema, {"spec": value}, **kwargs)]


@pytest.mark.parametrize(
    ("spec", "value", "says"),
    [
        ({"type": "integer"}, "x", 'spec: Invalid value: "string": spec in body must be of type integer: "string"'),
        ({"type": "string"}, None, 'spec: Invalid value: "null": spec in body must be of type string: "null"'),
        ({"type": "string"}, 5, 'spec: Invalid value: "integer": spec in body must be of type string: "integer"'),
        ({"type": "string", "format": "date-time"}, 5,
         'spec: Invalid value: "int64": spec in body must be of type date-time: "int64"'),
        ({"x-kubernetes-int-or-string": True}, True,
         'spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean"'),
        ({"type": "object", "required": ["a"]}, {}, "spec.a: Required value"),
        ({"type": "string", "enum": ["a", "b"]}, "c", 'spec: Unsupported value: "c": supported values: "a", "b"'),
        ({"type": "integer", "enum": [1, 2]}, 3, 'spec: Unsupported value: 3: supported values: "1", "2"'),
        ({"type": "string", "pattern": "^a+$"}, "b", "spec: Invalid value: \"b\": spec in body should match '^a+$'"),
        ({"type": "string", "pattern": "^a$"}, "a\n", "spec: Invalid value: \"a\\n\": spec in body should match '^a$'"),
        ({"type": "string", "maxLength": 2}, "abc", "spec: Too long: may not be more than 2 bytes"),
        ({"type": "string", "minLength": 2}, "a",
         'spec: Invalid value: "a": spec in body should be at least 2 chars long'),
        ({"type": "integer", "minimum": 1}, 0,
         "spec: Invalid value: 0: spec in body should be greater than or equal to 1"),
        ({"type": "integer", "maximum": 10}, 11,
         "spec: Invalid value: 11: spec in body should be less than or equal to 10"),
        ({"type": "number", "minimum": 0.5, "exclusiveMinimum": True}, 0.5,
         "spec: Invalid value: 0.5: spec in body should be greater than 0.5"),
        ({"type": "integer", "multipleOf": 3}, 7, "spec: Invalid value: 7: spec in body should be a multiple of 3"),
        ({"type": "integer", "format": "int32"}, 2**31,
         '<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec'),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, ["a"],
         "spec: Invalid value: 1: spec in body should have at least 2 items"),
        ({"type": "array", "items": {}, "maxItems": 1}, [1, 2], "spec: Too many: 2: must have at most 1 item"),
        ({"type": "array", "items": {"type": "string"}}, ["a", 1],
         'spec[1]: Invalid value: "integer": spec[1] in body must be of type string: "integer"'),
        ({"type": "object", "maxProperties": 1}, {"a": 1, "b": 2}, "spec: Too many: 2: must have at most 1 item"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"k": 1},
         'spec.k: Invalid value: "integer": spec.k in body must be of type string: "integer"'),
        ({"type": "string", "format": "ipv4"}, "::1",
         'spec: Invalid value: "::1": spec in body must be of type ipv4: "::1"'),
        ({"not": {"enum": [1]}}, 1, '<nil>: Invalid value: "": "spec" must not validate the schema (not)'),
    ],
)  # fmt: skip
def test_one_rule_one_message(spec: dict, value: object, says: str):
    assert errors(spec, value) == [says]


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ({"type": "integer"}, 3),
        ({"type": "integer"}, 3.0),
        ({"type": "number"}, 3),
        ({"type": "string", "nullable": True}, None),
        ({"type": "string", "format": "made-up"}, "anything"),
        ({"type": "integer", "format": "date"}, 5),
        ({"x-kubernetes-int-or-string": True, "pattern": "^[0-9]+%?$"}, "25%"),
        ({"x-kubernetes-preserve-unknown-fields": True}, {"a": [1, None]}),
        ({"type": "string", "maxLength": 2}, "äö"),
    ],
)
def test_what_is_valid(spec: dict, value: object):
    assert errors(spec, value) == []


def test_alternatives_report_the_one_that_got_furthest():
    spec = {
        "anyOf": [
            {"type": "object", "required": ["a", "b"]},
            {"type": "object", "required": ["c"], "properties": {"a": {"type": "integer"}}},
        ]
    }
    assert errors(spec, {"a": 1}) == [
        '<nil>: Invalid value: "": "spec" must validate at least one schema (anyOf)',
        "spec.c: Required value",
    ]
    assert errors(spec, {"c": 1}) == []


def test_exactly_one_of():
    spec = {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"}
    assert errors(spec, {"a": 1}) == []
    assert errors(spec, {"a": 1, "b": 1}) == [
        '<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives'
    ]
    assert errors(spec, {})[0] == (
        '<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid'
    )


def test_all_of():
    spec = {"allOf": [{"minLength": 2}, {"maxLength": 3}], "type": "string"}
    assert errors(spec, "abc") == []
    assert errors(spec, "abcd") == [
        "spec: Too long: may not be more than 3 bytes",
        '<nil>: Invalid value: "": "spec" must validate all the schemas (allOf)',
    ]


def test_a_value_that_was_wrong_before_may_stay_so():
    spec = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "maxLength": 1},
            "map": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {}, "v": {"type": "string"}}},
            },
            "atomic": {"type": "array", "items": {"type": "string"}},
        },
    }
    old = {"spec": {"a": "long", "map": [{"k": 1, "v": 1}], "atomic": [1]}}
    new = {"a": "long", "map": [{"k": 2, "v": "x"}, {"k": 1, "v": 1}], "atomic": [1, "b"]}
    assert errors(spec, new, old=old) == [
        'spec.atomic[0]: Invalid value: "integer": spec.atomic[0] in body must be of type string: "integer"'
    ]
    assert len(errors(spec, new)) == 3
    assert errors(spec, {"a": "longer"}, old=old) == ["spec.a: Too long: may not be more than 1 bytes"]


def test_required_at_the_root_has_no_dot():
    schema = from_openapi({"type": "object", "required": ["spec"]})
    assert [str(each) for each in validate(schema, {})] == ["spec: Required value"]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("uri", ["http://a/b", "/path", "urn:x:y"], ["", "relative", "http://a b"]),
        ("email", ["a@b.de", "Ann <a@b>"], ["a", "a@", "@b"]),
        ("hostname", ["example.com", "a-b.example.org"], ["-a", "a_b", ""]),
        ("ipv4", ["1.2.3.4", "010.1.1.1"], ["1.2.3", "::1", "1.2.3.400"]),
        ("ipv6", ["::1", "fe80::1"], ["1.2.3.4", "::g", "fe80::1%eth0"]),
        ("cidr", ["10.0.0.0/8", "::/0"], ["10.0.0.0", "10.0.0.0/33"]),
        ("mac", ["00:00:5e:00:53:01", "0000.5e00.5301"], ["00:00", "00:00:5e:00:53:0g"]),
        ("uuid", ["123e4567-e89b-12d3-a456-426614174000", "123E4567E89B12D3A456426614174000"], ["123"]),
        ("uuid4", ["123e4567-e89b-42d3-a456-426614174000"], ["123e4567-e89b-12d3-a456-426614174000"]),
        ("isbn10", ["0321751043"], ["0321751042"]),
        ("isbn13", ["978-0321751041"], ["978-0321751042"]),
        ("creditcard", ["4111 1111 1111 1111"], ["4111111111111112"]),
        ("ssn", ["123-45-6789"], ["1234-5-6789"]),
        ("hexcolor", ["#fff", "00FF00"], ["#ff"]),
        ("rgbcolor", ["rgb(255, 0, 1)"], ["rgb(256,0,0)"]),
        ("byte", ["aGk="], ["a", ""]),
        ("date", ["2024-02-29"], ["2023-02-29", "20240229"]),
        ("date-time", ["2024-02-29T10:00:00Z", "2024-02-29t10:00:00.5+01:00"], ["2024-02-29", "2024-02-29T24:00:00Z"]),
        ("duration", ["1h30m", "22 ns", "3 days"], ["x", "5"]),
        ("k8s-short-name", ["a-b"], ["A", "-a", "a" * 64]),
        ("k8s-long-name", ["a.b-c"], ["a..b", "A.b"]),
        ("password", ["", "x"], []),
    ],
)  # fmt: skip
def test_formats(name: str, good: list[str], bad: list[str]):
    assert [each for each in good if not fits(name, each)] == []
    assert [each for each in bad if fits(name, each)] == []
