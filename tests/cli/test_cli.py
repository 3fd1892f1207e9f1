"""What the `shipwheel` command takes and prints."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from shipwheel.admin.commands import COMMANDS
from shipwheel.admin.errors import NotAble
from shipwheel.admin.layout import Layout, Settings
from shipwheel.admin.machine import Missing
from shipwheel.admin.status import Component
from shipwheel.cli import show
from shipwheel.cli.main import main

SETTINGS = Settings("default", "simulated", "sqlite", 6443, "127.0.0.1")


def shipwheel(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_the_commands() -> None:
    commands = re.findall(r"^  (\S+) ", shipwheel("--help").output.partition("Commands:")[2], re.MULTILINE)
    assert commands == sorted(
        ["up", "down", "status", "kubeconfig", "logs", "version", "load-image", "node", "why", *COMMANDS]
    )


def test_version() -> None:
    assert re.fullmatch(r"shipwheel \S+ \(Kubernetes v1\.36\.\d+\)\n", shipwheel("version").output)


@pytest.mark.parametrize("component", COMMANDS)
def test_unknown_flags_are_refused_in_upstreams_words(component: str) -> None:
    result = shipwheel(component, "--no-such-flag=1")
    assert result.exit_code == 1
    assert result.output == "Error: unknown flag: --no-such-flag\n"


@pytest.mark.parametrize("component", COMMANDS)
def test_every_component_takes_the_flags_of_logs(component: str) -> None:
    """What runs it reads them."""
    assert {"v", "vmodule", "logging-format"} <= {flag.name for flag in COMMANDS[component].flags}


@pytest.mark.parametrize("component", COMMANDS)
def test_components_explain_their_flags(component: str) -> None:
    result = shipwheel(component, "--help")
    assert result.exit_code == 0
    assert f"Usage:\n  shipwheel {component} [flags]" in result.output
    assert "    --" in result.output


def test_components_take_no_arguments() -> None:
    result = shipwheel("kube-proxy", "extra")
    assert result.output == "Error: \"kube-proxy\" does not take any arguments, got ['extra']\n"


def test_a_kubeconfig_that_is_not_there() -> None:
    result = shipwheel("kube-proxy", "--kubeconfig=/no/such/file", "--metrics-bind-address=")
    assert (result.exit_code, result.output.startswith("Error: ")) == (1, True)


@pytest.mark.parametrize("command", ["status", "kubeconfig", "logs", "down"])
def test_a_cluster_that_does_not_exist(command: str, tmp_path: Path) -> None:
    result = shipwheel(command, "--name", "other", "--data-dir", str(tmp_path / "none"))
    assert 'There is no cluster "other".' in result.output


def test_where_the_kubeconfig_is(tmp_path: Path) -> None:
    layout = Layout.of("default", tmp_path)
    layout.kubeconfig().write_text("{}")
    assert shipwheel("kubeconfig", "--data-dir", str(tmp_path)).output == f"{layout.kubeconfig()}\n"


def test_logs(tmp_path: Path) -> None:
    layout = Layout.of("default", tmp_path)
    layout.logs.mkdir()
    layout.log("kube-apiserver").write_text("one\ntwo\nthree\n")
    layout.log("node-1").write_text("")
    where = ("--data-dir", str(tmp_path))
    assert shipwheel("logs", *where).output == "kube-apiserver\nnode-1\n"
    assert shipwheel("logs", "kube-apiserver", *where).output == "one\ntwo\nthree\n"
    assert shipwheel("logs", "kube-apiserver", "--tail=2", *where).output == "two\nthree\n"
    result = shipwheel("logs", "etcd", *where)
    assert (result.exit_code, result.output) == (1, 'no log of "etcd"; there are: kube-apiserver, node-1\n')


def test_what_a_machine_lacks_comes_with_advice() -> None:
    text = show.missing(NotAble([Missing("root (try: sudo shipwheel up)", ""), Missing("nft", "nftables")]))
    assert text.splitlines() == [
        "error: this machine cannot run containers yet; missing:",
        "  - root (try: sudo shipwheel up)",
        "  - nft",
        "on Debian and Ubuntu:",
        "  apt-get install nftables",
        "or start a cluster whose pods are simulated:",
        "  shipwheel up --runtime simulated",
    ]


def test_status_shows_components_and_nodes(tmp_path: Path) -> None:
    layout = Layout.of("default", tmp_path)
    component = Component("kube-apiserver", 4711, True, 2, 0.0, 42_000_000, "", "", layout.log("kube-apiserver"))
    node = {
        "metadata": {"name": "node-1"},
        "spec": {"podCIDR": "10.244.0.0/24"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.2"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0"},
        },
    }
    lines = show.status(layout, SETTINGS, [component], [node]).splitlines()
    assert lines[0] == "Cluster     default (running), context shipwheel-default"
    assert re.match(r"kube-apiserver +4711 +running +\d+d +2 +42 MB", lines[7])
    assert lines[-1].split() == ["node-1", "Ready", "v1.36.0", "192.0.2.2", "10.244.0.0/24"]
    failing = replace(component, failing="out of coffee")
    assert show.status(layout, SETTINGS, [failing], []).splitlines()[-2:] == [
        "kube-apiserver keeps failing: out of coffee",
        f"  (see {layout.log('kube-apiserver')})",
    ]
    assert "stopped" in show.status(layout, SETTINGS, [], []).splitlines()[0]


def test_progress_says_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    with show.progress("Doing"):
        pass
    with pytest.raises(click.Abort), show.progress("Failing"):
        raise click.Abort
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r" ✓ Doing \(0\.0 s\)", first)
    assert re.fullmatch(r" ✗ Failing \(0\.0 s\)", second)
