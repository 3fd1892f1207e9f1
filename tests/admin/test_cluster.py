"""What `up` and `down` decide before anything is started: names, ports, settings, identities."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509

from shipwheel.admin import addons, choices, cluster, command_lines, fleet, identities, machine, pki
from shipwheel.admin import layout as layouts
from shipwheel.admin.cluster import ClusterError, NotAble, Wanted
from shipwheel.admin.commands import COMMANDS
from shipwheel.admin.kernel import network_namespace
from shipwheel.admin.layout import Layout, LayoutError, NodeSettings, Settings
from shipwheel.admin.nodes import resolvers_of_nodes
from shipwheel.admin.ports import Claims
from shipwheel.client.kubeconfig import load_config, read_file

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def simulated(directory: Path, **changes: object) -> Wanted:
    return Wanted(**{"data_dir": directory / "data", "runtime": "simulated", **changes})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def own_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of("default", tmp_path / "data")


@pytest.mark.parametrize("name", ["Big", "a_b", "", "a" * 41, "ä/b"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClusterError, match="is no name for a cluster"):
        cluster.up(simulated(tmp_path, name=name))


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"port {port} is taken by process \d+ \(.+\); free it"):
            cluster.up(simulated(tmp_path, port=port))


def test_a_machine_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lack = [machine.Missing("runc", "runc")]
    monkeypatch.setattr(machine, "missing_for_containers", lambda _: lack)
    with pytest.raises(NotAble) as caught:
        cluster.up(simulated(tmp_path, runtime="containerd"))
    assert caught.value.missing == lack


def test_what_a_cluster_was_made_with_stays(tmp_path: Path, layout: Layout) -> None:
    layout.write_settings(Settings("default", "simulated", "sqlite", 6443, "127.0.0.1"))
    with pytest.raises(ClusterError, match="was made with --store sqlite"):
        cluster.up(simulated(tmp_path, store="etcd"))
    with pytest.raises(ClusterError, match="was made with --runtime simulated"):
        cluster.up(simulated(tmp_path, runtime="containerd"))


def test_there_is_nothing_to_take_down(tmp_path: Path) -> None:
    assert not cluster.down("default", tmp_path / "data")


def test_other_peoples_files_are_left_alone(tmp_path: Path, layout: Layout) -> None:
    layout.data.mkdir()
    (layout.data / "thesis.txt").write_text("years of work")
    with pytest.raises(ClusterError, match=r"holds no cluster, but thesis\.txt"):
        cluster.up(simulated(tmp_path))
    assert not cluster.down("default", layout.data)
    layout.write_settings(Settings("default", "simulated", "sqlite", 6443, "127.0.0.1"))
    layout.logs.mkdir()
    assert cluster.down("default", layout.data)
    assert [each.name for each in layout.data.iterdir()] == ["thesis.txt"]


@pytest.fixture
def settings(layout: Layout) -> Settings:
    made = Settings(
        "default", "containerd", "etcd", 6443, "192.0.2.2",
        nodes=(NodeSettings("node-1"), NodeSettings("node-2", "10.112.0.2")),
    )  # fmt: skip
    made = replace(made, ports=choices.choose_ports(made, Claims()))
    pki.ensure(layout.pki, api_hosts=("localhost",), etcd_hosts=("localhost",), now=NOW)
    identities.ensure(layout, made, NOW)
    return made


def test_every_component_has_an_identity_of_its_own(layout: Layout, settings: Settings) -> None:
    users = {}
    for who in ("admin", "controller-manager", "scheduler", "kube-proxy", "dns", "node-1"):
        config = load_config(layout.kubeconfig(who))
        assert config.server == "https://127.0.0.1:6443"
        subject = x509.load_pem_x509_certificate(config.client_cert_data).subject
        users[who] = subject.rfc4514_string()
    assert users == {
        "admin": "CN=kubernetes-admin,O=system:masters",
        "controller-manager": "CN=system:kube-controller-manager",
        "scheduler": "CN=system:kube-scheduler",
        "kube-proxy": "CN=system:kube-proxy",
        "dns": "CN=system:shipwheel:dns",
        "node-1": "CN=system:node:node-1,O=system:nodes",
    }
    assert read_file(layout.kubeconfig())["current-context"] == "shipwheel-default"


def test_identities_are_kept_until_they_age(layout: Layout, settings: Settings) -> None:
    before = layout.kubeconfig().read_bytes()
    identities.ensure(layout, settings, NOW + timedelta(days=30))
    assert layout.kubeconfig().read_bytes() == before
    identities.ensure(layout, settings, NOW + timedelta(days=350))
    assert layout.kubeconfig().read_bytes() != before


def test_every_command_line_can_be_read(layout: Layout, settings: Settings) -> None:
    alone = replace(settings, nodes=settings.nodes[1:])
    command_lines.write_recycler(layout)
    layout.volumes.mkdir()
    assert layout.foreign() == [], "so that `down` removes them"
    lines = [command_lines.control_plane(layout, each) for each in (settings, alone)]
    assert ["kube-proxy" in each for each in lines] == [False, True]
    for node in settings.nodes:
        command_lines.write_kubelet_configuration(layout, node)
        lines.append(command_lines.of_node(layout, settings, node))
    for name, arguments in (item for each in lines for item in each.items()):
        config, parsed = COMMANDS[name].parse(arguments)
        assert not parsed.arguments
        # All of the kubelet's flags that its file knows are deprecated, and everybody still writes them.
        assert name == "kubelet" or not parsed.warnings
        assert config
    assert f"--data-dir={layout.etcd}" in command_lines.etcd_command(layout, settings)


def test_a_node_in_namespaces_calls_the_api_server_over_the_bridge(layout: Layout, settings: Settings) -> None:
    assert load_config(layout.kubeconfig("node-2")).server == "https://10.112.0.1:6443"


def test_nodes_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "routed_networks", lambda: ["10.112.0.0/24"])
    one = choices.new_settings(Wanted(runtime="containerd"))
    assert one.nodes == (NodeSettings("node-1"),), "this machine itself"
    three = choices.new_settings(Wanted(runtime="containerd", nodes=3))
    addresses = [str(each) for each in ip_network(three.node_cidr).hosts()]
    assert [(each.name, each.address) for each in three.nodes] == [
        ("node-1", addresses[1]), ("node-2", addresses[2]), ("node-3", addresses[3])
    ]  # fmt: skip
    assert three.gateway == addresses[0]
    simulated = choices.new_settings(Wanted(runtime="simulated", nodes=2))
    assert simulated.nodes == (NodeSettings("node-1"), NodeSettings("node-2"))
    ports = choices.choose_ports(simulated, Claims())
    assert len(set(ports.values())) == len(ports) == 6


def test_a_name_and_an_address_that_became_free_are_given_again(settings: Settings) -> None:
    grown = choices.with_node(choices.with_node(settings, "mine"))
    assert [(each.name, each.address) for each in grown.nodes[2:]] == [
        ("mine", "10.112.0.3"), ("node-3", "10.112.0.4")
    ]  # fmt: skip
    shrunk = replace(grown, nodes=(grown.nodes[0], *grown.nodes[2:]))
    assert choices.with_node(shrunk).nodes[-1] == NodeSettings("node-2", "10.112.0.2")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("node-1", 'there is a node "node-1" already'),
        ("Big", "is no name for a node"),
        ("a.b", "is no name for a node"),
        ("x" * 64, "is no name for a node"),
        ("scheduler", "the name of one of the cluster's own components"),
    ],
)
def test_names_that_are_no_nodes(settings: Settings, name: str, complaint: str) -> None:
    with pytest.raises(ClusterError, match=complaint):
        choices.with_node(settings, name)


def test_addresses_run_out(settings: Settings) -> None:
    small = replace(settings, node_cidr="10.112.0.0/30", nodes=())
    with pytest.raises(ClusterError, match="no address is left"):
        choices.with_node(choices.with_node(small))


@pytest.mark.parametrize(
    ("machines", "nodes"),
    [
        ("nameserver 192.0.2.53\noptions ndots:1\n", "nameserver 192.0.2.53\noptions ndots:1"),
        ("nameserver 127.0.0.53\noptions edns0", "nameserver 10.112.0.1\noptions edns0"),
        (
            "# two\nnameserver 127.0.0.1\nnameserver ::1\nsearch a.example",
            "# two\nnameserver 10.112.0.1\nsearch a.example",
        ),
        ("", ""),
    ],
)
def test_resolvers_that_nodes_can_reach(machines: str, nodes: str) -> None:
    assert resolvers_of_nodes(machines, "10.112.0.1") == nodes


def test_up_never_takes_nodes_away(settings: Settings) -> None:
    with pytest.raises(ClusterError, match="has 2 nodes; to take one away: shipwheel node remove NAME"):
        choices.reconcile(settings, Wanted(nodes=1))
    assert len(choices.reconcile(settings, Wanted(nodes=4)).nodes) == 4
    assert choices.reconcile(settings, Wanted()) == settings


def test_nodes_of_a_cluster_that_does_not_run(tmp_path: Path, layout: Layout) -> None:
    for action in (fleet.add, fleet.start):
        with pytest.raises(ClusterError, match='there is no cluster "default"'):
            action("default", layout.data, "node-2", cluster.silent)
    stopped = NodeSettings("node-2", stopped=True)
    nodes = (NodeSettings("node-1"), stopped)
    layout.write_settings(Settings("default", "simulated", "sqlite", 6443, "127.0.0.1", nodes=nodes))
    with pytest.raises(ClusterError, match='the cluster "default" does not run; start it first: shipwheel up'):
        fleet.stop("default", layout.data, "node-1", cluster.silent)
    assert [(each.settings.name, each.pid, each.object) for each in fleet.listed("default", layout.data)] == [
        ("node-1", 0, None), ("node-2", 0, None)
    ]  # fmt: skip


def test_settings_are_read_as_they_were_written(layout: Layout, settings: Settings) -> None:
    layout.write_settings(settings)
    assert layout.read_settings() == settings


def test_a_newer_versions_cluster_can_be_taken_down_only(tmp_path: Path, layout: Layout) -> None:
    layout.write_settings(Settings("default", "simulated", "sqlite", 6443, "127.0.0.1"))
    newer = {**json.loads(layout.settings.read_text()), "zone": "a"}
    layout.settings.write_text(json.dumps(newer))
    with pytest.raises(LayoutError, match="made by a newer version"):
        cluster.up(simulated(tmp_path))
    with pytest.raises(LayoutError, match="made by a newer version"):
        fleet.add("default", layout.data, "node-2", cluster.silent)
    assert json.loads(layout.settings.read_text()) == newer
    assert [each.settings.name for each in fleet.listed("default", layout.data)] == ["node-1"]
    assert cluster.down("default", layout.data)
    assert not layout.data.exists()


@pytest.mark.parametrize(
    ("theirs", "complaint"),
    [
        ({}, ""),
        ({"pod_cidr": "10.244.0.0/16"}, "the range of pods 10.244.0.0/16 overlaps with that of pods (10.244.0.0/16)"),
        ({"pod_cidr": "10.128.0.0/9"}, "the range of pods 10.244.0.0/16 overlaps with that of pods (10.128.0.0/9)"),
        ({"service_cidr": "10.96.0.0/16"}, "the range of services 10.96.0.0/16 overlaps with that of services"),
        ({"node_cidr": "10.96.3.0/24"}, "the range of services 10.96.0.0/16 overlaps with that of nodes"),
    ],
)
def test_ranges_that_another_cluster_has(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, str], complaint: str
) -> None:
    ours = Settings("default", "containerd", "sqlite", 6443, "192.0.2.2")
    free = {"service_cidr": "10.97.0.0/16", "pod_cidr": "10.245.0.0/16", "node_cidr": "10.112.1.0/24"}
    other = replace(ours, **{"name": "other", **free, **theirs})  # type: ignore[arg-type]
    monkeypatch.setattr(machine, "routed_networks", list)
    monkeypatch.setattr(choices, "clusters", lambda: [(layout, ours), (Layout.of("other", tmp_path / "o"), other)])
    if not complaint:
        choices.check_ranges(layout, ours)
        return
    with pytest.raises(ClusterError, match=re.escape(complaint)) as caught:
        choices.check_ranges(layout, ours)
    assert 'of the cluster "other", which is up; take that one down, or make the cluster "default" anew' in str(
        caught.value
    )
    choices.check_ranges(layout, replace(ours, runtime="simulated"))


def test_ranges_that_this_machine_has_routes_to(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Settings("default", "containerd", "sqlite", 6443, "192.0.2.2")
    monkeypatch.setattr(layouts, "RUN", tmp_path / "run")
    monkeypatch.setattr(machine, "routed_networks", lambda: ["10.0.0.0/8", "10.244.1.0/24"])
    with pytest.raises(ClusterError, match=r"a route to 10\.244\.1\.0/24, which is in the cluster's range of pods"):
        choices.check_ranges(layout, ours)
    layout.run.mkdir(parents=True)
    choices.check_ranges(layout, ours)


def test_down_in_another_network_namespace(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "RUN", tmp_path / "run")
    layout.write_settings(Settings("default", "simulated", "sqlite", 6443, "127.0.0.1"))
    layout.run.mkdir(parents=True)
    layout.network_namespace.write_text("net:[1]")
    with pytest.raises(ClusterError, match=r"was brought up in another network namespace \(net:\[1\], this one is"):
        cluster.down("default", layout.data)
    assert layout.settings.exists()
    layout.network_namespace.write_text(network_namespace())
    assert cluster.down("default", layout.data)


def test_addresses_everybody_knows() -> None:
    assert addons.dns_address("10.96.0.0/16") == "10.96.0.10"
    assert addons.api_address("10.96.0.0/16") == "10.96.0.1"
