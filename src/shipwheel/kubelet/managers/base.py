"""What all managers of resources have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from shipwheel.api.meta import Obj
from shipwheel.kubelet import podspec
from shipwheel.kubelet.managers.hints import Hint, Hints
from shipwheel.kubelet.services import Refused

__all__ = ["Active", "Provider", "Refused", "in_order", "is_passing", "wants_pod_level"]

Active = Mapping[str, frozenset[str]]
"""The containers of the pods that hold resources, by uid."""


class Provider(Protocol):
    """One resource, or one kind of them."""

    def hints(self, pod: Obj, container: Obj) -> Hints: ...

    def pod_hints(self, pod: Obj) -> Hints: ...

    async def allocate(self, pod: Obj, container: Obj, affinity: Hint) -> None:
        """Give the container what it asks for; nothing is done for what it has already. Refused when it cannot be
        had."""

    def keep(self, active: Active) -> None:
        """Take back what others than these have."""


def in_order(pod: Obj) -> Iterator[Obj]:
    """The containers in the order in which they are given resources."""
    yield from podspec.init_containers(pod)
    yield from podspec.containers(pod)


def is_passing(pod: Obj, container: Obj) -> bool:
    """An init container that ends before the others begin, so that they can have what it had."""
    return any(
        each["name"] == container["name"] and not podspec.is_sidecar(each) for each in podspec.init_containers(pod)
    )


def wants_pod_level(pod: Obj) -> bool:
    """Resources of the pod as a whole: of those nobody gets an own part (PodLevelResourceManagers is alpha)."""
    return bool((pod["spec"].get("resources") or {}).keys() & {"requests", "limits"})
