"""What of the node pods may have: the reservations for the system and for Kubernetes itself, and their enforcement.

https://kubernetes.io/docs/tasks/administer-cluster/reserve-compute-resources/
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shipwheel.api import quantity
from shipwheel.api.quantity import Quantity
from shipwheel.kubelet import swap
from shipwheel.kubelet.machine import cgroup_v2
from shipwheel.kubelet.managers import cpusets
from shipwheel.kubelet.managers.cpusets import CpuSet
from shipwheel.kubelet.managers.hints import POLICIES, SCOPES, Policy, Scope
from shipwheel.kubelet.node_status import Reservations
from shipwheel.kubelet.resources import CgroupValues, cpu_shares
from shipwheel.kubelet.settings import KubeletConfig

NONE, PODS = "none", "pods"
SYSTEM, KUBE = "system-reserved", "kube-reserved"
COMPRESSIBLE = "-compressible"
LEVELS = (PODS, SYSTEM, KUBE, NONE, SYSTEM + COMPRESSIBLE, KUBE + COMPRESSIBLE)
SWAP_BEHAVIORS = ("", "LimitedSwap", "NoSwap")
_RESERVABLE = ("cpu", "memory", "ephemeral-storage", "pid")


@dataclass(frozen=True, slots=True)
class Enforcement:
    """A cgroup that is held to what was reserved for it."""

    kind: str
    """`system` or `kube`."""
    cgroup: str
    values: CgroupValues


def problems(config: KubeletConfig) -> list[str]:
    """What does not go together, in upstream's words."""
    found = []
    policy, scope = config.topology_manager_policy, config.topology_manager_scope
    if policy not in POLICIES:
        listed = " ".join(f'"{each}"' for each in POLICIES)
        found.append(f'topologyManagerPolicy (--topology-manager-policy) "{policy}" must be one of: [{listed}]')
    if scope not in SCOPES:
        found.append(f'topologyManagerScope (--topology-manager-scope) "{scope}" must be one of: "container", or "pod"')
    if config.swap_behavior not in SWAP_BEHAVIORS:
        found.append(f'memorySwap.swapBehavior "{config.swap_behavior}" must be one of: "", "LimitedSwap" or "NoSwap"')
    if config.swap_behavior == swap.LIMITED and not cgroup_v2():
        found.append("swap feature is enabled and LimitedSwap but it is only supported with cgroupv2")
    found += _enforcement_problems(config)
    if config.reserved_system_cpus:
        if config.system_reserved_cgroup or config.kube_reserved_cgroup:
            found.append(
                "can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) "
                "or kubeReservedCgroup (--kube-reserved-cgroup)"
            )
        try:
            cpusets.parse(config.reserved_system_cpus)
        except ValueError as error:
            found.append(
                f"unable to parse reservedSystemCPUs (--reserved-cpus) {config.reserved_system_cpus}, error: {error}"
            )
    return (
        found
        + _reservation_problems("system-reserved", config.system_reserved)
        + _reservation_problems("kube-reserved", config.kube_reserved)
    )


def _enforcement_problems(config: KubeletConfig) -> list[str]:
    levels, name = config.enforce_node_allocatable, "enforceNodeAllocatable (--enforce-node-allocatable)"
    found = []
    for kind in (SYSTEM, KUBE):
        if kind in levels and kind + COMPRESSIBLE in levels:
            found.append(f'both "{kind}" and "{kind}{COMPRESSIBLE}" cannot be specified together in {name}')
    for level in dict.fromkeys(levels):
        if levels.count(level) > 1:
            found.append(f'duplicated enforcements "{level}" in {name}')
        if level == NONE and len(levels) > 1:
            found.append(f'{name} may not contain additional enforcements when "{NONE}" is specified')
        if level not in LEVELS:
            *shown, last = (json.dumps(each) for each in LEVELS)
            found.append(f'option "{level}" specified for {name}. Valid options are {", ".join(shown)} or {last}')
        elif level != NONE and not config.cgroups_per_qos:
            found.append(f'cgroupsPerQOS (--cgroups-per-qos) must be set to true when "{level}" contained in {name}')
    for kind, cgroup, place in (
        (SYSTEM, config.system_reserved_cgroup, "systemReservedCgroup (--system-reserved-cgroup)"),
        (KUBE, config.kube_reserved_cgroup, "kubeReservedCgroup (--kube-reserved-cgroup)"),
    ):
        if not cgroup and (kind in levels or kind + COMPRESSIBLE in levels):
            found.append(f'{place} must be specified when "{kind}" or "{kind}{COMPRESSIBLE}" included in {name}')
    return found


def _reservation_problems(flag: str, listed: Mapping[str, str]) -> list[str]:
    found = []
    for name, text in listed.items():
        try:
            amount = quantity.parse(text)
        except quantity.QuantityError as error:
            found.append(f'--{flag} value failed to parse: failed to parse quantity "{text}" for "{name}": {error}')
            continue
        if name not in _RESERVABLE:
            found.append(f'--{flag} value failed to parse: cannot reserve "{name}" resource')
        elif amount.sign() < 0:
            found.append(f'--{flag} value failed to parse: resource quantity for "{name}" cannot be negative: {amount}')
    return found


def policy_of(config: KubeletConfig) -> tuple[Policy, Scope]:
    """Of the topology manager; `problems` has found that they are known."""
    policy = next(each for each in POLICIES if each == config.topology_manager_policy)
    return policy, next(each for each in SCOPES if each == config.topology_manager_scope)


def reserved_cpus(config: KubeletConfig, online: CpuSet) -> CpuSet:
    """Those that were named; ValueError when the machine has not all of them."""
    cpus = cpusets.parse(config.reserved_system_cpus)
    if not cpus <= online:
        raise ValueError(
            f"reserved-cpus: {config.reserved_system_cpus} is not a subset of online-cpus: {cpusets.shown(online)}"
        )
    return cpus


def reservations(config: KubeletConfig, eviction: Mapping[str, int] | None = None) -> Reservations:
    """`eviction`: bytes that hard eviction keeps free. Named CPUs override numbers of them."""
    named = cpusets.parse(config.reserved_system_cpus)
    if not named:
        return Reservations(config.system_reserved, config.kube_reserved, eviction or {})
    kube = {name: text for name, text in config.kube_reserved.items() if name != "cpu"}
    return Reservations({**config.system_reserved, "cpu": str(len(named))}, kube, eviction or {})


def reserved_amounts(reserved: Reservations) -> dict[str, Quantity]:
    names = {*reserved.system, *reserved.kube, *reserved.eviction}
    return {name: reserved.of(name) for name in names}


def pods_cgroup(config: KubeletConfig, capacity: Mapping[str, str], *, pids: int) -> CgroupValues:
    """What all pods together are held to: the node, less what is reserved (but not what eviction keeps free: that is
    for pods to use until it is short). `pids` is how many processes the machine can have."""
    kept = Reservations()
    if PODS in config.enforce_node_allocatable:
        kept = reservations(config)

    def left(name: str) -> Quantity:
        return max(quantity.parse(capacity.get(name, "0")) - kept.of(name), quantity.ZERO)

    reserved_pids = kept.of("pid").value()
    return CgroupValues(
        cpu_shares(left("cpu").milli_value()),
        memory=left("memory").value(),
        hugepages={name: left(name).value() for name in capacity if name.startswith("hugepages-")},
        pids=max(0, pids - reserved_pids) if reserved_pids else None,
    )


def enforcements(config: KubeletConfig) -> Sequence[Enforcement]:
    """The cgroups of the system and of Kubernetes itself, as far as they are to be held to their reservations."""
    levels, kept = config.enforce_node_allocatable, reservations(config)
    found = []
    for kind, cgroup, listed in (
        (SYSTEM, config.system_reserved_cgroup, kept.system),
        (KUBE, config.kube_reserved_cgroup, kept.kube),
    ):
        only_cpu = kind + COMPRESSIBLE in levels
        if kind in levels or only_cpu:
            found.append(Enforcement(kind.partition("-")[0], cgroup, _values(listed, only_cpu=only_cpu)))
    return found


def _values(listed: Mapping[str, str], *, only_cpu: bool) -> CgroupValues:
    amounts = {name: quantity.parse(text) for name, text in listed.items()}
    shares = cpu_shares(amounts["cpu"].milli_value()) if "cpu" in amounts else None
    if only_cpu:
        return CgroupValues(shares)
    return CgroupValues(
        shares,
        memory=amounts["memory"].value() if "memory" in amounts else None,
        pids=amounts["pid"].value() if "pid" in amounts else None,
    )


def overcommitted(capacity: Mapping[str, str], reserved: Reservations) -> str:
    """Why the node cannot be run like this; empty when it has at least what is reserved."""
    told = []
    for name, text in sorted(capacity.items()):
        kept = reserved.of(name)
        if kept > quantity.parse(text):
            told.append(
                f'Resource "{name}" has a reservation of {kept} but capacity of {text}. Expected capacity >= '
                "reservation."
            )
    return f"invalid Node Allocatable configuration. {' '.join(told)}" if told else ""
