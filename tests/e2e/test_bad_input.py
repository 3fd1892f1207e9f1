"""What must be refused, with upstream's status code, reason and message."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.live import Cluster

RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


def pod(name: str = "x", **spec: object) -> str:
    containers = [{"name": "c", "image": "i"}]
    return json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, **spec}}
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            json.dumps({"apiVersion": "v1", "kind": "Nonsense", "metadata": {"name": "x"}}),
            'error: resource mapping not found for name: "x" namespace: "" from "STDIN": no matches for kind '
            '"Nonsense" in version "v1"\nensure CRDs are installed first\n',
        ),
        (
            pod(nonsense=1),
            'Error from server (BadRequest): error when creating "STDIN": Pod in version "v1" cannot be handled as '
            'a Pod: strict decoding error: unknown field "spec.nonsense"\n',
        ),
        (pod(containers=[]), 'The Pod "x" is invalid: spec.containers: Required value\n'),
        (
            pod("Not_A_Label"),
            f'The Pod "Not_A_Label" is invalid: metadata.name: Invalid value: "Not_A_Label": {RULE}\n',
        ),
        (
            pod(containers=[{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]),
            'The Pod "x" is invalid: spec.containers[1].name: Duplicate value: "c"\n',
        ),
        (
            pod(restartPolicy="Sometimes"),
            'The Pod "x" is invalid: spec.restartPolicy: Unsupported value: "Sometimes": supported values: '
            '"Always", "OnFailure", "Never"\n',
        ),
        (
            pod(terminationGracePeriodSeconds="soon"),
            'Error from server (BadRequest): error when creating "STDIN": Pod in version "v1" cannot be handled as '
            "a Pod: json: cannot unmarshal string into Go struct field "
            "PodSpec.spec.terminationGracePeriodSeconds of type int64\n",
        ),
        (pod(nodeName="x", hostname="A_B").replace('"v1"', '"v7"'), None),
    ],
)
def test_objects_that_are_refused(cluster: Cluster, document: str, message: str | None) -> None:
    result = cluster.try_kubectl("create", "-f", "-", stdin=document)
    assert result.code == 1
    if message is not None:
        assert result.err == message
    else:
        assert 'no matches for kind "Pod" in version "v7"' in result.err


def test_a_stale_resource_version(cluster: Cluster) -> None:
    cluster.kubectl("create", "configmap", "stale", "--from-literal=a=1")
    old = cluster.get("configmap", "stale")
    cluster.kubectl("patch", "configmap", "stale", "-p", '{"data":{"a":"2"}}')
    result = cluster.try_kubectl("replace", "-f", "-", stdin=json.dumps(old))
    assert result.err == (
        'Error from server (Conflict): error when replacing "STDIN": Operation cannot be fulfilled on configmaps '
        '"stale": the object has been modified; please apply your changes to the latest version and try again\n'
    )
    cluster.kubectl("delete", "configmap", "stale")


def test_what_is_there_already_and_what_is_not(cluster: Cluster) -> None:
    assert cluster.try_kubectl("create", "namespace", "default").err == (
        'Error from server (AlreadyExists): namespaces "default" already exists\n'
    )
    assert cluster.try_kubectl("get", "pod", "nobody").err == (
        'Error from server (NotFound): pods "nobody" not found\n'
    )
    assert cluster.try_kubectl("get", "nonsense").err == (
        'error: the server doesn\'t have a resource type "nonsense"\n'
    )
    assert cluster.try_kubectl("-n", "nowhere", "create", "configmap", "x").err == (
        'error: failed to create configmap: namespaces "nowhere" not found\n'
    )


def test_who_has_no_right(cluster: Cluster) -> None:
    assert cluster.try_kubectl("get", "pods", "--as=somebody").err == (
        'Error from server (Forbidden): pods is forbidden: User "somebody" cannot list resource "pods" in API group '
        '"" in the namespace "default"\n'
    )


@pytest.fixture(scope="module")
def raw(cluster: Cluster) -> Iterator[Raw]:
    yield Raw(cluster)


class Raw:
    """Requests that no kubectl would send."""

    def __init__(self, cluster: Cluster) -> None:
        import ssl
        import tempfile

        from shipwheel.client.kubeconfig import load_config

        config = load_config(cluster.data / "admin.conf")
        self._context = ssl.create_default_context(cadata=config.ca_data.decode())
        with tempfile.NamedTemporaryFile() as file:
            file.write(config.client_cert_data + config.client_key_data)
            file.flush()
            self._context.load_cert_chain(file.name)
        self._server = config.server

    def __call__(self, method: str, path: str, body: bytes, content_type: str = "application/json") -> dict:
        """The Status of the answer."""
        return json.loads(self.answer(method, path, body, content_type)[1])

    def answer(self, method: str, path: str, body: bytes, content_type: str = "application/json") -> tuple[int, bytes]:
        """The answer's code and body."""
        from urllib.error import HTTPError
        from urllib.request import Request, urlopen

        request = Request(self._server + path, body, {"Content-Type": content_type}, method=method)
        try:
            with urlopen(request, context=self._context, timeout=20) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()


PODS = "/api/v1/namespaces/default/pods"


def test_garbage(raw: Raw) -> None:
    status = raw("POST", PODS, b"\x00garbage")
    assert (status["code"], status["reason"]) == (400, "BadRequest")
    assert status["message"] == (
        "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: "
        "invalid character '\\x00' looking for beginning of value (0067617262616765)"
    )
    status = raw("POST", PODS, b"{}", "application/x-nonsense")
    assert (status["code"], status["reason"]) == (415, "UnsupportedMediaType")
    assert raw.answer("POST", "/apis/nonsense/v1/things", b"{}") == (404, b"404 page not found\n")
    status = raw("POST", PODS + "/x/status", b"{}")
    assert (status["code"], status["reason"]) == (405, "MethodNotAllowed")


def test_ten_megabytes(cluster: Cluster, raw: Raw) -> None:
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"a": "x" * 10_000_000}}
    assert cluster.try_kubectl("create", "-f", "-", stdin=json.dumps(data)).err == (
        'Error from server (RequestEntityTooLarge): error when creating "STDIN": Request entity too large: limit is '
        "3145728\n"
    )
    data["data"]["a"] = "x" * 2_000_000
    status = raw("POST", "/api/v1/namespaces/default/configmaps", json.dumps(data).encode())
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert status["message"] == 'ConfigMap "big" is invalid: []: Too long: may not be more than 1048576 bytes'
