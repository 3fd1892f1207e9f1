"""The node agent put together: where pods come from, what works on them, and what the API server is told.

    sources (API watch, files, URL) -> workers (one a pod) -> runtime
                                          |-> status manager -> API

Nothing is remembered between runs: a kubelet that is started again finds the containers of its predecessor by their
labels, goes on with those whose pods it is given, and ends the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shipwheel.api import quantity
from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj, is_being_deleted
from shipwheel.client.client import Client
from shipwheel.client.events import EventRecorder
from shipwheel.client.informer import Informer, InformerFactory
from shipwheel.client.metrics import Metrics
from shipwheel.client.resources import NODES, PODS, RUNTIME_CLASSES, SERVICES
from shipwheel.kubelet import cgroups, node_status, podspec
from shipwheel.kubelet.admission import Admission, Rules, shortage_message, shortages
from shipwheel.kubelet.allocation import Allocations
from shipwheel.kubelet.collector import Collector, LogPolicy
from shipwheel.kubelet.config import ConfigError, thresholds_of, validate
from shipwheel.kubelet.container_config import NodeSettings
from shipwheel.kubelet.dns import DnsSettings, parse_resolv_conf
from shipwheel.kubelet.downward import PodFacts
from shipwheel.kubelet.eviction import Observation, reserved_by
from shipwheel.kubelet.executor import Executor, Paths
from shipwheel.kubelet.garbage import ImagePolicy
from shipwheel.kubelet.images import ImageManager
from shipwheel.kubelet.machine import Machine, apparmor_enabled, default_address, read_machine, swap_in_use
from shipwheel.kubelet.messages import termination_message
from shipwheel.kubelet.mirror import Mirrors
from shipwheel.kubelet.node import Identity, Node
from shipwheel.kubelet.node_status import NodeFacts, Reservations
from shipwheel.kubelet.objects import NoObjects, ObjectCache
from shipwheel.kubelet.observed import ContainerObservation
from shipwheel.kubelet.pleg import Pleg, RunningPod
from shipwheel.kubelet.pod_worker import Ending, Kit, PodWorker
from shipwheel.kubelet.pressure import Pressure, image_root
from shipwheel.kubelet.probes import Prober
from shipwheel.kubelet.runtime.base import Container, Runtime, RuntimeFault
from shipwheel.kubelet.server.sampling import Sampler
from shipwheel.kubelet.services import Cgroups, NodeView
from shipwheel.kubelet.serving import serve
from shipwheel.kubelet.settings import KubeletConfig
from shipwheel.kubelet.static_pods import StaticPods
from shipwheel.kubelet.status_manager import StatusManager
from shipwheel.kubelet.usage import observe_node
from shipwheel.kubelet.volumes.base import Host
from shipwheel.kubelet.volumes.manager import VolumeManager
from shipwheel.kubelet.volumes.mounting import Mounter, NoMounter

log = logging.getLogger(__name__)

SIMULATED = "simulated"
"""The endpoint that stands for no runtime at all: pods without processes."""
HOUSEKEEPING_SECONDS = 2.0
RUNTIME_CHECK_SECONDS = 5.0
RUNTIME_WAIT_SECONDS = 0.1
"""How often the runtime is asked while it, or its network, is not ready."""
IMAGES_SECONDS = 60.0
_BY_UID = "uid"


async def run(
    config: KubeletConfig, *, client: Client | None, clock: Clock, runtime: Runtime | None = None
) -> None:
    """Be a node until cancelled. Without a client only static pods run. Containers keep running afterwards.

    The runtime is the one that the configuration names, if none is given.
    """
    validate(config)
    if config.fail_swap_on and swap_in_use():
        text = (
            "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false"
        )
        raise ConfigError(text)
    simulated = config.container_runtime_endpoint == SIMULATED

    def finishes(uid: str) -> bool:
        """A simulated program of a pod that is meant to end ends by itself."""
        worker = kubelet.worker(uid)
        return worker is not None and podspec.may_end(worker.pod)

    async with contextlib.AsyncExitStack() as stack:
        kubelet = Kubelet(
            config,
            client=client,
            runtime=runtime or _runtime_of(config, clock, stack, finishes),
            clock=clock,
            mounter=NoMounter() if simulated else Mounter(),
            simulated=simulated,
        )
        await kubelet.run()


def _runtime_of(
    config: KubeletConfig, clock: Clock, stack: contextlib.AsyncExitStack, finishes: Callable[[str], bool]
) -> Runtime:
    """The runtime that the configuration names; closed with `stack`."""
    if config.container_runtime_endpoint == SIMULATED:
        from shipwheel.kubelet.runtime.simulated import SimulatedRuntime

        simulated = SimulatedRuntime(clock, finishes=finishes, storage=Path(config.root_dir))
        stack.push_async_callback(simulated.close)
        return simulated
    from shipwheel.kubelet.runtime.cri import CriRuntime

    cri = CriRuntime(config.container_runtime_endpoint, image_endpoint=config.image_service_endpoint)
    stack.push_async_callback(cri.close)
    return cri


class Kubelet:
    def __init__(
        self,
        config: KubeletConfig,
        *,
        client: Client | None,
        runtime: Runtime,
        clock: Clock,
        machine: Machine | None = None,
        cgroup_tree: Cgroups | None = None,
        mounter: Mounter | None = None,
        simulated: bool = False,
    ) -> None:
        self.config = config
        self.client = client
        self.runtime = runtime
        self.clock = clock
        self.root = Path(config.root_dir)
        self.machine = machine or read_machine(self.root)
        self.node_name = config.hostname_override or self.machine.hostname
        listed = [each.strip() for each in config.node_ip.split(",") if each.strip()]
        self.host_ips: Sequence[str] = node_status.host_ips(listed or [default_address()])
        self.runtime_name = "containerd"
        self.runtime_version = ""
        self._runtime_fault = "container runtime status check may not have completed yet"
        self._network_fault = "container runtime network not ready: it has not been asked yet"
        self._pod_cidr = ""
        self._workers: dict[str, PodWorker] = {}
        self._waiting: dict[str, Obj] = {}
        """Static pods that came back while they were still ending."""
        self._group: asyncio.TaskGroup | None = None
        self._simulated = simulated
        self._thresholds = () if simulated else thresholds_of(config)
        self._image_root: Path | None = None
        self.metrics = Metrics()
        self._make_informers()
        self._assemble(cgroup_tree, mounter)

    # Putting it together

    def _make_informers(self) -> None:
        self.recorder: EventRecorder | None = None
        self._informers: InformerFactory | None = None
        self._pods: Informer | None = None
        self._services: Informer | None = None
        self._runtime_classes: Informer | None = None
        if self.client is None:
            return
        self.recorder = EventRecorder(self.client, self.clock, component="kubelet", host=self.node_name)
        self._informers = InformerFactory(self.client, self.clock)
        self._services = self._informers.informer(SERVICES)
        self._runtime_classes = self._informers.informer(RUNTIME_CLASSES)
        self._node_watch = self._informers.informer(NODES, field_selector=f"metadata.name={self.node_name}")
        self._pods = Informer(
            self.client,
            PODS,
            field_selector=f"spec.nodeName={self.node_name}",
            indexers={_BY_UID: lambda pod: (pod["metadata"]["uid"],)},
            transform=_slim,
            clock=self.clock,
        )

    def _assemble(self, cgroup_tree: Cgroups | None, mounter: Mounter | None) -> None:
        config = self.config
        resolv_conf = Path(config.resolv_conf).read_text() if config.resolv_conf else None
        self.paths = Paths(self.root, Path(config.container_logs_dir) if config.container_logs_dir else None)
        self.settings = NodeSettings(
            memory_capacity=self.machine.memory,
            pod_logs=config.pod_logs_dir,
            seccomp_root=str(self.root / "seccomp"),
            seccomp_default=config.seccomp_default,
            enforce_cpu=config.cpu_cfs_quota,
            cpu_period=int(config.cpu_cfs_quota_period * 1_000_000),
            cgroup_v2=self.machine.cgroup_v2,
            single_process_oom_kill=(
                config.single_process_oom_kill
                if config.single_process_oom_kill is not None
                else not self.machine.cgroup_v2
            ),
            minimum_oom_score=-1000 if cgroups.can_lower_oom_score() else cgroups.own_oom_score(),
        )
        self.statuses = StatusManager(self.client, self.clock, self)
        self.objects = (
            ObjectCache(self.client, self.clock, self._refresh_volumes) if self.client else NoObjects()
        )
        self.pleg = Pleg(self.runtime, self.clock, self._wake, _read_message)
        self.prober = Prober(self.runtime, self.clock, self.record, self._wake)
        parallel = 1 if config.serialize_image_pulls else config.max_parallel_image_pulls or None
        self.images = ImageManager(self.runtime, self.clock, parallel=parallel)
        self.volumes = VolumeManager(
            Host(
                objects=self.objects,
                mounter=mounter or Mounter(),
                clock=self.clock,
                facts=self._pod_facts,
                memory_capacity=self.machine.memory,
            ),
            self.root,
        )
        self.cgroups = cgroup_tree or self._make_cgroups()
        self.executor = Executor(
            runtime=self.runtime,
            pleg=self.pleg,
            images=self.images,
            volumes=self.volumes,
            objects=self.objects,
            cgroups=self.cgroups,
            clock=self.clock,
            record=self.record,
            settings=self.settings,
            dns=DnsSettings(
                config.cluster_dns,
                config.cluster_domain,
                parse_resolv_conf(resolv_conf) if resolv_conf is not None else None,
            ),
            paths=self.paths,
            view=self._view,
            runtime_handler=self._runtime_handler,
            at_once=max(4, 2 * self.machine.cpus),
        )
        self.executor.crash_backoff.limit(config.crash_loop_max_seconds)
        self.mirrors = Mirrors(self.client, self.clock, self.node_name)
        self.node: Node | None = None
        if self.client is not None and self.recorder is not None:
            self.node = Node(self.client, self.clock, self._identity(), self.node_facts, self.recorder)
            self._node_watch.add_handler(self._on_node)
        self._make_housekeepers()
        self.admission = Admission(
            self.record,
            lambda: self.pressure.conditions,
            Rules(config.allowed_unsafe_sysctls, apparmor=self._simulated or apparmor_enabled()),
        )
        self._kit = Kit(
            runtime=self.runtime,
            runtime_name=self.runtime_name,
            executor=self.executor,
            pleg=self.pleg,
            prober=self.prober,
            statuses=self.statuses,
            allocations=Allocations(self.root),
            volumes=self.volumes,
            objects=self.objects,
            cgroups=self.cgroups,
            clock=self.clock,
            record=self.record,
            settings=self.settings,
            paths=self.paths,
            view=self._view,
            network_fault=lambda: self._network_fault,
            ensure_mirror=self.mirrors.ensure,
            shortage=self._shortage,
            freed=self._wake_waiting,
            resync_seconds=config.sync_frequency,
            started_at=int(self.clock.now().timestamp() * 1e9),
        )
        self.static = StaticPods(config, self.node_name, self.clock, self._on_static)

    def _make_housekeepers(self) -> None:
        """What keeps the node clean, and above water."""
        config = self.config
        self.sampler = Sampler(
            self.runtime, self.clock, pods=self.pods, volumes=self.volumes.measured, root=self.root
        )
        self.collector = Collector(
            self.runtime,
            self.clock,
            pods=lambda: [(worker.pod, worker.observed) for worker in self._workers.values()],
            image_disk=lambda: self._signals().get("imagefs.available"),
            record_node=self._record_node,
            pod_logs=config.pod_logs_dir,
            image_policy=ImagePolicy(
                config.image_gc_high,
                config.image_gc_low,
                config.image_minimum_gc_age,
                config.image_maximum_gc_age,
            ),
            log_policy=LogPolicy(
                quantity.value(config.container_log_max_size),
                config.container_log_max_files,
                config.container_log_monitor_interval,
            ),
        )
        self.pressure = Pressure(
            clock=self.clock,
            thresholds=self._thresholds,
            transition=config.eviction_pressure_transition_period,
            maximum_grace=config.eviction_max_pod_grace_period,
            observe=self._signals,
            sampler=self.sampler,
            pods=lambda: [each.given for each in self._workers.values() if each.could_be_running],
            reclaim_disk=self.collector.reclaim_disk,
            end=self._end,
            record=self.record,
            record_node=self._record_node,
            changed=self._hurry,
        )

    def _signals(self) -> dict[str, Observation]:
        return observe_node(self.root, self._image_root, self.machine.memory)

    def _end(self, uid: str, ending: Ending) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.terminate(ending)

    def _hurry(self) -> None:
        if self.node is not None:
            self.node.hurry()

    def _make_cgroups(self) -> Cgroups:
        config = self.config
        if not config.cgroups_per_qos or self._simulated:
            return cgroups.NoCgroups(config.cgroup_root)
        reserved = Reservations(config.system_reserved, config.kube_reserved)
        left = max(0, self.machine.memory - reserved.of("memory").value())
        return cgroups.CgroupTree(
            config.cgroup_root or "/",
            v2=self.machine.cgroup_v2,
            enforce_cpu=config.cpu_cfs_quota,
            cpu_period=self.settings.cpu_period,
            pids=config.pod_pids_limit if config.pod_pids_limit > 0 else None,
            node=cgroups.CgroupValues(cpu_shares=1024 * self.machine.cpus, memory=left),
        )

    def _identity(self) -> Identity:
        config = self.config
        return Identity(
            name=self.node_name,
            labels=config.node_labels,
            taints=config.register_with_taints,
            provider_id=config.provider_id,
            register=config.register_node,
            update_seconds=config.node_status_update_frequency,
            report_seconds=config.node_status_report_frequency,
            lease_seconds=config.node_lease_duration_seconds,
            controller_attach=config.enable_controller_attach_detach,
        )

    # Running

    async def run(self) -> None:
        await self._meet_runtime()
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                self._start_everything(group)
                await asyncio.Event().wait()
            finally:
                self._group = None

    def _start_everything(self, group: asyncio.TaskGroup) -> None:
        for name, work in (
            ("statuses", self.statuses.run()),
            ("probes", self.prober.run()),
            ("pleg", self.pleg.run()),
            ("objects", self.objects.run()),
            ("runtime", self._watch_runtime()),
            ("images", self._watch_images()),
            ("garbage", self.collector.run()),
            ("pressure", self.pressure.run()),
            ("housekeeping", self._housekeep()),
            ("static pods", self.static.run()),
            ("mirrors", self.mirrors.run()),
            ("serving", serve(self, self.metrics)),
        ):
            group.create_task(work, name=name)
        if self.client is None and self.config.pod_cidr:
            group.create_task(self._use_pod_cidr(self.config.pod_cidr))
        if self._informers is not None and self.recorder is not None and self.node is not None:
            group.create_task(self._informers.run(), name="informers")
            group.create_task(self.recorder.run(), name="events")
            group.create_task(self.node.run(), name="node")
            group.create_task(self._follow_api(), name="pods")
            self.recorder.event(self.node.reference, "Normal", "Starting", "Starting kubelet.")

    async def _meet_runtime(self) -> None:
        """Wait until the runtime answers: nothing can be decided before."""
        told = False
        while True:
            try:
                info = await self.runtime.info()
                break
            except RuntimeFault as fault:
                if not told:
                    log.warning("waiting for the container runtime: %s", fault.message)
                    told = True
            await self.clock.sleep(RUNTIME_WAIT_SECONDS)
        self.runtime_name, self.runtime_version = info.name, info.version
        self._kit.runtime_name = info.name
        await self._check_runtime()
        await self.collector.list_images()
        disks = await self.runtime.image_filesystems()
        self._image_root = image_root([each.mountpoint for each in disks])

    async def _follow_api(self) -> None:
        """Take pods from the API server, once the services are known that their environment names."""
        assert self._pods is not None and self._services is not None and self._runtime_classes is not None
        await self._services.wait_synced()
        await self._runtime_classes.wait_synced()
        await self.pleg.wait_listed()
        self._pods.add_handler(self._on_pod)
        await self._pods.run()

    async def _watch_runtime(self) -> None:
        while True:
            ready = not self._runtime_fault and not self._network_fault
            await self.clock.sleep(RUNTIME_CHECK_SECONDS if ready else RUNTIME_WAIT_SECONDS)
            await self._check_runtime()

    async def _check_runtime(self) -> None:
        before = (self._runtime_fault, self._network_fault)
        try:
            faults = node_status.runtime_faults(await self.runtime.conditions())
        except RuntimeFault as fault:
            faults = (f"container runtime is down: {fault.message}", self._network_fault)
        self._runtime_fault, self._network_fault = faults
        if faults != before:
            self._hurry()
            for worker in self._workers.values():
                worker.wake()

    async def _watch_images(self) -> None:
        while True:
            await self.clock.sleep(IMAGES_SECONDS)
            try:
                await self.collector.list_images()
            except RuntimeFault as fault:
                log.warning("listing images: %s", fault.message)

    # Pods come and go

    def _on_pod(self, kind: str, new: Obj | None, old: Obj | None) -> None:
        pod = new or old
        assert pod is not None
        if podspec.is_mirror(pod):
            static = self.mirrors.seen(pod, gone=new is None)
            if static is not None:
                self.statuses.reconcile(static)
            return
        uid = pod["metadata"]["uid"]
        worker = self._workers.get(uid)
        if new is None:
            if worker is not None:
                worker.update(pod)
                worker.removed()
            return
        if worker is None:
            self._begin(new)
            return
        worker.update(new)
        self.statuses.reconcile(uid)

    def _on_static(self, pods: Mapping[str, Obj]) -> None:
        """The static pods that there are now, by uid."""
        for uid, worker in self._workers.items():
            if podspec.is_static(worker.pod) and uid not in pods and worker.stage != "gone":
                worker.removed()
                self.mirrors.forget(worker.pod)
        for uid, pod in pods.items():
            running = self._workers.get(uid)
            if running is None:
                self._begin(pod)
            elif running.ending:
                self._waiting[uid] = pod

    def _begin(self, pod: Obj) -> None:
        """Give a pod its worker."""
        assert self._group is not None
        uid = pod["metadata"]["uid"]
        worker = PodWorker(pod, self._kit)
        given = worker.given
        if not podspec.is_terminal(podspec.phase_of(pod)) and not is_being_deleted(pod):
            refusal = self.admission.check(
                given, self._others(uid), self._node_object(), node_status.allocatable(self.node_facts())
            )
            if refusal is not None:
                for victim in refusal.victims:
                    self._workers[victim].terminate(refusal.ending)
                if refusal.reason:
                    worker.reject(refusal.reason, refusal.message)
        self._workers[uid] = worker
        if is_being_deleted(pod):
            worker.terminate()
        self._group.create_task(self._work(worker), name=f"pod {podspec.describe(pod)}")

    async def _work(self, worker: PodWorker) -> None:
        await worker.run()
        self._workers.pop(worker.uid, None)
        self._wake_waiting()
        self.images.forget(worker.uid)
        again = self._waiting.pop(worker.uid, None)
        if again is not None:
            self._begin(again)

    async def _housekeep(self) -> None:
        """End what the runtime has and nobody wants."""
        await self.pleg.wait_listed()
        await self.static.wait_read()
        if self._pods is not None:
            await self._pods.wait_synced()
        while True:
            for found in self.pleg.known():
                if found.uid not in self._workers:
                    self._end_orphan(found)
            await self.clock.sleep(HOUSEKEEPING_SECONDS)

    def _end_orphan(self, found: RunningPod) -> None:
        assert self._group is not None
        log.info("ending orphaned pod %s/%s (%s)", found.namespace, found.name, found.uid)
        meta = {"name": found.name, "namespace": found.namespace, "uid": found.uid}
        worker = PodWorker({"metadata": meta, "spec": {"containers": []}}, self._kit)
        worker.terminate(Ending("", "", grace=1))
        worker.removed()
        self._workers[found.uid] = worker
        self._group.create_task(self._work(worker), name=f"orphan {found.uid}")

    def _wake(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.wake()

    def _others(self, uid: str) -> list[Obj]:
        """The pods that hold resources beside this one, as they were given them."""
        return [
            each.given
            for each in self._workers.values()
            if each.uid != uid
            and each.could_be_running
            and not podspec.is_terminal(podspec.phase_of(each.pod))
        ]

    def _shortage(self, pod: Obj) -> str:
        """What there is too little of for a pod of these resources; empty when it fits."""
        others = self._others(pod["metadata"]["uid"])
        short = shortages(pod, others, node_status.allocatable(self.node_facts()))
        return shortage_message(short[0]) if short else ""

    def _wake_waiting(self) -> None:
        """Room was made: see whether those who wait for it can grow."""
        for worker in self._workers.values():
            if worker.resizing.waits:
                worker.wake()

    def _refresh_volumes(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.refresh_volumes()

    # What others ask

    def api_pod(self, uid: str) -> Obj | None:
        """The pod's object at the API server: for a static pod its mirror."""
        worker = self._workers.get(uid)
        if worker is not None and podspec.is_static(worker.pod):
            return self.mirrors.of(worker.pod)
        return next(iter(self._pods.by_index(_BY_UID, uid)), None) if self._pods is not None else None

    def could_be_running(self, uid: str) -> bool:
        worker = self._workers.get(uid)
        return worker is not None and worker.could_be_running

    def unwell(self) -> str:
        """What keeps the kubelet itself from working; empty when nothing does."""
        return "" if self.pleg.healthy else "sync Loop took longer than expected"

    def pods(self) -> list[Obj]:
        """Every pod of this node, with its newest status."""
        found = []
        for worker in self._workers.values():
            status = self.statuses.get(worker.uid)
            found.append({**worker.pod, "status": status} if status else worker.pod)
        return found

    def finishes(self, uid: str) -> bool:
        """Whether a pod is meant to end by itself."""
        worker = self._workers.get(uid)
        return worker is not None and podspec.restart_policy(worker.pod) != "Always"

    def pod(self, namespace: str, name: str) -> Obj | None:
        return next(
            (
                each
                for each in self.pods()
                if each["metadata"]["name"] == name and each["metadata"].get("namespace") == namespace
            ),
            None,
        )

    def worker(self, uid: str) -> PodWorker | None:
        return self._workers.get(uid)

    def find_container(
        self, namespace: str, pod: str, container: str, *, uid: str = ""
    ) -> ContainerObservation | None:
        """The newest container of that name, running or not; None when there is none."""
        for worker in self._workers.values():
            meta = worker.pod["metadata"]
            if meta["name"] == pod and meta.get("namespace") == namespace and uid in ("", meta["uid"]):
                return worker.observed.latest(container)
        return None

    def node_facts(self) -> NodeFacts:
        config = self.config
        limit = config.max_pods
        if config.pods_per_core:
            limit = min(limit, config.pods_per_core * self.machine.cpus)
        faults = [fault for fault in (self._runtime_fault, self._network_fault) if fault]
        if not self.pleg.healthy:
            faults.append(
                "PLEG is not healthy: pleg was last seen active more than 3m0s ago; threshold is 3m0s"
            )
        return NodeFacts(
            machine=self.machine,
            addresses=self.host_ips,
            hostname=self.node_name,
            runtime_name=self.runtime_name,
            runtime_version=self.runtime_version,
            max_pods=limit,
            port=config.port,
            reservations=self._reservations(),
            images=self.collector.images,
            pressures=self.pressure.conditions,
            max_images=config.node_status_max_images,
            faults=faults,
        )

    def _reservations(self) -> Reservations:
        capacity = {"memory": self.machine.memory, "ephemeral-storage": self.machine.storage}
        return Reservations(
            self.config.system_reserved, self.config.kube_reserved, reserved_by(self._thresholds, capacity)
        )

    def _view(self) -> NodeView:
        services = self._services.list() if self._services is not None else []
        return NodeView(self.host_ips, node_status.allocatable(self.node_facts()), services)

    def _pod_facts(self, pod: Obj) -> PodFacts:
        status = self.statuses.get(pod["metadata"]["uid"]) or {}
        ips = tuple(each["ip"] for each in status.get("podIPs") or ())
        return PodFacts(ips, tuple(self.host_ips), node_status.allocatable(self.node_facts()))

    def _node_object(self) -> Obj | None:
        return self.node.object if self.node is not None else None

    def _on_node(self, kind: str, new: Obj | None, old: Obj | None) -> None:
        if new is None or self.node is None:
            return
        self.node.seen(new)
        spec = new.get("spec") or {}
        cidr = ",".join(spec.get("podCIDRs") or ()) or spec.get("podCIDR", "")
        if cidr and cidr != self._pod_cidr and self._group is not None:
            self._pod_cidr = cidr
            self._group.create_task(self._use_pod_cidr(cidr))

    async def _use_pod_cidr(self, cidr: str) -> None:
        """Tell the runtime the node's range; again while it does not listen."""
        while True:
            try:
                await self.runtime.set_pod_cidr(cidr)
                return
            except RuntimeFault as fault:
                log.warning("telling the runtime the pod CIDR %s: %s", cidr, fault.message)
            await self.clock.sleep(RUNTIME_CHECK_SECONDS)

    def _runtime_handler(self, pod: Obj) -> str:
        """The runtime's name of the pod's RuntimeClass; LookupError when there is no such class."""
        name = pod["spec"].get("runtimeClassName")
        if not name:
            return ""
        found = self._runtime_classes.get("", name) if self._runtime_classes is not None else None
        if found is None:
            raise LookupError(f'failed to get sandbox runtime: runtimeclass.node.k8s.io "{name}" not found')
        return found["handler"]

    def _record_node(self, kind: str, reason: str, message: str) -> None:
        """Record an event about the node."""
        if self.recorder is not None and self.node is not None:
            self.recorder.event(
                self.node.reference, "Warning" if kind == "Warning" else "Normal", reason, message
            )

    def record(self, pod: Obj, container: Obj | None, kind: str, reason: str, message: str) -> None:
        """Record an event about a pod, or one of its containers."""
        path = podspec.field_path(pod, container["name"]) if container is not None else ""
        log.debug("%s %s: %s", podspec.describe(pod), reason, message)
        if self.recorder is not None:
            about = {"apiVersion": "v1", "kind": "Pod", **pod}
            self.recorder.event(
                about, "Warning" if kind == "Warning" else "Normal", reason, message, field_path=path
            )


def _slim(pod: Obj) -> Obj:
    """Without what the kubelet never reads."""
    pod["metadata"].pop("managedFields", None)
    return pod


async def _read_message(container: Container) -> str:
    return termination_message(container)
