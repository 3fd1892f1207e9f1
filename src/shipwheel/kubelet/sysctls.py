"""Kernel parameters that a pod may set: the safe ones, and those that the node's administrator allows.

A parameter is safe when it concerns the pod's own namespaces alone and cannot harm the node. With the host's namespace
it would set the host's own, so it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from shipwheel.api.meta import Obj

SAFE = frozenset({
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
})  # fmt: skip
_IPC = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
_NETWORK = ("net.",)
REASON = "SysctlForbidden"


def refusal(pod: Obj, allowed: Sequence[str]) -> str:
    """Why the pod's sysctls are refused; empty when they are not. `allowed` are names, or patterns that end in `*`."""
    spec = pod["spec"]
    for each in (spec.get("securityContext") or {}).get("sysctls") or ():
        name = each["name"].replace("/", ".")
        if name not in SAFE and not any(_matches(pattern.replace("/", "."), name) for pattern in allowed):
            return f'forbidden sysctl: "{each["name"]}" not allowlisted'
        if spec.get("hostNetwork") and name.startswith(_NETWORK):
            return f'forbidden sysctl: "{each["name"]}" not allowed with host net enabled'
        if spec.get("hostIPC") and name.startswith(_IPC):
            return f'forbidden sysctl: "{each["name"]}" not allowed with host ipc enabled'
    return ""


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
