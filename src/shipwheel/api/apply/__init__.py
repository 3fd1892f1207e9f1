"""Server-side apply (KEP-555): who owns which field of an object, and merging by ownership.

`fields` is the algebra of sets of fields, `types` the rules by which values are owned and merged, `compiled` makes
them of a schema, `managers` reads and writes `managedFields`, and `operations` puts these together.
"""

from shipwheel.api.apply.fields import Filter, everything, excluding, only
from shipwheel.api.apply.managers import ManagersError, read_managers
from shipwheel.api.apply.operations import Convert, apply, revert_timestamps, track_update

__all__ = [
    "Convert",
    "Filter",
    "ManagersError",
    "apply",
    "everything",
    "excluding",
    "only",
    "read_managers",
    "revert_timestamps",
    "track_update",
]
