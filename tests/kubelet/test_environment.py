"""Environments, expansion and the downward API."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj
from shipwheel.kubelet.downward import DownwardFault, PodFacts, field_value, format_map, resource_value
from shipwheel.kubelet.environment import (
    EnvironmentFault,
    Sources,
    environment,
    parse_env_file,
    service_variables,
)
from shipwheel.kubelet.expansion import expand
from tests.kubelet.builders import container, pod

MAPS: dict[str, Obj] = {"settings": {"data": {"b": "2", "a": "1"}}}
SECRETS: dict[str, Obj] = {"keys": {"data": {"pw": base64.b64encode(b"s3cret").decode()}}}
FACTS = PodFacts(("10.0.0.5", "fd00::5"), ("192.168.0.1",), {"cpu": "2", "memory": "4Gi"})


def made(
    own: Obj, *, services: tuple[Obj, ...] = (), files: dict[str, str] | None = None, **spec: object
) -> dict[str, str]:
    def read(volume: str, path: str) -> str:
        try:
            return (files or {})[f"{volume}/{path}"]
        except KeyError:
            raise FileNotFoundError(path) from None

    owner = pod(own, meta={"labels": {"app": "x"}, "annotations": {"note": 'say "hi"'}}, nodeName="n1", **spec)
    return environment(owner, own, Sources(MAPS.get, SECRETS.get, FACTS, services, read if files is not None else None))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("$(A)$(B)", "12"),
        ("$(NOPE)", "$(NOPE)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $(A", "$A ${A} $(A"),
        ("$", "$"),
        ("$()", "$()"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}, {"A": "other", "B": "2"}) == expected


@given(st.text(alphabet="$()AB x"))
def test_expansion_takes_anything(text: str) -> None:
    result = expand(text, {"A": "1"})
    assert "$" in text or result == text


def test_values_refer_to_what_stands_before_them() -> None:
    own = container(env=[
        {"name": "LATE", "value": "$(EARLY)"},
        {"name": "EARLY", "value": "x"},
        {"name": "BOTH", "value": "$(EARLY)-$(a)"},
    ], envFrom=[{"configMapRef": {"name": "settings"}}])  # fmt: skip
    assert made(own) == {"a": "1", "b": "2", "LATE": "$(EARLY)", "EARLY": "x", "BOTH": "x-1"}


def test_every_source() -> None:
    own = container(
        envFrom=[{"prefix": "P_", "secretRef": {"name": "keys"}}],
        resources={"limits": {"cpu": "1500m"}, "requests": {"memory": "1Gi"}},
        env=[
            {"name": "MAP", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "pw"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {
                "name": "MEM",
                "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}},
            },
            {"name": "NODE_MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
            {
                "name": "MAYBE",
                "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "a", "optional": True}},
            },
        ],
    )
    assert made(own) == {
        "P_pw": "s3cret", "MAP": "1", "SECRET": "s3cret", "IP": "10.0.0.5", "CPU": "2", "MEM": "1024",
        "NODE_MEM": str(4 << 30),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"envFrom": [{"configMapRef": {"name": "gone"}}]}, 'configmap "gone" not found'),
        ({"envFrom": [{"secretRef": {"name": "gone"}}]}, 'secret "gone" not found'),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k"}}}]},
            'secret "gone" not found',
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "k"}}}]},
            "couldn't find key k in ConfigMap ns/settings",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}}]},
            "couldn't find key k in Secret ns/keys",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]},
            "unsupported fieldPath: spec.nope",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "f", "key": "K"}}}]},
            'cannot find the volume "v" referenced by FileKeyRef',
        ),
    ],
)
def test_what_is_missing_is_named(own: Obj, message: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        made(container(**own))
    assert str(caught.value) == message


def test_variables_from_a_file() -> None:
    own = container(env=[{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "f", "key": "K"}}}])
    assert made(own, files={"v/f": "# note\nOTHER='1'\nK='two\nlines' # why\n"}) == {"A": "two\nlines"}
    with pytest.raises(EnvironmentFault, match="couldn't parse env file"):
        made(own, files={"v/f": "K=unquoted\n"})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("K='v'", "v"),
        ("  K='v'\n", "v"),
        ("J='1'\nK='v'", "v"),
        ("K= 'v'\n", ""),
        ("", ""),
        ("K=''", ""),
        ("#K='v'", ""),
    ],
)
def test_environment_files(text: str, value: str) -> None:
    assert parse_env_file(text, "K") == value


@pytest.mark.parametrize("text", ["K", "K=v", "K='v' x", " ='v'", "K ='v'", "K='v"])
def test_wrong_environment_files(text: str) -> None:
    with pytest.raises(ValueError, match="invalid environment variable format"):
        parse_env_file(text, "K")


def service(name: str, namespace: str = "ns", ip: str = "10.96.0.7", *ports: Obj) -> Obj:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "ports": list(ports)},
    }


def test_services_are_named() -> None:
    ports = ({"port": 80, "protocol": "TCP", "name": "http"}, {"port": 53, "protocol": "UDP"})
    assert service_variables([service("my-web", "ns", "10.96.0.7", *ports)], "ns", True) == {
        "MY_WEB_SERVICE_HOST": "10.96.0.7",
        "MY_WEB_SERVICE_PORT": "80",
        "MY_WEB_SERVICE_PORT_HTTP": "80",
        "MY_WEB_PORT": "tcp://10.96.0.7:80",
        "MY_WEB_PORT_80_TCP": "tcp://10.96.0.7:80",
        "MY_WEB_PORT_80_TCP_PROTO": "tcp",
        "MY_WEB_PORT_80_TCP_PORT": "80",
        "MY_WEB_PORT_80_TCP_ADDR": "10.96.0.7",
        "MY_WEB_PORT_53_UDP": "udp://10.96.0.7:53",
        "MY_WEB_PORT_53_UDP_PROTO": "udp",
        "MY_WEB_PORT_53_UDP_PORT": "53",
        "MY_WEB_PORT_53_UDP_ADDR": "10.96.0.7",
    }


def test_only_some_services_are_named() -> None:
    port = {"port": 443, "protocol": "TCP"}
    every = [
        service("kubernetes", "default", "10.96.0.1", port),
        service("own", "ns", "10.96.0.2", port),
        service("foreign", "other", "10.96.0.3", port),
        service("headless", "ns", "None", port),
    ]
    named = {name.partition("_SERVICE")[0] for name in service_variables(every, "ns", True) if name.endswith("_HOST")}
    assert named == {"KUBERNETES", "OWN"}
    named = {name.partition("_SERVICE")[0] for name in service_variables(every, "ns", False) if name.endswith("_HOST")}
    assert named == {"KUBERNETES"}


def test_an_ipv6_service_is_written_in_brackets() -> None:
    found = service_variables([service("v6", "ns", "fd00::1", {"port": 80, "protocol": "TCP"})], "ns", True)
    assert (found["V6_PORT"], found["V6_PORT_80_TCP_ADDR"]) == ("tcp://[fd00::1]:80", "fd00::1")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "uid-1"),
        ("metadata.labels['app']", "x"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations", 'note="say \\"hi\\""'),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "sa"),
        ("status.hostIP", "192.168.0.1"),
        ("status.podIPs", "10.0.0.5,fd00::5"),
    ],
)
def test_fields(path: str, value: str) -> None:
    owner = pod(
        meta={"labels": {"app": "x"}, "annotations": {"note": 'say "hi"'}},
        nodeName="n1",
        serviceAccountName="sa",
    )
    assert field_value(owner, path, FACTS) == value


def test_maps_are_sorted() -> None:
    assert format_map({"b": "2", "a": "1"}) == 'a="1"\nb="2"'


def test_resources_of_another_container() -> None:
    owner = pod(container("a"), container("b", resources={"limits": {"cpu": "250m"}}))
    selector = {"containerName": "b", "resource": "limits.cpu", "divisor": "1m"}
    assert resource_value(owner, None, selector, FACTS) == "250"
    with pytest.raises(DownwardFault, match="container c not found"):
        resource_value(owner, None, {"containerName": "c", "resource": "limits.cpu"}, FACTS)
