"""The resources a pod was given, and those its containers were last set to (in-place resize, KEP-1287).

What a pod's specification asks for, what the node agreed to (allocated) and what runs (actuated) are three things
while a resize is under way. The last two are kept in a file in the pod's directory, since nothing else tells them
after a restart of the kubelet.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shipwheel.api import quantity
from shipwheel.api.meta import Obj
from shipwheel.kubelet import podspec
from shipwheel.kubelet.observed import PodObservation

log = logging.getLogger(__name__)

FILE = "allocation.json"
RESIZABLE = ("cpu", "memory")


@dataclass(slots=True)
class Allocation:
    """ResourceRequirements by container name; `whole` are those of the pod as a whole."""

    containers: dict[str, Obj] = field(default_factory=dict)
    whole: Obj | None = None
    actuated: dict[str, Obj] = field(default_factory=dict)
    actuated_whole: Obj | None = None

    def take(self, pod: Obj) -> None:
        """Allocate what the specification asks for."""
        self.containers = {each["name"]: each.get("resources") or {} for each in _resizable(pod)}
        self.whole = pod["spec"].get("resources")

    def fits(self, pod: Obj) -> bool:
        """Whether the specification asks for what is allocated."""
        return self.whole == pod["spec"].get("resources") and all(
            self.containers.get(each["name"], each.get("resources") or {}) == (each.get("resources") or {})
            for each in _resizable(pod)
        )

    @property
    def whole_due(self) -> bool:
        """Whether the pod as a whole is to get other resources than it has."""
        if self.whole is None or self.actuated_whole is None:
            return False
        return any(_differ(self.whole, self.actuated_whole, name) for name in RESIZABLE)

    def applied_to(self, pod: Obj) -> Obj:
        """The pod with the resources that it was given, whatever it asks for now."""
        return pod if self.fits(pod) else _with_resources(pod, self.containers, self.whole)

    def in_force_on(self, pod: Obj) -> Obj:
        """The pod with the resources that it was last set to, as far as it was."""
        return _with_resources(pod, self.actuated, self.actuated_whole)


def in_force(pod: Obj, container: Obj) -> Obj:
    """A container's resources, with the limits that it has of its pod."""
    own = container.get("resources") or {}
    limits = dict(own.get("limits") or {})
    for name, amount in ((pod["spec"].get("resources") or {}).get("limits") or {}).items():
        if name in RESIZABLE:
            limits.setdefault(name, amount)
    return {**own, "limits": limits} if limits else own


def _with_resources(pod: Obj, containers: Mapping[str, Obj], whole: Obj | None) -> Obj:
    """The pod with these resources in place of those it asks for."""
    spec = {**pod["spec"]}
    for part in ("initContainers", "containers"):
        if part in spec:
            spec[part] = [
                {**each, "resources": containers.get(each["name"], each.get("resources") or {})} for each in spec[part]
            ]
    if whole is not None:
        spec["resources"] = whole
    return {**pod, "spec": spec}


def _resizable(pod: Obj) -> tuple[Obj, ...]:
    return (*podspec.init_containers(pod), *podspec.containers(pod))


@dataclass(frozen=True, slots=True)
class Resize:
    """A running container whose resources are to be changed, in place or by starting it again."""

    container_id: str
    name: str
    restart: bool
    growth: int
    """How much more memory (bytes) it gets; negative when it gets less. Those that shrink go first."""
    memory: int = 0
    """The memory (bytes) that it is to be held to; 0 is no limit."""

    @property
    def squeezes(self) -> bool:
        """Whether it is held to less memory than before, while it runs."""
        return not self.restart and self.memory > 0 and (self.growth < 0 or self.growth == self.memory)


def pending_resizes(pod: Obj, observed: PodObservation, actuated: Mapping[str, Obj]) -> list[Resize]:
    """The running containers that do not have what was allocated to them (`pod` is the allocated one)."""
    found = []
    for container in (*podspec.containers(pod), *podspec.init_containers(pod)):
        seen = observed.latest(container["name"])
        if seen is None or not seen.running:
            continue
        desired = in_force(pod, container)
        current = actuated.get(container["name"])
        changed = [name for name in RESIZABLE if current is None or _differ(desired, current, name)]
        if not changed or (current is None and not desired):
            continue
        policies = {each["resourceName"]: each["restartPolicy"] for each in container.get("resizePolicy") or ()}
        # Of a container of which nothing is known, setting its resources again is enough.
        restart = current is not None and any(policies.get(name) == "RestartContainer" for name in changed)
        memory = _amount(desired, "limits", "memory")
        growth = memory - _amount(current or {}, "limits", "memory")
        found.append(Resize(seen.id, container["name"], restart, growth, memory))
    return sorted(found, key=lambda each: each.growth)


def _differ(left: Obj, right: Obj, name: str) -> bool:
    return any(_amount(left, part, name) != _amount(right, part, name) for part in ("requests", "limits"))


def _amount(resources: Obj, part: str, name: str) -> int:
    text = (resources.get(part) or {}).get(name)
    if text is None:
        return 0
    return quantity.milli(text) if name == "cpu" else quantity.value(text)


def summary(pod: Obj, error: str = "") -> str:
    """What events tell of a resize: the resources asked for, as JSON."""
    told: Obj = {}
    for part in ("initContainers", "containers"):
        listed = pod["spec"].get(part)
        if listed:
            told[part] = [{"name": each["name"], "resources": each.get("resources") or {}} for each in listed]
    told["generation"] = pod["metadata"].get("generation") or 0
    if error:
        told["error"] = error
    return json.dumps(told, separators=(",", ":"))


class Allocations:
    """Allocations on disk, in the pods' directories below `root`."""

    def __init__(self, root: Path) -> None:
        self._pods = root / "pods"

    def load(self, pod: Obj) -> Allocation:
        """What was allocated to the pod; what it asks for if nothing was."""
        allocation = Allocation()
        try:
            stored = json.loads((self._pods / pod["metadata"]["uid"] / FILE).read_text())
            allocation.containers = stored["containers"]
            allocation.whole = stored.get("whole")
            allocation.actuated = stored.get("actuated") or {}
            allocation.actuated_whole = stored.get("actuatedWhole")
        except FileNotFoundError:
            allocation.take(pod)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("the allocation of pod %s cannot be read: %s", podspec.describe(pod), error)
            allocation.take(pod)
        return allocation

    def save(self, uid: str, allocation: Allocation) -> None:
        """OSError when it cannot be written."""
        directory = self._pods / uid
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        content = {
            "containers": allocation.containers,
            "whole": allocation.whole,
            "actuated": allocation.actuated,
            "actuatedWhole": allocation.actuated_whole,
        }
        scratch = directory / f".{FILE}"
        scratch.write_text(json.dumps(content, separators=(",", ":")))
        scratch.replace(directory / FILE)
