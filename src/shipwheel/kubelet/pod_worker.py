"""A worker for each pod: it looks, decides, acts, tells, and looks again, until nothing of the pod is left.

Everything that concerns one pod happens in one task, one thing after another, so no step ever races with another
of the same pod; pods do not wait for one another. The life of a worker is a straight line: `_live` (make the pod
real and keep it so), `_die` (stop everything), `_clean_up` (volumes, cgroup, the last status), then it waits
until the pod's object is gone and removes what is left. A restarted kubelet begins the same line again: every step
is decided from what is there.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from shipwheel.api.clock import Clock, parse_time
from shipwheel.api.meta import Obj, is_being_deleted
from shipwheel.kubelet import lifecycle, podspec, status
from shipwheel.kubelet.allocation import Allocations, Resize, in_force
from shipwheel.kubelet.container_config import pod_log_directory
from shipwheel.kubelet.container_status import Waiting
from shipwheel.kubelet.executor import Begun, Executor, SandboxFault, StartFault
from shipwheel.kubelet.killer import Killer, KillFault
from shipwheel.kubelet.lifecycle import Actions
from shipwheel.kubelet.measures import KubeletMetrics, timing
from shipwheel.kubelet.observed import PodObservation
from shipwheel.kubelet.pleg import Pleg
from shipwheel.kubelet.probes import Prober
from shipwheel.kubelet.resizing import Fixed, MemoryInUse, Resizing, squeezes, too_small
from shipwheel.kubelet.runtime.base import Runtime, RuntimeFault, RuntimeHandler
from shipwheel.kubelet.services import Cgroups, ClaimFault, Managers, Objects, Record, Volumes
from shipwheel.kubelet.status_manager import StatusManager
from shipwheel.kubelet.volumes.base import VolumesFailed

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
TRANSIENT_RETRY_SECONDS = 1.0
MOUNT_RETRY_SECONDS = 0.5
MOUNT_RETRY_MAXIMUM = 122.0
DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"

_T = TypeVar("_T")
Stage = Literal["living", "dying", "dead", "settled", "gone"]


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a pod is to end other than by its own will: what its status tells."""

    reason: str
    message: str
    grace: int | None = None
    """Overrides the grace period of the object."""
    condition: Obj | None = None
    """A DisruptionTarget condition."""


@dataclass(slots=True)
class Kit:
    """What workers work with."""

    runtime: Runtime
    runtime_name: Callable[[], str]
    executor: Executor
    killer: Killer
    pleg: Pleg
    prober: Prober
    statuses: StatusManager
    allocations: Allocations
    volumes: Volumes
    objects: Objects
    cgroups: Cgroups
    managers: Managers
    clock: Clock
    record: Record
    measures: KubeletMetrics
    pod_logs: str
    """The directory of all pods' logs."""
    host_ips: Sequence[str]
    network_fault: Callable[[], str]
    """Why the pod network is not ready; empty when it is."""
    ensure_mirror: Callable[[Obj], None] = lambda pod: None
    """See to it that a static pod has its image at the API server."""
    resync_seconds: float = 60.0
    """A pod is looked at again after this time at the latest."""
    started_at: int = 0
    """Nanoseconds since 1970, of this kubelet."""
    fixed: Fixed = field(default_factory=Fixed)
    """What of running containers cannot be changed on this node."""
    shortage: Callable[[Obj], str] = lambda pod: ""
    """What the node has too little of for a pod with these resources; empty when it fits."""
    freed: Callable[[], None] = lambda: None
    """Resources were given back: others may grow."""
    handler: Callable[[Obj], RuntimeHandler] = lambda pod: RuntimeHandler()
    """What the pod's runtime handler can do."""


@dataclass(slots=True)
class PodWorker:
    pod: Obj
    kit: Kit
    stage: Stage = "living"
    reasons: dict[str, Waiting] = field(default_factory=dict)
    """Why containers could not be started, by name."""
    observed: PodObservation = field(default_factory=lambda: PodObservation(""))
    """As the worker saw it last."""
    resizing: Resizing = field(init=False)
    _ending: Ending | None = None
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _end: asyncio.Event = field(default_factory=asyncio.Event)
    _shortened: asyncio.Event = field(default_factory=asyncio.Event)
    _gone: asyncio.Event = field(default_factory=asyncio.Event)
    _rejected: Obj | None = None
    _volumes_stale: bool = False
    _volumes_due: float = 0.0
    _prepared: bool = False
    _seen_at: float = field(init=False)
    """Monotonic time when the pod came."""
    _synced: bool = False
    _started: bool = False
    """It was told to run, once."""
    _mount_delay: float = 0.0
    """Seconds between attempts to mount what could not be mounted."""

    def __post_init__(self) -> None:
        self.resizing = Resizing(self.kit.allocations.load(self.pod))
        self._seen_at = self.kit.clock.monotonic()
        self._started = podspec.phase_of(self.pod) != "Pending"

    # What others say to it, and ask

    @property
    def uid(self) -> str:
        return self.pod["metadata"]["uid"]

    @property
    def ending(self) -> bool:
        return self._end.is_set()

    @property
    def could_be_running(self) -> bool:
        return self.stage in ("living", "dying")

    @property
    def given(self) -> Obj:
        """The pod with the resources that it was given, which may not be what it asks for now."""
        return self.resizing.allocation.applied_to(self.pod)

    def update(self, pod: Obj) -> None:
        """The pod's object changed."""
        old, self.pod = self.pod, pod
        if _grace(pod, self._ending) < _grace(old, self._ending):
            self._shortened.set()
        if is_being_deleted(pod):
            self._end.set()
        if any(old["metadata"].get(name) != pod["metadata"].get(name) for name in ("labels", "annotations")):
            # Volumes of the downward API show them.
            self._volumes_stale = True
        if _matters(old, pod):
            self._woken.set()

    def wake(self) -> None:
        """Something about the pod may be different."""
        self._woken.set()

    def refresh_volumes(self) -> None:
        """An object that the pod's volumes show changed."""
        self._volumes_stale = True
        self._mount_delay = 0.0
        self._woken.set()

    def terminate(self, ending: Ending | None = None) -> None:
        """End the pod; the first reason given is kept, and a shorter grace period taken over."""
        before = _grace(self.pod, self._ending)
        if self._ending is None:
            self._ending = ending
        elif ending is not None and ending.grace is not None:
            own = self._ending.grace
            self._ending = replace(self._ending, grace=ending.grace if own is None else min(own, ending.grace))
        if _grace(self.pod, self._ending) < before:
            self._shortened.set()
        self._end.set()
        self._woken.set()

    def reject(self, reason: str, message: str) -> None:
        """The node does not take the pod: it ends before it began."""
        self._rejected = status.rejected(self.pod, reason, message, now=self.kit.clock.now())
        self.kit.statuses.set(self.pod, self._rejected)
        self.terminate()

    def removed(self) -> None:
        """The pod's object is gone (and with it every reason to keep anything)."""
        self._gone.set()
        self.terminate()

    # Its life

    async def run(self) -> None:
        await self._live()
        self.stage = "dying"
        await self._until_done(lambda: self._timed("kill", self._die()))
        self.stage = "dead"
        await self._until_done(lambda: self._timed("terminated", self._clean_up()))
        self.stage = "settled"
        await self._gone.wait()
        self.stage = "gone"
        await self._until_done(self._remove_remains)

    async def _live(self) -> None:
        self.kit.measures.worker_start_duration.observe(self.kit.clock.monotonic() - self._seen_at)
        while not self.ending:
            self._woken.clear()
            try:
                delay = await self._timed("sync" if self._synced else "create", self._step())
                self._synced = True
            except (RuntimeFault, KillFault, VolumesFailed, OSError) as fault:
                log.warning("syncing pod %s: %s", podspec.describe(self.pod), fault)
                delay = RETRY_SECONDS
            except Exception:
                log.exception("syncing pod %s", podspec.describe(self.pod))
                delay = RETRY_SECONDS
            if delay is None:
                return
            await self._wait(delay)

    async def _timed(self, operation: str, work: Awaitable[_T]) -> _T:
        with timing(self.kit.measures.worker_duration.labels(operation), self.kit.clock):
            return await work

    async def _cgroup(self, operation: str, work: Awaitable[None]) -> None:
        with timing(self.kit.measures.cgroup_duration.labels(operation), self.kit.clock):
            await work

    async def _until_done(self, work: Callable[[], Awaitable[None]]) -> None:
        """Repeat until it succeeds: a pod must never be left half ended."""
        while True:
            self._woken.clear()
            try:
                await work()
                return
            except (RuntimeFault, KillFault, VolumesFailed, ClaimFault, OSError) as fault:
                log.warning("ending pod %s: %s", podspec.describe(self.pod), fault)
            except Exception:
                log.exception("ending pod %s", podspec.describe(self.pod))
            await self._wait(TRANSIENT_RETRY_SECONDS)

    async def _wait(self, seconds: float) -> None:
        """Return after so many seconds, or when woken."""
        if seconds <= 0 or self._woken.is_set():
            return
        woken = asyncio.ensure_future(self._woken.wait())
        timer = asyncio.ensure_future(self.kit.clock.sleep(seconds))
        try:
            await asyncio.wait({woken, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            timer.cancel()

    # Living

    async def _step(self) -> float | None:
        """Look, decide and act once. Seconds until it is to be done again at the latest; None when the pod has ended
        by itself."""
        observed = await self._look()
        pod = self._allocated(observed)
        told = self._tell(pod, observed)
        if podspec.is_terminal(told["phase"]):
            return None
        overdue = self._overdue(told)
        if overdue is not None and overdue <= 0:
            self.kit.record(pod, None, "Normal", "DeadlineExceeded", DEADLINE_MESSAGE)
            self.terminate(Ending("DeadlineExceeded", DEADLINE_MESSAGE))
            return None
        self._follow_probes(pod, observed, told)
        self.kit.ensure_mirror(pod)
        restart_all = lifecycle.should_restart_all(pod, observed, told)
        resizes = self.resizing.due(pod, observed)
        actions = lifecycle.decide(
            pod,
            observed,
            self.kit.prober.results,
            restart_all=restart_all,
            resize_restarts=frozenset(each.container_id for each in resizes if each.restart),
        )
        delay = await self._keep(pod) if actions.nothing else await self._act(pod, observed, actions)
        whole = self._prepared and self.resizing.allocation.whole_due
        if whole or any(not each.restart for each in resizes):
            delay = min(delay, await self._resize(pod, resizes))
        now = self.kit.clock.monotonic()
        # Tokens expire and claims grow without any object of the pod's changing.
        if self._prepared and (self._volumes_stale or now >= self._volumes_due):
            self._volumes_stale = False
            self._volumes_due = now + self.kit.resync_seconds
            await self.kit.volumes.refresh(pod)
        return delay if overdue is None else min(delay, overdue)

    def _allocated(self, observed: PodObservation) -> Obj:
        """The pod with the resources that it was given. What it asks for beyond them is given if the node has it."""
        now = self.kit.clock.now()
        if self.resizing.consider(self.pod, self.kit.fixed.forbids, self.kit.shortage, self.kit.record, now):
            self.kit.allocations.save(self.uid, self.resizing.allocation)
            self.kit.freed()
        pod = self.given
        self.resizing.note(self.pod, pod, observed, self.kit.record, self.kit.clock.now())
        return pod

    async def _resize(self, pod: Obj, resizes: Sequence[Resize]) -> float:
        """Change running containers, those that shrink first; the pod's own cgroup grows before and shrinks after."""
        cgroups = self.kit.cgroups
        refusal = await self._too_small(pod, resizes)
        if refusal:
            return self._resize_failed(pod, refusal)
        await self._cgroup("update", cgroups.ensure(pod, only_grow=True))
        for resize in resizes:
            container = podspec.find_container(pod, resize.name)
            if resize.restart or container is None:
                continue
            try:
                await self.kit.executor.resize(pod, container, resize.container_id)
            except RuntimeFault as fault:
                return self._resize_failed(pod, fault.message)
            self._actuated(pod, container)
        await self._cgroup("update", cgroups.ensure(pod))
        self._actuated_whole()
        return 0.0

    async def _too_small(self, pod: Obj, resizes: Sequence[Resize]) -> str:
        """Why the pod cannot do with the memory that it is to have; what is in use is only asked for if it matters."""
        used, limit = self.kit.cgroups.pod_memory(pod) or (0, 0)
        if not squeezes(pod, resizes, limit):
            return ""
        containers = {key: each.memory_usage for key, each in (await self.kit.runtime.usage()).items()}
        return too_small(pod, resizes, MemoryInUse(used, limit, containers))

    def _resize_failed(self, pod: Obj, message: str) -> float:
        """Tell of it; the seconds until it is tried again."""
        self.resizing.failed(self.pod, message, self.kit.record, self.kit.clock.now())
        self._tell(pod, self.observed)
        return RETRY_SECONDS

    def _actuated(self, pod: Obj, container: Obj) -> None:
        """Note what a container was set to."""
        resources = in_force(pod, container)
        if self.resizing.allocation.actuated.get(container["name"], {}) != resources:
            self.resizing.allocation.actuated[container["name"]] = resources
            self.kit.allocations.save(self.uid, self.resizing.allocation)

    def _actuated_whole(self) -> None:
        """Note what the pod as a whole was set to."""
        allocation = self.resizing.allocation
        if allocation.actuated_whole != allocation.whole:
            allocation.actuated_whole = allocation.whole
            self.kit.allocations.save(self.uid, allocation)

    async def _look(self) -> PodObservation:
        seen = await self.kit.pleg.inspect(self.uid)
        if not seen.ips and self.observed.ips and self.stage != "living":
            # A stopped sandbox has no addresses any more; the last status is to keep them.
            seen = replace(seen, ips=self.observed.ips)
        self.observed = seen
        return seen

    def _tell(self, pod: Obj, observed: PodObservation, *, terminal: bool = False) -> Obj:
        """Hand over the status that follows from what was observed."""
        previous = self.kit.statuses.get(self.uid)
        facts = status.Facts(
            runtime_name=self.kit.runtime_name(),
            host_ips=self.kit.host_ips,
            reasons=self.reasons,
            probes=self.kit.prober.results,
            resize_conditions=self.resizing.conditions,
            allocation=self.resizing.allocation,
            kubelet_started_at=self.kit.started_at,
            supports_rro=self.kit.handler(pod).recursive_read_only_mounts,
        )
        made = status.pod_status(pod, observed, previous, facts, now=self.kit.clock.now(), terminal=terminal)
        if self._ending is not None and self._ending.reason:
            made = status.ended_by(made, self._ending.reason, self._ending.message, self._ending.condition)
        made = self.kit.managers.statuses(pod, made)
        self.kit.statuses.set(pod, made)
        if made["phase"] == "Running" and not self._started:
            self._started = True
            self._measure_start()
        return made

    def _measure_start(self) -> None:
        clock, created = self.kit.clock, self.pod["metadata"].get("creationTimestamp")
        self.kit.measures.start_duration.observe(clock.monotonic() - self._seen_at)
        if created:
            self.kit.measures.start_total_duration.observe((clock.now() - parse_time(created)).total_seconds())

    def _overdue(self, told: Obj) -> float | None:
        """Seconds until the pod's active deadline; None without one."""
        limit = self.pod["spec"].get("activeDeadlineSeconds")
        if limit is None or not told.get("startTime"):
            return None
        age = (self.kit.clock.now() - parse_time(told["startTime"])).total_seconds()
        return limit - age

    def _follow_probes(self, pod: Obj, observed: PodObservation, told: Obj) -> None:
        statuses = (*(told.get("initContainerStatuses") or ()), *told["containerStatuses"])
        started = [
            each["containerID"].rpartition("//")[2]
            for each in statuses
            if each.get("started") and each.get("containerID")
        ]
        self.kit.prober.follow(pod, observed, told.get("podIP", ""), started)

    async def _keep(self, pod: Obj) -> float:
        """Nothing is to be done. A kubelet that was restarted finds out anew what it has to keep up to date."""
        retry = None if self._prepared else await self._prepare(pod)
        return self.kit.resync_seconds if retry is None else retry

    async def _act(self, pod: Obj, observed: PodObservation, actions: Actions) -> float:
        """Carry out a step; seconds until the next one is due at the latest."""
        executor = self.kit.executor
        if actions.kill_pod:
            if actions.create_sandbox and actions.sandbox_id:
                text = "Pod sandbox changed, it will be killed and re-created."
                self.kit.record(pod, None, "Normal", "SandboxChanged", text)
            done = await self._unless_ending(self.kit.killer.kill_pod(pod, observed))
            if not (done and actions.create_sandbox):
                return 0.0
            await self._remove(pod, observed, keep=0)
        else:
            if not await self._unless_ending(self._kill_some(pod, observed, actions)):
                return 0.0
            await self._remove(pod, observed, keep=1)
        if actions.reset:
            return 0.0
        if not (actions.create_sandbox or actions.starts):
            return 0.0
        retry = await self._prepare(pod)
        if retry is not None:
            return retry
        if self.ending:
            return 0.0

        sandbox_id = actions.sandbox_id
        ips: Sequence[str] = observed.ips
        if actions.create_sandbox:
            try:
                await self.kit.managers.prepare(pod)
            except ClaimFault as fault:
                text = f"Failed to prepare dynamic resources: {fault}"
                self.kit.record(pod, None, "Warning", "FailedPrepareDynamicResources", text)
                return RETRY_SECONDS
            try:
                sandbox_id, ips = await executor.create_sandbox(pod, actions.attempt)
            except SandboxFault as fault:
                log.warning("pod %s: %s", podspec.describe(pod), fault)
                return RETRY_SECONDS
            observed = await self._look()
            # Says that the sandbox is ready, before images are pulled.
            self._tell(pod, observed)
        host_ips = self.kit.host_ips
        addresses = status.order_ips(ips, host_ips) or (list(host_ips) if podspec.is_host_network(pod) else [])
        retry = await self._start_some(pod, observed, actions, sandbox_id, addresses)
        observed = await self._look()
        told = self._tell(pod, observed)
        self._follow_probes(pod, observed, told)
        return self.kit.resync_seconds if retry is None else retry

    async def _kill_some(self, pod: Obj, observed: PodObservation, actions: Actions) -> None:
        ip = observed.ips[0] if observed.ips else ""
        for kill in actions.kill:
            container = podspec.find_container(pod, kill.name)
            if container is not None:
                await self.kit.killer.kill(pod, container, kill.container_id, kill.message, kill.reason, pod_ip=ip)
        for reset in actions.reset:
            container = podspec.find_container(pod, reset.name)
            if reset.running and container is not None:
                await self.kit.killer.kill(
                    pod, container, reset.container_id, "killing", "RestartAllContainers", grace=0
                )
            await self.kit.executor.remove_container(reset.container_id)

    async def _remove(self, pod: Obj, observed: PodObservation, *, keep: int) -> None:
        """Remove ended init containers, all but the newest `keep` of each name."""
        for container in podspec.init_containers(pod):
            own = [each for each in observed.containers if each.name == container["name"]]
            ended = own if keep == 0 else [each for each in own if each.state in ("EXITED", "UNKNOWN")]
            for each in ended[keep:]:
                await self.kit.executor.remove_container(each.id)

    async def _prepare(self, pod: Obj) -> float | None:
        """Have everything that containers need; seconds to wait when something is not there yet."""
        fault = self.kit.network_fault()
        if fault and not podspec.is_host_network(pod):
            self.kit.record(pod, None, "Warning", "NetworkNotReady", f"network is not ready: {fault}")
            return TRANSIENT_RETRY_SECONDS
        await self.kit.objects.ensure(pod)
        try:
            await self._cgroup("create", self.kit.cgroups.ensure(pod))
        except OSError as error:
            text = f"unable to ensure pod container exists: {error}"
            self.kit.record(pod, None, "Warning", "FailedCreatePodContainer", text)
            return RETRY_SECONDS
        self._actuated_whole()
        try:
            self.kit.executor.make_directories(pod)
        except OSError as error:
            text = f"error making pod data directories: {error}"
            self.kit.record(pod, None, "Warning", "Failed", text)
            return RETRY_SECONDS
        try:
            await self.kit.volumes.mount_pod(pod)
        except VolumesFailed as error:
            log.info("volumes of pod %s: %s", podspec.describe(pod), error)
            for message in error.messages:
                self.kit.record(pod, None, "Warning", "FailedMount", message)
            self._mount_delay = min(self._mount_delay * 2 or MOUNT_RETRY_SECONDS, MOUNT_RETRY_MAXIMUM)
            return self._mount_delay
        self._mount_delay = 0.0
        if not self._prepared:
            self._prepared = True
            self._volumes_due = self.kit.clock.monotonic() + self.kit.resync_seconds
        return None

    async def _start_some(
        self, pod: Obj, observed: PodObservation, actions: Actions, sandbox_id: str, ips: Sequence[str]
    ) -> float | None:
        """Start the containers that are due; when one fails the seconds until another attempt."""
        config = self.kit.executor.sandbox_config(pod, actions.attempt)
        begun = Begun(sandbox_id, config, ips, await self.kit.executor.pull_volumes(pod, config))
        retry: float | None = None
        for name in actions.starts:
            container = podspec.find_container(pod, name)
            if container is None or self.ending:
                continue
            try:
                if not await self._unless_ending(self.kit.executor.start(pod, container, observed, begun)):
                    # What was being made when it was given up is known to the runtime only.
                    await self.kit.pleg.relist()
                self.reasons.pop(name, None)
                self._actuated(pod, container)
            except StartFault as fault:
                log.info("pod %s: container %s: %s", podspec.describe(pod), name, fault)
                self.reasons[name] = Waiting(fault.reason, fault.message)
                due = RETRY_SECONDS if fault.retry_after is None else fault.retry_after
                retry = due if retry is None else min(retry, due)
                if name in actions.start_init and not podspec.is_sidecar(container):
                    break
        return retry

    async def _unless_ending(self, work: Awaitable[None]) -> bool:
        """Do something that may take long: a pull, a hook, the end of a container that makes use of its grace period.
        False when it was given up because the pod is to end."""
        task = asyncio.ensure_future(work)
        end = asyncio.ensure_future(self._end.wait())
        try:
            await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            end.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # Dying

    async def _die(self) -> None:
        observed = await self._look()
        if self._rejected is None:
            self._tell(self.pod, observed)
        self.kit.prober.quiet(self.uid)
        # A rejected pod runs only if it was not rejected before this kubelet was restarted.
        while observed.running or any(each.ready for each in observed.sandboxes):
            if await self._kill(observed):
                observed = await self._look()
                if observed.running:
                    names = ", ".join(each.id for each in observed.running)
                    raise KillFault(f"detected running containers after a successful KillPod: {names}")
                break
            observed = await self._look()
        self.kit.prober.forget(self.uid)
        await self.kit.managers.unprepare(self.pod)
        if self._rejected is None:
            self._tell(self.pod, observed, terminal=True)

    async def _kill(self, observed: PodObservation) -> bool:
        """Stop the pod; False when that was broken off because it got less time than it had."""
        self._shortened.clear()
        grace = _grace(self.pod, self._ending)
        kill = asyncio.ensure_future(self.kit.killer.kill_pod(self.pod, observed, max(1, grace)))
        shortened = asyncio.ensure_future(self._shortened.wait())
        try:
            await asyncio.wait({kill, shortened}, return_when=asyncio.FIRST_COMPLETED)
            if not kill.done():
                return False
            kill.result()
            return True
        except KillFault as fault:
            self.kit.record(self.pod, None, "Warning", "FailedKillPod", f"error killing pod: {fault}")
            raise
        finally:
            shortened.cancel()
            if not kill.done():
                kill.cancel()
                await asyncio.gather(kill, return_exceptions=True)

    async def _clean_up(self) -> None:
        await self.kit.volumes.unmount_pod(self.uid)
        self.kit.objects.forget(self.uid)
        await self._cgroup("destroy", self.kit.cgroups.remove(self.uid))
        last = self.kit.statuses.get(self.uid) or self.pod.get("status") or {}
        self.kit.statuses.set(self.pod, status.terminated(self.pod, last), finished=True)

    async def _remove_remains(self) -> None:
        """Remove what was kept for its logs."""
        observed = await self.kit.pleg.inspect(self.uid)
        for container in observed.containers:
            await self.kit.runtime.remove_container(container.id)
        for sandbox in observed.sandboxes:
            await self.kit.runtime.stop_sandbox(sandbox.id)
            await self.kit.runtime.remove_sandbox(sandbox.id)
        self.kit.pleg.forget(self.uid)
        self.kit.executor.forget(self.uid)
        logs = pod_log_directory(self.kit.pod_logs, self.pod)
        await asyncio.to_thread(shutil.rmtree, logs, ignore_errors=True)
        if not self.kit.volumes.remove_pod_directory(self.uid):
            raise KillFault("volumes are still there")
        self.kit.statuses.forget(self.uid)


def _grace(pod: Obj, ending: Ending | None) -> int:
    if ending is not None and ending.grace is not None:
        return ending.grace
    return podspec.grace_period(pod)


def _matters(old: Obj, new: Obj) -> bool:
    """Whether a change of the object may change what is to be done, or told: not our own status coming back."""
    old_meta, new_meta = old["metadata"], new["metadata"]
    if old["spec"] != new["spec"] or any(
        old_meta.get(name) != new_meta.get(name)
        for name in ("labels", "annotations", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
    ):
        return True
    return _foreign(old) != _foreign(new)


def _foreign(pod: Obj) -> list[tuple[str, str]]:
    """The conditions of others: readiness gates look at them."""
    return [
        (each["type"], each["status"])
        for each in (pod.get("status") or {}).get("conditions") or ()
        if each["type"] not in status.OWNED_CONDITIONS
    ]
