"""Query and path parameters of the API's operations, and what they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shipwheel.api.schema import Schema

ParameterType = Literal["string", "integer", "boolean"]


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    place: Literal["query", "path"] = "query"
    type: ParameterType = "string"
    description: str = ""


NAMESPACE = Parameter("namespace", "path", description="namespace of the object")
PATH = Parameter("path", "path", description="path to the resource")
PRETTY = Parameter("pretty", description="Indent the answer for people ('true'). Browsers and curl get that anyway.")

_DRY_RUN = Parameter("dryRun", description="'All' does everything but store the result; nothing else is allowed.")
_FIELD_MANAGER = Parameter(
    "fieldManager",
    description="Who makes this change, for the ownership of fields: at most 128 printable characters. Required for"
    " apply; otherwise the beginning of the user agent is taken.",
)
_FIELD_VALIDATION = Parameter(
    "fieldValidation",
    description="What to do about unknown and duplicate fields: 'Ignore' drops them, 'Warn' (the default) drops them"
    " with a warning for each, 'Strict' refuses the request.",
)
_FORCE = Parameter(
    "force", type="boolean", description="Take fields that others own. For apply patches only; others may not set it."
)

BODY_WRITE = (_DRY_RUN, _FIELD_MANAGER, _FIELD_VALIDATION)
PATCH = (*BODY_WRITE, _FORCE)
DELETE = (
    _DRY_RUN,
    Parameter(
        "gracePeriodSeconds",
        type="integer",
        description="Seconds before the object is deleted, not negative. 0 deletes at once; the default is the kind's.",
    ),
    Parameter(
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        type="boolean",
        description="Delete an object that can no longer be read from the store, without finalizers or"
        " preconditions. Unsafe: it may break what relies on the object. Needs a permission of its own.",
    ),
    Parameter(
        "orphanDependents",
        type="boolean",
        description="Deprecated: use propagationPolicy. Whether dependents stay (adds or removes the 'orphan'"
        " finalizer). Not together with propagationPolicy.",
    ),
    Parameter(
        "propagationPolicy",
        description="What becomes of dependents: 'Orphan' leaves them, 'Background' lets the garbage collector delete"
        " them afterwards, 'Foreground' deletes them before the object goes.",
    ),
)
LIST = (
    Parameter(
        "allowWatchBookmarks",
        type="boolean",
        description="Accept events of type BOOKMARK, which carry nothing but a resource version, in a watch. When they"
        " come, and whether, is up to the server.",
    ),
    Parameter(
        "continue",
        description="Go on with a list where the answer that gave this token ended. Tokens expire after some minutes"
        " (410); the other parameters must be as before.",
    ),
    Parameter("fieldSelector", description="Only objects whose fields fit, like 'metadata.name=web'. Default: all."),
    Parameter("labelSelector", description="Only objects whose labels fit, like 'app=web,tier!=db'. Default: all."),
    Parameter(
        "limit",
        type="integer",
        description="At most so many objects in one answer. If there are more, the list's metadata has a 'continue'"
        " token; all pages show the same moment.",
    ),
    Parameter(
        "resourceVersion",
        description="How fresh the answer must be: unset, the most recent; '0', anything; otherwise see"
        " resourceVersionMatch. A watch starts after that version.",
    ),
    Parameter(
        "resourceVersionMatch",
        description="How resourceVersion applies to a list: 'NotOlderThan' or 'Exact'.",
    ),
    Parameter(
        "sendInitialEvents",
        type="boolean",
        description="Begin a watch with the objects that exist, as ADDED events, and a bookmark annotated"
        " 'k8s.io/initial-events-end' after them. Needs resourceVersionMatch=NotOlderThan.",
    ),
    Parameter(
        "timeoutSeconds",
        type="integer",
        description="End the list or watch after so many seconds, whatever happens.",
    ),
    Parameter(
        "watch", type="boolean", description="Stay and send changes as events, instead of answering with a list."
    ),
)

_HEAD = ("apiVersion", "kind")


def of_options(schema: Schema) -> tuple[Parameter, ...]:
    """The fields of an options kind (`PodExecOptions`) as query parameters; a list is a repeated one."""
    return tuple(
        Parameter(name, type=_scalar(each), description=each.description)
        for name, each in schema.properties.items()
        if name not in _HEAD
    )


def _scalar(schema: Schema) -> ParameterType:
    if schema.items is not None:
        return _scalar(schema.items)
    return schema.type if schema.type in ("integer", "boolean") else "string"  # type: ignore[return-value]
