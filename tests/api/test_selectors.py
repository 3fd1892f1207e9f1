"""Label and field selectors: syntax, errors, matching and canonical form."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.selectors import (
    EVERY_FIELD,
    EVERYTHING,
    NOTHING,
    FieldSelector,
    FieldTerm,
    LabelSelector,
    SelectorError,
    escape_value,
    from_label_selector,
    from_labels,
    new_requirement,
    parse_field_selector,
    parse_label_selector,
    unescape_value,
)

LABELS = {"app": "web", "tier": "front", "n": "5", "empty": "", "example.com/role": "a.b-c_d"}


@pytest.mark.parametrize(
    ("text", "canonical", "matches"),
    [
        ("", "", True),
        ("  ", "", True),
        ("app", "app", True),
        ("!app", "!app", False),
        ("! other", "!other", True),
        ("app=web", "app=web", True),
        ("app==web", "app==web", True),
        ("app = web , tier=front", "app=web,tier=front", True),
        ("tier=front,app=web", "app=web,tier=front", True),
        ("app!=web", "app!=web", False),
        ("other!=x", "other!=x", True),
        ("app in (web)", "app in (web)", True),
        ("app in (z,web,a)", "app in (a,web,z)", True),
        ("app notin (web,x)", "app notin (web,x)", False),
        ("other notin (web)", "other notin (web)", True),
        ("empty=", "empty=", True),
        ("empty", "empty", True),
        ("other=", "other=", False),
        ("empty in ()", "empty in ()", True),
        ("empty in (,a)", "empty in (,a)", True),
        ("app in (a,,b)", "app in (,a,b)", False),
        ("app in (a,)", "app in (,a)", False),
        ("n>4", "n>4", True),
        ("n>5", "n>5", False),
        ("n<6,n>4", "n<6,n>4", True),
        ("app>1", "app>1", False),
        ("other<1", "other<1", False),
        ("example.com/role=a.b-c_d", "example.com/role=a.b-c_d", True),
        ("app in (in,notin)", "app in (in,notin)", False),
        ("in in (in)", "in in (in)", False),
        ("app=web,", None, "found '', expected: identifier after ','"),
        ("app=web,,tier", None, "found ',', expected: identifier after ','"),
        (",app", None, "found ',', expected: !, identifier, or 'end of string'"),
        ("app=web tier", None, "found 'tier', expected: ',' or 'end of string'"),
        ("!app=web", None, "found '=', expected: ',' or 'end of string'"),
        ("!", None, "unable to parse requirement: found '', expected: identifier"),
        (
            "app is web",
            None,
            "unable to parse requirement: found 'is', expected: in, notin, =, ==, !=, gt, lt",
        ),
        ("app in web", None, "unable to parse requirement: found 'web' expected: '('"),
        ("app in (web", None, "unable to parse requirement: found '', expected: ',' or ')'"),
        ("app in (web,", None, "unable to parse requirement: found '', expected: ',', or identifier"),
        ("app in (=)", None, "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("app=(", None, "unable to parse requirement: found '(', expected: identifier"),
        (
            "a/b/c",
            None,
            'unable to parse requirement: <nil>: Invalid value: "a/b/c": a valid label key must consist of '
            "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. "
            "'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. "
            "'example.com/MyName')",
        ),
        (
            "app=-",
            None,
            'unable to parse requirement: values[0][app]: Invalid value: "-": a valid label must be an empty '
            "string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
            "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        (
            "n>x",
            None,
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value "
            "must be an integer",
        ),
    ],
)
def test_label_selector_text(text: str, canonical: str | None, matches: bool | str) -> None:
    if canonical is None:
        with pytest.raises(SelectorError) as caught:
            parse_label_selector(text)
        assert str(caught.value) == matches
        return
    selector = parse_label_selector(text)
    assert str(selector) == canonical
    assert selector.matches(LABELS) is matches
    assert parse_label_selector(canonical) == selector
    assert hash(parse_label_selector(canonical)) == hash(selector)


def test_label_selector_objects() -> None:
    assert from_label_selector(None) is NOTHING
    assert from_label_selector({}) is EVERYTHING
    assert not NOTHING.matches({})
    assert NOTHING.is_nothing and not NOTHING.is_everything and NOTHING != EVERYTHING
    selector = from_label_selector(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front", "back"]},
                {"key": "gone", "operator": "DoesNotExist"},
                {"key": "n", "operator": "Exists"},
                {"key": "n", "operator": "NotIn", "values": ["6"]},
            ],
        }
    )
    assert str(selector) == "app=web,!gone,n,n notin (6),tier in (back,front)"
    assert selector.matches(LABELS)
    assert not selector.matches({**LABELS, "tier": "middle"})
    assert selector.requires("app") == "web"
    assert selector.requires("tier") is None
    assert selector.requires("other") is None
    assert pickle.loads(pickle.dumps(selector)) == selector
    with pytest.raises(SelectorError, match='"Gt" is not a valid label selector operator'):
        from_label_selector({"matchExpressions": [{"key": "n", "operator": "Gt", "values": ["1"]}]})


def test_every_fault_of_a_requirement_is_named() -> None:
    with pytest.raises(SelectorError) as caught:
        new_requirement("", "gt", ["x", "_"])
    text = str(caught.value)
    assert text.startswith('[key: Invalid value: "": name part must be non-empty; name part must consist of')
    assert "values: Invalid value: [\"x\",\"_\"]: for 'Gt', 'Lt' operators, exactly one value is required" in text
    assert 'values[1][]: Invalid value: "_": a valid label must be' in text
    with pytest.raises(SelectorError, match="values: Invalid value: \\[\\]: for 'in', 'notin' operators, values set"):
        new_requirement("a", "in", [])
    with pytest.raises(SelectorError, match="exact-match compatibility requires one single value"):
        new_requirement("a", "=", [])
    with pytest.raises(SelectorError, match="values set must be empty for exists and does not exist"):
        new_requirement("a", "exists", ["x"])
    with pytest.raises(SelectorError, match=r'spec.operator: Unsupported value: "~": supported values: "in", '):
        new_requirement("a", "~", [], "spec")


words = st.from_regex("[a-z]{1,3}", fullmatch=True)
requirements = st.one_of(
    st.builds(new_requirement, words, st.sampled_from(["=", "==", "!="]), st.tuples(words)),
    st.builds(
        new_requirement,
        words,
        st.sampled_from(["in", "notin"]),
        st.lists(words, min_size=1, unique=True).map(tuple),
    ),
    st.builds(new_requirement, words, st.sampled_from(["exists", "!"]), st.just(())),
    st.builds(new_requirement, words, st.sampled_from(["gt", "lt"]), st.integers(0, 99).map(lambda n: (str(n),))),
)


@given(st.lists(requirements), st.dictionaries(words, words))
def test_a_selector_means_what_its_text_means(terms: list, labels: dict[str, str]) -> None:
    selector = LabelSelector(terms)
    again = parse_label_selector(str(selector))
    assert str(again) == str(selector)
    assert again.matches(labels) == selector.matches(labels)
    assert selector.matches(labels) == all(LabelSelector([term]).matches(labels) for term in terms)


@given(st.dictionaries(words, words), st.dictionaries(words, words))
def test_selecting_by_labels_is_inclusion(wanted: dict[str, str], labels: dict[str, str]) -> None:
    assert from_labels(wanted).matches(labels) == (wanted.items() <= labels.items())
    assert (from_labels(wanted) & from_labels(labels)).matches(labels) == (wanted.items() <= labels.items())


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("metadata.name=x", "metadata.name=x"),
        ("metadata.name==x", "metadata.name=x"),
        ("status.phase!=Running,metadata.name=x", "metadata.name=x,status.phase!=Running"),
        ("a=,", "a="),
        (",,a=b", "a=b"),
        (r"a=b\,c\=d\\", r"a=b\,c\=d\\"),
    ],
)
def test_field_selector_text(text: str, canonical: str) -> None:
    assert str(parse_field_selector(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        ("x=1,a", "invalid selector: 'x=1,a'; can't understand 'a'"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
        ("a=\\", "invalid field selector: invalid escape sequence: \\"),
    ],
)
def test_wrong_field_selectors(text: str, message: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse_field_selector(text)
    assert str(caught.value) == message


def test_field_selector_matching() -> None:
    selector = parse_field_selector("metadata.name=x,status.phase!=Running")
    assert selector.fields() == {"metadata.name", "status.phase"}
    assert selector.requires("metadata.name") == "x"
    assert selector.requires("status.phase") is None
    assert selector.matches({"metadata.name": "x"})
    assert not selector.matches({"metadata.name": "x", "status.phase": "Running"})
    getters = {
        "metadata.name": lambda obj: obj["metadata"]["name"],
        "status.phase": lambda obj: obj.get("status", {}).get("phase", ""),
    }
    test = selector.bind(getters)
    assert test({"metadata": {"name": "x"}})
    assert not test({"metadata": {"name": "y"}})
    assert parse_field_selector("metadata.name!=x").bind(getters)({"metadata": {"name": "y"}})
    with pytest.raises(KeyError):
        parse_field_selector("spec.x=1").bind(getters)
    assert EVERY_FIELD.is_everything and EVERY_FIELD.matches({}) and EVERY_FIELD.bind({})({})
    renamed = parse_field_selector("a=1,b!=2").transform(lambda f, v: ("", "") if f == "a" else ("c", v))
    assert str(renamed) == "c!=2"


@given(st.text())
def test_any_value_survives_escaping(value: str) -> None:
    assert unescape_value(escape_value(value)) == value
    selector = FieldSelector([FieldTerm("f", "=", value)])
    assert parse_field_selector(str(selector)) == selector
