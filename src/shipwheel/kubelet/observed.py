"""What the runtime was seen to have for a pod: the input of every decision.

A `PodObservation` is made from the runtime's answers and the labels and annotations that this kubelet (or the one
before it) wrote on its containers, so nothing about a running pod needs to be remembered elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from shipwheel.kubelet.runtime.base import Container, LinuxResources, Mount, Sandbox

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
CONTAINER_HASH = "io.kubernetes.container.hash"
RESTART_COUNT = "io.kubernetes.container.restartCount"
MESSAGE_PATH = "io.kubernetes.container.terminationMessagePath"
MESSAGE_POLICY = "io.kubernetes.container.terminationMessagePolicy"
PRE_STOP = "io.kubernetes.container.preStopHandler"
PORTS = "io.kubernetes.container.ports"
POD_GRACE = "io.kubernetes.pod.terminationGracePeriod"
POD_DELETION_GRACE = "io.kubernetes.pod.deletionGracePeriod"

State = Literal["CREATED", "RUNNING", "EXITED", "UNKNOWN"]


@dataclass(frozen=True, slots=True)
class ContainerObservation:
    """One container of a pod, running or not. Times are nanoseconds since 1970, 0 when it has not happened."""

    id: str
    name: str
    state: State
    sandbox_id: str = ""
    restart_count: int = 0
    hash: str = ""
    image: str = ""
    image_ref: str = ""
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    resources: LinuxResources | None = None
    user: tuple[int, int, tuple[int, ...]] | None = None
    mounts: tuple[Mount, ...] = ()

    @property
    def running(self) -> bool:
        return self.state == "RUNNING"

    @property
    def exited(self) -> bool:
        return self.state == "EXITED"


@dataclass(frozen=True, slots=True)
class PodObservation:
    """`sandboxes` and `containers` are ordered from the newest to the oldest."""

    uid: str
    name: str = ""
    namespace: str = ""
    sandboxes: tuple[Sandbox, ...] = ()
    containers: tuple[ContainerObservation, ...] = ()
    ips: tuple[str, ...] = ()
    _latest: dict[str, ContainerObservation] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for each in self.containers:
            self._latest.setdefault(each.name, each)

    def latest(self, name: str) -> ContainerObservation | None:
        """The newest container of that name."""
        return self._latest.get(name)

    @property
    def running(self) -> tuple[ContainerObservation, ...]:
        return tuple(each for each in self.containers if each.running)

    @property
    def active(self) -> tuple[ContainerObservation, ...]:
        """The containers in the newest sandbox."""
        current = self.sandboxes[0].id if self.sandboxes else None
        return tuple(each for each in self.containers if each.sandbox_id == current)


def observe_container(container: Container, *, message: str = "") -> ContainerObservation:
    """A container as its runtime status tells of it; `message` is the termination message that it left."""
    ended = container.state == "EXITED"
    said = container.message if ended else ""
    return ContainerObservation(
        id=container.id,
        name=container.labels.get(CONTAINER_NAME, container.name),
        state=container.state,
        sandbox_id=container.sandbox_id,
        restart_count=_integer(container.annotations.get(RESTART_COUNT), container.attempt),
        hash=container.annotations.get(CONTAINER_HASH, ""),
        image=container.image,
        image_ref=container.image_ref,
        created_at=container.created_at,
        started_at=container.started_at if container.state != "CREATED" else 0,
        finished_at=container.finished_at if ended else 0,
        exit_code=container.exit_code if ended else 0,
        reason=container.reason if ended else "",
        message=": ".join(part for part in (said, message) if part),
        resources=container.resources,
        user=(container.user[0], container.user[1], tuple(container.user[2])) if container.user else None,
        mounts=tuple(container.mounts),
    )


def observe_pod(uid: str, sandboxes: Iterable[Sandbox], containers: Iterable[ContainerObservation]) -> PodObservation:
    """Put a pod's parts in order. Its addresses are those of its newest sandbox, while that is ready."""
    boxes = tuple(sorted(sandboxes, key=lambda each: (each.created_at, each.attempt), reverse=True))
    newest_first = tuple(sorted(containers, key=lambda each: (each.created_at, each.id), reverse=True))
    first = boxes[0] if boxes else None
    return PodObservation(
        uid=uid,
        name=first.name if first else "",
        namespace=first.namespace if first else "",
        sandboxes=boxes,
        containers=newest_first,
        ips=tuple(first.ips) if first and first.ready else (),
    )


def _integer(text: str | None, default: int) -> int:
    try:
        return int(text) if text else default
    except ValueError:
        return default
