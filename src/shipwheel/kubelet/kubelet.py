"""The node agent put together: where pods come from, what works on them, and what the API server is told.

    sources (API watch, files, URL) -> pod table -> workers (one a pod) -> runtime
                                                        |-> status manager -> API

Nothing is remembered between runs: a kubelet that is started again finds the containers of its predecessor by their
labels, goes on with those whose pods it is given, and ends the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from shipwheel.api import quantity
from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client
from shipwheel.client.metrics import Metrics
from shipwheel.client.ratelimit import TokenBucket
from shipwheel.kubelet import cgroups, eviction, kernel_defaults, logind, node_allocatable, node_status, podspec, swap
from shipwheel.kubelet.admission import Admission, Rules
from shipwheel.kubelet.allocation import Allocations
from shipwheel.kubelet.api_view import ApiView
from shipwheel.kubelet.collector import Collector, LogPolicy
from shipwheel.kubelet.config import ConfigError, thresholds_of, validate
from shipwheel.kubelet.container_config import NodeSettings
from shipwheel.kubelet.credential_providers import CredentialProviders
from shipwheel.kubelet.credential_providers import load as load_providers
from shipwheel.kubelet.credentials import credentials_for, node_entries
from shipwheel.kubelet.dns import DnsSettings, parse_resolv_conf
from shipwheel.kubelet.downward import PodFacts
from shipwheel.kubelet.eviction import Observation
from shipwheel.kubelet.executor import Executor, Paths
from shipwheel.kubelet.garbage import ImagePolicy
from shipwheel.kubelet.hooks import Hooks
from shipwheel.kubelet.images import ImageManager
from shipwheel.kubelet.killer import Killer
from shipwheel.kubelet.machine import (
    Machine,
    allow_files,
    apparmor_enabled,
    cgroup_v2,
    default_address,
    process_limit,
    read_machine,
    selinux_enabled,
    set_oom_score,
    swap_in_use,
)
from shipwheel.kubelet.managers.build import BuildError, Surroundings, build
from shipwheel.kubelet.managers.manager import RunningContainer
from shipwheel.kubelet.managers.none import NoManagers
from shipwheel.kubelet.managers.pod_resources import PodResources
from shipwheel.kubelet.managers.topology import read_topology
from shipwheel.kubelet.measures import KubeletMetrics, ProbeMetrics, measured
from shipwheel.kubelet.messages import termination_message
from shipwheel.kubelet.mirror import Mirrors
from shipwheel.kubelet.node import Identity, Node
from shipwheel.kubelet.node_certificates import NodeCertificates
from shipwheel.kubelet.node_status import NodeFacts, Reservations
from shipwheel.kubelet.objects import NoObjects, ObjectCache
from shipwheel.kubelet.pleg import Pleg
from shipwheel.kubelet.pod_table import PodTable
from shipwheel.kubelet.pod_worker import Kit
from shipwheel.kubelet.pressure import Pressure, image_root
from shipwheel.kubelet.probes import Prober
from shipwheel.kubelet.pull_records import Opener, PullRecords
from shipwheel.kubelet.resizing import Fixed
from shipwheel.kubelet.runtime.base import Container, Runtime, RuntimeFault, RuntimeHandler
from shipwheel.kubelet.runtime_state import RuntimeState
from shipwheel.kubelet.server.sampling import Sampler
from shipwheel.kubelet.services import Cgroups, Managers, NodeView
from shipwheel.kubelet.serving import serve
from shipwheel.kubelet.settings import KubeletConfig
from shipwheel.kubelet.shutdown import NodeShutdown, periods
from shipwheel.kubelet.static_pods import StaticPods
from shipwheel.kubelet.status_manager import StatusManager
from shipwheel.kubelet.thresholds import ALLOCATABLE, reserved_by
from shipwheel.kubelet.usage import observe_node, separate_images
from shipwheel.kubelet.user_namespaces import UserNamespaces, kubelet_ids
from shipwheel.kubelet.volumes.base import Host
from shipwheel.kubelet.volumes.cluster import ApiCluster
from shipwheel.kubelet.volumes.csi.driver import CsiDrivers
from shipwheel.kubelet.volumes.csi.plugin import CsiVolumes
from shipwheel.kubelet.volumes.csi.registration import CsiHandler, PluginWatcher
from shipwheel.kubelet.volumes.csi.state import volumes_in_use
from shipwheel.kubelet.volumes.manager import PLUGINS, VolumeManager
from shipwheel.kubelet.volumes.mounting import Mounter, NoMounter

log = logging.getLogger(__name__)

SIMULATED = "simulated"
"""The endpoint that stands for no runtime at all: pods without processes."""
PLUGIN_SECONDS = 0.5
IMAGES_SECONDS = 60.0


async def run(config: KubeletConfig, *, client: Client | None, clock: Clock, runtime: Runtime | None = None) -> None:
    """Be a node until cancelled. Without a client only static pods run. Containers keep running afterwards.

    The runtime is the one that the configuration names, if none is given.
    """
    validate(config)
    if config.fail_swap_on and swap_in_use():
        raise ConfigError(
            "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false"
        )
    simulated = config.container_runtime_endpoint == SIMULATED
    if not simulated:
        prepare_process(config)

    def finishes(uid: str) -> bool:
        return kubelet.table.finishes(uid)

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


def prepare_process(config: KubeletConfig) -> None:
    """What the process needs of the machine. ConfigError when the machine will not do."""
    if config.fail_cgroup_v1 and not cgroup_v2():
        raise ConfigError(
            "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will "
            "be removed in a future release"
        )
    differing = kernel_defaults.faults() if config.protect_kernel_defaults else []
    if differing:
        listed = differing[0] if len(differing) == 1 else f"[{', '.join(differing)}]"
        raise ConfigError(f"Failed to start ContainerManager: {listed}")
    for why in (set_oom_score(config.oom_score_adj), allow_files(config.max_open_files)):
        if why:
            log.info("%s", why)


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

    cri = CriRuntime(
        config.container_runtime_endpoint,
        image_endpoint=config.image_service_endpoint,
        image_views=Path(config.root_dir) / "image-volumes",
        timeout=config.runtime_request_timeout,
    )
    stack.push_async_callback(cri.close)
    return cri


class Kubelet:
    """`simulated`: no process runs here, so nothing of this machine is measured, limited or mounted."""

    def __init__(
        self,
        config: KubeletConfig,
        *,
        client: Client | None,
        runtime: Runtime,
        clock: Clock,
        mounter: Mounter,
        machine: Machine | None = None,
        simulated: bool = False,
    ) -> None:
        self.config = config
        self.client = client
        self.metrics = Metrics()
        self._measures = KubeletMetrics(self.metrics)
        self.probe_metrics = Metrics(process=False)
        self.runtime = runtime = measured(runtime, self._measures, clock)
        self.clock = clock
        self.root = Path(config.root_dir).absolute()
        self._mounter = mounter
        self.machine = machine or read_machine(self.root)
        self.node_name = config.hostname_override or self.machine.hostname
        listed = [each.strip() for each in config.node_ip.split(",") if each.strip()]
        self.host_ips: Sequence[str] = node_status.host_ips(listed or [default_address()])
        self._measures.node_name.labels(self.node_name).set(1)
        self._measures.cgroup_version.set(2 if self.machine.cgroup_v2 else 1)
        self._simulated = simulated
        self._sources_read = asyncio.Event()
        self._started_at = int(clock.now().timestamp() * 1e9)
        self._thresholds = () if simulated else thresholds_of(config)
        self._image_root: Path | None = None
        self._settings = self._make_settings()

        self.api = ApiView(client, clock, self.node_name, self._event_limit())
        self.record = self.api.record
        self.certificates = NodeCertificates(config, client, clock, self.node_name, self.host_ips)
        self.state = RuntimeState(runtime, clock, self._on_runtime_changed)
        self.pleg = Pleg(runtime, clock, self._wake, _read_message, self._measures)
        self._prober = Prober(runtime, clock, self.record, self._wake, ProbeMetrics(self.probe_metrics))
        self._mirrors = Mirrors(client, clock, self.node_name)
        self._statuses = StatusManager(client, clock, self, self._measures)
        self._objects = ObjectCache(client, clock, self._on_object_changed) if client else NoObjects()
        self._records = PullRecords(
            self.root, clock, policy=config.image_pull_verification, allowed=config.preloaded_images
        )
        self._images = ImageManager(
            runtime,
            clock,
            self._measures,
            records=self._records,
            limit=TokenBucket(config.registry_pull_qps, config.registry_burst, clock)
            if config.registry_pull_qps
            else None,
            parallel=1 if config.serialize_image_pulls else config.max_parallel_image_pulls or None,
        )
        declared = config.image_credential_provider_config
        self._providers = CredentialProviders(
            load_providers(declared, config.image_credential_provider_bin_dir) if declared else (),
            clock,
            self._objects,
        )
        self._csi = CsiDrivers()
        self.volumes = VolumeManager(
            Host(
                objects=self._objects,
                mounter=mounter,
                clock=clock,
                facts=self._pod_facts,
                memory_capacity=self.machine.memory,
                cluster=ApiCluster(client) if client else None,
                node_name=self.node_name,
                record=lambda pod, kind, reason, message: self.record(pod, None, kind, reason, message),
            ),
            self.root,
            plugins=[*PLUGINS, CsiVolumes(self._csi).plugin()],
            recursive_read_only=lambda pod: self._handler(pod).recursive_read_only_mounts,
            selinux=not simulated and selinux_enabled(),
        )
        self.table = PodTable(
            clock,
            self._statuses,
            self._mirrors,
            self.pleg,
            self._measures,
            node=lambda: self.node.object if self.node else None,
            allocatable=self.allocatable,
            find=self.api.pod,
            gone=self._images.forget,
        )
        self._managers, self._pod_resources = self._make_managers()
        self.sampler = Sampler(
            runtime,
            clock,
            pods=self.table.pods,
            volumes=self.volumes.measured,
            volume_age=config.volume_stats_period,
            root=self.root,
        )
        self._collector = self._make_collector()
        self._pressure = self._make_pressure()
        self.shutdown = NodeShutdown(
            periods=periods(config),
            connect=logind.connected,
            clock=clock,
            pods=self.table,
            record_node=self.api.record_node,
            changed=self._hurry,
            measures=self._measures,
            directory=self.root,
        )
        self._static = StaticPods(config, self.node_name, clock, self.table.on_static)
        self.node = self._make_node()
        self.table.kit = self._make_kit()
        self.table.admission = Admission(
            self.record,
            lambda: self._pressure.conditions,
            Rules(
                config.allowed_unsafe_sysctls,
                apparmor=simulated or apparmor_enabled(),
                strict_groups=lambda: self.state.status.supplemental_groups_policy,
            ),
            closing=lambda: self.shutdown.under_way,
        )

    # Putting it together

    def _event_limit(self) -> TokenBucket | None:
        qps, burst = self.config.event_record_qps, self.config.event_burst
        return TokenBucket(qps, burst, self.clock) if qps else None

    def _make_settings(self) -> NodeSettings:
        config = self.config
        single = config.single_process_oom_kill
        return NodeSettings(
            memory_capacity=self.machine.memory,
            pod_logs=config.pod_logs_dir,
            seccomp_root=str(self.root / "seccomp"),
            seccomp_default=config.seccomp_default,
            enforce_cpu=config.cpu_cfs_quota,
            cpu_period=int(config.cpu_cfs_quota_period * 1_000_000),
            cgroup_v2=self.machine.cgroup_v2,
            single_process_oom_kill=not self.machine.cgroup_v2 if single is None else single,
            swap=self._shared_swap(),
            minimum_oom_score=-1000 if cgroups.can_lower_oom_score() else cgroups.own_oom_score(),
        )

    def _shared_swap(self) -> int | None:
        """Bytes of swap that containers may use; None where that is not limited by container."""
        if self._simulated or not self.machine.cgroup_v2 or not swap.is_accounted():
            return None
        return self.machine.swap if self.config.swap_behavior == swap.LIMITED else 0

    def _make_managers(self) -> tuple[Managers, PodResources | None]:
        """ConfigError when they cannot be had as they are configured."""
        if self._simulated:
            return NoManagers(), None
        around = Surroundings(
            root=self.root,
            client=self.client,
            clock=self.clock,
            runtime=self.runtime,
            metrics=self.metrics,
            node_name=self.node_name,
            topology=read_topology(self.machine.memory),
            reservations=self._reservations(),
            active=self._active,
            running=self._running,
            ran_before=self._ran_before,
            changed=self._hurry,
            wake=self._wake,
        )
        try:
            managers = build(self.config, around)
        except BuildError as error:
            raise ConfigError(str(error)) from error
        measures = managers.measures
        return managers, PodResources(self.root / "pod-resources", managers, measures, self.table.holding)

    def _make_kit(self) -> Kit:
        """What workers work with."""
        config = self.config
        paths = Paths(self.root, Path(config.container_logs_dir) if config.container_logs_dir else None)
        self._cgroups = self._make_cgroups()
        resolver = parse_resolv_conf(Path(config.resolv_conf).read_text()) if config.resolv_conf else None
        hooks = Hooks(self.runtime, self.clock)
        killer = Killer(self.runtime, self.clock, self.record, hooks)
        executor = Executor(
            runtime=self.runtime,
            pleg=self.pleg,
            images=self._images,
            volumes=self.volumes,
            objects=self._objects,
            cgroups=self._cgroups,
            hooks=hooks,
            killer=killer,
            clock=self.clock,
            record=self.record,
            measures=self._measures,
            settings=self._settings,
            dns=DnsSettings(config.cluster_dns, config.cluster_domain, resolver),
            paths=paths,
            view=self._view,
            user_namespaces=UserNamespaces(
                self.root / "pods",
                self._handler,
                per_pod=config.user_namespace_ids_per_pod,
                available=None if self._simulated else kubelet_ids(),
            ),
            runtime_handler=self.api.runtime_handler,
            managers=self._managers,
            node_openers=self._node_openers,
            at_once=max(4, 2 * self.machine.cpus),
        )
        executor.crash_backoff.limit(config.crash_loop_max_seconds)
        return Kit(
            runtime=self.runtime,
            runtime_name=lambda: self.state.name,
            executor=executor,
            killer=killer,
            pleg=self.pleg,
            prober=self._prober,
            statuses=self._statuses,
            allocations=Allocations(self.root),
            volumes=self.volumes,
            objects=self._objects,
            cgroups=self._cgroups,
            managers=self._managers,
            clock=self.clock,
            record=self.record,
            measures=self._measures,
            pod_logs=config.pod_logs_dir,
            host_ips=self.host_ips,
            network_fault=lambda: self.state.network_fault,
            handler=self._handler,
            ensure_mirror=self._mirrors.ensure,
            fixed=Fixed(
                cpus=config.cpu_manager_policy == "static",
                memory=config.memory_manager_policy == "Static",
                swap=config.swap_behavior == swap.LIMITED,
            ),
            shortage=self.table.shortage,
            freed=self.table.wake_waiting,
            resync_seconds=config.sync_frequency,
            started_at=self._started_at,
        )

    def _make_cgroups(self) -> Cgroups:
        config = self.config
        if not config.cgroups_per_qos or self._simulated:
            return cgroups.NoCgroups(config.cgroup_root)
        return cgroups.CgroupTree(
            config.cgroup_root or "/",
            v2=self.machine.cgroup_v2,
            enforce_cpu=config.cpu_cfs_quota,
            cpu_period=self._settings.cpu_period,
            pids=config.pod_pids_limit if config.pod_pids_limit > 0 else None,
            node=node_allocatable.pods_cgroup(config, node_status.capacity(self.node_facts()), pids=process_limit()),
            own_cpus=self._managers.has_own_cpus,
        )

    def _make_collector(self) -> Collector:
        config = self.config
        return Collector(
            self.runtime,
            self.clock,
            pods=lambda: [(worker.pod, worker.observed) for worker in self.table],
            kept_images=self._records.prune,
            image_disk=lambda: self._signals().get("imagefs.available"),
            record_node=self.api.record_node,
            measures=self._measures,
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
                config.container_log_max_workers,
            ),
        )

    def _make_pressure(self) -> Pressure:
        return Pressure(
            clock=self.clock,
            thresholds=self._thresholds,
            transition=self.config.eviction_pressure_transition_period,
            maximum_grace=self.config.eviction_max_pod_grace_period,
            local_storage=self.config.local_storage_isolation,
            observe=self._signals,
            separate_images=lambda: separate_images(self.root, self._image_root),
            sampler=self.sampler,
            pods=self.table.holding,
            reclaim_disk=self._collector.reclaim_disk,
            end=self.table.end,
            record=lambda pod, message, annotations: self.api.record(
                pod, None, "Warning", eviction.REASON, message, annotations=annotations
            ),
            record_node=self.api.record_node,
            changed=self._hurry,
            measures=self._measures,
        )

    def _make_node(self) -> Node | None:
        config = self.config
        if self.client is None:
            return None
        identity = Identity(
            name=self.node_name,
            labels=config.node_labels,
            taints=config.register_with_taints,
            provider_id=config.provider_id,
            register=config.register_node,
            update_seconds=config.node_status_update_frequency,
            report_seconds=config.node_status_report_frequency,
            lease_seconds=config.node_lease_duration_seconds,
            external_cloud=config.cloud_provider == "external",
            controller_attach=config.enable_controller_attach_detach,
        )
        return Node(self.client, self.clock, identity, self.node_facts, self.api.record_node)

    # Running

    async def run(self) -> None:
        self.root.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._mounter.make_shared(self.root)
        self._hold_to_reservations()
        await self.state.meet()
        await self._collector.list_images()
        self._records.take_over({name: image.id for image in self._collector.images for name in image.repo_tags})
        disks = await self.runtime.image_filesystems()
        self._image_root = image_root([each.mountpoint for each in disks])
        async with asyncio.TaskGroup() as group:
            for name, work in (
                ("statuses", self._statuses.run()),
                ("probes", self._prober.run()),
                ("pleg", self.pleg.run()),
                ("objects", self._objects.run()),
                ("runtime", self.state.run()),
                ("images", self._watch_images()),
                ("garbage", self._collector.run()),
                ("pressure", self._watch_pressure()),
                ("pods", self.table.run(self._wait_for_sources)),
                ("managers", self._managers.run()),
                ("static pods", self._static.run()),
                ("mirrors", self._mirrors.run()),
                ("shutdown", self.shutdown.run()),
                ("certificates", self.certificates.run()),
                ("serving", serve(self)),
            ):
                group.create_task(work, name=name)
            if self._pod_resources is not None:
                group.create_task(self._pod_resources.run(), name="pod resources")
            if self.node is None:
                if self.config.pod_cidr:
                    group.create_task(self.state.use_pod_cidr(self.config.pod_cidr))
                return
            self.api.on_node(self.node.seen)
            self.api.on_pod_cidr(lambda cidr: group.create_task(self.state.use_pod_cidr(cidr)))
            group.create_task(self.api.run(), name="api")
            group.create_task(self.node.run(), name="node")
            group.create_task(self._follow_pods(), name="api pods")
            group.create_task(self._take_plugins(), name="plugins")
            self.api.record_node("Normal", "Starting", "Starting kubelet.")

    def _hold_to_reservations(self) -> None:
        """Make the cgroups of pods, and hold them and others to what was reserved. ConfigError when that fails for the
        cgroups of others."""
        lacking = node_allocatable.overcommitted(node_status.capacity(self.node_facts()), self._reservations())
        if lacking:
            raise ConfigError(lacking)
        failed = "FailedNodeAllocatableEnforcement"
        try:
            self._cgroups.make_classes()
            self.api.record_node("Normal", "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods")
        except OSError as error:
            root = self.config.cgroup_root or "/"
            text = f'Failed to update Node Allocatable Limits "{root}": {error}'
            self.api.record_node("Warning", failed, text)
        for each in node_allocatable.enforcements(self.config):
            try:
                self._cgroups.hold(each.cgroup, each.values)
            except OSError as error:
                text = f'Failed to enforce {each.kind.title()} Reserved Cgroup Limits on "{each.cgroup}": {error}'
                self.api.record_node("Warning", failed, text)
                raise ConfigError(text) from error
            text = f"Updated limits on {each.kind} reserved cgroup {each.cgroup}"
            self.api.record_node("Normal", "NodeAllocatableEnforced", text)

    async def _take_plugins(self) -> None:
        """Drivers of storage and devices, as they come and go."""
        assert self.client is not None
        handler = CsiHandler(self._csi, self.client, self.node_name)
        while self.node is None or self.node.object is None:
            await self.clock.sleep(PLUGIN_SECONDS)
        await handler.ensure_csi_node(self.clock)
        handlers = {"CSIPlugin": handler, **self._managers.plugin_handlers()}
        watcher = PluginWatcher(self.root / "plugins_registry", self.clock, handlers)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(watcher.run(), name="plugin watcher")
                group.create_task(handler.follow_limits(self.clock), name="volume limits")
        finally:
            await self._csi.close()

    async def _follow_pods(self) -> None:
        """Take pods from the API server, once the services are known that their environment names."""
        await self.pleg.wait_listed()
        await self.api.follow_pods(self.table.on_pod)

    async def _wait_for_sources(self) -> None:
        """Return when every source of pods was read once: what runs beside them is wanted by nobody."""
        await self._static.wait_read()
        await self.api.wait_pods()
        self._sources_read.set()

    async def _watch_pressure(self) -> None:
        """Once all pods are known: those that run already are not to be refused like new ones."""
        await self._sources_read.wait()
        await self._pressure.run()

    async def _watch_images(self) -> None:
        while True:
            await self.clock.sleep(IMAGES_SECONDS)
            try:
                await self._collector.list_images()
            except RuntimeFault as fault:
                log.warning("listing images: %s", fault.message)

    # When something changed

    def _wake(self, uid: str) -> None:
        self.table.wake(uid)

    def _on_object_changed(self, uid: str) -> None:
        self.table.refresh_volumes(uid)

    def _on_runtime_changed(self) -> None:
        self._hurry()
        self.table.wake_all()

    def _hurry(self) -> None:
        if self.node is not None:
            self.node.hurry()

    # What others ask

    def api_pod(self, uid: str) -> Obj | None:
        return self.table.api_pod(uid)

    def could_be_running(self, uid: str) -> bool:
        return self.table.could_be_running(uid)

    def unwell(self) -> str:
        """What keeps the kubelet itself from working; empty when nothing does."""
        return "" if self.pleg.healthy else "sync Loop took longer than expected"

    def exposition(self) -> bytes:
        """What `/metrics` answers."""
        self.table.measure()
        return self.metrics.exposition()

    def node_facts(self) -> NodeFacts:
        config = self.config
        limit = config.max_pods
        if config.pods_per_core:
            limit = min(limit, config.pods_per_core * self.machine.cpus)
        faults = [fault for fault in (self.state.fault, self.state.network_fault, self.shutdown.fault) if fault]
        if not self.pleg.healthy:
            faults.append("PLEG is not healthy: pleg was last seen active more than 3m0s ago; threshold is 3m0s")
        return NodeFacts(
            machine=self.machine,
            addresses=self.host_ips,
            hostname=self.node_name,
            runtime_name=self.state.name,
            runtime_version=self.state.version,
            max_pods=limit,
            port=config.port,
            reservations=self._reservations(),
            devices=self._managers.capacity(),
            images=self._collector.images,
            pressures=self._pressure.conditions,
            max_images=config.node_status_max_images,
            runtime_handlers=self.state.status.handlers,
            supplemental_groups_policy=self.state.status.supplemental_groups_policy,
            volumes_in_use=lambda: volumes_in_use(self.root),
            faults=faults,
        )

    def _reservations(self) -> Reservations:
        capacity = {"memory": self.machine.memory, "ephemeral-storage": self.machine.storage}
        return node_allocatable.reservations(self.config, reserved_by(self._thresholds, capacity))

    def _active(self) -> dict[str, frozenset[str]] | None:
        """The containers of pods that hold resources; None until all pods are known."""
        if not self._sources_read.is_set():
            return None
        return {
            pod["metadata"]["uid"]: frozenset(each["name"] for each in podspec.all_containers(pod))
            for pod in self.table.holding()
        }

    def _running(self) -> list[RunningContainer]:
        return [
            RunningContainer(seen.id, worker.uid, seen.name)
            for worker in self.table
            for seen in worker.observed.running
            if podspec.find_container(worker.pod, seen.name)
        ]

    async def _ran_before(self, uid: str, name: str) -> bool:
        """Whether a container has been running since before this kubelet began."""
        seen = (await self.pleg.inspect(uid)).latest(name)
        return seen is not None and seen.running and seen.created_at < self._started_at

    def allocatable(self) -> dict[str, str]:
        return node_status.allocatable(self.node_facts())

    async def _node_openers(self, image: str, pod: Obj) -> list[Opener]:
        """The registry credentials that the node itself has for an image, and those that its providers give a pod."""
        found = [*map(Opener, credentials_for(image, node_entries(self.root, Path.home())))]
        for answer in await self._providers.answers(image, pod):
            found += [Opener(each, account=answer.account) for each in credentials_for(image, answer.entries)]
        return found

    def _signals(self) -> dict[str, Observation]:
        found = observe_node(self.root, self._image_root, self.machine.memory)
        memory = self._cgroups.pods_memory()
        if memory is not None:
            used, limit = memory
            found[ALLOCATABLE] = Observation(max(0, limit - used), limit)
        return found

    def _handler(self, pod: Obj) -> RuntimeHandler:
        """What the pod's runtime handler can do; nothing where it has none."""
        try:
            return self.state.status.handler(self.api.runtime_handler(pod))
        except LookupError:
            return RuntimeHandler()

    def _view(self) -> NodeView:
        return NodeView(self.host_ips, self.allocatable(), self.api.services())

    def _pod_facts(self, pod: Obj) -> PodFacts:
        status = self._statuses.get(pod["metadata"]["uid"]) or {}
        ips = tuple(each["ip"] for each in status.get("podIPs") or ())
        return PodFacts(ips, tuple(self.host_ips), self.allocatable())


async def _read_message(container: Container) -> str:
    return termination_message(container)
