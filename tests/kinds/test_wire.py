"""Kubernetes' protobuf: known bytes, and round trips of objects made from the schemas of every kind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipwheel.api.meta import GroupVersionKind
from shipwheel.api.schema import DecodeError, Schema, conform
from shipwheel.api.schema.model import INT_OR_STRING, MICRO_TIME, QUANTITY, TIME
from shipwheel.kinds import builtin_resources, catalog, wire

POD = GroupVersionKind("", "v1", "Pod")


def test_a_body_is_what_other_implementations_write():
    """Put together by hand from the wire format: magic, Unknown{typeMeta, raw, contentEncoding, contentType}."""
    obj = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"}}
    type_meta = b"\x0a\x0f" + b"\x0a\x02v1" + b"\x12\x09ConfigMap"
    raw = b"\x0a\x03\x0a\x01a" + b"\x12\x06\x0a\x01k\x12\x01v"
    body = b"k8s\x00" + type_meta + b"\x12" + bytes([len(raw)]) + raw + b"\x1a\x00" + b"\x22\x00"
    assert wire.encode_object(obj) == body
    assert wire.decode_object(body) == obj


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "hostPath": {"path": "/"}}]},
        {"containers": [{"name": "c", "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 3}}]},
        {"containers": [{"name": "c", "readinessProbe": {"tcpSocket": {"port": 80}}}]},
        {"ephemeralContainers": [{"name": "e", "image": "i", "targetContainerName": "c"}]},
        {"containers": [{"name": "c", "resources": {"limits": {"cpu": "100m"}}}]},
        {"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s", "optional": True}}]}]},
        {"terminationGracePeriodSeconds": 0, "priority": -5},
    ],
)  # fmt: skip
def test_structs_that_go_embeds_stand_in_the_object_itself(spec: dict):
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "spec": spec}
    assert wire.decode_object(wire.encode_object(pod)) == pod


@pytest.mark.parametrize("acquired", ["1969-12-31T23:59:59.500000Z", "0001-01-01T00:00:02.000000Z"])
def test_times(acquired: str):
    lease = {
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": "l", "creationTimestamp": "2024-02-29T12:00:00Z"},
        "spec": {"renewTime": "2024-02-29T12:00:00.000123Z", "acquireTime": acquired},
    }
    assert wire.decode_object(wire.encode_object(lease)) == lease


def test_free_form_parts():
    revision = {
        "kind": "ControllerRevision",
        "apiVersion": "apps/v1",
        "metadata": {"name": "r", "managedFields": [{"manager": "m", "fieldsV1": {"f:data": {".": {}}}}]},
        "data": {"spec": {"any": ["thing", 1, None]}},
        "revision": 1,
    }
    assert wire.decode_object(wire.encode_object(revision)) == revision


def test_schemas_inside_custom_resource_definitions():
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "string", "default": "x", "enum": ["x", 1]}},
            "b": {"type": "object", "additionalProperties": True},
            "c": {"type": "object", "additionalProperties": {"type": "integer", "x-kubernetes-int-or-string": True}},
        },
    }
    crd = {
        "kind": "CustomResourceDefinition",
        "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": "x"},
        "spec": {"group": "g", "versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]},
    }
    assert wire.decode_object(wire.encode_object(crd)) == crd


def test_zero_values_of_schemas_inside_others():
    zeros = {"title": "", "nullable": False, "exclusiveMaximum": False}
    items = {"type": "object", **zeros, "properties": {"b": {"type": "string", **zeros}}}
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": items}}}
    crd = {
        "kind": "CustomResourceDefinition",
        "apiVersion": "apiextensions.k8s.io/v1",
        "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]},
    }
    (version,) = wire.decode_object(wire.encode_object(crd))["spec"]["versions"]
    found = version["schema"]["openAPIV3Schema"]["properties"]["a"]["items"]
    assert found == {"type": "object", "properties": {"b": {"type": "string"}}}


def test_lists_and_kinds_inside_kinds_have_no_type():
    pods = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": [{"metadata": {}}]}
    assert wire.decode_object(wire.encode_object(pods)) == pods
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}}
    stateful = {
        "kind": "StatefulSet",
        "apiVersion": "apps/v1",
        "metadata": {},
        "spec": {"volumeClaimTemplates": [claim]},
    }
    (decoded,) = wire.decode_object(wire.encode_object(stateful))["spec"]["volumeClaimTemplates"]
    assert decoded == {"metadata": {"name": "c"}}


def test_a_list_is_put_together_from_encoded_items():
    pods = [{"metadata": {"name": name}} for name in "ab"]
    metadata = {"resourceVersion": "5", "continue": "x"}
    whole = wire.encode_object({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": pods})
    message = wire.list_metadata(metadata) + b"".join(wire.list_item(wire.encode_item(POD, pod)) for pod in pods)
    parts = [wire.opening("v1", "PodList"), wire.announce(len(message)), message, wire.CLOSING]
    assert b"".join(parts) == wire.envelope("v1", "PodList", message) == whole
    empty = wire.decode_object(wire.envelope("v1", "PodList", wire.list_metadata({})))
    assert empty == {"kind": "PodList", "apiVersion": "v1", "metadata": {}}


def test_what_go_writes_for_nothing_goes_again():
    """Go clients write all fields that are no pointers: empty texts, zeros, empty messages, a zero time."""
    body = wire.encode_object(
        {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": "p", "creationTimestamp": None, "generation": 0, "selfLink": ""},
            "spec": {"hostNetwork": False, "nodeName": "", "containers": [{"name": "c", "image": "", "stdin": False}]},
        }
    )
    pod = conform(catalog.schema_for(POD), wire.decode_object(body))
    assert pod == {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "resources": {}}]},
        "status": {},
    }


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty data"),
        (b"{}", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"),
        (b"k8s\x00", "empty body"),
        (wire.envelope("v1", "", b""), "Object 'Kind' is missing in 'runtime.TypeMeta{APIVersion:\"v1\", Kind:\"\"}'"),
        (
            wire.envelope("", "Pod", b""),
            "Object 'apiVersion' is missing in 'runtime.TypeMeta{APIVersion:\"\", Kind:\"Pod\"}'",
        ),
        (wire.envelope("a/b/c", "Pod", b""), "unexpected GroupVersion string: a/b/c"),
    ],
)  # fmt: skip
def test_what_is_no_object(body: bytes, says: str):
    with pytest.raises(DecodeError) as caught:
        wire.decode_object(body)
    assert str(caught.value) == says


def test_garbage_is_a_decode_error():
    with pytest.raises(DecodeError):
        wire.decode_object(wire.envelope("v1", "Pod", b"\x0a\xff\xff"))


@pytest.mark.parametrize("depth", [300, 3000])
def test_nested_too_deep(depth: int):
    """A schema in a schema's `not` (field 28), and so on."""
    inner = b""
    for _ in range(depth):
        inner = b"\xe2\x01" + _varint(len(inner)) + inner
    for number in (1, 4, 7, 2):  # openAPIV3Schema, schema, versions, spec
        inner = bytes([number << 3 | 2]) + _varint(len(inner)) + inner
    with pytest.raises(DecodeError, match="exceeded max depth"):
        wire.decode_object(wire.envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", inner))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def test_the_kind_may_be_known_otherwise():
    body = wire.envelope("", "", b"\x0a\x03\x0a\x01a")
    assert wire.decode_object(body, default=POD) == {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}}


def test_kinds_without_protobuf():
    with pytest.raises(KeyError):
        wire.encode_object({"kind": "Thing", "apiVersion": "example.com/v1"})
    with pytest.raises(KeyError):
        wire.encode_object({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "rows": []})


def test_watch_frames():
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}}
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "code": 410}
    stream = wire.watch_frame("ADDED", wire.encode_object(pod)) + wire.watch_frame("ERROR", wire.encode_object(status))
    events = list(wire.watch_frames(stream + b"\x00\x00\x00\x09par"))
    assert [event[:2] for event in events] == [("ADDED", pod), ("ERROR", status)]
    assert events[-1][2] == len(stream)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
SPECIAL = {
    QUANTITY: st.sampled_from(["1", "100m", "1Gi"]),
    INT_OR_STRING: st.integers(0, 2**31 - 1) | TEXT,
    TIME: st.sampled_from(["2024-02-29T12:00:00Z", "1999-12-31T23:59:59Z"]),
    MICRO_TIME: st.sampled_from(["2024-02-29T12:00:00.123456Z", "2024-02-29T12:00:00.000001Z"]),
}


def objects_of(schema: Schema, depth: int = 0) -> st.SearchStrategy[Any]:
    """Objects of a schema: each with a few of its fields."""
    special = SPECIAL.get(schema.name)
    if special is not None:
        return special
    match schema.type:
        case "string":
            return st.just("aGk=") if schema.format == "byte" else TEXT
        case "integer":
            return st.integers(-(2**31), 2**31 - 1) if schema.format == "int32" else st.integers(-(2**63), 2**63 - 1)
        case "number":
            return st.floats(-1e9, 1e9)
        case "boolean":
            return st.just(True)
        case "array" if schema.items is not None:
            return st.lists(objects_of(schema.items, depth + 1), min_size=1, max_size=2)
        case "object" if schema.properties:
            names = [name for name in schema.properties if name not in ("apiVersion", "kind")]
            if depth > 5:
                names = [name for name in names if schema.properties[name].type not in ("object", "array")]
            if not names:
                return st.just({})
            chosen = st.lists(st.sampled_from(names), max_size=4, unique=True)
            return chosen.flatmap(
                lambda fields: st.fixed_dictionaries(
                    {name: objects_of(schema.properties[name], depth + 1) for name in fields}
                )
            )
        case "object" if schema.additional is not None:
            return st.dictionaries(TEXT, objects_of(schema.additional, depth + 1), min_size=1, max_size=2)
    return st.just({"free": ["form", 1]}) if schema.name.endswith(("RawExtension", "FieldsV1", "JSON")) else st.just({})


KINDS = sorted(
    {
        GroupVersionKind(version.group, version.version, resource.kind)
        for resource in builtin_resources(older=False)
        for version in resource.versions
    }
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_kind_round_trips(data: st.DataObject):
    gvk = data.draw(st.sampled_from(KINDS))
    schema = catalog.schema_for(gvk)
    if "JSONSchemaProps" in str(schema.name) or gvk.kind == "CustomResourceDefinition":
        return
    body = {"kind": gvk.kind, "apiVersion": str(gvk.group_version), **data.draw(objects_of(schema))}
    obj = conform(schema, body)
    again = conform(schema, wire.decode_object(wire.encode_object(copy.deepcopy(obj))))
    assert again == obj


@pytest.mark.parametrize("gvk", KINDS, ids=str)
def test_every_kind_has_a_message(gvk: GroupVersionKind):
    assert wire.message_for(gvk).fields
