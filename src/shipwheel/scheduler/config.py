"""The scheduler's flags, under upstream's names, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from shipwheel.client.flags import LOG_FLAGS, Flag


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Each field is the flag of its name; times are in seconds."""

    kubeconfig: str = ""
    kube_api_qps: float = 50
    kube_api_burst: int = 100
    bind_address: str = "0.0.0.0"
    secure_port: int = 10259
    tls_cert_file: str = ""
    tls_private_key_file: str = ""
    client_ca_file: str = ""
    authorization_always_allow_paths: tuple[str, ...] = ("/healthz", "/readyz", "/livez")
    leader_elect: bool = True
    leader_elect_lease_duration: float = 15.0
    leader_elect_renew_deadline: float = 10.0
    leader_elect_retry_period: float = 2.0
    leader_elect_resource_name: str = "kube-scheduler"
    leader_elect_resource_namespace: str = "kube-system"
    scheduler_name: str = "default-scheduler"
    """The pods it is for: those whose `spec.schedulerName` this is."""


_HELP = {
    "kubeconfig": "Path to kubeconfig file with authorization and master location information.",
    "leader-elect": "Start a leader election client and gain leadership before executing the main loop.",
    "secure-port": "The port on which to serve HTTPS. If 0, don't serve HTTPS at all.",
    "scheduler-name": "Schedule the pods whose spec.schedulerName is this.",
}


def _flag(name: str, default: Any) -> Flag:
    dashed = name.replace("_", "-")
    kind: Any = {bool: "bool", int: "int", float: "float", str: "string", tuple: "stringSlice"}[type(default)]
    if dashed.endswith(("-duration", "-deadline", "-period")):
        kind = "duration"
    return Flag(dashed, kind, default, _HELP.get(dashed, f"The {dashed.replace('-', ' ')}."))


FLAGS: tuple[Flag, ...] = (*(_flag(field.name, field.default) for field in fields(SchedulerConfig)), *LOG_FLAGS)


def from_flags(values: Mapping[str, Any]) -> SchedulerConfig:
    """The configuration that flags mean."""
    return SchedulerConfig(**{field.name: values[field.name.replace("_", "-")] for field in fields(SchedulerConfig)})
