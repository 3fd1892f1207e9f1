"""Node IPAM: give each node a range of pod addresses out of the cluster's.

`ranges` is the arithmetic, `controller` the loop.
"""

from shipwheel.controllers.node_ipam.controller import NodeIpamController

__all__ = ["NodeIpamController"]
