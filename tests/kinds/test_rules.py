"""Rules in CEL that custom resources follow; what is expected is what upstream's server answered."""

from __future__ import annotations

from typing import Any

import pytest

from shipwheel.api.errors import FieldError, required
from shipwheel.api.meta import Obj
from shipwheel.api.schema import from_openapi
from shipwheel.kinds.apiextensions.rulechecking import check_rules
from shipwheel.kinds.apiextensions.rules import follow_rules

FIELDS: Obj = {
    "min": {"type": "integer"},
    "max": {"type": "integer"},
    "ratio": {"type": "number"},
    "name": {"type": "string"},
    "on": {"type": "boolean"},
    "names": {"type": "array", "items": {"type": "string"}},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "timeout": {"type": "string", "format": "duration"},
    "end": {"type": "string", "format": "date-time"},
    "port": {"x-kubernetes-int-or-string": True},
    "dash-ed": {"type": "string"},
    "namespace": {"type": "string"},
    "parts": {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["key"],
        "items": {"type": "object", "properties": {"key": {"type": "string"}, "value": {"type": "integer"}}},
    },
}


def schema(*rules: Any, at: str = "", below: str = "") -> Obj:
    """Of an object with a spec; the rules stand at the spec, at the field `at` or at what is `below` it."""
    fields = {name: dict(each) for name, each in FIELDS.items()}
    spec: Obj = {"type": "object", "properties": fields}
    place = fields[at] if at else spec
    if below:
        place[below] = place = dict(place[below])
    place["x-kubernetes-validations"] = [{"rule": each} if isinstance(each, str) else each for each in rules]
    return {"type": "object", "properties": {"spec": spec}}


def follow(declared: Obj, spec: Any, *, old: Any = None, found: list[FieldError] | None = None) -> list[str]:
    name = {"metadata": {"name": "a"}}
    before = {} if old is None else {"old": {**name, "spec": old}}
    outcome = follow_rules(from_openapi(declared), {**name, "spec": spec}, found or [], **before)
    return [*map(str, outcome.errors), *(f"warning: {each}" for each in outcome.warnings)]


@pytest.mark.parametrize(
    ("rule", "spec", "complaint"),
    [
        ("self.min <= self.max", {"min": 1, "max": 2}, ""),
        ("self.min <= self.max", {"min": 2, "max": 1}, "spec: Invalid value: failed rule: self.min <= self.max"),
        ({"rule": "self.on", "message": "is off"}, {"on": False}, "spec: Invalid value: is off"),
        ({"rule": "self.on", "messageExpression": "'not ' + self.name"}, {"on": False, "name": "now"},
         "spec: Invalid value: not now"),
        ({"rule": "self.on", "messageExpression": "self.name"}, {"on": False},
         "spec: Invalid value: failed rule: self.on"),
        ({"rule": "self.min != 7", "message": "seven", "reason": "FieldValueForbidden", "fieldPath": ".min"},
         {"min": 7}, "spec.min: Forbidden: seven"),
        ("self.min > 0", {}, 'spec: Invalid value: "object": no such key: min evaluating rule: self.min > 0'),
        ("self.names[5] == 'x'", {"names": ["x"]},
         'spec: Invalid value: "object": index out of bounds: 5 evaluating rule: self.names[5] == \'x\''),
        ("self.min / self.max > 1", {"min": 1, "max": 0},
         'spec: Invalid value: "object": division by zero evaluating rule: self.min / self.max > 1'),
        ("self.port > 5", {"port": "x"},
         "spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, "
         "function or macro signature for rule: self.port > 5"),
        ("self.ratio > 1", {"ratio": 2}, ""),
        ("self.timeout > duration('10s')", {"timeout": "1m"}, ""),
        ("!has(self.timeout) || self.timeout > duration('10s')", {}, ""),
        ("self.end.getFullYear() == 2026", {"end": "2026-01-01T00:00:00Z"}, ""),
        ("self.dash__dash__ed == 'x' && self.__namespace__ == 'n'", {"dash-ed": "x", "namespace": "n"}, ""),
        ("self.names.isSorted() && sets.contains(self.names, ['a'])", {"names": ["a", "b"]}, ""),
        ("quantity(self.name).isGreaterThan(quantity('1'))", {"name": "2k"}, ""),
        ("cidr('10.0.0.0/8').containsIP(self.name)", {"name": "10.1.2.3"}, ""),
        ("url(self.name).getHost() == 'h:1' && self.name.find('[0-9]') == '1'", {"name": "http://h:1/x"}, ""),
        ("self.?min.orValue(3) == 3", {}, ""),
    ],
)  # fmt: skip
def test_rules_of_an_object(rule: Any, spec: Obj, complaint: str) -> None:
    assert follow(schema(rule), spec) == ([complaint] if complaint else [])


def test_where_a_rule_stands() -> None:
    assert follow(schema("self.startsWith('a')", at="name"), {"name": "b"}) == [
        "spec.name: Invalid value: \"b\": failed rule: self.startsWith('a')"
    ]
    assert follow(schema("self != ''", at="names", below="items"), {"names": ["x", ""]}) == [
        "spec.names[1]: Invalid value: \"\": failed rule: self != ''"
    ]
    assert follow(schema("self != ''", at="labels", below="additionalProperties"), {"labels": {"k": ""}}) == [
        "spec.labels[k]: Invalid value: \"\": failed rule: self != ''"
    ]
    assert follow(schema("self != ''", at="name"), {"name": None}) == []


def test_the_name_is_seen_at_the_root() -> None:
    declared = {**schema(), "x-kubernetes-validations": [{"rule": "self.metadata.name == 'b'"}]}
    assert follow(declared, {}) == ["<nil>: Invalid value: failed rule: self.metadata.name == 'b'"]


def test_faults_that_leave_rules_unasked() -> None:
    assert follow(schema("self.on"), {"on": False}, found=[required("spec.name")]) == [
        "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct "
        "the existing errors to complete validation"
    ]


def test_transitions_are_asked_where_there_was_a_value() -> None:
    declared = schema("self.min >= oldSelf.min")
    assert follow(declared, {"min": 1}) == []
    assert follow(declared, {"min": 1}, old={"min": 1}) == []
    broken = ["spec: Invalid value: failed rule: self.min >= oldSelf.min"]
    assert follow(declared, {"min": 1}, old={"min": 2}) == broken
    items = schema("self.value >= oldSelf.value", at="parts", below="items")
    old = {"parts": [{"key": "a", "value": 1}, {"key": "b", "value": 2}]}
    assert follow(items, {"parts": [{"key": "b", "value": 1}, {"key": "c", "value": 0}]}, old=old) == [
        "spec.parts[0]: Invalid value: failed rule: self.value >= oldSelf.value"
    ]


def test_former_values_may_be_optional() -> None:
    rule = {"rule": "oldSelf.hasValue() ? oldSelf.value().min <= self.min : self.min == 1", "optionalOldSelf": True}
    assert follow(schema(rule), {"min": 1}) == []
    assert len(follow(schema(rule), {"min": 2})) == 1
    assert follow(schema(rule), {"min": 3}, old={"min": 2}) == []
    assert len(follow(schema(rule), {"min": 1}, old={"min": 2})) == 1


def test_what_was_wrong_before_only_warns() -> None:
    declared = schema("self.startsWith('a')", at="name")
    broken = "spec.name: Invalid value: \"b\": failed rule: self.startsWith('a')"
    assert follow(declared, {"name": "b", "min": 2}, old={"name": "b", "min": 1}) == [f"warning: {broken}"]
    assert follow(declared, {"name": "b"}, old={"name": "c"}) == [broken]


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("self.min <= self.max && self.ratio > 1", ""),
        ("self.timeout > duration('1s') && self.end > timestamp('2026-01-01T00:00:00Z')", ""),
        ({"rule": "self.on", "messageExpression": "'x' + self.name"}, ""),
        ("self.nope > 1", "compilation failed: ERROR: <input>:1:5: undefined field 'nope'\n | self.nope > 1\n | ....^"),
        ("has(self.nope)", "compilation failed: ERROR: <input>:1:4: undefined field 'nope'\n"
         " | has(self.nope)\n | ...^"),
        ("foo > 1", "compilation failed: ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n"
         " | foo > 1\n | ^"),
        ("self.min + self.name == 1", "compilation failed: ERROR: <input>:1:10: found no matching overload for '_+_' "
         "applied to '(int, string)'\n | self.min + self.name == 1\n | .........^"),
        ("self.min", "cel expression must evaluate to a bool"),
        ({"rule": "self.on", "messageExpression": "self.min"}, "messageExpression must evaluate to a string"),
        ({"rule": "self.on", "optionalOldSelf": True}, "may not be set if oldSelf is not used in rule"),
    ],
)  # fmt: skip
def test_rules_are_compiled_when_they_are_declared(rule: Any, complaint: str) -> None:
    errors: list[FieldError] = []
    check_rules(schema(rule), "schema", errors)
    assert [each.detail for each in errors] == ([complaint] if complaint else [])


def test_transitions_need_items_that_can_be_told_apart() -> None:
    errors: list[FieldError] = []
    check_rules(schema("self == oldSelf", at="names", below="items"), "schema", errors, limited=False)
    assert [each.detail for each in errors] == [
        "oldSelf cannot be used on the uncorrelatable portion of the schema within "
        "schema.properties[spec].properties[names]"
    ]
    errors.clear()
    check_rules(schema("self == oldSelf", at="parts", below="items"), "schema", errors, limited=False)
    assert errors == []


def test_a_rule_that_takes_too_long_is_broken_off() -> None:
    declared = schema("self.names.all(a, self.names.all(b, a + b != 'yx'))", "self.on")
    (complaint,) = follow(declared, {"names": ["x"] * 300, "on": False})
    assert complaint.startswith(
        "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation "
        "rules will be run due to call cost exceeds limit for rule: "
    )


def listing(items: Obj, *rules: str, **more: Any) -> Obj:
    return {"type": "array", "items": items, "x-kubernetes-validations": [{"rule": each} for each in rules], **more}


TEXT: Obj = {"type": "string"}


@pytest.mark.parametrize(
    ("declared", "factor"),
    [
        (listing(TEXT, "self.all(s, s == 'string constant')"), ""),
        ({"type": "array", "items": listing(TEXT, "self.all(s, s == 'x')")}, "more than 100x"),
        (listing({**TEXT, "maxLength": 100}, "self.all(a, self.all(b, a == b))", maxItems=1000), "4.5x"),
        (listing({**TEXT, "maxLength": 100}, "self.all(a, self.all(b, a == b))", maxItems=100), ""),
        (listing({"type": "integer"}, "self.all(a, a > 1)"), ""),
        (listing({"type": "integer"}, "self.all(a, a > 1) && self.exists(a, a == 2)"), "1.6x"),
        ({**TEXT, "x-kubernetes-validations": [{"rule": "self.contains('abc')"}]}, ""),
        ({**TEXT, "x-kubernetes-validations": [{"rule": "self.contains(self)"}]}, "more than 100x"),
        (listing({**TEXT, "maxLength": 63, "x-kubernetes-validations": [{"rule": "self.matches('^a+b*$')"}]}), "5.6x"),
        (listing({"type": "object", "properties": {"n": TEXT}}, "self.map(x, x.n).all(n, n == 'a')"), "2.0x"),
        (listing({"type": "object", "properties": {"n": TEXT}}, "self.filter(x, x.n == 'a').size() == 1"), "1.7x"),
        (listing(TEXT, "oldSelf.all(o, o in self)"), "more than 100x"),
        (listing(TEXT, "oldSelf.all(o, o in self)", maxItems=50), ""),
    ],
)
def test_what_rules_can_cost(declared: Obj, factor: str) -> None:
    """The factors are those of upstream's server."""
    errors: list[FieldError] = []
    check_rules({"type": "object", "properties": {"x": declared}}, "schema", errors)
    told = [each.detail for each in errors if each.detail.startswith("estimated rule cost")]
    assert [each.partition("by factor of ")[2].partition(" (")[0] for each in told] == ([factor] if factor else [])
    errors.clear()
    check_rules({"type": "object", "properties": {"x": declared}}, "schema", errors, limited=False)
    assert errors == []
