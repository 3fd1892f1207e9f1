"""Short ways to write pods and observations."""

from __future__ import annotations

from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.kubelet.observed import ContainerObservation, PodObservation, observe_pod
from shipwheel.kubelet.podspec import container_hash, find_container
from shipwheel.kubelet.runtime.base import NamespaceModes, Sandbox

SECOND = 1_000_000_000


def container(name: str = "c", **fields: Any) -> Obj:
    return {"name": name, "image": "image:1", **fields}


def pod(
    *containers: Obj,
    init: tuple[Obj, ...] = (),
    status: Obj | None = None,
    meta: Obj | None = None,
    **spec: Any,
) -> Obj:
    made: Obj = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "uid": "uid-1", **(meta or {})},
        "spec": {"containers": list(containers) or [container()], "enableServiceLinks": True, **spec},
    }
    if init:
        made["spec"]["initContainers"] = list(init)
    if status is not None:
        made["status"] = status
    return made


def sandbox(
    identity: str = "s0", *, ready: bool = True, attempt: int = 0, ip: str = "10.0.0.5", host: bool = False
) -> Sandbox:
    return Sandbox(
        identity, "p", "ns", "uid-1", attempt, ready, created_at=(attempt + 1) * SECOND,
        ips=(ip,) if ip and ready else (), namespaces=NamespaceModes(network="NODE" if host else "POD"),
    )  # fmt: skip


def seen(
    owner: Obj,
    name: str,
    state: str = "RUNNING",
    *,
    code: int = 0,
    count: int = 0,
    box: str = "s0",
    identity: str = "",
    at: int = 10,
) -> ContainerObservation:
    spec = find_container(owner, name)
    return ContainerObservation(
        id=identity or f"{name}-{count}",
        name=name,
        state=state,  # type: ignore[arg-type]
        sandbox_id=box,
        restart_count=count,
        hash=container_hash(spec) if spec else "",
        image="image:1",
        image_ref="sha256:1",
        created_at=(at + count) * SECOND,
        started_at=0 if state == "CREATED" else (at + count) * SECOND,
        finished_at=(at + count + 1) * SECOND if state == "EXITED" else 0,
        exit_code=code,
        reason=("Completed" if code == 0 else "Error") if state == "EXITED" else "",
    )


def observe(*containers: ContainerObservation, boxes: tuple[Sandbox, ...] | None = None) -> PodObservation:
    return observe_pod("uid-1", (sandbox(),) if boxes is None else boxes, containers)
