"""`shipwheel node`: the nodes of a running cluster come, go, die and return."""

from __future__ import annotations

from pathlib import Path

import click

from shipwheel.cli import show
from shipwheel.cli.options import data_dir_option, name_option


def add_to(group: click.Group) -> None:
    group.add_command(node)


@click.group()
def node() -> None:
    """Add, remove, stop, start or list the nodes of a running cluster."""


@node.command()
@click.argument("node", required=False, default="")
@name_option
@data_dir_option
def add(node: str, name: str, data_dir: Path | None) -> None:
    """Add a node, in namespaces of its own; without a NODE's name, the next number's."""
    from shipwheel.admin import fleet

    with show.errors():
        click.echo(f'node "{fleet.add(name, data_dir, node, show.progress)}" added')


@node.command()
@click.argument("node")
@name_option
@data_dir_option
def remove(node: str, name: str, data_dir: Path | None) -> None:
    """Remove a NODE, with its Node object and all it has on this machine."""
    from shipwheel.admin import fleet

    with show.errors():
        fleet.remove(name, data_dir, node, show.progress)
        click.echo(f'node "{node}" removed')


@node.command()
@click.argument("node")
@name_option
@data_dir_option
def stop(node: str, name: str, data_dir: Path | None) -> None:
    """Have a NODE die, as a machine that loses its power: the cluster is not told."""
    from shipwheel.admin import fleet

    with show.errors():
        fleet.stop(name, data_dir, node, show.progress)
        click.echo(f'node "{node}" stopped')


@node.command()
@click.argument("node")
@name_option
@data_dir_option
def start(node: str, name: str, data_dir: Path | None) -> None:
    """Start a NODE that was stopped."""
    from shipwheel.admin import fleet

    with show.errors():
        fleet.start(name, data_dir, node, show.progress)
        click.echo(f'node "{node}" started')


@node.command("list")
@name_option
@data_dir_option
def list_(name: str, data_dir: Path | None) -> None:
    """List the nodes: their machines here, and what the API says of them."""
    from shipwheel.admin import fleet

    with show.errors():
        click.echo("\n".join(show.nodes(fleet.listed(name, data_dir))))
