"""Conforming: what Go's decoder makes of JSON, and what it says when it cannot."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import GroupVersionKind
from shipwheel.api.schema import DecodeError, Schema, conform
from shipwheel.kinds import catalog

POD = catalog.schema("io.k8s.api.core.v1.Pod")
DEPLOYMENT = catalog.schema_for(GroupVersionKind("apps", "v1", "Deployment"))


def pod(**spec: object) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {}}], **spec},
    }


def test_an_object_in_order_is_left_alone():
    body = pod(restartPolicy="Always", terminationGracePeriodSeconds=0, volumes=[{"name": "v", "emptyDir": {}}])
    before = copy.deepcopy(body)
    assert conform(POD, body) is body
    assert body["spec"] == before["spec"]


def test_what_is_known_already_is_not_looked_at_again():
    known = conform(POD, pod(restartPolicy="Always"))
    body = copy.deepcopy(known) | {"status": {"phase": "Running", "message": ""}, "zzz": 1}
    unknown: list[str] = []
    result = conform(POD, body, unknown=unknown, known=known)
    assert result["spec"] is known["spec"]
    assert result["status"] == {"phase": "Running"} and unknown == ['unknown field "zzz"']
    assert list(result) == ["apiVersion", "kind", "metadata", "spec", "status"]
    for key in ("spec", "metadata"):
        with pytest.raises(DecodeError):
            conform(POD, copy.deepcopy(known) | {key: [1]}, known=known)


def test_unknown_fields_go_and_are_named_in_the_order_of_the_document():
    body = pod(foo=1)
    body["spec"]["containers"][0]["x"] = {"deep": True}
    body["zzz"] = None
    unknown: list[str] = []
    conform(POD, body, unknown=unknown)
    assert unknown == [
        'unknown field "spec.containers[0].x"',
        'unknown field "spec.foo"',
        'unknown field "zzz"',
    ]
    assert "foo" not in body["spec"]
    assert "x" not in body["spec"]["containers"][0]
    assert "zzz" not in body


def test_at_most_a_hundred_unknown_fields_are_named():
    body = pod(**{f"f{i}": i for i in range(150)})
    unknown: list[str] = []
    conform(POD, body, unknown=unknown)
    assert len(unknown) == 100


def test_nulls_are_absent():
    body = conform(POD, pod(nodeName=None, volumes=None, securityContext=None))
    assert not body["spec"].keys() & {"nodeName", "volumes", "securityContext"}


def test_a_null_in_a_list_or_a_map_is_a_zero_value():
    config = conform(catalog.schema("io.k8s.api.core.v1.ConfigMap"), {"data": {"a": None}})
    assert config["data"] == {"a": ""}
    assert conform(POD, pod(imagePullSecrets=[None]))["spec"]["imagePullSecrets"] == [{}]


@pytest.mark.parametrize(
    ("given_", "canonical"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        (2, "2"),
        ("1Gi", "1Gi"),
        ("1024Mi", "1Gi"),
        (" 1 ", "1"),
        (0.25, "250m"),
    ],
)
def test_quantities_are_canonical(given_: object, canonical: str):
    body = pod()
    body["spec"]["containers"][0]["resources"] = {"limits": {"cpu": given_}}
    assert conform(POD, body)["spec"]["containers"][0]["resources"]["limits"]["cpu"] == canonical


@pytest.mark.parametrize(
    ("given_", "canonical"),
    [
        ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z"),
        ("2024-02-29T12:00:00.987Z", "2024-02-29T12:00:00Z"),
        ("2024-02-29T23:30:00-02:00", "2024-03-01T01:30:00Z"),
        ("2024-03-01T00:30:00+01:00", "2024-02-29T23:30:00Z"),
    ],
)
def test_times_are_utc_seconds(given_: str, canonical: str):
    body = pod()
    body["metadata"]["creationTimestamp"] = given_
    assert conform(POD, body)["metadata"]["creationTimestamp"] == canonical


def test_micro_times_keep_six_digits():
    lease = catalog.schema("io.k8s.api.coordination.v1.Lease")
    body = {"spec": {"renewTime": "2024-02-29T13:00:00.123456+01:00"}}
    assert conform(lease, body)["spec"]["renewTime"] == "2024-02-29T12:00:00.123456Z"
    with pytest.raises(DecodeError, match=r'cannot parse "Z" as "\.000000"'):
        conform(lease, {"spec": {"renewTime": "2024-02-29T13:00:00Z"}})


def test_zero_values_go_where_go_does_not_write_them():
    body = conform(
        POD, pod(hostNetwork=False, nodeName="", volumes=[], nodeSelector={}, priority=0, securityContext={})
    )
    assert body["spec"] == pod(priority=0, securityContext={})["spec"]


def test_what_go_always_writes_is_filled_in():
    body = conform(DEPLOYMENT, {"spec": {"template": {"spec": {"containers": [{}]}}}})
    template = {"metadata": {}, "spec": {"containers": [{"name": "", "resources": {}}]}}
    assert body == {"metadata": {}, "spec": {"strategy": {}, "template": template}, "status": {}}
    service = conform(catalog.schema("io.k8s.api.core.v1.Service"), {"spec": {}})
    assert service["status"] == {"loadBalancer": {}}


def message(schema: Schema, body: object) -> str:
    with pytest.raises(DecodeError) as caught:
        conform(schema, body)
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            {"spec": {"replicas": "3"}},
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"spec": {"replicas": 3000000000}},
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"spec": {"replicas": 1.5}},
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"spec": {"template": {"spec": {"containers": {}}}}},
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers"
            " of type []v1.Container",
        ),
        (
            {"spec": {"template": {"spec": {"containers": [{"ports": [{"containerPort": "x"}]}]}}}},
            "json: cannot unmarshal string into Go struct field"
            " ContainerPort.spec.template.spec.containers.ports.containerPort of type int32",
        ),
        (
            {"metadata": {"labels": {"a": 1}}},
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            {"metadata": {"labels": ["a"]}},
            "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            {"metadata": {"creationTimestamp": 5}},
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        (
            {"spec": {"paused": "yes"}},
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
        ([], "json: cannot unmarshal array into Go value of type v1.Deployment"),
        ({"kind": 5}, "json: cannot unmarshal number into Go struct field Deployment.TypeMeta.kind of type string"),
        (
            {"spec": {"template": {"spec": {"volumes": [{"emptyDir": []}]}}}},
            "json: cannot unmarshal array into Go struct field"
            " Volume.spec.template.spec.volumes.VolumeSource.emptyDir of type v1.EmptyDirVolumeSource",
        ),
        (
            {"spec": {"template": {"spec": {"restartPolicy": 1}}}},
            "json: cannot unmarshal number into Go struct field PodSpec.spec.template.spec.restartPolicy"
            " of type v1.RestartPolicy",
        ),
        (
            {"metadata": {"creationTimestamp": "yesterday"}},
            'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"',
        ),
        ({"metadata": {"creationTimestamp": "2024-13-01T00:00:00Z"}},
         'parsing time "2024-13-01T00:00:00Z": month out of range'),
    ],
)  # fmt: skip
def test_a_wrong_type_is_reported_in_gos_words(body: object, says: str):
    assert message(DEPLOYMENT, body) == says


def test_bytes_are_base64():
    secret = catalog.schema("io.k8s.api.core.v1.Secret")
    assert conform(secret, {"data": {"a": "aGk=\n"}})["data"] == {"a": "aGk="}
    assert message(secret, {"data": {"a": "a*=="}}) == "illegal base64 data at input byte 1"
    assert message(secret, {"data": {"a": "aGk"}}) == "illegal base64 data at input byte 0"


def test_int_or_string_takes_both():
    service = catalog.schema("io.k8s.api.core.v1.Service")
    body = {"spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8080}]}}
    assert [each["targetPort"] for each in conform(service, body)["spec"]["ports"]] == ["http", 8080]
    assert message(service, {"spec": {"ports": [{"port": 1, "targetPort": True}]}}) == (
        "json: cannot unmarshal bool into Go struct field ServicePort.spec.ports.targetPort of type int32"
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
spec_fields = st.sampled_from([*catalog.schema("io.k8s.api.core.v1.PodSpec").properties, "madeUp"])


@given(st.dictionaries(spec_fields, json_values, max_size=4))
def test_conforming_twice_changes_nothing_more(spec: dict):
    body = {"spec": spec}
    try:
        once = conform(POD, body)
    except DecodeError:
        return
    assert conform(POD, copy.deepcopy(once)) == once
