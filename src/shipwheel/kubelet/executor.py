"""Carrying out what `lifecycle` decided: sandboxes, containers, hooks, in upstream's order and with its events. (How
they end is in `killer`.)

An action that fails raises `StartFault` with the reason that the container's status shows. Nothing here decides
what is to be done, and nothing here remembers: a step that was interrupted is decided anew from what is there.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.kubelet import podspec
from shipwheel.kubelet.backoff import BackOff
from shipwheel.kubelet.container_config import (
    ConfigFault,
    NodeSettings,
    Start,
    container_config,
    linux_resources,
    pod_log_directory,
    sandbox_config,
)
from shipwheel.kubelet.credentials import credentials_for, secret_entries
from shipwheel.kubelet.dns import DnsSettings, HostnameFault, hosts_file, kernel_hostname, pod_resolver
from shipwheel.kubelet.downward import PodFacts
from shipwheel.kubelet.environment import EnvironmentFault, Sources, environment
from shipwheel.kubelet.hooks import HookFault, Hooks
from shipwheel.kubelet.images import ImageFault, ImageManager, Wanted
from shipwheel.kubelet.killer import Killer, KillFault
from shipwheel.kubelet.measures import KubeletMetrics, timing
from shipwheel.kubelet.observed import ContainerObservation, PodObservation
from shipwheel.kubelet.pleg import Pleg
from shipwheel.kubelet.pull_records import Opener
from shipwheel.kubelet.runtime.base import Image, Mount, Runtime, RuntimeFault, SandboxConfig
from shipwheel.kubelet.services import (
    Cgroups,
    ClaimFault,
    Extras,
    Managers,
    NodeView,
    Objects,
    Record,
    Refused,
    Volumes,
)
from shipwheel.kubelet.turnstile import Turnstile, uninterrupted
from shipwheel.kubelet.user_namespaces import NamespaceFault, UserNamespaces
from shipwheel.kubelet.volumes.manager import MountsFailed
from shipwheel.kubelet.words import go_duration, rpc_error

log = logging.getLogger(__name__)

HOSTS_PATH = "/etc/hosts"
_METRIC_KINDS = {"init": "init_container", "regular": "container", "ephemeral": "ephemeral_container"}


class StartFault(Exception):
    """A container could not be started. `reason` and `message` are its waiting state; `retry_after` the seconds
    after which another attempt makes sense, if that is known."""

    def __init__(self, reason: str, message: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class SandboxFault(Exception):
    """The sandbox could not be made; an event told why."""


_UNPREPARED = (
    ConfigFault,
    EnvironmentFault,
    ClaimFault,
    HostnameFault,
    MountsFailed,
    NamespaceFault,
    OSError,
    Refused,
    ValueError,
)
"""Why a container cannot be made as it is specified."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A pod's sandbox, for the containers to be started in it."""

    id: str
    config: SandboxConfig
    ips: Sequence[str]
    volumes: Mapping[str, str | ImageFault]
    """Of `pull_volumes`."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things are on this node."""

    root: Path
    """`/var/lib/kubelet`"""
    container_logs: Path | None
    """`/var/log/containers`: links to the logs, for collectors."""

    def pod(self, uid: str) -> Path:
        return self.root / "pods" / uid

    def container(self, uid: str, name: str) -> Path:
        return self.pod(uid) / "containers" / name

    def volume(self, uid: str, plugin: str, name: str) -> Path:
        return self.pod(uid) / "volumes" / plugin / name


async def _no_openers(image: str, pod: Obj) -> Sequence[Opener]:
    return ()


class Executor:
    def __init__(
        self,
        *,
        runtime: Runtime,
        pleg: Pleg,
        images: ImageManager,
        volumes: Volumes,
        objects: Objects,
        cgroups: Cgroups,
        hooks: Hooks,
        killer: Killer,
        clock: Clock,
        record: Record,
        measures: KubeletMetrics,
        settings: NodeSettings,
        dns: DnsSettings,
        paths: Paths,
        view: Callable[[], NodeView],
        user_namespaces: UserNamespaces,
        runtime_handler: Callable[[Obj], str] = lambda pod: "",
        managers: Managers,
        node_openers: Callable[[str, Obj], Awaitable[Sequence[Opener]]] = _no_openers,
        at_once: int = 8,
    ) -> None:
        self._runtime = runtime
        self._pleg = pleg
        self._images = images
        self._volumes = volumes
        self._objects = objects
        self._cgroups = cgroups
        self._hooks = hooks
        self._killer = killer
        self._clock = clock
        self._record = record
        self._measures = measures
        self._settings = settings
        self._dns = dns
        self._paths = paths
        self._view = view
        self._user_namespaces = user_namespaces
        self._runtime_handler = runtime_handler
        self._managers = managers
        self._node_openers = node_openers
        self._turnstile = Turnstile(at_once)
        self.crash_backoff = BackOff()

    # Sandboxes

    def make_directories(self, pod: Obj) -> None:
        """OSError when they cannot be made."""
        home = self._paths.pod(pod["metadata"]["uid"])
        for name in ("volumes", "plugins"):
            (home / name).mkdir(mode=0o750, parents=True, exist_ok=True)

    def sandbox_config(self, pod: Obj, attempt: int) -> SandboxConfig:
        resolver, warnings = pod_resolver(pod, self._dns)
        for reason, message in warnings:
            self._record(pod, None, "Warning", reason, message)
        return sandbox_config(
            pod,
            self._settings,
            attempt=attempt,
            hostname=kernel_hostname(pod, self._dns.cluster_domain),
            resolver=resolver,
            cgroup_parent=self._cgroups.parent_of(pod),
            ids=self._user_namespaces.range_of(pod),
        )

    def forget(self, uid: str) -> None:
        """Nothing of the pod is left."""
        self.crash_backoff.forget(f"{uid}/")
        self._user_namespaces.release(uid)

    async def create_sandbox(self, pod: Obj, attempt: int) -> tuple[str, Sequence[str]]:
        """(id, the pod's addresses); SandboxFault after an event when it fails."""
        self._measures.started_pods.inc()
        try:
            return await self._create_sandbox(pod, attempt)
        except SandboxFault:
            self._measures.pod_errors.inc()
            raise

    async def _create_sandbox(self, pod: Obj, attempt: int) -> tuple[str, Sequence[str]]:
        try:
            config = self.sandbox_config(pod, attempt)
            os.makedirs(config.log_directory, mode=0o755, exist_ok=True)
            handler = self._runtime_handler(pod)
            async with self._turnstile.passing(begun=False):
                sandbox_id = await self._run_sandbox(config, handler)
        except (RuntimeFault, HostnameFault, NamespaceFault, OSError, LookupError) as fault:
            why = rpc_error(fault) if isinstance(fault, RuntimeFault) else str(fault)
            text = f"Failed to create pod sandbox: {why}"
            self._record(pod, None, "Warning", "FailedCreatePodSandBox", text)
            raise SandboxFault(text) from fault
        self._pleg.note(pod["metadata"]["uid"], sandbox_id=sandbox_id)
        try:
            sandbox = await self._runtime.sandbox_status(sandbox_id)
        except RuntimeFault as fault:
            text = f"Unable to get pod sandbox status: {rpc_error(fault)}"
            self._record(pod, None, "Warning", "FailedPodSandBoxStatus", text)
            raise SandboxFault(text) from fault
        return sandbox_id, sandbox.ips

    async def _run_sandbox(self, config: SandboxConfig, handler: str) -> str:
        with timing(self._measures.sandbox_duration.labels(handler), self._clock):
            try:
                return await self._runtime.run_sandbox(config, runtime_handler=handler)
            except RuntimeFault:
                self._measures.sandbox_errors.labels(handler).inc()
                raise

    # Starting containers

    async def start(
        self,
        pod: Obj,
        container: Obj,
        observed: PodObservation,
        sandbox: Begun,
    ) -> None:
        """Start a container of the pod in its sandbox; StartFault when it is not running afterwards."""
        self._wait_after_crash(pod, container, observed)
        kind = _METRIC_KINDS[podspec.container_kind(pod, container["name"])]
        self._measures.started_containers.labels(kind).inc()
        try:
            await self._start(pod, container, observed, sandbox)
        except StartFault as fault:
            self._measures.start_errors.labels(kind, fault.reason).inc()
            raise

    async def _start(self, pod: Obj, container: Obj, observed: PodObservation, sandbox: Begun) -> None:
        volumes = self._image_volumes(pod, container, sandbox)
        image = await self._image(pod, container, sandbox.config)
        async with self._turnstile.passing(begun=True):
            container_id = await uninterrupted(self._run(pod, container, observed, sandbox, image, volumes))
        self._link_log(pod, container, sandbox.config, container_id)
        await self._post_start(pod, container, container_id, sandbox.ips)

    def _wait_after_crash(self, pod: Obj, container: Obj, observed: PodObservation) -> None:
        name = container["name"]
        ended = next((each for each in observed.containers if each.name == name and each.exited), None)
        if ended is None:
            return
        key = f"{pod['metadata']['uid']}/{name}/{container['image']}"
        now = self._clock.now().timestamp()
        finished = ended.finished_at / 1e9
        wait = self.crash_backoff.wait(key, finished, now=now)
        if wait <= 0:
            self.crash_backoff.failed(key, finished, now=now)
            return
        where = podspec.describe(pod)
        text = f"Back-off restarting failed container {name} in pod {where}"
        self._record(pod, container, "Warning", "BackOff", text)
        delay = go_duration(self.crash_backoff.delay(key))
        raise StartFault("CrashLoopBackOff", f"back-off {delay} restarting failed container={name} pod={where}", wait)

    async def _run(
        self,
        pod: Obj,
        container: Obj,
        observed: PodObservation,
        sandbox: Begun,
        image: tuple[str, Image | None],
        volumes: Mapping[str, str],
    ) -> str:
        """Create the container and start it; returns its id."""
        container_id = await self._create(pod, container, observed, sandbox, image, volumes)
        self._record(pod, container, "Normal", "Created", "Container created")
        try:
            await self._runtime.start_container(container_id)
        except RuntimeFault as fault:
            self._record(pod, container, "Warning", "Failed", f"Error: {fault.message}")
            raise StartFault("RunContainerError", fault.message) from fault
        self._record(pod, container, "Normal", "Started", "Container started")
        return container_id

    async def pull_volumes(self, pod: Obj, config: SandboxConfig) -> dict[str, str | ImageFault]:
        """The runtime's references of the pod's image volumes, or why there is none, by the volume's name."""
        found: dict[str, str | ImageFault] = {}
        for volume in pod["spec"].get("volumes") or ():
            source = volume.get("image")
            if source is None:
                continue
            name, policy = source.get("reference") or "", source.get("pullPolicy") or "IfNotPresent"
            try:
                found[volume["name"]], _ = await self._ensure(pod, None, name, policy, config)
            except ImageFault as fault:
                found[volume["name"]] = fault
        return found

    def _image_volumes(self, pod: Obj, container: Obj, sandbox: Begun) -> dict[str, str]:
        """The references of those that the container mounts."""
        found = {}
        failed: ImageFault | None = None
        for mount in container.get("volumeMounts") or ():
            match sandbox.volumes.get(mount["name"]):
                case ImageFault() as fault:
                    self._record(pod, container, "Warning", "Failed", f"Error: {fault.reason}")
                    failed = fault
                case str() as reference:
                    found[mount["name"]] = reference
        if failed is not None:
            raise StartFault(failed.reason, failed.message, failed.retry_after) from failed
        return found

    async def _ensure(
        self, pod: Obj, container: Obj | None, name: str, policy: str, config: SandboxConfig
    ) -> tuple[str, Image | None]:
        """Have an image; ImageFault after events when it cannot be had now."""
        own = [
            Opener(credentials, {part: secret["metadata"].get(part, "") for part in ("uid", "namespace", "name")})
            for secret in self.pull_secrets(pod)
            for credentials in credentials_for(name, secret_entries(secret))
        ]

        async def openers() -> list[Opener]:
            return [*own, *await self._node_openers(name, pod)]

        return await self._images.ensure(
            Wanted(pod["metadata"]["uid"], name, policy, openers, config),
            lambda kind, reason, message: self._record(pod, container, kind, reason, message),
        )

    async def _image(self, pod: Obj, container: Obj, config: SandboxConfig) -> tuple[str, Image | None]:
        policy = container.get("imagePullPolicy") or "IfNotPresent"
        try:
            return await self._ensure(pod, container, container["image"], policy, config)
        except ImageFault as fault:
            self._record(pod, container, "Warning", "Failed", f"Error: {fault.reason}")
            raise StartFault(fault.reason, fault.message, fault.retry_after) from fault

    def pull_secrets(self, pod: Obj) -> list[Obj]:
        namespace = pod["metadata"].get("namespace", "")
        names = [each["name"] for each in pod["spec"].get("imagePullSecrets") or () if each.get("name")]
        found = {name: self._objects.peek_secret(namespace, name) for name in names}
        missing = [name for name, secret in found.items() if secret is None]
        if missing:
            text = (
                f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
                "attempting to pull the image may not succeed."
            )
            self._record(pod, None, "Warning", "FailedToRetrieveImagePullSecret", text)
        return [secret for secret in found.values() if secret is not None]

    async def _create(
        self,
        pod: Obj,
        container: Obj,
        observed: PodObservation,
        sandbox: Begun,
        image: tuple[str, Image | None],
        volumes: Mapping[str, str],
    ) -> str:
        try:
            extras = await self._managers.extras(pod, container)
            start = self._prepare(pod, container, observed, sandbox, image, volumes, extras)
            own = container_config(pod, container, self._settings, start)
        except _UNPREPARED as fault:
            self._record(pod, container, "Warning", "Failed", f"Error: {fault}")
            raise StartFault("CreateContainerConfigError", str(fault)) from fault
        try:
            container_id = await self._runtime.create_container(sandbox.id, own, sandbox.config)
        except RuntimeFault as fault:
            self._record(pod, container, "Warning", "Failed", f"Error: {fault.message}")
            raise StartFault("CreateContainerError", fault.message) from fault
        self._pleg.note(pod["metadata"]["uid"], container_id=container_id)
        return container_id

    def _prepare(
        self,
        pod: Obj,
        container: Obj,
        observed: PodObservation,
        sandbox: Begun,
        image: tuple[str, Image | None],
        volumes: Mapping[str, str],
        extras: Extras,
    ) -> Start:
        env = {**(extras.env or {}), **self._environment(pod, container, sandbox.ips)}
        mounts = [
            *extras.mounts,
            *self._volumes.mounts_for(pod, container, env, volumes),
            *self._own_mounts(pod, container, sandbox.ips),
        ]
        log_directory = Path(pod_log_directory(self._settings.pod_logs, pod)) / container["name"]
        log_directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        return Start(
            attempt=_attempt(observed.latest(container["name"]), log_directory),
            image_ref=image[0],
            image=image[1],
            env=env,
            mounts=mounts,
            devices=(*extras.devices, *self._volumes.devices_for(pod, container)),
            annotations=extras.annotations or {},
            target_id=_target(container, observed),
            ids=self._user_namespaces.range_of(pod),
            cpuset_cpus=extras.cpuset_cpus,
            cpuset_mems=extras.cpuset_mems,
            cdi_devices=extras.cdi_devices,
            own_cpus=self._managers.has_own_cpus(pod["metadata"]["uid"], container["name"]),
        )

    def _environment(self, pod: Obj, container: Obj, ips: Sequence[str]) -> Mapping[str, str]:
        view = self._view()
        namespace = pod["metadata"].get("namespace", "")
        uid = pod["metadata"]["uid"]

        def read_env_file(volume: str, path: str) -> str:
            home = self._paths.volume(uid, "kubernetes.io~empty-dir", volume).resolve()
            file = (home / path).resolve()
            if not file.is_relative_to(home):
                raise OSError(f"{path} leads out of the volume")
            return file.read_text()

        return environment(
            pod,
            container,
            Sources(
                config_map=lambda name: self._objects.peek_config_map(namespace, name),
                secret=lambda name: self._objects.peek_secret(namespace, name),
                facts=PodFacts(tuple(ips), tuple(view.host_ips), view.allocatable),
                services=view.services,
                read_env_file=read_env_file,
            ),
        )

    def _own_mounts(self, pod: Obj, container: Obj, ips: Sequence[str]) -> list[Mount]:
        """The hosts file, and the file that takes the termination message."""
        uid = pod["metadata"]["uid"]
        mounts = []
        covered = {each["mountPath"] for each in container.get("volumeMounts") or ()}
        if (ips or podspec.is_host_network(pod)) and HOSTS_PATH not in covered:
            node_hosts = Path(HOSTS_PATH).read_text() if podspec.is_host_network(pod) else ""
            file = self._paths.pod(uid) / "etc-hosts"
            file.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            file.write_text(hosts_file(pod, ips, self._dns.cluster_domain, node_hosts))
            file.chmod(0o644)
            mounts.append(Mount(HOSTS_PATH, str(file), selinux_relabel=True))
        path = container.get("terminationMessagePath")
        if path:
            home = self._paths.container(uid, container["name"])
            home.mkdir(mode=0o750, parents=True, exist_ok=True)
            file = home / secrets.token_hex(4)
            file.touch()
            file.chmod(0o666)
            mounts.append(Mount(path, str(file), selinux_relabel=True))
        return mounts

    def _link_log(self, pod: Obj, container: Obj, config: SandboxConfig, container_id: str) -> None:
        """Link `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` to the log, for collectors."""
        links = self._paths.container_logs
        if links is None:
            return
        directory = Path(config.log_directory) / container["name"]
        attempts = [int(each.stem) for each in directory.glob("*.log") if each.stem.isdigit()]
        if not attempts:
            return
        meta = pod["metadata"]
        stem = f"{meta['name']}_{meta['namespace']}_{container['name']}"[:251]
        link = links / f"{stem}-{container_id}.log"
        try:
            links.mkdir(parents=True, exist_ok=True)
            link.symlink_to(directory / f"{max(attempts)}.log")
        except OSError as error:
            log.warning("linking the log of container %s: %s", container_id, error)

    async def _post_start(self, pod: Obj, container: Obj, container_id: str, ips: Sequence[str]) -> None:
        handler = (container.get("lifecycle") or {}).get("postStart")
        if not handler:
            return
        try:
            await self._hooks.run(pod, container, container_id, handler, ips[0] if ips else "")
        except HookFault as fault:
            # The message may hold secrets: the event does not repeat it.
            self._record(pod, container, "Warning", "FailedPostStartHook", "PostStartHook failed")
            try:
                await self._killer.kill(pod, container, container_id, "FailedPostStartHook", "FailedPostStartHook")
            except KillFault as kill:
                log.warning("%s", kill)
            raise StartFault("PostStartHookError", str(fault)) from fault

    # Changing and removing them

    async def resize(self, pod: Obj, container: Obj, container_id: str) -> None:
        """Set a running container to its resources; RuntimeFault when that is refused."""
        own_cpus = self._managers.has_own_cpus(pod["metadata"]["uid"], container["name"])
        wanted = linux_resources(pod, container, self._settings, own_cpus=own_cpus)
        await self._runtime.update_resources(container_id, wanted)

    async def remove_container(self, container_id: str) -> None:
        """RuntimeFault when it cannot be removed. Its log stays until its pod goes."""
        await self._runtime.remove_container(container_id)


def _attempt(latest: ContainerObservation | None, log_directory: Path) -> int:
    """The number of this start. A runtime that forgot (the machine was restarted) left logs that count."""
    if latest is not None:
        return latest.restart_count + 1
    numbers = [int(each.name.split(".")[0]) for each in log_directory.iterdir() if each.name[:1].isdigit()]
    return max(numbers) + 1 if numbers else 0


def _target(container: Obj, observed: PodObservation) -> str:
    """The id of the container whose processes an ephemeral container is to see."""
    name = container.get("targetContainerName")
    if not name:
        return ""
    target = observed.latest(name)
    if target is None:
        raise ConfigFault(f"unable to find target container {name}")
    return target.id
