"""What the command prints: progress, errors, tables and advice."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from shipwheel.admin.demo import Site
    from shipwheel.admin.errors import NotAble
    from shipwheel.admin.fleet import Listed
    from shipwheel.admin.layout import Layout, Settings
    from shipwheel.admin.status import Component
    from shipwheel.api.meta import Obj

DONE, FAILED, UNDER_WAY = "✓", "✗", "…"


@contextlib.contextmanager
def progress(text: str) -> Iterator[None]:
    """A line that says what is being done, and in the end how long it took."""
    started = time.monotonic()
    moving = sys.stderr.isatty()
    if moving:
        click.echo(f" {UNDER_WAY} {text}", nl=False, err=True)
    mark = FAILED
    try:
        yield
        mark = DONE
    finally:
        seconds = time.monotonic() - started
        start = "\r\033[K" if moving else ""
        click.echo(f"{start} {_coloured(mark)} {text} ({seconds:.1f} s)", err=True)


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Say what went wrong, without a traceback where it is the user's affair, and exit with 1."""
    from shipwheel.admin.containerd import ContainerdError
    from shipwheel.admin.errors import ClusterError
    from shipwheel.admin.images import ImageError
    from shipwheel.admin.layout import LayoutError
    from shipwheel.admin.pki import PkiError
    from shipwheel.client.flags import FlagError
    from shipwheel.client.kubeconfig import ConfigError

    try:
        yield
    except (
        ClusterError, LayoutError, ContainerdError, ImageError, PkiError, FlagError, ConfigError, LookupError,
        PermissionError,
    ) as error:  # fmt: skip
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def missing(lack: NotAble) -> str:
    """What the machine lacks, and how to get it."""
    lines = [f"error: {lack}; missing:"]
    lines += [f"  - {each.what}" for each in lack.missing]
    packages = sorted({each.package for each in lack.missing if each.package})
    if packages:
        lines += ["on Debian and Ubuntu:", f"  apt-get install {' '.join(packages)}"]
    lines += ["or start a cluster whose pods are simulated:", "  shipwheel up --runtime simulated"]
    return "\n".join(lines)


def welcome(settings: Settings, layout: Layout) -> str:
    lines = [
        "",
        f'The cluster "{settings.name}" is ready, at {settings.server}',
        "",
        f"  kubectl --context {settings.context} get nodes",
        f"  shipwheel status{_name_flag(settings)}",
        f"  shipwheel down{_name_flag(settings)}",
    ]
    if settings.runtime == "simulated":
        lines.insert(2, "Its pods are simulated: they live as their specs say, but no process is started.")
    return "\n".join(lines)


def demo(settings: Settings, site: Site) -> str:
    context = f"--context {settings.context}"
    if settings.runtime == "simulated":
        found = ["a web site of three simulated pods runs in it, as far as the API knows."]
    else:
        found = [
            "a web site of three pods answers:",
            "",
            f"  curl {site.service_url}      (the Service's address)",
            f"  curl {site.node_url}    (the NodePort)",
        ]
    return "\n".join(
        (
            "",
            f'The cluster "{settings.name}" is ready, and {found[0]}',
            *found[1:],
            "",
            "What to try next:",
            "",
            f"  kubectl {context} get pods -o wide",
            f"  kubectl {context} scale deployment web --replicas=5",
            f"  kubectl {context} logs -l app=web --prefix",
            f"  kubectl {context} exec -it deployment/web -- sh",
            f"  shipwheel status{_name_flag(settings)}",
            f"  shipwheel down{_name_flag(settings)}",
        )
    )


def status(layout: Layout, settings: Settings, running: Sequence[Component], nodes: Sequence[Obj]) -> str:
    state = "running" if running else "stopped"
    lines = [
        f"Cluster     {settings.name} ({state}), context {settings.context}",
        f"API server  {settings.server}",
        f"Runtime     {settings.runtime}, store {settings.store}",
        f"Addresses   services {settings.service_cidr}, pods {settings.pod_cidr}",
        f"Data        {layout.data}",
    ]
    if settings.simulated_nodes:
        lines.append(f"Simulated   {settings.simulated_nodes} nodes, stages {settings.stages or 'as by default'}")
    if running:
        rows: list[tuple[str, ...]] = [("COMPONENT", "PID", "STATE", "UP", "RESTARTS", "MEMORY")]
        rows += [_component_row(each) for each in running]
        lines += ["", *table(rows)]
        lines += [f"{each.name} keeps failing: {each.failing}\n  (see {each.log})" for each in running if each.failing]
    if nodes:
        rows = [("NODE", "STATUS", "VERSION", "INTERNAL-IP", "PODS")]
        rows += [_node_row(each) for each in nodes]
        lines += ["", *table(rows)]
    return "\n".join(lines)


def print_log(path: Path, *, follow: bool, lines: int | None) -> None:
    with path.open(errors="replace") as log:
        content = log.readlines()
        sys.stdout.writelines(content if lines is None else content[len(content) - min(lines, len(content)) :])
        try:
            while follow:
                sys.stdout.flush()
                added = log.read()
                if added:
                    sys.stdout.write(added)
                else:
                    time.sleep(0.2)
        except KeyboardInterrupt:
            return


def _component_row(each: Component) -> tuple[str, ...]:
    state = "running" if each.running else each.last_exit or "stopped"
    age = _age(time.time() - each.started) if each.running else ""
    memory = f"{each.memory / 1e6:.0f} MB" if each.memory else ""
    return (each.name, str(each.pid or ""), state, age, str(each.restarts), memory)


def nodes(listed: Sequence[Listed]) -> list[str]:
    """The table of `shipwheel node list`."""
    rows: list[tuple[str, ...]] = [("NODE", "MACHINE", "PID", "STATUS", "VERSION", "INTERNAL-IP", "PODS")]
    for each in listed:
        state = "stopped" if each.settings.stopped else "running" if each.pid else "down"
        known = _node_row(each.object) if each.object else ("", "Unknown", "", each.settings.address, "")
        rows.append((each.settings.name, state, str(each.pid or ""), *known[1:]))
    return table(rows)


def _node_row(node: Obj) -> tuple[str, ...]:
    status = node.get("status") or {}
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    ready = "Ready" if conditions.get("Ready") == "True" else "NotReady"
    addresses = [each["address"] for each in status.get("addresses") or () if each["type"] == "InternalIP"]
    version = (status.get("nodeInfo") or {}).get("kubeletVersion", "")
    cidr = (node.get("spec") or {}).get("podCIDR", "")
    return (node["metadata"]["name"], ready, version, ",".join(addresses), cidr)


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of columns as wide as they need to be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f}s"
    if seconds < 7200:
        return f"{seconds / 60:.0f}m"
    return f"{seconds / 3600:.0f}h" if seconds < 172800 else f"{seconds / 86400:.0f}d"


def _name_flag(settings: Settings) -> str:
    return "" if settings.name == "default" else f" --name {settings.name}"


def _coloured(mark: str) -> str:
    if os.environ.get("NO_COLOR") or not sys.stderr.isatty():
        return mark
    return click.style(mark, fg={DONE: "green", FAILED: "red"}.get(mark))
