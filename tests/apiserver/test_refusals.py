"""What clients are told when they ask for what cannot be: codes, reasons, messages and causes, as upstream's server
answers the same requests."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from shipwheel.api.meta import Obj
from tests.apiserver.world import Asker

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON, MERGE, STRATEGIC, APPLY = (
    f"application/{each}"
    for each in ("json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml")
)
NO_SUCH_METHOD = "the server does not allow this method on the requested resource"


async def refused(ask: Asker, method: str, path: str, body: Any = b"", content_type: str = "application/json") -> Obj:
    answer = await ask(method, path, body, content_type=content_type)
    status: Obj = orjson.loads(answer.body)
    assert status["code"] == answer.status >= 400
    return status


def warnings(headers: list[tuple[bytes, bytes]]) -> list[str]:
    return [
        value.decode().removeprefix('299 - "').removesuffix('"').replace("\\", "")
        for name, value in headers
        if name == b"warning"
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"kind": "Pod"}, 'Pod in version "v1" cannot be handled as a ConfigMap: converting (v1.Pod) to '
         "(core.ConfigMap): unknown conversion"),
        ({"kind": "Foo", "apiVersion": "no/v1"}, 'Foo in version "v1" cannot be handled as a ConfigMap: no kind "Foo" '
         'is registered for version "no/v1" in scheme "pkg/api/legacyscheme/scheme.go:30"'),
        ({"apiVersion": "/"}, "unexpected GroupVersion string: /"),
        ({"kind": 1}, "couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field "
         ".kind of type string"),
        ({"metadata": {"name": "x", "namespace": "other"}},
         "the namespace of the provided object does not match the namespace sent on the request"),
    ],
)  # fmt: skip
async def test_bodies_of_another_kind(ask: Asker, namespace: str, body: Obj, message: str) -> None:
    status = await refused(ask, "POST", f"/api/v1/namespaces/{namespace}/configmaps", body)
    assert (status["code"], status["reason"]) == (400, "BadRequest")
    assert message in status["message"]


FAULTY = (
    b'{"metadata":{"name":"d","name":"e"},"spec":{"replicas":1,"replicas":2,"foo":1,"template":{"spec":{"containers":'
    b'[{"name":"c","image":"i","image":"j","bar":2}],"unk":{}}},"replicas":3},"more":1}'
)
IN_ORDER = [
    'duplicate field "metadata.name"',
    'duplicate field "spec.replicas"',
    'unknown field "spec.foo"',
    'duplicate field "spec.template.spec.containers[0].image"',
    'unknown field "spec.template.spec.containers[0].bar"',
    'unknown field "spec.template.spec.unk"',
    'unknown field "more"',
]


async def test_fields_that_nobody_knows_and_fields_given_twice(ask: Asker, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    status = await refused(ask, "POST", f"{path}?fieldValidation=Strict", FAULTY)
    assert status["message"] == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: ' + ", ".join(IN_ORDER)
    )
    answer = await ask("POST", path, FAULTY)
    assert (answer.status, warnings(answer.headers)) == (422, IN_ORDER)  # told even though the object is invalid


async def test_the_same_in_yaml(ask: Asker, namespace: str) -> None:
    answer = await ask("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", FAULTY,
                       content_type="application/yaml")  # fmt: skip
    told = warnings(answer.headers)
    assert told[:3] == [f'line 1: key "{key}" already set in map' for key in ("name", "replicas", "image")]
    assert told[3:] == [
        'unknown field "more"',
        'unknown field "spec.foo"',
        'unknown field "spec.template.spec.containers[0].bar"',
        'unknown field "spec.template.spec.unk"',
    ]


@pytest.mark.parametrize(
    ("query", "cause"),
    [
        ("dryRun=Foo", ("FieldValueNotSupported", 'Unsupported value: ["Foo"]: supported values: "All"', "dryRun")),
        ("fieldValidation=Foo", ("FieldValueNotSupported", 'Unsupported value: "Foo": supported values: "", "Ignore", '
         '"Strict", "Warn"', "fieldValidation")),
        ("fieldManager=" + "x" * 129, ("FieldValueTooLong", "Too long: may not be more than 128 bytes",
         "fieldManager")),
        ("fieldManager=a%01b", ("FieldValueInvalid", 'Invalid value: "a\\u0001b": invalid character U+0001 (at '
         "position 1)", "fieldManager")),
    ],
)  # fmt: skip
async def test_options(ask: Asker, namespace: str, query: str, cause: tuple[str, str, str]) -> None:
    status = await refused(ask, "POST", f"/api/v1/namespaces/{namespace}/configmaps?{query}", {"metadata": {}})
    assert (status["code"], status["details"]["kind"]) == (422, "CreateOptions")
    (told,) = status["details"]["causes"]
    assert (told["reason"], told["message"], told["field"]) == cause


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "configmaps/a"),
        ("PUT", "configmaps"),
        ("PATCH", "configmaps"),
        ("OPTIONS", "configmaps/a"),
        ("GET", "bindings"),
        ("POST", "pods/x/log"),
        ("DELETE", "pods/x/eviction"),
        ("POST", "pods/x/resize"),
        ("TRACE", "pods/x/proxy"),
    ],
)
async def test_methods(ask: Asker, namespace: str, method: str, path: str) -> None:
    answer = await ask(method, f"/api/v1/namespaces/{namespace}/{path}", {})
    assert answer.status == 405
    if method != "HEAD":
        status = orjson.loads(answer.body)
        assert (status["message"], status["reason"], status["details"]) == (NO_SUCH_METHOD, "MethodNotAllowed", {})


async def test_collections_of_all_namespaces_are_not_deleted(ask: Asker) -> None:
    assert (await refused(ask, "DELETE", "/api/v1/configmaps"))["message"] == NO_SUCH_METHOD
    assert (await refused(ask, "DELETE", "/api/v1/namespaces"))["message"] == NO_SUCH_METHOD


@pytest.mark.parametrize(
    ("content_type", "patch", "message"),
    [
        (JSON, b"{}", "error decoding patch: json: cannot unmarshal object into Go value of type []handlers."
         "jsonPatchOp"),
        (JSON, b"x", "error decoding patch: invalid character 'x' looking for beginning of value"),
        (MERGE, b"[]", "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface "
         "{}"),
        (MERGE, b"null", "Invalid JSON Patch"),
        (MERGE, b'{"metadata":null}',
         "the name of the object (a based on URL) was undeterminable: name must be provided"),
        (MERGE, b'{"metadata":{"name":"b"}}', "the name of the object (b) does not match the name on the URL (a)"),
        (STRATEGIC, b"x", "invalid character 'x' looking for beginning of value"),
        (APPLY, b"{kind: ConfigMap}", "invalid object type: /, Kind=ConfigMap"),
        (APPLY, b"{apiVersion: v1, kind: Secret}", "invalid object type: /v1, Kind=Secret"),
        (APPLY, b"{apiVersion: /, kind: Secret}", "unexpected GroupVersion string: /"),
    ],
)  # fmt: skip
async def test_patches(ask: Asker, namespace: str, content_type: str, patch: bytes, message: str) -> None:
    configmaps = f"/api/v1/namespaces/{namespace}/configmaps"
    await ask("POST", configmaps, {"metadata": {"name": "a"}})
    status = await refused(ask, "PATCH", f"{configmaps}/a?fieldManager=m", patch, content_type)
    assert (status["code"], status["message"]) == (400, message)
    if content_type != APPLY:  # whether there is something to patch is asked first
        status = await refused(ask, "PATCH", f"{configmaps}/absent", patch, content_type)
        assert (status["code"], status["reason"]) == (404, "NotFound")


@pytest.mark.parametrize(
    ("content_type", "patch", "why"),
    [
        (MERGE, b'{"data":{"x":1}}', "json: cannot unmarshal number into Go struct field ConfigMap.data of type "
         "string"),
        (JSON, b'[{"op":"add","path":"/data","value":{"x":[]}}]', "json: cannot unmarshal array into Go struct field "
         "ConfigMap.data of type string"),
    ],
)  # fmt: skip
async def test_what_a_patch_leads_to(ask: Asker, namespace: str, content_type: str, patch: bytes, why: str) -> None:
    configmaps = f"/api/v1/namespaces/{namespace}/configmaps"
    await ask("POST", configmaps, {"metadata": {"name": "a"}})
    status = await refused(ask, "PATCH", f"{configmaps}/a", patch, content_type)
    assert (status["code"], status["reason"]) == (422, "Invalid")
    (cause,) = status["details"]["causes"]
    assert cause["field"] == "patch"
    assert cause["message"].endswith(why)


async def test_immutable_metadata(ask: Asker, namespace: str) -> None:
    configmaps = f"/api/v1/namespaces/{namespace}/configmaps"
    made = orjson.loads((await ask("POST", configmaps, {"metadata": {"name": "a"}})).body)
    status = await refused(ask, "PATCH", f"{configmaps}/a", {"metadata": {"uid": "other"}}, MERGE)
    assert status["details"]["causes"] == 2 * [
        {"reason": "FieldValueInvalid", "message": 'Invalid value: "other": field is immutable', "field":
         "metadata.uid"}
    ]  # fmt: skip
    status = await refused(ask, "PUT", f"{configmaps}/a", {"metadata": {"name": "a", "uid": "other"}})
    assert (status["code"], status["reason"]) == (409, "Conflict")
    earlier = {"name": "a", "creationTimestamp": "2020-01-01T00:00:00Z"}
    kept = orjson.loads((await ask("PUT", f"{configmaps}/a", {"metadata": earlier})).body)
    assert kept["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]
    status = await refused(ask, "PUT", f"{configmaps}/a", {"metadata": {"name": "a", "deletionTimestamp":
                                                                          "2020-01-01T00:00:00Z"}})  # fmt: skip
    assert status["details"]["causes"][0]["field"] == "metadata.deletionTimestamp"


async def test_a_dry_run_notices_what_is_there(ask: Asker, namespace: str) -> None:
    configmaps = f"/api/v1/namespaces/{namespace}/configmaps"
    await ask("POST", configmaps, {"metadata": {"name": "a"}})
    status = await refused(ask, "POST", f"{configmaps}?dryRun=All", {"metadata": {"name": "a"}})
    assert (status["code"], status["reason"]) == (409, "AlreadyExists")


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"kind": "Pod", "apiVersion": "v1"}, 400, 'no kind "Pod" is registered for version "v1" in scheme'),
        ({"gracePeriodSeconds": "x"}, 400, "json: cannot unmarshal string into Go struct field"),
        ({"propagationPolicy": "Foo"}, 422, 'Unsupported value: "Foo": supported values: "Foreground", "Background", '
         '"Orphan", "nil"'),
        ({"preconditions": {"uid": "x"}}, 409, "the UID in the precondition (x) does not match the UID in record"),
        ({"preconditions": {"resourceVersion": "1"}}, 409, "the ResourceVersion in the precondition (1) does not match "
         "the ResourceVersion in record"),
    ],
)  # fmt: skip
async def test_deletions(ask: Asker, namespace: str, body: Obj, code: int, message: str) -> None:
    configmaps = f"/api/v1/namespaces/{namespace}/configmaps"
    await ask("POST", configmaps, {"metadata": {"name": "a"}})
    for path in (f"{configmaps}/a", configmaps):
        status = await refused(ask, "DELETE", path, body)
        assert status["code"] == code
        assert message in status["message"]


async def test_bindings_that_bind_nothing(ask: Asker, namespace: str) -> None:
    bindings = f"/api/v1/namespaces/{namespace}/bindings"
    assert (await refused(ask, "POST", bindings, {}))["message"] == "target.name: Required value"
    status = await refused(ask, "POST", bindings, {"target": {"name": "n"}})
    assert (status["code"], status["message"]) == (400, "Name parameter required.")


METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
NAMES = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
STREAMS = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"


@pytest.mark.parametrize(
    ("method", "path", "accept", "message"),
    [
        ("GET", "", METADATA.format(""),
         "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)"),
        ("GET", "/kube-root-ca.crt", METADATA.format("List"),
         "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)"),
        ("POST", "", METADATA.format("List"),
         "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)"),
        ("GET", "", "foo/bar", f"406: Not Acceptable\n\nAvailable representations: {NAMES}, {STREAMS}"),
        ("GET", "/x", "application/*", f"406: Not Acceptable\n\nAvailable representations: {NAMES}"),
        ("POST", "", "text/html", f"406: Not Acceptable\n\nAvailable representations: {NAMES}"),
        ("GET", "", "application/json;as=Foo;g=meta.k8s.io;v=v1",
         f"only the following media types are accepted: {NAMES}"),
    ],
)  # fmt: skip
async def test_forms_that_an_answer_does_not_have(
    ask: Asker, method: str, path: str, accept: str, message: str
) -> None:
    body: Any = {"metadata": {"name": "never"}} if method == "POST" else b""
    answer = await ask(method, f"/api/v1/namespaces/default/configmaps{path}", body, accept=accept)
    status = orjson.loads(answer.body)
    assert (answer.status, status["reason"], status["message"]) == (406, "NotAcceptable", message)


async def test_a_resource_version_that_is_no_number(ask: Asker) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    body: Obj = {"metadata": {"name": "versioned"}}
    await ask("POST", path, body)
    for text, why in (("abc", "invalid syntax"), ("9" * 20, "value out of range")):
        words = f'strconv.ParseUint: parsing "{text}": {why}'
        body["metadata"]["resourceVersion"] = text
        status = await refused(ask, "PUT", f"{path}/versioned", body)
        assert (status["code"], status["message"], "reason" in status) == (500, words, False)
        status = await refused(ask, "GET", f"{path}/versioned?resourceVersion={text}")
        assert (status["code"], status["message"]) == (500, f'resourceVersion: Invalid value: "{text}": {words}')
        assert (await refused(ask, "GET", f"{path}?resourceVersion={text}"))["code"] == 400


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("batch/v1/jobs", 'field label "spec.x" not supported for Job'),
        ("resource.k8s.io/v1/resourceslices",
         "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: spec.x"),
        ("apps/v1/replicasets",
         '"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"'),
        ("certificates.k8s.io/v1/certificatesigningrequests", "field label not supported: spec.x"),
    ],
)  # fmt: skip
async def test_field_selectors_that_a_kind_does_not_have(ask: Asker, path: str, message: str) -> None:
    assert (await refused(ask, "GET", f"/apis/{path}?fieldSelector=spec.x%3D1"))["message"] == message


async def test_refusals_name_the_group_that_was_asked_for(ask: Asker) -> None:
    path = "/apis/events.k8s.io/v1/namespaces/default/events"
    event: Obj = {
        "metadata": {"name": "twice"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "a.b/c",
        "reportingInstance": "i", "action": "x", "reason": "y", "type": "Normal",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
    }  # fmt: skip
    await ask("POST", path, event)
    status = await refused(ask, "POST", path, event)
    assert status["message"] == 'events.events.k8s.io "twice" already exists'
    assert status["details"] == {"name": "twice", "group": "events.k8s.io", "kind": "events"}
    status = await refused(ask, "POST", "/api/v1/namespaces/default/events", {
        "metadata": {"name": "twice"}, "involvedObject": {"namespace": "default", "name": "p"},
    })  # fmt: skip
    assert status["message"] == 'events "twice" already exists'


@pytest.mark.parametrize(("version", "code"), [("5", 500), ("0", 201), ("x", 201)])
async def test_new_objects_have_no_version(ask: Asker, namespace: str, version: str, code: int) -> None:
    body = {"metadata": {"name": f"c{version}", "resourceVersion": version}}
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    assert (await ask("POST", f"{path}?dryRun=All", body)).status == 201
    answer = await ask("POST", path, body)
    assert answer.status == code
    if code == 500:
        assert orjson.loads(answer.body)["message"] == "resourceVersion should not be set on objects to be created"


async def test_a_strategic_merge_patch_of_another_type(ask: Asker, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/services"
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
    assert (await ask("POST", path, service)).status == 201
    for patch, why in (
        (b'{"spec":{"ports":[{"port":"x"}]}}', "unrecognized type: int32"),
        (b'{"metadata":{"labels":{"a":1}}}', "cannot convert int64 to string"),
        (b'{"metadata":{"labels":["a"]}}', "cannot restore map from slice"),
        (b'{"spec":{"ports":{"a":1}}}', "cannot restore slice from map"),
        (b'{"spec":5}', "cannot restore struct from: int64"),
    ):
        status = await refused(ask, "PATCH", f"{path}/s", patch, STRATEGIC)
        assert status["code"] == 422
        assert status["message"].endswith(f": {why}")
    for nothing in (b"null", b'{"kind":"Foo","apiVersion":"v9"}'):
        answer = await ask("PATCH", f"{path}/s", nothing, content_type=STRATEGIC)
        assert (answer.status, orjson.loads(answer.body)["kind"]) == (200, "Service")


async def test_applied_items_without_their_key(ask: Asker, namespace: str) -> None:
    """The key is as good as given where Go writes it always: what is wrong is found by validation."""
    pod = b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"image":"i"}]}}'
    status = await refused(ask, "PATCH", f"/api/v1/namespaces/{namespace}/pods/p?fieldManager=m", pod, APPLY)
    assert (status["code"], status["message"]) == (
        422, 'Pod "p" is invalid: spec.containers[0].name: Required value',
    )  # fmt: skip


async def test_an_empty_list_of_scaling_policies_is_not_defaulted(ask: Asker, namespace: str) -> None:
    scaler = {
        "metadata": {"name": "h"},
        "spec": {
            "maxReplicas": 3,
            "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
            "behavior": {"scaleUp": {"policies": []}},
        },
    }
    path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
    status = await refused(ask, "POST", path, scaler)
    assert status["details"]["causes"] == [
        {
            "reason": "FieldValueRequired",
            "message": "Required value: must specify at least one Policy",
            "field": "spec.behavior.scaleUp.policies",
        }
    ]


@pytest.mark.parametrize(
    ("reference", "code", "message"),
    [
        ({"kind": "Pod", "apiVersion": "v1"}, 400, "Name parameter required."),
        ({"kind": "ConfigMap", "apiVersion": "v1", "name": "x"}, 400,
         "cannot bind token to object of type /v1, Kind=ConfigMap"),
        ({}, 400, "cannot bind token to object of type /, Kind="),
        ({"kind": "Secret", "apiVersion": "v1", "name": "none"}, 404, 'secrets "none" not found'),
    ],
)  # fmt: skip
async def test_tokens_bound_to_what_cannot_be(
    ask: Asker, namespace: str, reference: Obj, code: int, message: str
) -> None:
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    await ask("POST", accounts, {"metadata": {"name": "builder"}})
    status = await refused(ask, "POST", f"{accounts}/builder/token", {"spec": {"boundObjectRef": reference}})
    assert (status["code"], status["message"]) == (code, message)


async def test_numbers_of_a_status_that_do_not_agree(ask: Asker, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    deployment = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    assert (await ask("POST", path, deployment)).status == 201
    status = await refused(ask, "PATCH", f"{path}/d/status", b'{"status":{"replicas":-1}}', MERGE)
    assert [cause["field"] for cause in status["details"]["causes"]] == [
        "status.replicas", "status.updatedReplicas", "status.readyReplicas", "status.availableReplicas",
    ]  # fmt: skip


async def test_a_scale_of_its_own(ask: Asker, namespace: str) -> None:
    """It can be seen as a Table, and is that of the object its URL names."""
    path = f"/api/v1/namespaces/{namespace}/replicationcontrollers"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await ask("POST", path, {"metadata": {"name": "r"}, "spec": {"replicas": 3, "template": template}})
    table = orjson.loads(
        (await ask("GET", f"{path}/r/scale", accept="application/json;as=Table;g=meta.k8s.io;v=v1")).body
    )
    assert [each["name"] for each in table["columnDefinitions"]] == ["Name", "Desired", "Available", "Age"]
    assert table["rows"][0]["cells"][:3] == ["r", 3, 0]
    partial = await ask("GET", f"{path}/r/scale", accept="application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
    assert orjson.loads(partial.body)["kind"] == "PartialObjectMetadata"
    status = await refused(ask, "PATCH", f"{path}/r/scale", b'{"metadata":{"name":"other"}}', MERGE)
    assert status["message"] == "the name of the object (other) does not match the name on the URL (r)"
    status = await refused(ask, "PATCH", f"{path}/r/scale", b'{"metadata":{"uid":"other"}}', MERGE)
    assert status["message"].startswith(
        'Operation cannot be fulfilled on replicationcontrollers/scale "r": Precondition'
    )
