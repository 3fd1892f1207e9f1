"""What is found wrong with CEL expressions by the schemas of what they speak of."""

from __future__ import annotations

import pytest

from shipwheel.api.cel.checking import Schemas, complaints, type_of

DEFINITIONS = {
    "Spec": {
        "type": "object",
        "properties": {
            "replicas": {"type": "integer", "format": "int32"},
            "paused": {"type": "boolean"},
            "ratio": {"type": "number"},
            "port": {"x-kubernetes-int-or-string": True},
            "names": {"type": "array", "items": {"type": "string"}},
            "containers": {"type": "array", "items": {"$ref": "#/components/schemas/Spec"}},
            "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "inner": {"allOf": [{"$ref": "#/components/schemas/Spec"}], "default": {}},
        },
    }
}
WORKLOAD = {
    "type": "object",
    "properties": {
        "metadata": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "creationTimestamp": {"type": "string", "format": "date-time"},
            },
        },
        "spec": {"$ref": "#/components/schemas/Spec"},
    },
}


def schemas(**variables: object) -> Schemas:
    roots = {"object": WORKLOAD, "oldObject": WORKLOAD, "params": None}
    return Schemas(roots, lambda reference: DEFINITIONS[reference.rpartition("/")[2]], variables)


@pytest.mark.parametrize(
    "expression",
    [
        "object.spec.replicas > 1",
        "has(object.spec.replicas) && object.spec.replicas > 1",
        "!has(object.spec.replicas)",
        "object.metadata.name.startsWith('a') && 'team' in object.metadata.labels",
        "object.metadata.labels['team'] == 'x'",
        "object.spec.names.all(name, name != 'object.spec.nothing')",
        "object.spec.containers.all(c, c.anything > 1)",
        "object.spec.port == 80 || object.spec.port == 'http'",
        "object.spec.raw.what.ever == 1",
        "object.spec.inner.inner.replicas == 2",
        "oldObject == null || object.spec.replicas >= oldObject.spec.replicas",
        "object.metadata.creationTimestamp > timestamp('2026-01-01T00:00:00Z')",
        "object.spec.?replicas.orValue(1) > 1",
        "params.limit > 5 && request.userInfo.username == 'x' && namespaceObject.metadata.name == 'y'",
        # Functions of Kubernetes' own: nothing is said.
        "quantity('1Gi').isGreaterThan(quantity('1Mi'))",
        "authorizer.group('').resource('pods').check('get').allowed()",
        "object.metadata.name.find('[0-9]+') == ''",
        "dyn(object.spec.replicas) == 'x'",
        # What is no CEL at all is for validation to refuse.
        "object.spec.replicas >",
    ],
)
def test_nothing_to_complain_of(expression):
    assert complaints(expression, schemas()) == []


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (
            "object.spec.replicas > '1'",
            [
                "ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n"
                " | object.spec.replicas > '1'\n"
                " | .....................^"
            ],
        ),
        (
            "'wants replicas > 1, got ' + object.spec.replicas",
            [
                "ERROR: <input>:1:28: found no matching overload for '_+_' applied to '(string, int)'\n"
                " | 'wants replicas > 1, got ' + object.spec.replicas\n"
                " | ...........................^"
            ],
        ),
        (
            "object.spec.nothing == 1",
            ["ERROR: <input>:1:12: undefined field 'nothing'\n | object.spec.nothing == 1\n | ...........^"],
        ),
        (
            "has(object.spec.replicas) &&\n  object.spec.replicas == 'x'",
            [
                "ERROR: <input>:2:24: found no matching overload for '_==_' applied to '(int, string)'\n"
                " |   object.spec.replicas == 'x'\n"
                " | .......................^"
            ],
        ),
    ],
)
def test_complaints_are_told_as_the_compiler_would(expression, expected):
    assert complaints(expression, schemas()) == expected


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ("object.spec.replicas && true", 1),
        ("object.metadata.labels['a'] > 1", 1),
        ("object.spec.names.all(name, name > 1)", 1),
        ("oldObject.spec.paused == 1", 1),
        ("object.spec.ratio + 'x' == 'y' || object.spec.paused > 2", 2),
        ("object.spec.inner.nothing == object.metadata.none", 2),
        ("object.spec.replicas > '1' && object.spec.replicas < '9'", 2),
    ],
)
def test_how_much_is_wrong(expression, count):
    assert len(complaints(expression, schemas())) == count


def test_variables_have_the_types_of_their_expressions():
    known = schemas(wanted=type_of("object.spec.replicas + 1", schemas()), odd=type_of("format.uuid()", schemas()))
    assert complaints("variables.wanted > 1 && variables.odd > 'x' && variables.other == 1", known) == []
    assert len(complaints("variables.wanted > 'x'", known)) == 1
