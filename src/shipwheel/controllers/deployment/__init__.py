"""Deployments: roll out pod templates by scaling ReplicaSets, one for each template.

`sizing` decides how many replicas each set should have, `revisions` which set is which and its history,
`status` what to report: all pure. `controller` reads, acts and writes.
"""

from shipwheel.controllers.deployment.controller import DeploymentController

__all__ = ["DeploymentController"]
