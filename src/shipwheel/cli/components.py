"""The components as commands of their own, with upstream's names and flags.

click only finds the command: the flags are read as pflag reads them (`client/flags.py`), so that a command line
written for the upstream component means the same here, or is refused with the same words.
"""

from __future__ import annotations

import logging
import sys

import click

from shipwheel.admin.commands import COMMANDS, Command
from shipwheel.client.flags import HelpRequested, VersionRequested, usage


def add_to(group: click.Group) -> None:
    for command in COMMANDS.values():
        group.add_command(_ComponentCommand(command))


class _ComponentCommand(click.Command):
    """Takes every argument as it stands."""

    def __init__(self, component: Command) -> None:
        super().__init__(component.name, help=component.summary, add_help_option=False, callback=lambda: None)
        self._component = component

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return []

    def invoke(self, ctx: click.Context) -> None:
        run(self._component, ctx.args)


def run(component: Command, arguments: list[str]) -> None:
    """Run until it is told to end; exits with 1 when it cannot be."""
    try:
        config, parsed = component.parse(arguments)
    except HelpRequested:
        click.echo(usage(f"shipwheel {component.name}", component.summary, component.flags), nl=False)
        return
    except VersionRequested as version:
        click.echo(version)
        return
    except Exception as error:
        # Flags that make no sense, files that they name and that cannot be used.
        _fail(f"Error: {error}")
    if parsed.arguments:
        _fail(f'Error: "{component.name}" does not take any arguments, got {list(parsed.arguments)}')
    for warning in parsed.warnings:
        click.echo(warning, err=True)
    from shipwheel.admin import klog
    from shipwheel.admin.runner import reasons, run_component

    values = parsed.values
    try:
        klog.configure(verbosity=values["v"], form=values["logging-format"], modules=values["vmodule"])
    except ValueError as error:
        _fail(f"Error: --vmodule: {error}")
    try:
        run_component(lambda: component.run(config))
    except Exception as error:
        logging.getLogger(component.name).debug("ended by an error", exc_info=True)
        _fail("\n".join(f"Error: {line}" for line in reasons(error)))


def _fail(message: str) -> None:
    click.echo(message, err=True)
    sys.exit(1)
