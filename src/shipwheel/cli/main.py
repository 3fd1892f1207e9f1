"""The `shipwheel` command: what can be typed, and what is printed. Everything it does is done elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from shipwheel import KUBERNETES_VERSION, __version__
from shipwheel.cli import components, node, show, why
from shipwheel.cli.options import data_dir_option, name_option

if TYPE_CHECKING:
    from shipwheel.admin.choices import Wanted
    from shipwheel.admin.errors import NotAble


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Kubernetes, written in Python: a real cluster on this machine."""


@main.command()
@name_option
@data_dir_option
@click.option(
    "--runtime",
    type=click.Choice(["containerd", "simulated"]),
    help="Real containers, or pods that only live in the API.  [default: containerd]",
)
@click.option("--store", type=click.Choice(["sqlite", "etcd"]), help="Embedded, or a real etcd.  [default: sqlite]")
@click.option("--port", type=click.IntRange(0, 65535), help="The API server's; 0: any.  [default: 6443]")
@click.option("--nodes", type=click.IntRange(1), help="So many, each in namespaces of its own.  [default: 1]")
@click.option(
    "--simulated-nodes", type=click.IntRange(0), help="So many lightweight ones besides, their pods simulated."
)
@click.option(
    "--stages",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that declares how their pods live.  [default: they start at once, and run]",
)
@click.option("--demo", is_flag=True, help="Deploy a small web site and wait until it answers.")
def up(
    name: str,
    data_dir: Path | None,
    runtime: Any,
    store: Any,
    port: int | None,
    nodes: int | None,
    simulated_nodes: int | None,
    stages: Path | None,
    demo: bool,
) -> None:
    """Start a cluster, or go on with one."""
    from shipwheel.admin import cluster

    wanted = cluster.Wanted(name, data_dir, runtime, store, port, nodes, simulated_nodes, stages)
    with show.errors():
        try:
            layout, settings = cluster.up(wanted, show.progress)
        except cluster.NotAble as lack:
            layout, settings = cluster.up(_without_containers(wanted, lack), show.progress)
        if demo:
            from shipwheel.admin.demo import deploy

            site = deploy(layout, settings, show.progress)
            click.echo(show.demo(settings, site))
        else:
            click.echo(show.welcome(settings, layout))


def _without_containers(wanted: Wanted, lack: NotAble) -> Wanted:
    """What to do on a machine that cannot run containers: simulate them, if that is all right."""
    from dataclasses import replace

    click.echo(show.missing(lack), err=True)
    can_ask = wanted.runtime is None and sys.stdin.isatty() and sys.stderr.isatty()
    if not can_ask or not click.confirm("Start a cluster whose pods are simulated?", err=True):
        sys.exit(1)
    return replace(wanted, runtime="simulated")


@main.command()
@name_option
@data_dir_option
@click.option("--keep-data", is_flag=True, help="Stop everything, but keep what `up` needs to go on.")
def down(name: str, data_dir: Path | None, keep_data: bool) -> None:
    """Take a cluster away, with everything it made on this machine."""
    from shipwheel.admin import cluster

    with show.errors():
        if not cluster.down(name, data_dir, keep_data=keep_data, progress=show.progress):
            click.echo(f'There is no cluster "{name}".')


@main.command()
@name_option
@data_dir_option
def status(name: str, data_dir: Path | None) -> None:
    """Show the cluster's processes, nodes and addresses."""
    from shipwheel.admin import status as status_of
    from shipwheel.admin.layout import Layout

    with show.errors():
        layout = Layout.of(name, data_dir)
        settings = layout.known_settings()
        if settings is None:
            click.echo(f'There is no cluster "{name}".')
            sys.exit(1)
        running = status_of.components(layout)
        nodes = status_of.list_nodes(layout) if running else []
        click.echo(show.status(layout, settings, running, nodes))
        sys.exit(0 if running and all(each.running for each in running) else 1)


@main.command()
@name_option
@data_dir_option
def kubeconfig(name: str, data_dir: Path | None) -> None:
    """Print where the administrator's kubeconfig file is."""
    from shipwheel.admin.layout import Layout

    path = Layout.of(name, data_dir).kubeconfig("admin")
    if not path.exists():
        click.echo(f'There is no cluster "{name}".', err=True)
        sys.exit(1)
    click.echo(path)


@main.command("load-image")
@click.argument("archive", type=click.File("rb"))
@name_option
@data_dir_option
def load_image(archive: BinaryIO, name: str, data_dir: Path | None) -> None:
    """Give the cluster's nodes the images of an ARCHIVE, as `docker save` writes it; `-` reads stdin."""
    from shipwheel.admin import cluster

    with show.errors():
        cluster.load_images(name, data_dir, archive.read())


@main.command()
@click.argument("component", required=False)
@name_option
@data_dir_option
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added.")
@click.option("--tail", "lines", type=click.IntRange(0), help="Only so many lines from the end.")
def logs(component: str | None, name: str, data_dir: Path | None, follow: bool, lines: int | None) -> None:
    """Print the log of a component; without one, say which there are."""
    from shipwheel.admin.layout import Layout

    layout = Layout.of(name, data_dir)
    known = sorted(each.stem for each in layout.logs.glob("*.log"))
    if component is None:
        click.echo("\n".join(known) if known else f'There is no cluster "{name}".')
        return
    if component not in known:
        click.echo(f'no log of "{component}"; there are: {", ".join(known) or "none"}', err=True)
        sys.exit(1)
    show.print_log(layout.log(component), follow=follow, lines=lines)


@main.command()
def version() -> None:
    """Print the versions of this program and of the API it has."""
    click.echo(f"shipwheel {__version__} (Kubernetes {KUBERNETES_VERSION})")


node.add_to(main)
components.add_to(main)
why.add_to(main)


if __name__ == "__main__":
    main()
