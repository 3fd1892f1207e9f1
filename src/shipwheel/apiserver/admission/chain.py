"""The admission chain: what every write passes on its way to the store.

Each plugin is a module of its own. Mutating ones change the object in place, in upstream's order; validating ones only
look. A plugin says no by raising `ApiError` (usually `Attempt.forbid`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from shipwheel.api.errors import ApiError, forbidden_error
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import Resource, UserInfo, Version

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]


@dataclass(slots=True)
class Attempt:
    """A write on its way (upstream's admission.Attributes). `obj` is in the storage version's form; it is None for a
    DELETE, as `old` is for a CREATE."""

    operation: Operation
    resource: Resource
    version: Version
    namespace: str
    name: str
    user: UserInfo
    obj: Obj | None
    old: Obj | None
    subresource: str = ""
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)

    def concerns(self, group: str, plural: str, *subresources: str) -> bool:
        """Whether it is about this kind, and the object itself (or one of the named subresources)."""
        target = self.resource.group_resource
        return (
            target.resource == plural
            and target.group == group
            and (self.subresource in subresources if subresources else not self.subresource)
        )

    @property
    def target(self) -> GroupResource:
        return self.resource.group_resource

    def forbid(self, why: str) -> ApiError:
        name = self.name or (self.obj or {}).get("metadata", {}).get("generateName", "") or "Unknown"
        return forbidden_error(self.target, name, why)


class Plugin:
    """One admission plugin. `name` is upstream's."""

    name = ""
    operations: frozenset[str] = frozenset({"CREATE", "UPDATE"})

    async def mutate(self, attempt: Attempt) -> None:
        """Change `attempt.obj`."""

    async def validate(self, attempt: Attempt) -> None:
        """Raise ApiError to refuse."""


class Admission:
    """The enabled plugins, in order."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.plugins = tuple(plugins)
        self._mutating = _by_operation(plugins, "mutate")
        self._validating = _by_operation(plugins, "validate")

    async def mutate(self, attempt: Attempt) -> None:
        for plugin in self._mutating[attempt.operation]:
            await plugin.mutate(attempt)

    async def validate(self, attempt: Attempt) -> None:
        for plugin in self._validating[attempt.operation]:
            await plugin.validate(attempt)


def _by_operation(plugins: Sequence[Plugin], method: str) -> dict[str, list[Plugin]]:
    """For each operation the plugins that have something to do in this phase."""
    return {
        operation: [
            plugin
            for plugin in plugins
            if operation in plugin.operations and getattr(type(plugin), method) is not getattr(Plugin, method)
        ]
        for operation in ("CREATE", "UPDATE", "DELETE", "CONNECT")
    }
