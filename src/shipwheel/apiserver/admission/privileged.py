"""`--allow-privileged=false`: no container may be privileged, in a pod or in the template of one.

Upstream's validation looks at this setting of the server; ours is of objects alone, so it is a plugin here.
"""

from __future__ import annotations

from collections.abc import Iterator

from shipwheel.api.errors import FieldError, forbidden, invalid_object
from shipwheel.api.meta import Obj
from shipwheel.apiserver.admission.chain import Attempt, Plugin

_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_TEMPLATES = (("spec", "template", "spec"), ("spec", "jobTemplate", "spec", "template", "spec"), ("template", "spec"))


class DenyPrivileged(Plugin):
    name = "DenyPrivileged"

    async def validate(self, attempt: Attempt) -> None:
        obj, resource = attempt.obj, attempt.resource
        if obj is None or resource.custom:
            return
        errors = [error for path, spec in _pod_specs(obj, attempt) for error in _privileged(spec, path)]
        if errors:
            raise invalid_object(resource.group, resource.kind, obj["metadata"].get("name", ""), errors)


def _pod_specs(obj: Obj, attempt: Attempt) -> Iterator[tuple[str, Obj]]:
    """Each pod spec in an object, with its path."""
    if attempt.resource.kind == "Pod":
        yield "spec", obj.get("spec") or {}
    for path in _TEMPLATES:
        found: object = obj
        for step in path:
            found = found.get(step) if isinstance(found, dict) else None
        if isinstance(found, dict):
            yield ".".join(path), found


def _privileged(spec: Obj, path: str) -> Iterator[FieldError]:
    for field in _CONTAINERS:
        for index, container in enumerate(spec.get(field) or ()):
            if (container.get("securityContext") or {}).get("privileged"):
                where = f"{path}.{field}[{index}].securityContext.privileged"
                yield forbidden(where, "disallowed by cluster policy")
