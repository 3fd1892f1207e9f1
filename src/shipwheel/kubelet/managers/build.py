"""The managers that a configuration asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.client.client import Client
from shipwheel.client.metrics import Metrics
from shipwheel.kubelet import node_allocatable
from shipwheel.kubelet.managers import checkpoint, cpu_manager, hints
from shipwheel.kubelet.managers.base import Active
from shipwheel.kubelet.managers.claim_manager import ClaimManager
from shipwheel.kubelet.managers.claim_plugins import ClaimDrivers
from shipwheel.kubelet.managers.claim_state import is_by_claim
from shipwheel.kubelet.managers.cpu_manager import CpuManager, NoCpuManager, StateError
from shipwheel.kubelet.managers.device_manager import DeviceManager
from shipwheel.kubelet.managers.hints import Merger, OptionError
from shipwheel.kubelet.managers.manager import Placement, ResourceManagers, RunningContainer
from shipwheel.kubelet.managers.measures import ManagerMetrics
from shipwheel.kubelet.managers.memory_manager import MemoryManager, NoMemoryManager, reserved_memory
from shipwheel.kubelet.managers.topology import Topology
from shipwheel.kubelet.node_status import Reservations
from shipwheel.kubelet.runtime.base import Runtime
from shipwheel.kubelet.settings import KubeletConfig


class BuildError(Exception):
    """The kubelet cannot begin like this; the message is upstream's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What managers have to do with: the rest of the kubelet, as functions."""

    root: Path
    client: Client | None
    clock: Clock
    runtime: Runtime
    metrics: Metrics
    node_name: str
    topology: Topology
    reservations: Reservations
    active: Callable[[], Active | None]
    running: Callable[[], Iterable[RunningContainer]]
    ran_before: Callable[[str, str], Awaitable[bool]]
    changed: Callable[[], None]
    """The node has other devices than before."""
    wake: Callable[[str], None]
    """Something about the pod of this uid is different."""


def build(config: KubeletConfig, around: Surroundings) -> ResourceManagers:
    """BuildError."""
    measures = ManagerMetrics(around.metrics)
    try:
        placement = _placement(config, around.topology)
        cpus = _cpus(config, around, measures)
        memory = _memory(config, around, measures)
    except (StateError, OptionError, ValueError) as error:
        raise BuildError(str(error)) from error

    def tell_users(driver: str, devices: set[tuple[str, str]]) -> None:
        for uid in claims.users_of(driver, devices):
            around.wake(uid)

    drivers = ClaimDrivers(around.client, around.clock, measures, around.node_name, tell_users)
    try:
        claims = ClaimManager(around.root, around.client, around.clock, measures, drivers)
    except checkpoint.Corrupt as error:
        raise BuildError(
            f"could not initialize checkpoint manager, please drain node and remove DRA state file, err: {error}"
        ) from error
    devices = DeviceManager(
        around.root / "device-plugins",
        around.clock,
        measures,
        numa_nodes=[each.id for each in around.topology.nodes],
        changed=around.changed,
        health=around.wake,
        ran_before=around.ran_before,
        by_claim=is_by_claim,
    )
    return ResourceManagers(
        placement=placement,
        cpus=cpus,
        memory=memory,
        devices=devices,
        claims=claims,
        drivers=drivers,
        clock=around.clock,
        runtime=around.runtime,
        measures=measures,
        active=around.active,
        running=around.running,
        reconcile_seconds=config.cpu_manager_reconcile_period,
    )


def _placement(config: KubeletConfig, topology: Topology) -> Placement:
    policy, scope = node_allocatable.policy_of(config)
    options = hints.parse_options(config.topology_manager_policy_options)
    if policy != "none" and len(topology.nodes) > options.maximum_nodes:
        raise OptionError(f"unsupported on machines with more than {options.maximum_nodes} NUMA Nodes")
    return Placement(merger=Merger(policy, topology.nodes, options), scope=scope)


def _cpus(config: KubeletConfig, around: Surroundings, measures: ManagerMetrics) -> CpuManager | NoCpuManager:
    given = config.cpu_manager_policy_options
    if config.cpu_manager_policy == "none":
        if given:
            shown = " ".join(f"{key}:{value}" for key, value in sorted(given.items()))
            raise OptionError(f"new none policy error: None policy: received unsupported options=map[{shown}]")
        return NoCpuManager(around.root)
    if config.cpu_manager_policy != "static":
        raise OptionError(f'unknown policy: "{config.cpu_manager_policy}"')
    options = cpu_manager.parse_options(given)
    count = cpu_manager.reserved_count(around.reservations.of("cpu").milli_value())
    named = node_allocatable.reserved_cpus(config, around.topology.all_cpus)
    reserved = cpu_manager.reserved_set(around.topology, count, named, options)
    return CpuManager(around.topology, around.root, measures, reserved=reserved, options=options)


def _memory(config: KubeletConfig, around: Surroundings, measures: ManagerMetrics) -> MemoryManager | NoMemoryManager:
    if config.memory_manager_policy == "None":
        return NoMemoryManager(around.root)
    if config.memory_manager_policy != "Static":
        raise OptionError(f'unknown policy: "{config.memory_manager_policy}"')
    amounts = node_allocatable.reserved_amounts(around.reservations)
    reserved = reserved_memory(around.topology.nodes, config.reserved_memory, amounts)
    return MemoryManager(around.topology.nodes, around.root, measures, reserved=reserved)
