"""From a pod to what the runtime is told: the sandbox and each container, as pure functions.

Labels and annotations carry whatever is needed to stop a container properly when its pod's object is gone, so that
a kubelet that was restarted in between still can. They are upstream's, so that either kubelet can take over from the
other.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from shipwheel.api.meta import Obj, annotations_of, labels_of
from shipwheel.kubelet import observed, podspec, resources, security, swap
from shipwheel.kubelet.dns import Resolver
from shipwheel.kubelet.expansion import expand
from shipwheel.kubelet.runtime.base import (
    ContainerConfig,
    Device,
    Image,
    LinuxResources,
    Mount,
    PortMapping,
    SandboxConfig,
    SecurityProfile,
)


class ConfigFault(Exception):
    """The container cannot be made as it is specified (CreateContainerConfigError)."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the node contributes to every container."""

    memory_capacity: int
    """Bytes."""
    pod_logs: str = "/var/log/pods"
    seccomp_root: str = "/var/lib/kubelet/seccomp"
    seccomp_default: bool = False
    enforce_cpu: bool = True
    cpu_period: int = resources.DEFAULT_PERIOD
    cgroup_v2: bool = False
    single_process_oom_kill: bool = True
    minimum_oom_score: int = -1000
    """The lowest score that the kernel lets us set."""
    swap: int | None = None
    """Bytes that containers share; None where swap is not limited by container."""


def pod_log_directory(root: str, pod: Obj) -> str:
    meta = pod["metadata"]
    return posixpath.join(root, f"{meta['namespace']}_{meta['name']}_{meta['uid']}")


def sandbox_config(
    pod: Obj,
    node: NodeSettings,
    *,
    attempt: int,
    hostname: str,
    resolver: Resolver,
    cgroup_parent: str,
    extra_groups: Sequence[int] = (),
    ids: security.IdRange | None = None,
) -> SandboxConfig:
    meta = pod["metadata"]
    context = pod["spec"].get("securityContext") or {}
    return SandboxConfig(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        attempt=attempt,
        hostname="" if podspec.is_host_network(pod) else hostname,
        log_directory=pod_log_directory(node.pod_logs, pod),
        dns_servers=resolver.servers,
        dns_searches=resolver.searches,
        dns_options=resolver.options,
        port_mappings=_port_mappings(pod),
        labels={
            **labels_of(pod),
            observed.POD_NAME: meta["name"],
            observed.POD_NAMESPACE: meta["namespace"],
            observed.POD_UID: meta["uid"],
        },
        annotations=annotations_of(pod),
        cgroup_parent=cgroup_parent,
        sysctls={each["name"].replace("/", "."): each["value"] for each in context.get("sysctls") or ()},
        namespaces=security.namespaces(pod, ids=ids),
        run_as_user=context.get("runAsUser"),
        run_as_group=context.get("runAsGroup"),
        supplemental_groups=security.supplementary_groups(pod, extra_groups),
        privileged=security.has_privileged(pod),
        seccomp=SecurityProfile("RuntimeDefault"),
        selinux=security.selinux(context),
    )


def _port_mappings(pod: Obj) -> tuple[PortMapping, ...]:
    mappings = []
    for container in podspec.containers(pod):
        seen: set[str] = set()
        for port in container.get("ports") or ():
            protocol: Literal["TCP", "UDP", "SCTP"] = port.get("protocol") or "TCP"
            host_ip, host_port = port.get("hostIP", ""), port.get("hostPort", 0)
            family = ("v6" if ":" in host_ip else "v4") if host_ip else "any"
            name = port.get("name") or f"{family}-{protocol}-{host_ip}:{port['containerPort']}:{host_port}"
            if name not in seen:
                seen.add(name)
                mappings.append(PortMapping(protocol, port["containerPort"], host_port, host_ip))
    return tuple(mappings)


@dataclass(frozen=True, slots=True)
class Start:
    """What is known when a container is about to be made."""

    attempt: int
    image_ref: str
    image: Image | None
    env: Mapping[str, str]
    mounts: Sequence[Mount] = ()
    devices: Sequence[Device] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    """What device plugins add."""
    extra_groups: Sequence[int] = ()
    target_id: str = ""
    ids: security.IdRange | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cdi_devices: Sequence[str] = ()
    own_cpus: bool = False
    """It has CPUs for itself alone, and all of their time."""


def container_config(pod: Obj, container: Obj, node: NodeSettings, start: Start) -> ContainerConfig:
    """ConfigFault when it may not run as specified."""
    image_uid = start.image.uid if start.image else None
    image_user = start.image.username if start.image else ""
    context = security.effective(pod, container)
    try:
        security.verify_non_root(pod, container, image_uid, image_user)
        seccomp = security.seccomp(pod, container, node.seccomp_root, default=node.seccomp_default)
    except security.SecurityFault as fault:
        raise ConfigFault(str(fault)) from fault
    user = context.get("runAsUser")
    own_user = user is not None
    capabilities = context.get("capabilities") or {}
    unmasked = context.get("procMount") == "Unmasked"
    return ContainerConfig(
        name=container["name"],
        attempt=start.attempt,
        image=start.image_ref,
        user_specified_image=container["image"],
        command=tuple(expand(each, start.env) for each in container.get("command") or ()),
        args=tuple(expand(each, start.env) for each in container.get("args") or ()),
        working_dir=container.get("workingDir", ""),
        env=tuple(start.env.items()),
        mounts=tuple(start.mounts),
        devices=tuple(start.devices),
        cdi_devices=tuple(start.cdi_devices),
        labels=_labels(pod, container),
        annotations={**start.annotations, **_annotations(pod, container, start.attempt)},
        log_path=f"{container['name']}/{start.attempt}.log",
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        resources=linux_resources(
            pod,
            container,
            node,
            cpuset_cpus=start.cpuset_cpus,
            cpuset_mems=start.cpuset_mems,
            own_cpus=start.own_cpus,
        ),
        namespaces=security.namespaces(pod, target_id=start.target_id, ids=start.ids),
        run_as_user=user if own_user else image_uid,
        run_as_username="" if own_user else image_user,
        run_as_group=context.get("runAsGroup"),
        supplemental_groups=security.supplementary_groups(pod, start.extra_groups),
        supplemental_groups_policy=security.groups_policy(pod),
        privileged=bool(context.get("privileged")),
        readonly_rootfs=bool(context.get("readOnlyRootFilesystem")),
        no_new_privs=context.get("allowPrivilegeEscalation") is False,
        add_capabilities=tuple(capabilities.get("add") or ()),
        drop_capabilities=tuple(capabilities.get("drop") or ()),
        seccomp=seccomp,
        apparmor=security.apparmor(pod, container),
        selinux=security.selinux(context),
        masked_paths=() if unmasked else security.MASKED_PATHS,
        readonly_paths=() if unmasked else security.READONLY_PATHS,
        stop_signal=(container.get("lifecycle") or {}).get("stopSignal", ""),
    )


def linux_resources(
    pod: Obj,
    container: Obj,
    node: NodeSettings,
    *,
    cpuset_cpus: str = "",
    cpuset_mems: str = "",
    own_cpus: bool = False,
) -> LinuxResources:
    """The numbers of the container's cgroup."""
    shares, quota, period = resources.container_cpu(pod, container, enforce=node.enforce_cpu, period=node.cpu_period)
    if own_cpus and node.enforce_cpu:
        quota = -1
    unified = {}
    if node.cgroup_v2 and not node.single_process_oom_kill:
        unified["memory.oom.group"] = "1"
    if node.cgroup_v2 and node.swap is not None:
        allowed = swap.allowance(pod, container, memory=node.memory_capacity, swap=node.swap)
        unified[swap.FILE] = str(allowed)
    return LinuxResources(
        cpu_period=period,
        cpu_quota=quota,
        cpu_shares=shares,
        memory_limit_bytes=resources.effective_limit(pod, container, "memory").value(),
        oom_score_adj=max(node.minimum_oom_score, resources.oom_score(pod, container, node.memory_capacity)),
        cpuset_cpus=cpuset_cpus,
        cpuset_mems=cpuset_mems,
        hugepage_limits={
            name.removeprefix("hugepages-"): amount.value()
            for name, amount in resources.limits_of(container).items()
            if name.startswith("hugepages-")
        },
        unified=unified,
    )


def _labels(pod: Obj, container: Obj) -> dict[str, str]:
    meta = pod["metadata"]
    return {
        observed.POD_NAME: meta["name"],
        observed.POD_NAMESPACE: meta["namespace"],
        observed.POD_UID: meta["uid"],
        observed.CONTAINER_NAME: container["name"],
    }


def _annotations(pod: Obj, container: Obj, attempt: int) -> dict[str, str]:
    made = {
        observed.CONTAINER_HASH: podspec.container_hash(container),
        observed.RESTART_COUNT: str(attempt),
        observed.MESSAGE_PATH: container.get("terminationMessagePath", ""),
        observed.MESSAGE_POLICY: container.get("terminationMessagePolicy", ""),
    }
    deletion = pod["metadata"].get("deletionGracePeriodSeconds")
    if deletion is not None:
        made[observed.POD_DELETION_GRACE] = str(deletion)
    grace = pod["spec"].get("terminationGracePeriodSeconds")
    if grace is not None:
        made[observed.POD_GRACE] = str(grace)
    pre_stop = (container.get("lifecycle") or {}).get("preStop")
    if pre_stop:
        made[observed.PRE_STOP] = json.dumps(pre_stop, separators=(",", ":"))
    if container.get("ports"):
        made[observed.PORTS] = json.dumps(container["ports"], separators=(",", ":"))
    return made


def restored(labels: Mapping[str, str], annotations: Mapping[str, str]) -> tuple[Obj, Obj]:
    """(pod, container) as far as a running container's own labels and annotations tell: enough to stop it when
    its pod's object is gone."""
    container: Obj = {"name": labels.get(observed.CONTAINER_NAME, ""), "image": ""}
    if annotations.get(observed.PRE_STOP):
        container["lifecycle"] = {"preStop": json.loads(annotations[observed.PRE_STOP])}
    if annotations.get(observed.PORTS):
        container["ports"] = json.loads(annotations[observed.PORTS])
    meta: Obj = {
        "name": labels.get(observed.POD_NAME, ""),
        "namespace": labels.get(observed.POD_NAMESPACE, ""),
        "uid": labels.get(observed.POD_UID, ""),
    }
    spec: Obj = {"containers": [container]}
    if observed.POD_DELETION_GRACE in annotations:
        meta["deletionGracePeriodSeconds"] = int(annotations[observed.POD_DELETION_GRACE])
    if observed.POD_GRACE in annotations:
        spec["terminationGracePeriodSeconds"] = int(annotations[observed.POD_GRACE])
    return {"metadata": meta, "spec": spec}, container
