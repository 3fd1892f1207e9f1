"""A runtime that starts no process: containers live as their pods declare, on any machine, by the thousand.

A container's state is a function of what was asked and when, so nothing runs in the background: whoever looks
at the runtime (the kubelet does every second) lets the containers catch up with the clock. What a container
does is declared (`life`) or read from its command (`shell`); of a program that is not known, it is assumed that it
serves for ever, or, in a pod that is meant to finish, that it takes a second and succeeds.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.client.streams.remotecommand import StreamOptions
from shipwheel.kubelet.runtime.base import (
    Container,
    ContainerConfig,
    ExecResult,
    FilesystemUsage,
    Image,
    ImageCredentials,
    LinuxResources,
    RuntimeCondition,
    RuntimeFault,
    RuntimeHandler,
    RuntimeInfo,
    RuntimeStatus,
    Sandbox,
    SandboxConfig,
    Usage,
)
from shipwheel.kubelet.runtime.simulated import images as image_names
from shipwheel.kubelet.runtime.simulated.addresses import Addresses
from shipwheel.kubelet.runtime.simulated.container import SECOND, SimulatedContainer, SimulatedSandbox
from shipwheel.kubelet.runtime.simulated.images import ImageStore
from shipwheel.kubelet.runtime.simulated.life import ANNOTATION, LifeError, PodLife, Step, parse
from shipwheel.kubelet.runtime.simulated.shell import program
from shipwheel.kubelet.runtime.simulated.streams import StreamServer
from shipwheel.kubelet.runtime.simulated.world import Output, Program

DEFAULT_CIDR = "10.88.0.0/16"


class SimulatedRuntime:
    """A `Runtime`.

    `finishes` tells of a pod, by its uid, whether it is meant to end by itself (a restart policy other than
    Always). `storage` is where the node keeps its files.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        finishes: Callable[[str], bool] = lambda uid: False,
        storage: Path | None = None,
    ) -> None:
        self._clock = clock
        self._finishes = finishes
        self._storage = storage or Path("/")
        self._sandboxes: dict[str, SimulatedSandbox] = {}
        self._containers: dict[str, SimulatedContainer] = {}
        self._images = ImageStore()
        self._addresses = Addresses([DEFAULT_CIDR])
        self._streams = StreamServer(clock)

    async def close(self) -> None:
        await self._streams.close()

    def _now(self) -> int:
        return int(self._clock.now().timestamp() * 1_000_000) * 1000

    # The runtime itself

    async def info(self) -> RuntimeInfo:
        from shipwheel import __version__

        return RuntimeInfo(name="simulated", version=__version__)

    async def status(self) -> RuntimeStatus:
        ready = [RuntimeCondition("RuntimeReady", True), RuntimeCondition("NetworkReady", True)]
        able = RuntimeHandler(recursive_read_only_mounts=True, user_namespaces=True)
        return RuntimeStatus(ready, [able], supplemental_groups_policy=True)

    async def set_pod_cidr(self, cidr: str) -> None:
        self._addresses.use([each.strip() for each in cidr.split(",") if each.strip()])

    async def _step(self, step: Step) -> None:
        """Take the time that was declared, and fail if that was."""
        if step.delay:
            await self._clock.sleep(step.delay)
        if step.error:
            raise RuntimeFault("UNKNOWN", step.error)

    # Sandboxes

    async def run_sandbox(self, config: SandboxConfig, *, runtime_handler: str = "") -> str:
        life = _life_of(config)
        await self._step(life.sandbox)
        ips = () if config.namespaces.network == "NODE" else self._addresses.take()
        sandbox = Sandbox(
            id=secrets.token_hex(32),
            name=config.name,
            namespace=config.namespace,
            uid=config.uid,
            attempt=config.attempt,
            ready=True,
            created_at=self._now(),
            labels=config.labels,
            annotations=config.annotations,
            runtime_handler=runtime_handler,
            ips=ips,
            namespaces=config.namespaces,
        )
        self._sandboxes[sandbox.id] = SimulatedSandbox(sandbox, config, life)
        return sandbox.id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        found = self._sandboxes.get(sandbox_id)
        if found is None or not found.sandbox.ready:
            return
        now = self._now()
        for container in self._of(sandbox_id):
            self._kill(container, now)
        self._addresses.give_back(found.sandbox.ips)
        found.sandbox = replace(found.sandbox, ready=False, ips=())

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        for container in self._of(sandbox_id):
            del self._containers[container.state.id]
        self._sandboxes.pop(sandbox_id, None)

    async def sandboxes(self) -> list[Sandbox]:
        return [each.sandbox for each in self._sandboxes.values()]

    async def sandbox_status(self, sandbox_id: str) -> Sandbox:
        return self._sandbox(sandbox_id).sandbox

    def _sandbox(self, sandbox_id: str) -> SimulatedSandbox:
        found = self._sandboxes.get(sandbox_id)
        if found is None:
            raise RuntimeFault("NOT_FOUND", "an error occurred when try to find sandbox: not found")
        return found

    def _of(self, sandbox_id: str) -> list[SimulatedContainer]:
        return [each for each in self._containers.values() if each.state.sandbox_id == sandbox_id]

    # Containers

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox_config: SandboxConfig) -> str:
        found = self._sandbox(sandbox_id)
        image = self._images.find(config.image)
        if image is None:
            raise RuntimeFault("NOT_FOUND", f'failed to get image from containerd "{config.image}": not found')
        life = found.life.of(config.name, config.attempt)
        log_path = os.path.join(found.config.log_directory, config.log_path) if config.log_path else ""
        container = Container(
            id=secrets.token_hex(32),
            sandbox_id=sandbox_id,
            name=config.name,
            attempt=config.attempt,
            image=config.image,
            image_ref=image.id,
            state="CREATED",
            created_at=self._now(),
            labels=config.labels,
            annotations=config.annotations,
            log_path=log_path,
            image_id=image.id,
            mounts=config.mounts,
            resources=config.resources,
        )
        self._containers[container.id] = SimulatedContainer(
            state=container,
            config=config,
            sandbox=found,
            life=life,
            finishes=self._finishes(found.config.uid),
            resources=config.resources,
        )
        return container.id

    async def start_container(self, container_id: str) -> None:
        container = self._container(container_id)
        if container.state.state != "CREATED":
            raise RuntimeFault("UNKNOWN", f'container is already in state "CONTAINER_{container.state.state}"')
        await self._step(container.life.start)
        container.start(self._now())
        container.catch_up(self._now())

    async def stop_container(self, container_id: str, timeout: int) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        now = self._now()
        container.catch_up(now)
        if not container.running:
            return
        life = container.life
        if life.stop_delay > timeout:
            await self._clock.sleep(timeout)
            self._kill(container, self._now())
            return
        if life.stop_delay:
            await self._clock.sleep(life.stop_delay)
            now = self._now()
        container.end((now - container.state.started_at) / SECOND, life.stop_exit)
        container.catch_up(now)

    def _kill(self, container: SimulatedContainer, now: int) -> None:
        container.catch_up(now)
        if container.running:
            container.end((now - container.state.started_at) / SECOND, 137)
            container.catch_up(now)

    async def remove_container(self, container_id: str) -> None:
        container = self._containers.pop(container_id, None)
        if container is not None:
            self._kill(container, self._now())

    async def containers(self) -> list[Container]:
        now = self._now()
        for each in self._containers.values():
            each.catch_up(now)
        return [each.state for each in self._containers.values()]

    async def container_status(self, container_id: str) -> Container:
        container = self._container(container_id)
        container.catch_up(self._now())
        return container.state

    async def update_resources(self, container_id: str, resources: LinuxResources) -> None:
        container = self._container(container_id)
        container.resources = resources
        container.state = replace(container.state, resources=resources)

    async def reopen_log(self, container_id: str) -> None:
        container = self._container(container_id)
        container.catch_up(self._now())
        if not container.running:
            raise RuntimeFault("UNKNOWN", "container is not running")
        container.touch_log()

    def _container(self, container_id: str) -> SimulatedContainer:
        found = self._containers.get(container_id)
        if found is None:
            raise RuntimeFault("NOT_FOUND", f'an error occurred when try to find container "{container_id}": not found')
        return found

    def _running(self, container_id: str) -> SimulatedContainer:
        container = self._container(container_id)
        container.catch_up(self._now())
        if not container.running:
            state = container.state.state
            raise RuntimeFault("UNKNOWN", f"failed to exec in container: container is in CONTAINER_{state} state")
        return container

    async def sandbox_process(self, sandbox_id: str) -> int:
        return 0

    async def container_process(self, container_id: str) -> int:
        return 0

    def answers(self, container_id: str) -> bool | None:
        container = self._containers.get(container_id)
        if container is None:
            return False
        container.catch_up(self._now())
        return container.running and container.life.listens

    async def usage(self) -> dict[str, Usage]:
        now = self._now()
        found = {}
        for each in await self.containers():
            if each.state == "RUNNING":
                container = self._containers[each.id]
                life, memory = container.life, container.life.memory
                found[each.id] = Usage(
                    id=each.id,
                    timestamp=now,
                    cpu_nanoseconds=int(life.cpu * (now - each.started_at)),
                    memory_working_set=memory,
                    memory_usage=memory,
                    memory_rss=memory,
                    filesystem_bytes=sum(map(len, container.files.values())),
                    filesystem_inodes=len(container.files),
                )
        return found

    async def checkpoint(self, container_id: str, location: str, timeout: int) -> None:
        raise RuntimeFault("UNIMPLEMENTED", "a container without processes has no state to write down")

    # Commands and streams

    def _program(self, container: SimulatedContainer, command: Sequence[str]) -> Program:
        known = program(command, container.world(self._clock.now))
        if known is None:
            raise RuntimeFault(
                "UNKNOWN",
                "failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed: unable to "
                f'start container process: exec: "{command[0]}": executable file not found in $PATH: unknown',
            )
        return known

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        container = self._running(container_id)
        running = self._program(container, command)
        said: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        passed = 0.0
        while True:
            try:
                event = next(running)
            except StopIteration as end:
                container.catch_up(self._now())
                return ExecResult(b"".join(said["stdout"]), b"".join(said["stderr"]), end.value)
            if isinstance(event, Output):
                said[event.stream].append(event.data)
                continue
            passed += event.seconds
            if timeout and passed > timeout:
                await self._clock.sleep(timeout - (passed - event.seconds))
                raise RuntimeFault(
                    "DEADLINE_EXCEEDED",
                    f"failed to exec in container: timeout {timeout:g}s exceeded: context deadline exceeded",
                )
            await self._clock.sleep(min(event.seconds, 86400.0))

    async def exec_url(
        self, container_id: str, command: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        container = self._running(container_id)
        return await self._streams.exec(container, command, StreamOptions(stdin, stdout, stderr, tty))

    async def attach_url(self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool) -> str:
        container = self._running(container_id)
        return await self._streams.attach(
            container, lambda: container.catch_up(self._now()), StreamOptions(stdin, stdout, stderr, tty)
        )

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        found = self._sandbox(sandbox_id)

        def listens() -> bool:
            return any(self.answers(each.state.id) for each in self._of(sandbox_id))

        return await self._streams.port_forward(found.config.name, ports, listens)

    # Images

    async def pull_image(self, image: str, credentials: ImageCredentials | None, sandbox: SandboxConfig | None) -> str:
        if sandbox is not None:
            await self._step(_life_of(sandbox).pull)
        pulled = image_names.pull(image)
        self._images.add(pulled)
        return pulled.id

    async def images(self) -> list[Image]:
        return self._images.all()

    async def image_status(self, image: str) -> Image | None:
        return self._images.find(image)

    async def remove_image(self, image: str) -> None:
        self._images.remove(image)

    async def image_filesystems(self) -> list[FilesystemUsage]:
        used = sum(each.size for each in self._images.all())
        return [
            FilesystemUsage(
                mountpoint=str(self._storage),
                timestamp=self._now(),
                used_bytes=used,
                inodes_used=len(self._images.all()),
            )
        ]


def _life_of(config: SandboxConfig) -> PodLife:
    try:
        return parse(config.annotations.get(ANNOTATION, ""))
    except LifeError as error:
        raise RuntimeFault("INVALID_ARGUMENT", str(error)) from error
