"""The scheduler's flags, under upstream's names, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from shipwheel.client import features, serving_flags
from shipwheel.client.fixed_flags import Fixed, check
from shipwheel.client.flags import LOG_FLAGS, Flag
from shipwheel.client.serving import ServingConfig

NAME = "kube-scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Each field is the flag of its name; times are in seconds."""

    kubeconfig: str = ""
    master: str = ""
    kube_api_qps: float = 50
    kube_api_burst: int = 100
    leader_elect: bool = True
    leader_elect_lease_duration: float = 15.0
    leader_elect_renew_deadline: float = 10.0
    leader_elect_retry_period: float = 2.0
    leader_elect_resource_name: str = "kube-scheduler"
    leader_elect_resource_namespace: str = "kube-system"
    config: str = ""
    write_config_to: str = ""
    policy_config_file: str = ""
    scheduler_name: str = "default-scheduler"
    """The pods it is for, `spec.schedulerName`, where no configuration says it."""
    pod_max_in_unschedulable_pods_duration: float = 300.0
    seed: int = -1
    """Where nodes are equally good, one is chosen at random; the same seed makes the same choices. -1: any."""
    serving: ServingConfig = field(default_factory=lambda: ServingConfig(port=10259, name=NAME))
    disabled_metrics: tuple[str, ...] = ()


_HELP = {
    "kubeconfig": "Path to kubeconfig file with authorization and master location information.",
    "master": "Address of the API server (overrides the one in the kubeconfig).",
    "kube-api-qps": "QPS to use while talking with kubernetes apiserver. If negative, there is no limit.",
    "leader-elect": "Start a leader election client and gain leadership before executing the main loop.",
    "scheduler-name": "Schedule the pods whose spec.schedulerName is this.",
    "config": "The path to the configuration file (KubeSchedulerConfiguration, kubescheduler.config.k8s.io/v1).",
    "write-config-to": "Write the configuration to this file and exit.",
    "policy-config-file": "File with scheduler policy configuration (kind Policy, predicates and priorities).",
    "pod-max-in-unschedulable-pods-duration": "The maximum time a pod can stay in unschedulablePods.",
    "seed": "Seed of the choice among nodes that score the same; -1 takes any.",
}
_DEPRECATED = {
    "policy-config-file": "use --config instead.",
    "scheduler-name": "use --config instead.",
}
_FIXED = (
    *serving_flags.FIXED,
    Fixed("", "unsupported-kube-api-over-localhost", "bool", False),
)
_OWN = [each for each in fields(SchedulerConfig) if each.name not in ("serving", "disabled_metrics")]


def _flag(name: str, default: Any) -> Flag:
    dashed = name.replace("_", "-")
    kind: Any = {bool: "bool", int: "int", float: "float", str: "string"}[type(default)]
    if dashed.endswith(("-duration", "-deadline", "-period")):
        kind = "duration"
    said = _HELP.get(dashed, f"The {dashed.replace('-', ' ')}.")
    return Flag(dashed, kind, default, said, deprecated=_DEPRECATED.get(dashed, ""))


FLAGS: tuple[Flag, ...] = (
    *(_flag(each.name, each.default) for each in _OWN),
    Flag("address", "ip", "0.0.0.0", "The old name of --bind-address.", deprecated="use --bind-address instead."),
    *serving_flags.flags(10259),
    *(each.as_flag() for each in _FIXED if each not in serving_flags.FIXED),
    *LOG_FLAGS,
)


def from_flags(values: Mapping[str, Any]) -> SchedulerConfig:
    """The configuration that flags mean. What a file given with `--config` says about the same wins, as upstream.

    ConfigurationError (a ValueError) when it cannot be used; OSError when it cannot be read.
    """
    check(_FIXED, values)
    features.check(values["feature-gates"])
    if values["address"] != "0.0.0.0":
        values = {**values, "bind-address": values["address"]}
    config = SchedulerConfig(
        **{each.name: values[each.name.replace("_", "-")] for each in _OWN},
        serving=serving_flags.from_flags(values, NAME),
        disabled_metrics=values["disabled-metrics"],
    )
    if not config.config:
        return config
    from shipwheel.scheduler.configuration import file_flags

    return replace(config, **file_flags(config.config))
