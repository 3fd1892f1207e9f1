"""The Kubernetes DNS specification 1.1, clause by clause."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.network.dns.answer import Answer, Question, Soa, Srv, answer
from shipwheel.network.dns.view import View


def service(name: str, namespace: str = "default", **spec: Any) -> dict:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def slice_(
    of: str, *endpoints: dict, namespace: str = "default", ports: Any = (), name: str = "", family: str = "IPv4"
) -> dict:
    return {
        "metadata": {
            "name": name or f"{of}-x",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": of},
        },
        "addressType": family,
        "ports": list(ports),
        "endpoints": list(endpoints),
    }


HTTP = {"name": "http", "port": 80, "protocol": "TCP"}
DNS = {"name": "dns", "port": 53, "protocol": "UDP"}


@pytest.fixture
def view() -> View:
    view = View()
    for name in ("default", "kube-system", "empty"):
        view.put_namespace({"metadata": {"name": name}})
    view.put_service(service("web", clusterIP="10.96.0.9", clusterIPs=["10.96.0.9", "fd00::9"], ports=[HTTP]))
    view.put_service(service("kube-dns", "kube-system", clusterIP="10.96.0.10", ports=[DNS]))
    view.put_service(service("db", clusterIP="None", ports=[HTTP]))
    view.put_service(service("lonely", clusterIP="None", ports=[HTTP]))
    view.put_service(service("out", type="ExternalName", externalName="Example.COM."))
    view.put_slice(slice_("web", {"addresses": ["10.244.0.5"]}, ports=[HTTP]))
    view.put_slice(
        slice_(
            "db",
            {"addresses": ["10.244.0.7"], "hostname": "db-0"},
            {"addresses": ["10.244.0.8"]},
            {"addresses": ["10.244.0.9"], "conditions": {"ready": False}},
            ports=[HTTP],
        )
    )
    return view


def ask(view: View, name: str, kind: str = "A") -> Answer | None:
    return answer(Question(name, kind), view)


def data(found: Answer | None) -> list[Any]:
    assert found is not None
    assert found.rcode == "NOERROR"
    return [each.data for each in found.answers]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("dns-version.cluster.local", "TXT", ["1.1.0"]),
        ("web.default.svc.cluster.local", "A", ["10.96.0.9"]),
        ("web.default.svc.cluster.local", "AAAA", ["fd00::9"]),
        ("web.default.svc.cluster.local", "SRV", [Srv(0, 100, 80, "web.default.svc.cluster.local")]),
        (
            "_http._tcp.web.default.svc.cluster.local",
            "SRV",
            [Srv(0, 100, 80, "web.default.svc.cluster.local")],
        ),
        ("_dns._udp.kube-dns.kube-system.svc.cluster.local", "A", ["10.96.0.10"]),
        ("10-244-0-5.web.default.svc.cluster.local", "A", ["10.244.0.5"]),
        ("db.default.svc.cluster.local", "A", ["10.244.0.7", "10.244.0.8"]),
        ("db.default.svc.cluster.local", "AAAA", []),
        ("db-0.db.default.svc.cluster.local", "A", ["10.244.0.7"]),
        ("10-244-0-8.db.default.svc.cluster.local", "A", ["10.244.0.8"]),
        (
            "_http._tcp.db.default.svc.cluster.local",
            "SRV",
            [
                Srv(0, 50, 80, "db-0.db.default.svc.cluster.local"),
                Srv(0, 50, 80, "10-244-0-8.db.default.svc.cluster.local"),
            ],
        ),
        ("out.default.svc.cluster.local", "A", ["example.com"]),
        ("out.default.svc.cluster.local", "CNAME", ["example.com"]),
        ("10-244-3-4.default.pod.cluster.local", "A", ["10.244.3.4"]),
        ("10-244-3-4.empty.pod.cluster.local", "A", ["10.244.3.4"]),
        ("fd00--12.default.pod.cluster.local", "AAAA", ["fd00::12"]),
        ("ns.dns.cluster.local", "A", ["10.96.0.10"]),
        ("cluster.local", "NS", ["ns.dns.cluster.local"]),
        ("9.0.96.10.in-addr.arpa", "PTR", ["web.default.svc.cluster.local"]),
        ("7.0.244.10.in-addr.arpa", "PTR", ["db-0.db.default.svc.cluster.local"]),
        ("8.0.244.10.in-addr.arpa", "PTR", ["10-244-0-8.db.default.svc.cluster.local"]),
        (".".join("9" + "0" * 27 + "00df") + ".ip6.arpa", "PTR", ["web.default.svc.cluster.local"]),
        # What exists without a record of the type asked for.
        ("web.default.svc.cluster.local", "MX", []),
        ("default.svc.cluster.local", "A", []),
        ("empty.svc.cluster.local", "A", []),
        ("svc.cluster.local", "A", []),
        ("cluster.local", "A", []),
        ("9.0.96.10.in-addr.arpa", "A", []),
    ],
)
def test_answers(view: View, name: str, kind: str, expected: list[Any]) -> None:
    found = ask(view, name, kind)
    assert data(found) == expected
    assert found is not None
    if not expected:
        (soa,) = found.authority
        assert isinstance(soa.data, Soa)
        assert soa.name == "cluster.local"


@pytest.mark.parametrize(
    "name",
    [
        "nowhere.default.svc.cluster.local",
        "web.nowhere.svc.cluster.local",
        "nowhere.svc.cluster.local",
        "lonely.default.svc.cluster.local",
        "db-1.db.default.svc.cluster.local",
        "10-244-0-9.db.default.svc.cluster.local",
        "_https._tcp.web.default.svc.cluster.local",
        "_http._udp.web.default.svc.cluster.local",
        "_http._tcp.out.default.svc.cluster.local",
        "a.b.c.d.e.svc.cluster.local",
        "web.default.cluster.local",
        "10-244-0.default.pod.cluster.local",
        "10-244-0-7.nowhere.pod.cluster.local",
        "example.com.default.svc.cluster.local",
    ],
)
def test_names_that_do_not_exist(view: View, name: str) -> None:
    found = ask(view, name)
    assert found is not None
    assert found.rcode == "NXDOMAIN"
    assert [each.type for each in found.authority] == ["SOA"]


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "cluster.local.example.com",
        "mycluster.local",
        "1.0.0.127.in-addr.arpa",
        "x.y.in-addr.arpa",
        "1.2.ip6.arpa",
    ],
)
def test_names_that_are_not_ours(view: View, name: str) -> None:
    assert ask(view, name, "PTR") is None


def test_srv_records_come_with_their_addresses(view: View) -> None:
    found = ask(view, "_http._tcp.db.default.svc.cluster.local", "SRV")
    assert found is not None
    assert {(each.name, each.data) for each in found.additional} == {
        ("db-0.db.default.svc.cluster.local", "10.244.0.7"),
        ("10-244-0-8.db.default.svc.cluster.local", "10.244.0.8"),
    }


def test_an_alias_is_left_to_whoever_can_follow_it(view: View) -> None:
    found = ask(view, "out.default.svc.cluster.local")
    assert found is not None
    assert found.alias == "example.com"


def test_a_headless_service_without_ports_has_addresses() -> None:
    view = View()
    view.put_service(service("peers", clusterIP="None"))
    view.put_slice(slice_("peers", {"addresses": ["10.244.0.3"], "hostname": "a"}))
    assert data(ask(view, "peers.default.svc.cluster.local")) == ["10.244.0.3"]
    assert data(ask(view, "a.peers.default.svc.cluster.local")) == ["10.244.0.3"]


def test_another_zone(view: View) -> None:
    found = answer(Question("web.default.svc.my.corp", "A"), view, zone="my.corp")
    assert data(found) == ["10.96.0.9"]
    assert answer(Question("web.default.svc.cluster.local", "A"), view, zone="my.corp") is None


def test_what_is_removed_is_gone(view: View) -> None:
    view.remove_slice(slice_("db"))
    assert ask(view, "db.default.svc.cluster.local").rcode == "NXDOMAIN"  # type: ignore[union-attr]
    assert ask(view, "7.0.244.10.in-addr.arpa", "PTR") is None
    view.remove_service(service("web"))
    assert ask(view, "web.default.svc.cluster.local").rcode == "NXDOMAIN"  # type: ignore[union-attr]
    assert ask(view, "9.0.96.10.in-addr.arpa", "PTR") is None


def test_an_address_in_two_slices_survives_the_removal_of_one(view: View) -> None:
    endpoint = {"addresses": ["10.244.0.7"], "hostname": "db-0"}
    view.put_slice(slice_("db", endpoint, ports=[HTTP], name="db-y"))
    assert data(ask(view, "db-0.db.default.svc.cluster.local")) == ["10.244.0.7"]
    view.remove_slice(slice_("db"))
    assert data(ask(view, "db-0.db.default.svc.cluster.local")) == ["10.244.0.7"]
    assert data(ask(view, "7.0.244.10.in-addr.arpa", "PTR")) == ["db-0.db.default.svc.cluster.local"]


def test_a_changed_slice_replaces_its_endpoints(view: View) -> None:
    view.put_slice(slice_("db", {"addresses": ["10.244.0.8"]}, ports=[HTTP]))
    assert data(ask(view, "db.default.svc.cluster.local")) == ["10.244.0.8"]
    assert ask(view, "7.0.244.10.in-addr.arpa", "PTR") is None


@given(st.text("abc-_.0159", max_size=60), st.sampled_from(["A", "AAAA", "SRV", "PTR", "TXT", "ANY"]))
def test_no_name_is_too_strange(text: str, kind: str) -> None:
    view = View()
    for name in (text, f"{text}.cluster.local", f"{text}.in-addr.arpa", f"{text}.ip6.arpa"):
        answer(Question(name.lower().strip("."), kind), view)
