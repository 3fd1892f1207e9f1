"""What `up` and `down` decide before anything is started: names, ports, settings, identities."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from shipwheel.admin import addons, choices, cluster, identities, machine, pki
from shipwheel.admin.cluster import ClusterError, NotAble, Wanted
from shipwheel.admin.command_lines import command_lines, etcd_command, write_kubelet_configuration
from shipwheel.admin.commands import COMMANDS
from shipwheel.admin.layout import Layout, Settings
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
        "default", "containerd", "etcd", 6443, "192.0.2.2", ports={**choices.PORTS, "etcd": 2379, "etcd-peer": 2380}
    )
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
    write_kubelet_configuration(layout, "node-1")
    for name, arguments in command_lines(layout, settings).items():
        config, parsed = COMMANDS[name].parse(arguments)
        assert not parsed.arguments
        # All of the kubelet's flags that its file knows are deprecated, and everybody still writes them.
        assert name == "kubelet" or not parsed.warnings
        assert config
    assert f"--data-dir={layout.etcd}" in etcd_command(layout, settings)


def test_addresses_everybody_knows() -> None:
    assert addons.dns_address("10.96.0.0/16") == "10.96.0.10"
    assert addons.api_address("10.96.0.0/16") == "10.96.0.1"
