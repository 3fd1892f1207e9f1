"""DaemonSets: a pod on every node that fits.

`plan` decides which nodes need one and which pods are to go, in a roll-out as well: pure. `controller` keeps the
revisions, acts and writes.
"""

from shipwheel.controllers.daemonset.controller import DaemonSetController

__all__ = ["DaemonSetController"]
