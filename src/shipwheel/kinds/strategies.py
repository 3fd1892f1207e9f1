"""Pieces of strategies that several kinds share."""

from __future__ import annotations

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Strategy, WriteContext, keep


class BuiltinStrategy(Strategy):
    """As most built-in kinds are written: unlike for custom resources, an update of `status` may change metadata
    as well."""

    def prepare_for_status_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        kept = (new.keys() | old.keys()) - {"apiVersion", "kind", "metadata", "status"}
        keep(new, old, *kept)


def keep_metadata(new: Obj, old: Obj) -> None:
    """Let the metadata be as it was, but for what every write may move: the resource version that the writer saw,
    and who manages which fields."""
    metadata = dict(old["metadata"])
    for field in ("resourceVersion", "managedFields"):
        if field in new["metadata"]:
            metadata[field] = new["metadata"][field]
        else:
            metadata.pop(field, None)
    new["metadata"] = metadata
