"""Server-side apply: ownership, conflicts, removal, order of lists; by example and by law."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shipwheel.api.apply import apply, excluding, revert_timestamps, track_update
from shipwheel.api.apply import fields as sets
from shipwheel.api.apply.compiled import merge_type
from shipwheel.api.apply.managers import MAX_UPDATERS, Manager, applier, read_managers
from shipwheel.api.errors import ApiError
from shipwheel.api.patch.values import clone, same
from shipwheel.api.schema import from_openapi
from tests.api.apply_world import GV, LATER, NOW, SCHEMA, STRING, thing, things

Obj = dict[str, Any]


def applied(live: Obj | None, config: Obj, manager: str = "me", *, force: bool = False, **options: Any) -> Obj:
    options = {"schema": SCHEMA, "api_version": GV, "now": NOW, "kind": "Thing", **options}
    return apply(live, config, manager=manager, force=force, **options)


def updated(new: Obj, old: Obj | None, manager: str = "you", **options: Any) -> Obj:
    options = {"schema": SCHEMA, "api_version": GV, "now": NOW, **options}
    new = clone(new)
    track_update(new, old, manager=manager, **options)
    return new


def entries(obj: Obj) -> dict[Manager, sets.Fields]:
    table = read_managers(obj["metadata"].get("managedFields"))
    return {manager: owned.fields for manager, owned in table.items()}


def owned(obj: Obj, manager: str = "me", operation: str = "Apply") -> set[str]:
    """What the manager owns, as paths."""
    for each, fields in entries(obj).items():
        if (each.name, each.operation) == (manager, operation):
            return set(map(sets.path_text, sets.members(fields)))
    return set()


def spec_of(obj: Obj) -> Any:
    return obj.get("spec")


# By example.


def test_a_configuration_makes_the_object_and_owns_what_it_says() -> None:
    config = thing({"replicas": 1, "labels": {"a": "x"}, "items": [{"name": "a", "v": "x"}]}, labels={"l": "v"})
    made = applied(None, config)
    assert made["spec"] == config["spec"]
    assert owned(made) == {
        ".metadata.labels.l", ".spec.replicas", ".spec.labels.a", '.spec.items[name="a"]',
        '.spec.items[name="a"].name', '.spec.items[name="a"].v',
    }  # fmt: skip
    assert made["metadata"]["managedFields"] == [
        {
            "manager": "me",
            "operation": "Apply",
            "apiVersion": GV,
            "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {"f:l": {}}},
                "f:spec": {
                    "f:items": {'k:{"name":"a"}': {".": {}, "f:name": {}, "f:v": {}}},
                    "f:labels": {"f:a": {}},
                    "f:replicas": {},
                },
            },
        }
    ]


def test_what_is_no_longer_said_goes_unless_somebody_else_owns_it() -> None:
    live = applied(None, thing({"replicas": 1, "text": "x", "set": ["a", "b"], "items": [{"name": "a", "v": "x"}]}))
    live = applied(live, thing({"text": "x", "set": ["b"]}), "other")
    live = applied(live, thing({"items": [{"name": "a"}]}))
    assert live["spec"] == {"text": "x", "set": ["b"], "items": [{"name": "a"}]}
    assert owned(live) == {'.spec.items[name="a"]', '.spec.items[name="a"].name'}


def test_what_somebody_set_otherwise_stays() -> None:
    live = applied(None, thing({"replicas": 1, "nested": {"x": "x"}}))
    live = updated({**live, "spec": {"replicas": 1, "nested": {"x": "x", "y": "y"}, "text": "z"}}, live)
    live = applied(live, thing({}))
    assert live["spec"] == {"nested": {"y": "y"}, "text": "z"}


def test_conflicts_name_the_manager_and_the_fields() -> None:
    live = updated(thing({"replicas": 1, "text": "x"}), None, "kubectl-client-side-apply")
    with pytest.raises(ApiError) as caught:
        applied(live, thing({"replicas": 2}))
    assert caught.value.to_status() == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Conflict",
        "code": 409,
        "message": f'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using {GV}: '
        ".spec.replicas",
        "details": {
            "causes": [
                {
                    "reason": "FieldManagerConflict",
                    "message": f'conflict with "kubectl-client-side-apply" using {GV}',
                    "field": ".spec.replicas",
                }
            ]
        },
    }  # fmt: skip
    live = updated({**live, "status": {"phase": "x"}}, live, "controller", subresource="status")
    live = applied(live, thing({"list": ["a"]}), "lister")
    with pytest.raises(ApiError) as caught:
        applied(live, {**thing({"replicas": 2, "text": "y", "list": ["b"]}), "status": {"phase": "y"}})
    assert caught.value.message == (
        f'Apply failed with 4 conflicts: conflicts with "controller" with subresource "status" using {GV}:\n'
        f'- .status.phase\nconflicts with "kubectl-client-side-apply" using {GV}:\n- .spec.replicas\n- .spec.text\n'
        'conflicts with "lister":\n- .spec.list'
    )


def test_force_takes_and_equal_values_are_shared() -> None:
    live = applied(None, thing({"replicas": 1, "text": "x"}), "first")
    live = applied(live, thing({"replicas": 2, "text": "x"}), "second", force=True)
    assert live["spec"] == {"replicas": 2, "text": "x"}
    assert owned(live, "first") == {".spec.text"}
    assert owned(live, "second") == {".spec.replicas", ".spec.text"}
    live = applied(live, thing({"replicas": 2, "text": "x"}), "first")
    assert owned(live, "first") == owned(live, "second") == {".spec.replicas", ".spec.text"}


def test_an_update_takes_what_it_changes() -> None:
    live = applied(None, thing({"replicas": 1, "set": ["a", "b"], "atomicMap": {"a": "x"}}))
    new = updated({**live, "spec": {"replicas": 2, "set": ["b", "c"], "atomicMap": {"a": "x"}}}, live)
    assert owned(new) == {'.spec.set[="b"]', ".spec.atomicMap"}
    assert owned(new, "you", "Update") == {".spec.replicas", '.spec.set[="c"]'}


@pytest.mark.parametrize(
    ("live", "config", "merged"),
    [
        (["a", "b", "c"], ["c", "a"], ["b", "c", "a"]),
        (["a", "b", "c"], ["d", "b"], ["a", "d", "b", "c"]),
        (["a", "b"], ["b", "a"], ["b", "a"]),
        (["a"], [], ["a"]),
        ([], ["b"], ["b"]),
        (["x", "a", "y", "b"], ["a", "b"], ["x", "a", "y", "b"]),
        (["x", "a", "y", "b"], ["b", "a"], ["x", "y", "b", "a"]),
    ],
)
def test_merged_lists_are_in_the_configurations_order(live: list[str], config: list[str], merged: list[str]) -> None:
    first = applied(None, thing({"set": live, "items": [{"name": each} for each in live]}), "first")
    spec = applied(first, thing({"set": config, "items": [{"name": each} for each in config]}))["spec"]
    assert spec["set"] == merged
    assert [each["name"] for each in spec["items"]] == merged


def test_keys_with_defaults_tell_items_apart() -> None:
    live = applied(None, thing({"ports": [{"port": 80, "n": "x"}]}))
    merged = applied(
        live,
        thing({"ports": [{"port": 80, "protocol": "TCP", "n": "x"}, {"port": 80, "protocol": "UDP"}]}),
        "other",
    )
    assert merged["spec"]["ports"] == [
        {"port": 80, "protocol": "TCP", "n": "x"}, {"port": 80, "protocol": "UDP"},
    ]  # fmt: skip
    assert '.spec.ports[port=80,protocol="TCP"]' in owned(live)


def test_lists_without_a_declared_type_follow_their_patch_strategy() -> None:
    live = applied(None, thing({"old": [{"name": "a"}], "oldSet": ["a"]}), "first")
    live = applied(live, thing({"old": [{"name": "b"}], "oldSet": ["b"]}), "second")
    assert live["spec"] == {"old": [{"name": "a"}, {"name": "b"}], "oldSet": ["a", "b"]}


@pytest.mark.parametrize(
    ("config", "code", "message"),
    [
        ({**thing({}), "kind": "Other"}, 400, "invalid object type: test.example.com/v1, Kind=Other"),
        ({**thing({}), "apiVersion": "v1"}, 400, "invalid object type: /v1, Kind=Thing"),
        (thing({}, managedFields=[]), 400, "metadata.managedFields must be nil"),
        (thing({"unknown": 1}), 500, ".spec.unknown: field not declared in schema"),
        (thing({"replicas": "x"}), 500, ".spec.replicas: expected numeric (int or float), got string"),
        (thing({"text": 5}), 500, ".spec.text: expected string, got &value.valueUnstructured{Value:5}"),
        (thing({"paused": "x"}), 500, ".spec.paused: expected boolean, got &{x}"),
        (thing({"nested": []}), 500, ".spec.nested: expected map, got &{[]}"),
        (thing({"list": {}}), 500, ".spec.list: expected list, got &{map[]}"),
        (
            thing({"list": ["a", 1]}),
            500,
            ".spec.list[1]: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (thing({"set": ["a", "a"]}), 500, '.spec.set: duplicate entries for key [="a"]'),
        (
            thing({"set": [{}]}),
            500,
            ".spec.set: element 0: associative list without keys has an element that's a map type",
        ),
        (
            thing({"set": [None]}),
            500,
            ".spec.set: element 0: associative list without keys has an element that's an explicit null",
        ),
        (
            thing({"items": [{"v": "x"}]}),
            500,
            '.spec.items: element 0: associative list with keys has an element that omits all key fields ["name"] '
            "(and doesn't have default values for any key fields)",
        ),
        (
            thing({"items": ["x"]}),
            500,
            ".spec.items: element 0: associative list with keys may not have non-map elements",
        ),
        (
            thing({"text": 1, "nested": {"deep": {"z": 1}}}),
            500,
            "errors:\n  .spec.text: expected string, got &value.valueUnstructured{Value:1}\n  .spec.nested.deep.z: "
            "field not declared in schema",
        ),
    ],
)
def test_configurations_that_are_refused(config: Obj, code: int, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        applied(None, config)
    prefix = "failed to create typed patch object (default/t; test.example.com/v1, Kind=Thing): "
    assert caught.value.message == (message if code == 400 else prefix + message)
    assert caught.value.code == code


def test_objects_nobody_was_known_to_own_belong_to_the_past() -> None:
    live = thing({"replicas": 1, "text": "x"}, uid="u")
    with pytest.raises(ApiError, match=r'conflict with "before-first-apply" using test.example.com/v1: .spec.replicas'):
        applied(live, thing({"replicas": 2}))
    merged = applied(live, thing({"text": "x"}))
    assert owned(merged, "before-first-apply", "Update") == {".spec", ".spec.replicas", ".spec.text"}


def test_kubectl_moves_from_client_side_to_server_side() -> None:
    annotation = "kubectl.kubernetes.io/last-applied-configuration"
    first = '{"apiVersion":"test.example.com/v1","kind":"Thing","spec":{"replicas":1,"text":"x"}}'
    live = updated(
        thing({"replicas": 1, "text": "x"}, annotations={annotation: first}),
        None,
        "kubectl-client-side-apply",
    )
    config = thing({"replicas": 2, "text": "y"})
    with pytest.raises(ApiError, match="Apply failed with 2 conflicts"):
        applied(live, config, "somebody")
    merged = applied(live, config, "kubectl")
    assert merged["spec"] == config["spec"]
    assert merged["metadata"]["annotations"][annotation] == (
        '{"apiVersion":"test.example.com/v1","kind":"Thing","metadata":{"name":"t","namespace":"default"},'
        '"spec":{"replicas":2,"text":"y"}}\n'
    )
    changed = updated({**live, "spec": {"replicas": 5, "text": "x"}}, live, "somebody")
    with pytest.raises(ApiError) as caught:
        applied(changed, config, "kubectl")
    assert caught.value.message == f'Apply failed with 1 conflict: conflict with "somebody" using {GV}: .spec.replicas'


def test_reset_fields_are_owned_by_nobody() -> None:
    config = {**thing({"replicas": 1}), "status": {"phase": "x"}}
    assert owned(applied(None, config, reset_fields=excluding("status"))) == {".spec.replicas"}
    assert owned(updated(config, None, reset_fields=excluding("status")), "you", "Update") == {
        ".spec", ".spec.replicas",
    }  # fmt: skip


# Managed fields of other writes.


def test_a_create_owns_everything_but_identity() -> None:
    made = updated(thing({"labels": {"a": "x"}, "set": ["a"], "nested": {}}, uid="u", generation=1), None)
    assert made["metadata"]["managedFields"][0]["fieldsV1"] == {
        "f:spec": {
            ".": {}, "f:labels": {".": {}, "f:a": {}}, "f:nested": {}, "f:set": {".": {}, 'v:"a"': {}},
        }
    }  # fmt: skip


def test_fields_that_go_always_written_their_containers_are_not_owned() -> None:
    kind = from_openapi(
        {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "x-go": "v1.Spec",
                    "properties": {
                        "items": {"type": "array", "items": STRING, "x-go": "[]string"},
                        "text": STRING,
                    },
                }
            },
        },
        name="io.k8s.api.test.v1.Thing",
    )
    made = updated(thing({"text": "x", "items": ["a"]}), None, schema=kind)
    assert owned(made, "you", "Update") == {".spec.text", ".spec.items"}


def test_no_change_no_trace_and_times_are_kept() -> None:
    live = updated(thing({"replicas": 1}), None)
    again = updated(live, live, now=LATER)
    assert again == live
    same_again = updated(live, live, "other", now=LATER)
    assert same_again == live
    changed = updated({**live, "spec": {"replicas": 1, "text": "x"}}, live, now=LATER)
    assert [entry["time"] for entry in changed["metadata"]["managedFields"]] == ["2026-01-02T00:00:00Z"]
    touched = clone(live)
    touched["metadata"]["managedFields"][0]["time"] = "2027-01-01T00:00:00Z"
    revert_timestamps(touched, live)
    assert touched == live
    changed["metadata"]["managedFields"][0]["fieldsV1"] = live["metadata"]["managedFields"][0]["fieldsV1"]
    revert_timestamps(changed, live)
    assert changed["metadata"]["managedFields"][0]["time"] == "2026-01-02T00:00:00Z"


def test_clients_may_edit_and_empty_the_table() -> None:
    live = applied(None, thing({"replicas": 1, "text": "x"}))
    for emptied in ([], [{}]):
        new = clone(live)
        new["metadata"]["managedFields"] = emptied
        assert "managedFields" not in updated(new, live)["metadata"]
    renamed = clone(live)
    renamed["metadata"]["managedFields"][0]["manager"] = "renamed"
    assert owned(updated(renamed, live), "renamed") == owned(live)
    for nonsense in (
        {"operation": "Create"}, {"apiVersion": ""}, {"fieldsType": ""}, {"fieldsType": "V2"},
        {"fieldsV1": {"broken": {}}},
    ):  # fmt: skip
        broken = clone(live)
        broken["metadata"]["managedFields"][0].update(nonsense)
        assert updated(broken, live)["metadata"]["managedFields"] == live["metadata"]["managedFields"]
    forgotten = clone(live)
    del forgotten["metadata"]["managedFields"]
    assert updated(forgotten, live) == live
    through_status = clone(live)
    through_status["metadata"]["managedFields"] = [{}]
    assert updated(through_status, live, subresource="status") == live


def test_values_of_the_wrong_type_are_left_to_validation() -> None:
    assert "managedFields" not in updated(thing({"nested": "x"}), None)["metadata"]
    assert "managedFields" not in updated(thing({"items": [{}]}), None)["metadata"]


def test_many_updaters_are_merged_into_one() -> None:
    live = updated(thing({"labels": {}}), None, "creator")
    for number in range(MAX_UPDATERS + 5):
        labels = {**live["spec"]["labels"], f"l{number}": "x"}
        moment = NOW.replace(hour=1, minute=number)
        live = updated({**live, "spec": {"labels": labels}}, live, f"manager-{number:02}", now=moment)
    table = entries(live)
    assert len(table) == MAX_UPDATERS
    assert Manager("ancient-changes", "Update", GV) in table
    assert ".spec.labels.l0" in owned(live, "ancient-changes", "Update")
    everything = {path for manager in table for path in owned(live, manager.name, "Update")}
    assert everything >= {f".spec.labels.l{number}" for number in range(MAX_UPDATERS + 5)}


def test_schema_changes_from_items_to_whole_are_followed() -> None:
    atomic = from_openapi(
        {
            "type": "object",
            "properties": {"spec": {"type": "object", "properties": {"set": {"type": "array", "items": STRING}}}},
        }
    )
    live = applied(None, thing({"set": ["a", "b"]}))
    assert owned(live) == {'.spec.set[="a"]', '.spec.set[="b"]'}
    assert owned(updated(live, live, schema=atomic)) == {".spec.set"}


def test_fields_are_judged_in_the_version_their_owner_used() -> None:
    """v2 calls `replicas` `size`."""
    v2 = "test.example.com/v2"
    schema_v2 = from_openapi(
        {
            "type": "object",
            "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}, "text": STRING}}},
        }
    )

    def convert(obj: Obj, version: str) -> tuple[Obj, Any] | None:
        if version not in (GV, v2):
            return None
        spec = dict(obj.get("spec") or {})
        old, new = ("size", "replicas") if version == GV else ("replicas", "size")
        if old in spec:
            spec[new] = spec.pop(old)
        return {**obj, "apiVersion": version, "spec": spec}, SCHEMA if version == GV else schema_v2

    live = applied(None, thing({"replicas": 1, "text": "x"}), "first", convert=convert)
    in_v2 = convert(live, v2)
    assert in_v2
    options = {"schema": schema_v2, "api_version": v2, "convert": convert}
    with pytest.raises(ApiError, match=r'conflict with "first": .spec.replicas'):
        applied(in_v2[0], {**thing({"size": 2}), "apiVersion": v2}, "second", **options)
    moved = applied(in_v2[0], {**thing({"size": 1}), "apiVersion": v2}, "first", **options)
    assert moved["spec"] == {"size": 1}
    assert owned(moved, "first") == {".spec.size"}
    gone = clone(in_v2[0])
    gone["metadata"]["managedFields"][0]["apiVersion"] = "test.example.com/v0"
    assert "managedFields" not in updated(gone, gone, **options)["metadata"]


# By law.


@given(things)
def test_an_application_owns_exactly_its_configuration(config: Obj) -> None:
    made = applied(None, config)
    assert same(spec_of(made), config["spec"])
    stripped = {**config, "metadata": {k: v for k, v in config["metadata"].items() if k == "labels"}}
    mentioned = merge_type(SCHEMA).mentioned(stripped) or {}
    mentioned = {k: v for k, v in mentioned.items() if k not in ("f:apiVersion", "f:kind")}
    if mentioned.get("f:metadata") == {}:
        del mentioned["f:metadata"]
    assert entries(made).get(applier("me"), {}) == mentioned


@given(things, things)
def test_applying_twice_is_applying_once(live: Obj, config: Obj) -> None:
    once = applied(updated(live, None), config, force=True)
    assert same(applied(once, config, now=LATER), once)


@given(things, things)
def test_no_manager_conflicts_with_itself(first: Obj, second: Obj) -> None:
    result = applied(applied(None, first), second)
    assert {manager.name for manager in entries(result)} <= {"me", "before-first-apply"}


@given(things, things)
def test_the_result_holds_the_configuration(live: Obj, config: Obj) -> None:
    result = applied(updated(live, None), config, force=True)
    kind = merge_type(SCHEMA)
    changed, removed = kind.compare(result, kind.merge(result, config))
    assert not removed
    assert not changed or same(result["spec"], kind.merge(result["spec"], config["spec"]) or result["spec"])


@given(things, things)
def test_forcing_leaves_no_field_contested(first: Obj, second: Obj) -> None:
    live = applied(None, first, "first")
    result = applied(live, second, "second", force=True)
    kept = entries(result).get(applier("first"), {})
    kind = merge_type(SCHEMA)
    changed, removed = kind.compare(live, result) if live != result else (None, None)
    assert not sets.intersection(kept, changed or {})
    assert not sets.intersection(kept, removed or {})


@given(things, things)
def test_without_force_nobody_loses_a_value(first: Obj, second: Obj) -> None:
    live = applied(None, first, "first")
    try:
        result = applied(live, second, "second")
    except ApiError as conflict:
        assert conflict.code == 409
        return
    assert entries(result).get(applier("first"), {}) == entries(live).get(applier("first"), {})


@given(things, things)
def test_applying_nothing_takes_away_what_was_applied(first: Obj, second: Obj) -> None:
    live = applied(applied(None, first, "first"), second, "second", force=True)
    result = applied(live, thing(), "second")
    assert owned(result, "second") == set()
    assert not without_empties(applied(result, thing(), "first").get("spec"))


def without_empties(value: Any) -> Any:
    """Empty lists have no items to own: they stay."""
    if isinstance(value, dict):
        pruned = {key: without_empties(each) for key, each in value.items()}
        return {key: each for key, each in pruned.items() if each not in ({}, [])}
    return value


@given(things, things, st.booleans())
def test_arguments_are_left_alone(live: Obj, config: Obj, force: bool) -> None:
    made = updated(live, None)
    before = clone([made, config])
    try:
        result = applied(made, config, force=force)
    except ApiError:
        result = {}
    assert [made, config] == before
    for value in (result.get("spec") or {}).values():
        if isinstance(value, dict | list):
            value.clear()
    assert [made, config] == before


@given(things, things)
def test_an_update_leaves_each_changed_field_with_the_writer_alone(old: Obj, new: Obj) -> None:
    live = applied(None, old, "first")
    assume("managedFields" in live["metadata"])
    new = {**new, "metadata": {**new["metadata"], "managedFields": live["metadata"]["managedFields"]}}
    result = updated(new, live)
    mine = owned(result, "you", "Update")
    assert not mine & owned(result, "first")
    kind = merge_type(SCHEMA)
    tracked = [{key: each.get(key) for key in ("spec",) if key in each} for each in (live, result)]
    changed = kind.compare(*tracked)[0] if tracked[0] != tracked[1] else None
    spec_paths = {path for path in mine if path.startswith(".spec")}
    assert spec_paths == set(map(sets.path_text, sets.members(changed or {})))
