"""Who owns which field: `metadata.managedFields`, kept by every kind of write (KEP-555).

What is recorded is what the client wrote, in the version it wrote it in, before admission and the kind's strategy have
their say.
"""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.apply import Filter, everything, excluding, only, track_update
from shipwheel.api.apply import apply as server_side_apply
from shipwheel.api.meta import Obj
from shipwheel.api.patch.values import clone
from shipwheel.api.resource import Resource, Version
from shipwheel.apiserver.intake import WriteOptions, converter, present

_EXCEPT_STATUS = excluding("status")
_ONLY_STATUS = only("status")


def _settable(resource: Resource, sub: str) -> Filter:
    """Which fields a write can set at all; nobody owns others because of it."""
    if sub == "status":
        return _ONLY_STATUS
    return _EXCEPT_STATUS if resource.has_status else everything


def apply(
    resource: Resource, version: Version, live: Obj | None, config: Obj, options: WriteOptions, now: datetime, sub: str
) -> Obj:
    """Server-side apply, in the request's version."""
    return server_side_apply(
        live,
        config,
        schema=version.schema,
        manager=options.field_manager,
        force=options.force,
        api_version=version.api_version,
        now=now,
        kind=resource.kind if not sub else "",
        subresource=sub,
        reset_fields=_settable(resource, sub),
        convert=converter(resource, version),
    )


def record_update(
    resource: Resource,
    version: Version,
    new: Obj,
    old: Obj | None,
    options: WriteOptions,
    now: datetime,
    sub: str,
) -> None:
    """Record in managedFields who set what: the client, not what admission and strategy make of it."""
    if version.from_storage is not None:
        view = present(resource, version, clone(new))
        old_view = present(resource, version, clone(old)) if old is not None else None
    else:
        view, old_view = new, old
    track_update(
        view,
        old_view,
        schema=version.schema,
        manager=options.field_manager,
        api_version=version.api_version,
        now=now,
        subresource=sub,
        reset_fields=_settable(resource, sub),
        convert=converter(resource, version),
    )
    if view is not new:
        new["metadata"]["managedFields"] = view["metadata"].get("managedFields") or []
