"""Metadata on create and update, labels, selectors, conditions: what is refused and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from shipwheel.api.names import name_is_dns_subdomain
from shipwheel.api.objectmeta import (
    TOTAL_ANNOTATION_SIZE_LIMIT,
    dedup_owner_references,
    validate_conditions,
    validate_label_selector,
    validate_object_meta,
    validate_object_meta_update,
)

OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "1", "controller": True}


def on_create(meta: dict[str, Any], *, namespaced: bool = True) -> list[str]:
    errors = validate_object_meta(meta, namespaced=namespaced, name_rule=name_is_dns_subdomain)
    return [str(error) for error in errors]


def test_good_metadata() -> None:
    assert on_create({
        "name": "web-abc", "generateName": "web-", "namespace": "default", "labels": {"a.b/c": "d"},
        "annotations": {"Example.COM/Any": "thing\n"}, "finalizers": ["a.b/c", "orphan"],
        "ownerReferences": [OWNER, {**OWNER, "controller": False}],
        "managedFields": [{"manager": "x", "operation": "Apply", "fieldsType": "FieldsV1"}],
    }) == []  # fmt: skip
    assert on_create({"name": "web"}, namespaced=False) == []


@pytest.mark.parametrize(
    ("meta", "texts"),
    [
        ({}, ["metadata.name: Required value: name or generateName is required"]),
        ({"name": "web", "namespace": ""}, ["metadata.namespace: Required value"]),
        (
            {"name": "a", "namespace": "a.b"},
            ['metadata.namespace: Invalid value: "a.b": must not contain dots'],
        ),
        (
            {"name": "a", "generation": -1},
            ["metadata.generation: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            {"name": "a", "labels": {"a": "x" * 64}},
            [f'metadata.labels: Invalid value: "{"x" * 64}": must be no more than 63 bytes'],
        ),
        (
            {"name": "a", "annotations": {"a": "x" * TOTAL_ANNOTATION_SIZE_LIMIT}},
            ["metadata.annotations: Too long: may not be more than 262144 bytes"],
        ),
        (
            {"name": "a", "annotations": {"/b": ""}},
            ['metadata.annotations: Invalid value: "/b": prefix part must be non-empty'],
        ),
        (
            {"name": "a", "finalizers": ["orphan", "foregroundDeletion"]},
            [
                'metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: finalizer orphan and '
                "foregroundDeletion cannot be both set"
            ],
        ),
        (
            {"name": "a", "finalizers": ["kubernetes", "mine"]},
            [
                'metadata.finalizers[1]: Invalid value: "mine": name is neither a standard finalizer name nor is it '
                "fully qualified"
            ],
        ),
        (
            {"name": "a", "ownerReferences": [{"apiVersion": "a/b/c"}]},
            [
                'metadata.ownerReferences.apiVersion: Invalid value: "a/b/c": version must not be empty',
                'metadata.ownerReferences.kind: Invalid value: "": must not be empty',
                'metadata.ownerReferences.name: Invalid value: "": must not be empty',
                'metadata.ownerReferences.uid: Invalid value: "": must not be empty',
            ],
        ),
        (
            {
                "name": "a",
                "ownerReferences": [{"apiVersion": "v1", "kind": "Event", "name": "e", "uid": "u"}],
            },
            [
                'metadata.ownerReferences: Invalid value: {"apiVersion":"v1","kind":"Event","name":"e","uid":"u"}: '
                "/v1, Kind=Event is disallowed from being an owner"
            ],
        ),
        (
            {"name": "a", "managedFields": [{"operation": "Create", "manager": "a\tb", "fieldsType": "V2"}]},
            [
                'metadata.managedFields[0].operation: Invalid value: "Create": must be `Apply` or `Update`',
                'metadata.managedFields[0].fieldsType: Invalid value: "V2": must be `FieldsV1`',
                'metadata.managedFields[0].manager: Invalid value: "a\\tb": invalid character U+0009 (at position 1)',
            ],
        ),
        (
            {
                "name": "a",
                "managedFields": [{"operation": "Apply", "manager": "x" * 129, "subresource": "x" * 257}],
            },
            [
                "metadata.managedFields[0].manager: Too long: may not be more than 128 bytes",
                "metadata.managedFields[0].subresource: Too long: may not be more than 256 bytes",
            ],
        ),
    ],
)
def test_bad_metadata(meta: dict[str, Any], texts: list[str]) -> None:
    assert on_create({"namespace": "default", **meta}) == texts


def test_metadata_against_scope_and_name_rule() -> None:
    assert on_create({"name": "a", "namespace": "b"}, namespaced=False) == [
        "metadata.namespace: Forbidden: not allowed on this type"
    ]
    (text,) = on_create({"name": "A"}, namespaced=False)
    assert text.startswith('metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist')
    (text,) = on_create({"name": "a", "generateName": "AB-"}, namespaced=False)
    assert text.startswith('metadata.generateName: Invalid value: "AB-": a lowercase RFC 1123 subdomain must')


def test_custom_kinds_may_have_unqualified_finalizers() -> None:
    meta = {"name": "a", "namespace": "b", "finalizers": ["mine"]}
    rule = name_is_dns_subdomain
    assert validate_object_meta(meta, namespaced=True, name_rule=rule, qualified_finalizers=False) == []
    new = {**OLD, "finalizers": ["mine"]}
    assert validate_object_meta_update(new, OLD, qualified_finalizers=False) == []
    assert len(validate_object_meta_update(new, OLD)) == 1


def test_owners_named_twice_are_taken_once() -> None:
    meta = {"ownerReferences": [OWNER, {**OWNER, "name": "other"}, dict(OWNER)]}
    assert dedup_owner_references(meta) == ["1"]
    assert meta == {"ownerReferences": [OWNER, {**OWNER, "name": "other"}]}
    assert dedup_owner_references(meta) == dedup_owner_references({}) == []


def test_only_one_owner_controls() -> None:
    texts = on_create({"name": "a", "namespace": "b", "ownerReferences": [OWNER, {**OWNER, "name": "api"}]})
    assert len(texts) == 1
    assert texts[0].endswith(
        'Only one reference can have Controller set to true. Found "true" in references for ReplicaSet/web and '
        "ReplicaSet/api"
    )


OLD = {
    "name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1", "generation": 2,
    "creationTimestamp": "2026-01-01T00:00:00Z",
}  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "texts"),
    [
        ({}, {}, []),
        ({}, {"generation": 3, "resourceVersion": "7", "finalizers": ["a.b/c"]}, []),
        (
            {},
            {"resourceVersion": ""},
            ['metadata.resourceVersion: Invalid value: "": must be specified for an update'],
        ),
        ({}, {"generation": 1}, ["metadata.generation: Invalid value: 1: must not be decremented"]),
        ({}, {"name": "z"}, ['metadata.name: Invalid value: "z": field is immutable']),
        ({}, {"namespace": ""}, ['metadata.namespace: Invalid value: "": field is immutable']),
        ({}, {"uid": None}, ['metadata.uid: Invalid value: "": field is immutable']),
        (
            {},
            {"creationTimestamp": None},
            ["metadata.creationTimestamp: Invalid value: null: field is immutable"],
        ),
        (
            {},
            {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            ['metadata.deletionTimestamp: Invalid value: "2026-01-01T00:00:00Z": field is immutable'],
        ),
        (
            {},
            {"deletionGracePeriodSeconds": 0},
            ["metadata.deletionGracePeriodSeconds: Invalid value: 0: field is immutable"],
        ),
        (
            {"deletionTimestamp": "x", "finalizers": ["x/k"]},
            {"deletionTimestamp": "x", "finalizers": ["x/k", "x/b", "x/a"]},
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
                'found new finalizers []string{"x/a", "x/b"}'
            ],
        ),
        ({"deletionTimestamp": "x", "finalizers": ["x/k"]}, {"deletionTimestamp": "x", "finalizers": []}, []),
    ],
)
def test_metadata_updates(old: dict[str, Any], new: dict[str, Any], texts: list[str]) -> None:
    assert [str(e) for e in validate_object_meta_update({**OLD, **new}, {**OLD, **old})] == texts


def test_label_selectors() -> None:
    def complaints(selector: dict[str, Any] | None, **options: bool) -> list[str]:
        return [str(error) for error in validate_label_selector(selector, "spec.selector", **options)]

    def expression(**fields: Any) -> dict[str, Any]:
        return {"matchExpressions": [{"key": "a", **fields}]}

    assert complaints(None) == complaints({}) == complaints({"matchLabels": {"a": "b"}}) == []
    assert complaints(expression(operator="In", values=["x"])) == complaints(expression(operator="Exists")) == []
    assert complaints(expression(operator="In")) == [
        "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
    ]
    assert complaints(expression(operator="Exists", values=["x"])) == [
        "spec.selector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or "
        "'DoesNotExist'"
    ]
    unknown = expression(operator="Gt", values=["1"])
    assert complaints(unknown) == [
        'spec.selector.matchExpressions[0].operator: Invalid value: "Gt": not a valid selector operator'
    ]
    assert complaints(unknown, allow_unknown_operators=True) == []
    bad_value = expression(operator="In", values=["ok", "-"])
    assert complaints(bad_value)[0].startswith('spec.selector.matchExpressions[0].values[1]: Invalid value: "-": ')
    assert complaints(bad_value, allow_invalid_values=True) == []
    assert complaints({"matchExpressions": [{"operator": "Exists"}]})[0] == (
        'spec.selector.matchExpressions[0].key: Invalid value: "": name part must be non-empty'
    )


def test_conditions() -> None:
    good = {
        "type": "Ready", "status": "True", "reason": "AllGood", "message": "", "lastTransitionTime": "x",
    }  # fmt: skip
    bad = {
        "type": "Ready",
        "status": "Maybe",
        "reason": "no!",
        "message": "x" * 32769,
        "observedGeneration": -1,
    }
    assert validate_conditions([good], "status.conditions") == []
    texts = [str(error) for error in validate_conditions([good, bad], "c")]
    assert texts[:4] == [
        'c[1].type: Duplicate value: "Ready"',
        'c[1].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown"',
        "c[1].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
        "c[1].lastTransitionTime: Required value",
    ]
    assert texts[4].startswith('c[1].reason: Invalid value: "no!": a condition reason must start with')
    assert texts[5] == "c[1].message: Too long: may not be more than 32768 bytes"
    assert [str(e) for e in validate_conditions([{**good, "reason": ""}], "c")] == ["c[0].reason: Required value"]
