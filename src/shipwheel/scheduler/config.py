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
    authentication_kubeconfig: str = ""
    authorization_kubeconfig: str = ""
    kube_api_qps: float = 50
    kube_api_burst: int = 100
    bind_address: str = "0.0.0.0"
    address: str = "0.0.0.0"
    """The old name of `bind_address`."""
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
    config: str = ""
    policy_config_file: str = ""
    scheduler_name: str = "default-scheduler"
    """The pods it is for, `spec.schedulerName`, where no configuration says it."""
    pod_max_in_unschedulable_pods_duration: float = 300.0
    seed: int = -1
    """Where nodes are equally good, one is chosen at random; the same seed makes the same choices. -1: any."""


_HELP = {
    "kubeconfig": "Path to kubeconfig file with authorization and master location information.",
    "authentication-kubeconfig": "kubeconfig to ask the API server with who a token is of.  [default: --kubeconfig]",
    "authorization-kubeconfig": "kubeconfig to ask the API server with who may read.  [default: --kubeconfig]",
    "kube-api-qps": "QPS to use while talking with kubernetes apiserver. If negative, there is no limit.",
    "leader-elect": "Start a leader election client and gain leadership before executing the main loop.",
    "secure-port": "The port on which to serve HTTPS. If 0, don't serve HTTPS at all.",
    "scheduler-name": "Schedule the pods whose spec.schedulerName is this.",
    "config": "The path to the configuration file (KubeSchedulerConfiguration, kubescheduler.config.k8s.io/v1).",
    "policy-config-file": "File with scheduler policy configuration (kind Policy, predicates and priorities).",
    "pod-max-in-unschedulable-pods-duration": "The maximum time a pod can stay in unschedulablePods.",
    "seed": "Seed of the choice among nodes that score the same; -1 takes any.",
}
_DEPRECATED = {
    "address": "use --bind-address instead.",
    "policy-config-file": "use --config instead.",
    "scheduler-name": "use --config instead.",
}


def _flag(name: str, default: Any) -> Flag:
    dashed = name.replace("_", "-")
    kind: Any = {bool: "bool", int: "int", float: "float", str: "string", tuple: "stringSlice"}[type(default)]
    if dashed.endswith(("-duration", "-deadline", "-period")):
        kind = "duration"
    said = _HELP.get(dashed, f"The {dashed.replace('-', ' ')}.")
    return Flag(dashed, kind, default, said, deprecated=_DEPRECATED.get(dashed, ""))


FLAGS: tuple[Flag, ...] = (*(_flag(field.name, field.default) for field in fields(SchedulerConfig)), *LOG_FLAGS)


def from_flags(values: Mapping[str, Any]) -> SchedulerConfig:
    """The configuration that flags mean. What a file given with `--config` says about the same wins, as upstream.

    ConfigurationError (a ValueError) when it cannot be used; OSError when it cannot be read.
    """
    config = SchedulerConfig(**{field.name: values[field.name.replace("_", "-")] for field in fields(SchedulerConfig)})
    changes: dict[str, Any] = {}
    if config.address != "0.0.0.0":
        changes["bind_address"] = config.address
    if config.config:
        from shipwheel.scheduler.configuration import file_flags

        changes.update(file_flags(config.config))
    return SchedulerConfig(**{field.name: getattr(config, field.name) for field in fields(config)} | changes)
