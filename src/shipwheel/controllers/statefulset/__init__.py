"""StatefulSets: pods that are somebody, one after the other.

`plan` decides what may happen next and what to report, `claims` what becomes of the volumes: both pure.
`controller` keeps the revisions, acts and writes.
"""

from shipwheel.controllers.statefulset.controller import StatefulSetController

__all__ = ["StatefulSetController"]
