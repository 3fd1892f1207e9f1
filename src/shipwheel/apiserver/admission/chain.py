"""The admission chain: what every write passes on its way to the store.

Each plugin is a module of its own. Mutating ones change the object in place, in upstream's order; validating ones only
look. A plugin says no by raising `ApiError` (usually `Attempt.forbid`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
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
    kinds: frozenset[GroupResource] | None = None
    """Those it looks at, subresources included; None: all."""

    async def mutate(self, attempt: Attempt) -> None:
        """Change `attempt.obj`."""

    async def validate(self, attempt: Attempt) -> None:
        """Raise ApiError to refuse."""


Step = Callable[[Attempt], Awaitable[None]]


class Admission:
    """The enabled plugins, in order. Which of them have something to do with a kind is found out once."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.plugins = tuple(plugins)
        self._mutating: dict[tuple[str, GroupResource], list[Step]] = {}
        self._validating: dict[tuple[str, GroupResource], list[Step]] = {}

    async def mutate(self, attempt: Attempt) -> None:
        key = (attempt.operation, attempt.resource.group_resource)
        steps = self._mutating.get(key)
        if steps is None:
            steps = self._mutating[key] = [each.mutate for each in self._concerned(key, "mutate")]
        for step in steps:
            await step(attempt)

    async def validate(self, attempt: Attempt) -> None:
        key = (attempt.operation, attempt.resource.group_resource)
        steps = self._validating.get(key)
        if steps is None:
            steps = self._validating[key] = [each.validate for each in self._concerned(key, "validate")]
        for step in steps:
            await step(attempt)

    def _concerned(self, key: tuple[str, GroupResource], method: str) -> Iterator[Plugin]:
        """The plugins that have something to do in this phase."""
        operation, kind = key
        for plugin in self.plugins:
            does = getattr(type(plugin), method) is not getattr(Plugin, method)
            if does and operation in plugin.operations and (plugin.kinds is None or kind in plugin.kinds):
                yield plugin
