"""Events: what happened to an object, kept for an hour.

One kind in two groups. `events.k8s.io` (KEP-383) renamed the fields of the core group's Event and made some of
them required; both are stored as core/v1.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from shipwheel.api.clock import parse_time
from shipwheel.api.errors import FieldError, invalid, required
from shipwheel.api.meta import GroupVersion, Obj
from shipwheel.api.names import byte_length, is_dns1123_subdomain, is_qualified_name, name_is_path_segment
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import IMMUTABLE, Errors, check_immutable, check_rule, check_subdomain
from shipwheel.kinds.columns import age_column, text
from shipwheel.kinds.declare import older, served

_SHORT = 128
_NOTE = 1024
_UNSET = "needs to be unset"

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
_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_FIELD_LABELS = {
    **{f"regarding.{field}": f"involvedObject.{field}" for field in _INVOLVED},
    "reportingController": "reportingComponent",
    "reason": "reason",
    "type": "type",
}
"""How events.k8s.io calls the fields that events can be selected by."""

_RENAMED_BACK = {new: old for old, new in _RENAMED.items()}


def to_core(event: Obj) -> Obj:
    """An events.k8s.io/v1 Event in core/v1's words."""
    return {_RENAMED_BACK.get(key, key): value for key, value in event.items()}


def from_core(event: Obj) -> Obj:
    """A core/v1 Event in events.k8s.io/v1's words."""
    named = {_RENAMED.get(key, key): value for key, value in event.items()}
    for empty in ("reportingController", "reportingInstance"):  # here they are left out when nobody reports
        if named.get(empty) == "":
            del named[empty]
    return named


class EventStrategy(Strategy):
    """What an event has to say depends on the group that it is written through: see `_check_core`."""

    allow_create_on_update = True
    name_rule = staticmethod(name_is_path_segment)
    tracks_generation = False


def _check_core(new: Obj, old: Obj | None) -> list[FieldError]:
    return _check_common(new, "reportingComponent")


def _check_v1beta1(new: Obj, old: Obj | None) -> list[FieldError]:
    return _check_common(new, "reportingController")


def _check_events(new: Obj, old: Obj | None) -> list[FieldError]:
    errors = _check_common(new, "reportingController")
    if old is not None:
        _check_unchanged(new, old, errors)
        return errors
    if new["metadata"].get("name"):
        check_subdomain(new["metadata"]["name"], "metadata.name", errors)
    _check_series(new.get("series"), errors)
    if not new.get("eventTime"):
        errors.append(required("eventTime"))
    if new.get("type") not in ("Normal", "Warning"):
        errors.append(invalid("type", "", f"has invalid value: {new.get('type', '')}"))
    source = new.get("source") or {}
    for field in ("firstTimestamp", "lastTimestamp", "count"):
        if new.get(field):
            errors.append(invalid(field, "", _UNSET))
    if source.get("component") or source.get("host"):
        errors.append(invalid("source", "", _UNSET))
    return errors


def _check_common(event: Obj, controller: str) -> Errors:
    """`controller` is how the version calls the field that names who reports."""
    errors: Errors = []
    namespace = event["metadata"].get("namespace", "")
    involved = (event.get("involvedObject") or {}).get("namespace", "")
    if event.get("eventTime"):
        homeless = not involved and namespace not in ("default", "kube-system")
    else:
        homeless = (involved or "default") != (namespace or "default")
    if homeless:
        errors.append(invalid("involvedObject.namespace", involved, "does not match event.namespace"))
    if event.get("eventTime"):
        _check_new_style(event, controller, errors)
    check_rule(is_dns1123_subdomain, namespace, "namespace", errors)
    return errors


def _check_new_style(event: Obj, controller: str, errors: Errors) -> None:
    reporter = event.get("reportingComponent", "")
    if not reporter:
        errors.append(required(controller))
    check_rule(is_qualified_name, reporter, controller, errors)
    for field in ("reportingInstance", "action", "reason"):
        text = event.get(field, "")
        if not text:
            errors.append(required(field))
        if byte_length(text) > _SHORT:
            errors.append(invalid(field, "", f"can have at most {_SHORT} characters"))
    if byte_length(event.get("message", "")) > _NOTE:
        errors.append(invalid("message", "", f"can have at most {_NOTE} characters"))


def _check_series(series: Obj | None, errors: Errors) -> None:
    if series is None:
        return
    if series.get("count", 0) < 2:
        errors.append(invalid("series.count", "", "should be at least 2"))
    if not series.get("lastObservedTime"):
        errors.append(required("series.lastObservedTime"))


def _check_unchanged(new: Obj, old: Obj, errors: Errors) -> None:
    """Nothing but the series may go on."""
    if new.get("series") != old.get("series"):
        _check_series(new.get("series"), errors)
    for field in (
        "involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "type",
    ):  # fmt: skip
        check_immutable(new.get(field), old.get(field), field, errors)
    if _moment(new) != _moment(old):
        errors.append(invalid("eventTime", new.get("eventTime"), IMMUTABLE))
    for field, shown in (
        ("action", "action"),
        ("reason", "reason"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ):
        check_immutable(new.get(field), old.get(field), shown, errors)


def _moment(event: Obj) -> datetime | None:
    return parse_time(event["eventTime"]) if event.get("eventTime") else None


def _last_seen(event: Obj) -> str | None:
    series = event.get("series")
    if series:
        return series.get("lastObservedTime")
    return event.get("lastTimestamp") or _first_seen(event)


def _first_seen(event: Obj) -> str | None:
    return event.get("firstTimestamp") or event.get("eventTime")


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
            served("", "v1", "Event", check=_check_core),
            served(
                "events.k8s.io",
                "v1",
                "Event",
                to_storage=to_core,
                from_storage=from_core,
                check=_check_events,
                field_labels=_FIELD_LABELS,
            ),
            older(
                "events.k8s.io",
                "v1beta1",
                "Event",
                since="1.22",
                until="1.25",
                to_storage=to_core,
                from_storage=from_core,
                check=_check_v1beta1,
                field_labels=_FIELD_LABELS,
            ),
        ),
        storage_version=GroupVersion("", "v1"),
        strategy=EventStrategy(),
        columns=(
            age_column("Last Seen", _last_seen),
            Column("Type", text("type")),
            Column("Reason", text("reason")),
            Column("Object", _object),
            Column("Subobject", text("involvedObject", "fieldPath"), priority=1),
            Column("Source", _source, priority=1),
            Column("Message", lambda event, now: event.get("message", "").strip()),
            age_column("First Seen", _first_seen, priority=1),
            Column("Count", _count, priority=1),
            Column("Name", lambda event, now: event["metadata"]["name"], format="name", priority=1),
        ),
        selectable={
            **{f"involvedObject.{field}": partial(_involved, field) for field in _INVOLVED},
            "reason": lambda event: event.get("reason", ""),
            "reportingComponent": lambda event: event.get("reportingComponent", ""),
            "source": _source_component,
            "type": lambda event: event.get("type", ""),
        },
        expires=True,
    ),
)
