"""Node life cycle: notice that a node is silent, say so, and keep work away from it.

`health` decides from what was seen when whether a node is alive, `zones` how fast the nodes of a zone may be
given up, `taints` which taints conditions mean: all pure. `controller` watches and acts.
"""

from shipwheel.controllers.node_lifecycle.controller import NodeLifecycleController

__all__ = ["NodeLifecycleController"]
