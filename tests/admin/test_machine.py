"""What is known of this machine: ports and who has them, ranges that are free, what is missing, traces."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict
from pathlib import Path

import pytest

from shipwheel.admin import layout as layouts
from shipwheel.admin import machine, traces
from shipwheel.admin.cluster import down
from shipwheel.admin.layout import Layout, LayoutError, NodeSettings, Settings


def test_who_has_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not machine.is_free(port, "127.0.0.1")
        assert not machine.is_free(port, "0.0.0.0")
        (owner,) = machine.port_owners(port)
        assert owner.pid == os.getpid()
        assert machine.port_owners(port, "127.0.0.1") == [owner]
        assert machine.port_owners(port, "127.0.0.2") == []
        assert machine.taken_by("127.0.0.1", port) == f'; process {owner.pid} ("{owner.command}") has it'
        assert "python" in owner.command or "pytest" in owner.command
        assert machine.free_port(port, "127.0.0.1") != port
    assert machine.is_free(port, "127.0.0.1")
    assert machine.port_owners(port) == []
    assert machine.free_port(port, "127.0.0.1") == port
    assert machine.free_port(port, "127.0.0.1", [port]) != port


def test_ranges_do_not_overlap() -> None:
    candidates = ["10.96.0.0/16", "10.97.0.0/16"]
    assert machine.free_network(candidates, []) == "10.96.0.0/16"
    assert machine.free_network(candidates, ["10.96.7.0/24", "192.0.2.0/24"]) == "10.97.0.0/16"
    with pytest.raises(LookupError):
        machine.free_network(candidates, ["10.0.0.0/8"])


def test_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(machine, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    missing = machine.missing_for_containers(tmp_path)
    assert missing[0].what.startswith("root")
    assert {each.package for each in missing} == {
        "", "containerd", "runc", "nftables", "iptables", "iproute2", "conntrack", "containernetworking-plugins",
    }  # fmt: skip


NODES = (NodeSettings("n1"), NodeSettings("n2", "10.0.0.2", stopped=True))
SETTINGS = Settings("a", "simulated", "sqlite", 6443, "127.0.0.1", nodes=NODES, ports={"kubelet": 1})


def test_settings_are_kept(tmp_path: Path) -> None:
    layout = Layout.of("a", tmp_path)
    assert layout.read_settings() is None
    layout.write_settings(SETTINGS)
    assert layout.read_settings() == SETTINGS


FILE = json.loads(json.dumps(asdict(SETTINGS)))
OLD = {key: FILE[key] for key in ("name", "runtime", "store", "port", "address")}


def write(layout: Layout, content: object) -> None:
    layout.data.mkdir(parents=True, exist_ok=True)
    layout.settings.write_text(content if isinstance(content, str) else json.dumps(content))


def test_settings_of_an_older_version_lack_what_has_defaults(tmp_path: Path) -> None:
    layout = Layout.of("a", tmp_path)
    write(layout, OLD)
    assert layout.read_settings() == Settings("a", "simulated", "sqlite", 6443, "127.0.0.1")
    write(layout, {**OLD, "nodes": [{"name": "n1"}]})
    assert layout.read_settings() == Settings(
        "a", "simulated", "sqlite", 6443, "127.0.0.1", nodes=(NodeSettings("n1"),)
    )


@pytest.mark.parametrize(
    ("added", "named"),
    [
        ({"zone": "a"}, r'\(this one does not know "zone"\)'),
        ({"zone": {"of": []}, "colour": 3}, r'\(this one does not know "zone", "colour"\)'),
        ({"nodes": [{"name": "n1"}, {"name": "n2", "cpus": 2}]}, r'\(this one does not know "nodes\[1\]\.cpus"\)'),
    ],
)
def test_settings_of_a_newer_version(tmp_path: Path, added: dict[str, object], named: str) -> None:
    layout = Layout.of("a", tmp_path)
    write(layout, FILE | added)
    with pytest.raises(LayoutError, match=rf"cluster\.json was made by a newer version of Shipwheel {named}"):
        layout.read_settings()
    known = layout.known_settings()
    assert known is not None
    assert (known.name, known.port, known.nodes[0].name) == ("a", 6443, "n1")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", r"Expecting value: line 1 column 1"),
        ("{", r"line 1 column 2"),
        ("[]", r"Expected `object`, got `array`"),
        ("null", r"Expected `object`, got `null`"),
        ({}, r"missing required field `name`"),
        ({key: value for key, value in OLD.items() if key != "port"}, r"missing required field `port`"),
        ({**FILE, "port": "6443"}, r"Expected `int`, got `str` - at `\$\.port`"),
        ({**FILE, "runtime": "docker"}, r"Invalid enum value 'docker' - at `\$\.runtime`"),
        ({**FILE, "nodes": {}}, r"Expected `array`, got `object` - at `\$\.nodes`"),
        ({**FILE, "nodes": ["n1"]}, r"Expected `object`, got `str` - at `\$\.nodes\[0\]`"),
        ({**FILE, "nodes": [{"address": ""}]}, r"missing required field `name` - at `\$\.nodes\[0\]`"),
        ({**FILE, "ports": {"kubelet": None}}, r"Expected `int`, got `null` - at `\$\.ports\[\.\.\.\]`"),
        ({**FILE, "pod_cidr": "10.0.0.1/8"}, r"has host bits set - at `\$\.pod_cidr`"),
    ],
)
def test_settings_that_are_damaged(tmp_path: Path, content: object, what: str) -> None:
    layout = Layout.of("a", tmp_path)
    write(layout, content)
    for read in (layout.read_settings, layout.known_settings):
        with pytest.raises(LayoutError, match=f"cluster\\.json is damaged: .*{what}"):
            read()


def test_a_directory_has_one_cluster(tmp_path: Path) -> None:
    """Otherwise `down` of another name would take its data, and leave what it runs."""
    write(Layout.of("a", tmp_path), OLD | {"name": "a"})
    other = Layout.of("b", tmp_path)
    for read in (other.read_settings, other.known_settings):
        with pytest.raises(LayoutError, match=f'^{tmp_path} has the cluster "a", not "b"$'):
            read()
    with pytest.raises(LayoutError):
        down("b", tmp_path)
    assert other.settings.exists()


def test_what_other_clusters_keep_is_passed_over_when_it_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "RUN", tmp_path / "run")
    contents: dict[str, object] = {
        "good": OLD | {"name": "good"},
        "newer": FILE | {"name": "newer", "zone": 1},
        "bad": "{",
        "no": [],
    }
    for name, content in contents.items():
        layout = Layout.of(name, tmp_path / name)
        write(layout, content)
        layout.run.mkdir(parents=True)
        (layout.run / "data").symlink_to(layout.data)
    (tmp_path / "run" / "gone-000000").mkdir()
    (tmp_path / "run" / "gone-000000" / "data").symlink_to(tmp_path / "gone")
    assert sorted(layout.name for layout, _ in layouts.clusters()) == ["good", "newer"]


def test_two_clusters_of_one_name_do_not_meet(tmp_path: Path) -> None:
    one, two = Layout.of("a", tmp_path / "1"), Layout.of("a", tmp_path / "2")
    assert one.run != two.run
    assert one.network != two.network
    assert one == Layout.of("a", tmp_path / "1")
    # A socket's path has at most 107 bytes.
    assert len(str(Layout.of("a" * 40, tmp_path).run / "node-1" / "containerd.sock")) < 100


SAVED = """\
# Generated by iptables-nft-save
*nat
:PREROUTING ACCEPT [0:0]
:CNI-DN-0123456789abcdef01234 - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-DNAT -p tcp -j CNI-DN-0123456789abcdef01234
COMMIT
"""


def test_cni_leaves_no_chains() -> None:
    assert traces.removal(SAVED, keep=()) == [
        ["-D", "PREROUTING", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "CNI-HOSTPORT-DNAT"],
        ["-D", "POSTROUTING", "-m", "comment", "--comment", "CNI portfwd requiring masquerade",
         "-j", "CNI-HOSTPORT-MASQ"],
        ["-F", "CNI-DN-0123456789abcdef01234"],
        ["-F", "CNI-HOSTPORT-DNAT"],
        ["-F", "CNI-HOSTPORT-MASQ"],
        ["-X", "CNI-DN-0123456789abcdef01234"],
        ["-X", "CNI-HOSTPORT-DNAT"],
        ["-X", "CNI-HOSTPORT-MASQ"],
    ]  # fmt: skip


def test_chains_that_were_there_before_stay() -> None:
    kept = ["CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-DN-0123456789abcdef01234"]
    assert traces.removal(SAVED, keep=kept) == []


def test_how_it_was_before_another_cluster_is_how_it_was(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text('{"sysctls": {}, "chains": ["mine"], "nft_tables": [], "directories": []}')
    traces.record(second, [first])
    assert second.read_text() == first.read_text()
    traces.record(second)
    assert second.read_text() == first.read_text()
