"""The admission chain: what every write passes on its way to the store.

Each plugin is a module of its own. Mutating ones change the object in place, in upstream's order; validating ones only
look. A plugin says no by raising `ApiError` (usually `Attempt.forbid`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal, NamedTuple

from shipwheel.api.errors import ApiError, forbidden_error
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import Resource, UserInfo, Version
from shipwheel.client.histogram import Histogram, Series

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


Work = Callable[[Attempt], Awaitable[None]]
Phase = Literal["admit", "validate"]
_METHODS = {"admit": "mutate", "validate": "validate"}
_SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5)


class Step(NamedTuple):
    """What a plugin does in a phase, and how long it took when it let the write pass."""

    work: Work
    plugin: str
    passed: Series


class Admission:
    """The enabled plugins, in order. Which of them have something to do with a kind is found out once."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.plugins = tuple(plugins)
        self._steps: dict[tuple[Phase, str, GroupResource], tuple[list[Step], Series]] = {}
        labels = ("type", "operation", "rejected")
        self.plugin_seconds = Histogram(
            "apiserver_admission_controller_admission_duration_seconds",
            "[STABLE] Admission controller latency histogram in seconds, identified by name and broken out for each "
            "operation and API resource and type (validate or admit).",
            ("name", *labels),
            _SECONDS,
        )
        self.phase_seconds = Histogram(
            "apiserver_admission_step_admission_duration_seconds",
            "[STABLE] Admission sub-step latency histogram in seconds, broken out for each operation and API resource "
            "and step type (validate or admit).",
            labels,
            _SECONDS,
        )

    async def mutate(self, attempt: Attempt) -> None:
        await self._run("admit", attempt)

    async def validate(self, attempt: Attempt) -> None:
        await self._run("validate", attempt)

    async def _run(self, phase: Phase, attempt: Attempt) -> None:
        key = (phase, attempt.operation, attempt.resource.group_resource)
        known = self._steps.get(key)
        if known is None:
            known = self._steps[key] = self._steps_of(*key)
        steps, passed = known
        begun = before = perf_counter()
        try:
            for step in steps:
                await step.work(attempt)
                now = perf_counter()
                step.passed.observe(now - before)
                before = now
        except ApiError:
            labels = (phase, attempt.operation, "true")
            now = perf_counter()
            self.plugin_seconds.labels(step.plugin, *labels).observe(now - before)
            self.phase_seconds.labels(*labels).observe(now - begun)
            raise
        passed.observe(before - begun)

    def _steps_of(self, phase: Phase, operation: str, kind: GroupResource) -> tuple[list[Step], Series]:
        labels = (phase, operation, "false")
        method = _METHODS[phase]
        steps = [
            Step(getattr(each, method), each.name, self.plugin_seconds.labels(each.name, *labels))
            for each in self._concerned(operation, kind, method)
        ]
        return steps, self.phase_seconds.labels(*labels)

    def _concerned(self, operation: str, kind: GroupResource, method: str) -> Iterator[Plugin]:
        """The plugins that have something to do in this phase."""
        for plugin in self.plugins:
            does = getattr(type(plugin), method) is not getattr(Plugin, method)
            if does and operation in plugin.operations and (plugin.kinds is None or kind in plugin.kinds):
                yield plugin
