"""Options that most commands have."""

from __future__ import annotations

from pathlib import Path

import click

name_option = click.option("--name", default="default", show_default=True, help="Which cluster.")
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where it keeps everything.  [default: ~/.shipwheel/NAME]",
)
