"""Events: what happened to an object, kept for an hour.

One kind in two groups. `events.k8s.io` (KEP-383) renamed the fields of the core group's Event and made some of
them required; both are stored as core/v1.
"""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import GroupVersion, Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import since, text
from shipwheel.kinds.declare import served

TTL = 3600

_RENAMED = {
    # core/v1: events.k8s.io/v1
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_RENAMED_BACK = {new: old for old, new in _RENAMED.items()}


def to_core(event: Obj) -> Obj:
    """An events.k8s.io/v1 Event in core/v1's words."""
    return {_RENAMED_BACK.get(key, key): value for key, value in event.items()}


def from_core(event: Obj) -> Obj:
    """A core/v1 Event in events.k8s.io/v1's words."""
    return {_RENAMED.get(key, key): value for key, value in event.items()}


def _last_seen(event: Obj, now: datetime) -> str:
    series = event.get("series")
    if series:
        return since(series.get("lastObservedTime"), now)
    last = event.get("lastTimestamp")
    return since(last, now) if last else _first_seen(event, now)


def _first_seen(event: Obj, now: datetime) -> str:
    return since(event.get("firstTimestamp") or event.get("eventTime"), now)


def _object(event: Obj, now: datetime) -> str:
    involved = event.get("involvedObject") or {}
    kind, name = involved.get("kind", "").lower(), involved.get("name")
    return f"{kind}/{name}" if name else kind


def _source(event: Obj, now: datetime) -> str:
    source = event.get("source") or {}
    component = source.get("component") or event.get("reportingComponent") or ""
    host = source.get("host") or event.get("reportingInstance")
    return f"{component}, {host}" if host else component


def _count(event: Obj, now: datetime) -> int:
    series = event.get("series")
    return series.get("count", 0) if series else event.get("count") or 1


def _involved(field: str, event: Obj) -> str:
    return (event.get("involvedObject") or {}).get(field, "")


def _source_component(event: Obj) -> str:
    return (event.get("source") or {}).get("component") or event.get("reportingComponent", "")


RESOURCES = (
    Resource(
        kind="Event",
        plural="events",
        singular="event",
        short_names=("ev",),
        versions=(
            served("", "v1", "Event"),
            served("events.k8s.io", "v1", "Event", to_storage=to_core, from_storage=from_core),
        ),
        storage_version=GroupVersion("", "v1"),
        strategy=Strategy(),
        columns=(
            Column("Last Seen", _last_seen),
            Column("Type", text("type")),
            Column("Reason", text("reason")),
            Column("Object", _object),
            Column("Subobject", text("involvedObject", "fieldPath"), priority=1),
            Column("Source", _source, priority=1),
            Column("Message", lambda event, now: event.get("message", "").strip()),
            Column("First Seen", _first_seen, priority=1),
            Column("Count", _count, priority=1),
            Column("Name", lambda event, now: event["metadata"]["name"], format="name", priority=1),
        ),
        selectable={
            "involvedObject.kind": lambda event: _involved("kind", event),
            "involvedObject.namespace": lambda event: _involved("namespace", event),
            "involvedObject.name": lambda event: _involved("name", event),
            "involvedObject.uid": lambda event: _involved("uid", event),
            "involvedObject.apiVersion": lambda event: _involved("apiVersion", event),
            "involvedObject.resourceVersion": lambda event: _involved("resourceVersion", event),
            "involvedObject.fieldPath": lambda event: _involved("fieldPath", event),
            "reason": lambda event: event.get("reason", ""),
            "reportingComponent": lambda event: event.get("reportingComponent", ""),
            "source": _source_component,
            "type": lambda event: event.get("type", ""),
        },
        ttl=lambda event: TTL,
    ),
)
