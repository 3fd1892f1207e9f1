"""Pieces of strategies that several kinds share."""

from __future__ import annotations

from shipwheel.api.meta import Obj


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
