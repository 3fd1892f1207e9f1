"""Resolver configurations, host names and hosts files."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj
from shipwheel.kubelet.dns import (
    DnsSettings,
    HostnameFault,
    Resolver,
    hostname_and_domain,
    hosts_file,
    kernel_hostname,
    parse_resolv_conf,
    pod_resolver,
)
from tests.kubelet.builders import pod

HOST = Resolver(("192.168.0.53",), ("corp.example",), ("ndots:1",))
NODE = DnsSettings(("10.96.0.10",), "cluster.local", HOST)
CLUSTER = Resolver(
    ("10.96.0.10",),
    ("ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"),
    ("ndots:5",),
)


def test_resolv_conf() -> None:
    text = (
        "# note\nnameserver 1.1.1.1\nnameserver 8.8.8.8\nnameserver\nsearch old.example\n"
        "search a.example. b.example .\n"
        "options ndots:2 timeout:1\noptions ndots:3 rotate\n"
    )
    found = parse_resolv_conf(text)
    assert found == Resolver(("1.1.1.1", "8.8.8.8"), ("a.example", "b.example"), ("ndots:3", "timeout:1", "rotate"))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, CLUSTER),
        ({"dnsPolicy": "ClusterFirst"}, CLUSTER),
        ({"dnsPolicy": "ClusterFirst", "hostNetwork": True}, HOST),
        ({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": True}, CLUSTER),
        ({"dnsPolicy": "Default"}, HOST),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"]}}, Resolver(("9.9.9.9",))),
        (
            {"dnsPolicy": "Default", "dnsConfig": {
                "nameservers": ["9.9.9.9", "192.168.0.53"], "searches": ["x"],
                "options": [{"name": "ndots", "value": "7"}, {"name": "edns0"}]}},
            Resolver(("192.168.0.53", "9.9.9.9"), ("corp.example", "x"), ("ndots:7", "edns0")),
        ),
    ],
)  # fmt: skip
def test_policies(spec: Obj, expected: Resolver) -> None:
    assert pod_resolver(pod(**spec), NODE) == (expected, [])


def test_without_a_cluster_dns_the_node_is_asked() -> None:
    found, warnings = pod_resolver(pod(), DnsSettings((), "cluster.local", HOST))
    assert found == HOST
    assert warnings[0][0] == "MissingClusterDNS"
    assert 'Falling back to "Default" policy' in warnings[0][1]


def test_without_any_resolver_the_pod_asks_itself() -> None:
    assert pod_resolver(pod(dnsPolicy="Default"), DnsSettings())[0] == Resolver(("127.0.0.1",), (".",))


def test_limits() -> None:
    own = {
        "nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"],
        "searches": ["a" * 254, *(f"d{i}" for i in range(40))],
    }
    found, warnings = pod_resolver(pod(dnsPolicy="None", dnsConfig=own), NODE)
    assert len(found.servers) == 3
    assert found.searches == tuple(f"d{i}" for i in range(31))
    assert [reason for reason, _ in warnings] == ["DNSConfigForming", "DNSConfigForming"]
    assert "the applied nameserver line is: 1.1.1.1 1.1.1.2 1.1.1.3" in warnings[0][1]


def test_a_search_line_is_cut_to_its_length() -> None:
    own = {"searches": [f"{i:02}{'x' * 200}" for i in range(20)]}
    found, warnings = pod_resolver(pod(dnsPolicy="None", dnsConfig=own), NODE)
    assert len(" ".join(found.searches)) <= 2048
    assert len(found.searches) == 10
    assert warnings


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ("p", "")),
        ({"hostname": "h"}, ("h", "")),
        ({"hostname": "h", "subdomain": "s"}, ("h", "s.ns.svc.cluster.local")),
        ({"hostnameOverride": "x.y.z", "hostname": "h", "subdomain": "s"}, ("x.y.z", "")),
        ({"hostname": "a" * 62 + "-b"}, ("a" * 62, "")),
    ],
)
def test_host_names(spec: Obj, expected: tuple[str, str]) -> None:
    assert hostname_and_domain(pod(**spec), "cluster.local") == expected


def test_the_kernel_is_told_the_whole_name_on_demand() -> None:
    spec = {"hostname": "h", "subdomain": "s"}
    assert kernel_hostname(pod(**spec), "cluster.local") == "h"
    assert kernel_hostname(pod(**spec, setHostnameAsFQDN=True), "cluster.local") == "h.s.ns.svc.cluster.local"
    with pytest.raises(HostnameFault, match="64 characters is the max"):
        kernel_hostname(pod(hostname="a" * 60, subdomain="s", setHostnameAsFQDN=True), "cluster.local")


def test_hosts_files() -> None:
    aliases = [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]
    text = hosts_file(
        pod(hostname="h", subdomain="s", hostAliases=aliases), ["10.0.0.5", "fd00::5"], "cluster.local", ""
    )
    assert text.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert text.endswith(
        "10.0.0.5\th.s.ns.svc.cluster.local\th\nfd00::5\th.s.ns.svc.cluster.local\th\n"
        "\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
    )
    text = hosts_file(pod(hostNetwork=True, hostAliases=aliases), [], "", "127.0.0.1 me\n")
    assert text == (
        "# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n"
        "\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
    )
