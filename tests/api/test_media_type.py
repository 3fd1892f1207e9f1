"""Content negotiation, with the headers that real clients send."""

from __future__ import annotations

import pytest

from shipwheel.api.codec import MediaType, content_format, negotiate
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionKind

KUBECTL = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
TABLE = MediaType("json", "Table", "meta.k8s.io", "v1")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", MediaType()),
        ("*/*", MediaType()),
        ("*", MediaType()),
        ("application/*", MediaType()),
        ("application/yaml", MediaType("yaml")),
        ("application/json", MediaType()),
        ("application/vnd.kubernetes.protobuf", MediaType("protobuf")),
        ("application/vnd.kubernetes.protobuf,application/json", MediaType("protobuf")),
        ("application/json;q=0.5,application/yaml", MediaType("yaml")),
        ("text/html,application/xhtml+xml,*/*;q=0.8", MediaType()),
        (KUBECTL, TABLE),
        ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", MediaType()),
        ("application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json", MediaType()),
        (
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            MediaType("protobuf", "PartialObjectMetadataList", "meta.k8s.io", "v1"),
        ),
        ("application/json;pretty=1", MediaType(pretty=True)),
        ("application/json;charset=utf-8", MediaType()),
        ("application/json, text/plain;q=0.1", MediaType()),
        ("nonsense,application/yaml", MediaType("yaml")),
    ],
)
def test_accept(accept: str, expected: MediaType):
    assert negotiate(accept) == expected


def test_custom_resources_have_no_protobuf_but_their_metadata_has():
    forms = ("json", "yaml")
    assert negotiate("application/vnd.kubernetes.protobuf,application/json", formats=forms) == MediaType()
    partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    assert negotiate(partial, formats=forms).format == "protobuf"


def test_other_targets():
    gvk = GroupVersionKind("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList")
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer,application/json"
    found = negotiate(accept, targets=frozenset((gvk,)))
    assert (found.target, found.profile) == (gvk, "nopeer")
    assert negotiate(accept).target is None
    assert negotiate(KUBECTL, targets=frozenset((gvk,))).target is None


def test_watches():
    assert negotiate("application/json;stream=watch", stream=True).stream == "watch"
    assert negotiate("application/vnd.kubernetes.protobuf;stream=watch", stream=True).format == "protobuf"
    with pytest.raises(ApiError) as caught:
        negotiate("application/yaml", stream=True)
    assert caught.value.message == (
        "only the following media types are accepted: "
        "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    )


@pytest.mark.parametrize("accept", ["text/plain", "application/cbor", "application/json;stream=other", "a" * 5000])
def test_not_acceptable(accept: str):
    with pytest.raises(ApiError) as caught:
        negotiate(accept)
    assert caught.value.code == 406
    assert caught.value.message == (
        "only the following media types are accepted: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("", "json"),
        ("application/json", "json"),
        ("Application/JSON; charset=UTF-8", "json"),
        ("application/yaml", "yaml"),
        ("application/vnd.kubernetes.protobuf", "protobuf"),
    ],
)
def test_content_type(content_type: str, expected: str):
    assert content_format(content_type) == expected


def test_unsupported_media_type():
    with pytest.raises(ApiError) as caught:
        content_format("text/plain")
    assert caught.value.code == 415
    assert caught.value.message == (
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )
