"""The kubelet's runtime types as CRI messages, and back. Pure functions.

proto3 leaves zero values off the wire, so whatever is read has a default here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shipwheel.kubelet.runtime.base import (
    Container,
    ContainerConfig,
    FilesystemUsage,
    Image,
    ImageCredentials,
    LinuxResources,
    Mount,
    NamespaceModes,
    Sandbox,
    SandboxConfig,
    SecurityProfile,
    Usage,
)

Wire = dict[str, Any]


# --- What is sent


def sandbox_config(config: SandboxConfig) -> Wire:
    return {
        "metadata": {
            "name": config.name,
            "uid": config.uid,
            "namespace": config.namespace,
            "attempt": config.attempt,
        },
        "hostname": config.hostname,
        "log_directory": config.log_directory,
        "dns_config": {
            "servers": config.dns_servers,
            "searches": config.dns_searches,
            "options": config.dns_options,
        },
        "port_mappings": [
            {
                "protocol": each.protocol,
                "container_port": each.container_port,
                "host_port": each.host_port,
                "host_ip": each.host_ip,
            }
            for each in config.port_mappings
        ],
        "labels": config.labels,
        "annotations": config.annotations,
        "linux": {
            "cgroup_parent": config.cgroup_parent,
            "sysctls": config.sysctls,
            "security_context": {
                "namespace_options": namespace_options(config.namespaces),
                "selinux_options": config.selinux,
                "run_as_user": _number(config.run_as_user),
                "run_as_group": _number(config.run_as_group),
                "readonly_rootfs": config.readonly_rootfs,
                "supplemental_groups": config.supplemental_groups,
                "privileged": config.privileged,
                "seccomp": _profile(config.seccomp),
            },
        },
    }


def container_config(config: ContainerConfig) -> Wire:
    return {
        "metadata": {"name": config.name, "attempt": config.attempt},
        "image": {"image": config.image, "user_specified_image": config.user_specified_image},
        "command": config.command,
        "args": config.args,
        "working_dir": config.working_dir,
        "envs": [{"key": name, "value": value.encode("utf-8", "surrogateescape")} for name, value in config.env],
        "mounts": [_mount(each, config.namespaces) for each in config.mounts],
        "devices": [
            {
                "container_path": each.container_path,
                "host_path": each.host_path,
                "permissions": each.permissions,
            }
            for each in config.devices
        ],
        "CDI_devices": [{"name": each} for each in config.cdi_devices],
        "labels": config.labels,
        "annotations": config.annotations,
        "log_path": config.log_path,
        "stdin": config.stdin,
        "stdin_once": config.stdin_once,
        "tty": config.tty,
        "linux": {
            "resources": linux_resources(config.resources),
            "security_context": {
                "capabilities": {
                    "add_capabilities": config.add_capabilities,
                    "drop_capabilities": config.drop_capabilities,
                },
                "privileged": config.privileged,
                "namespace_options": namespace_options(config.namespaces),
                "selinux_options": config.selinux,
                "run_as_user": _number(config.run_as_user),
                "run_as_group": _number(config.run_as_group),
                "run_as_username": config.run_as_username,
                "readonly_rootfs": config.readonly_rootfs,
                "supplemental_groups": config.supplemental_groups,
                "supplemental_groups_policy": config.supplemental_groups_policy,
                "no_new_privs": config.no_new_privs,
                "masked_paths": config.masked_paths,
                "readonly_paths": config.readonly_paths,
                "seccomp": _profile(config.seccomp),
                "apparmor": _profile(config.apparmor),
            },
        },
        "stop_signal": config.stop_signal or None,
    }


def linux_resources(resources: LinuxResources) -> Wire:
    return {
        "cpu_period": resources.cpu_period,
        "cpu_quota": resources.cpu_quota,
        "cpu_shares": resources.cpu_shares,
        "memory_limit_in_bytes": resources.memory_limit_bytes,
        "oom_score_adj": resources.oom_score_adj,
        "cpuset_cpus": resources.cpuset_cpus,
        "cpuset_mems": resources.cpuset_mems,
        "hugepage_limits": [{"page_size": size, "limit": limit} for size, limit in resources.hugepage_limits.items()],
        "unified": resources.unified,
        "memory_swap_limit_in_bytes": resources.memory_swap_limit_bytes,
    }


def namespace_options(modes: NamespaceModes) -> Wire:
    options: Wire = {
        "network": modes.network,
        "pid": modes.pid,
        "ipc": modes.ipc,
        "target_id": modes.target_id,
    }
    if modes.user == "POD":
        options["userns_options"] = {
            "mode": "POD",
            "uids": [_mapping(each) for each in modes.uid_mappings],
            "gids": [_mapping(each) for each in modes.gid_mappings],
        }
    return options


def credentials(given: ImageCredentials | None) -> Wire | None:
    if given is None:
        return None
    return {
        "username": given.username,
        "password": given.password,
        "auth": given.auth,
        "server_address": given.server_address,
        "identity_token": given.identity_token,
        "registry_token": given.registry_token,
    }


def _number(value: int | None) -> Wire | None:
    return None if value is None else {"value": value}


def _mapping(mapping: tuple[int, int, int]) -> Wire:
    host, container, length = mapping
    return {"host_id": host, "container_id": container, "length": length}


def _profile(profile: SecurityProfile | None) -> Wire | None:
    if profile is None:
        return None
    return {"profile_type": profile.kind, "localhost_ref": profile.localhost_ref}


def _mount(mount: Mount, modes: NamespaceModes) -> Wire:
    return {
        "uidMappings": [_mapping(each) for each in modes.uid_mappings],
        "gidMappings": [_mapping(each) for each in modes.gid_mappings],
        "container_path": mount.container_path,
        "host_path": mount.host_path,
        "readonly": mount.readonly,
        "selinux_relabel": mount.selinux_relabel,
        "propagation": "PROPAGATION_" + mount.propagation,
        "recursive_read_only": mount.recursive_read_only,
        "image": {"image": mount.image} if mount.image else None,
        "image_sub_path": mount.image_sub_path,
    }


# --- What is read


def sandbox(wire: Wire) -> Sandbox:
    """From a list's `PodSandbox` or a status's `PodSandboxStatus`."""
    metadata = wire.get("metadata", {})
    network = wire.get("network", {})
    ips = [network["ip"], *(each.get("ip", "") for each in network.get("additional_ips", ()))] if (
        network.get("ip")
    ) else []  # fmt: skip
    options = wire.get("linux", {}).get("namespaces", {}).get("options", {})
    return Sandbox(
        id=wire.get("id", ""),
        name=metadata.get("name", ""),
        namespace=metadata.get("namespace", ""),
        uid=metadata.get("uid", ""),
        attempt=metadata.get("attempt", 0),
        ready=wire.get("state", "SANDBOX_READY") == "SANDBOX_READY",
        created_at=wire.get("created_at", 0),
        labels=wire.get("labels", {}),
        annotations=wire.get("annotations", {}),
        runtime_handler=wire.get("runtime_handler", ""),
        ips=ips,
        namespaces=NamespaceModes(
            network=options.get("network", "POD"),
            pid=options.get("pid", "POD"),
            ipc=options.get("ipc", "POD"),
            target_id=options.get("target_id", ""),
        ),
    )


def container(wire: Wire, *, sandbox_id: str = "") -> Container:
    """From a list's `Container` or a status's `ContainerStatus` (which does not name its sandbox)."""
    metadata = wire.get("metadata", {})
    resources = wire.get("resources", {}).get("linux")
    user = wire.get("user", {}).get("linux")
    return Container(
        id=wire.get("id", ""),
        sandbox_id=wire.get("pod_sandbox_id", sandbox_id),
        name=metadata.get("name", ""),
        attempt=metadata.get("attempt", 0),
        image=wire.get("image", {}).get("image", ""),
        image_ref=wire.get("image_ref", ""),
        state=_named(wire.get("state", "CONTAINER_CREATED"), "CONTAINER_", "UNKNOWN"),
        created_at=wire.get("created_at", 0),
        labels=wire.get("labels", {}),
        annotations=wire.get("annotations", {}),
        started_at=_time(wire.get("started_at", 0)),
        finished_at=_time(wire.get("finished_at", 0)),
        exit_code=wire.get("exit_code", 0),
        reason=wire.get("reason", ""),
        message=wire.get("message", ""),
        log_path=wire.get("log_path", ""),
        image_id=wire.get("image_id", ""),
        mounts=[_read_mount(each) for each in wire.get("mounts", ())],
        resources=_read_resources(resources) if resources else None,
        user=(user.get("uid", 0), user.get("gid", 0), user.get("supplemental_groups", [])) if user else None,
    )


def _named(value: str | int, prefix: str, otherwise: Any) -> Any:
    """An enumeration's value without its prefix; a number that has no name is what `otherwise` says."""
    return value.removeprefix(prefix) if isinstance(value, str) else otherwise


def _time(nanoseconds: int) -> int:
    """Go's zero time, far before 1970, also means that it has not happened."""
    return max(nanoseconds, 0)


def _read_mount(wire: Wire) -> Mount:
    return Mount(
        container_path=wire.get("container_path", ""),
        host_path=wire.get("host_path", ""),
        readonly=wire.get("readonly", False),
        propagation=_named(wire.get("propagation", "PROPAGATION_PRIVATE"), "PROPAGATION_", "PRIVATE"),
        selinux_relabel=wire.get("selinux_relabel", False),
        image=wire.get("image", {}).get("image", ""),
        image_sub_path=wire.get("image_sub_path", ""),
        recursive_read_only=wire.get("recursive_read_only", False),
    )


def _read_resources(wire: Wire) -> LinuxResources:
    return LinuxResources(
        cpu_period=wire.get("cpu_period", 0),
        cpu_quota=wire.get("cpu_quota", 0),
        cpu_shares=wire.get("cpu_shares", 0),
        memory_limit_bytes=wire.get("memory_limit_in_bytes", 0),
        oom_score_adj=wire.get("oom_score_adj", 0),
        cpuset_cpus=wire.get("cpuset_cpus", ""),
        cpuset_mems=wire.get("cpuset_mems", ""),
        hugepage_limits={each.get("page_size", ""): each.get("limit", 0) for each in wire.get("hugepage_limits", ())},
        unified=wire.get("unified", {}),
        memory_swap_limit_bytes=wire.get("memory_swap_limit_in_bytes", 0),
    )


def image(wire: Wire) -> Image:
    return Image(
        id=wire.get("id", ""),
        repo_tags=wire.get("repo_tags", []),
        repo_digests=wire.get("repo_digests", []),
        size=wire.get("size", 0),
        uid=wire["uid"].get("value", 0) if "uid" in wire else None,
        username=wire.get("username", ""),
        pinned=wire.get("pinned", False),
    )


def usage(wire: Wire) -> Usage:
    cpu, memory, layer = wire.get("cpu", {}), wire.get("memory", {}), wire.get("writable_layer", {})
    return Usage(
        id=wire.get("attributes", {}).get("id", ""),
        timestamp=cpu.get("timestamp", 0),
        cpu_nanoseconds=_value(cpu, "usage_core_nano_seconds"),
        memory_working_set=_value(memory, "working_set_bytes"),
        memory_usage=_value(memory, "usage_bytes"),
        memory_rss=_value(memory, "rss_bytes"),
        page_faults=_value(memory, "page_faults"),
        major_page_faults=_value(memory, "major_page_faults"),
        filesystem_bytes=_value(layer, "used_bytes"),
        filesystem_inodes=_value(layer, "inodes_used"),
    )


def filesystem(wire: Wire) -> FilesystemUsage:
    return FilesystemUsage(
        mountpoint=wire.get("fs_id", {}).get("mountpoint", ""),
        timestamp=wire.get("timestamp", 0),
        used_bytes=_value(wire, "used_bytes"),
        inodes_used=_value(wire, "inodes_used"),
    )


def _value(wire: Mapping[str, Any], name: str) -> int:
    return wire.get(name, {}).get("value", 0)
