"""What goes wrong when a cluster is started or stopped, in words for whoever typed the command."""

from __future__ import annotations

from shipwheel.admin.machine import Missing


class ClusterError(Exception):
    """The message is all there is to say."""


class NotAble(ClusterError):
    """The machine lacks what was asked for."""

    def __init__(self, missing: list[Missing]) -> None:
        super().__init__("this machine cannot run containers yet")
        self.missing = missing
