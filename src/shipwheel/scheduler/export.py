"""The configuration as a file: `--write-config-to`. Reading what was written comes to the same configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.client.flags import format_duration
from shipwheel.scheduler.config import SchedulerConfig
from shipwheel.scheduler.configuration import (
    API_VERSION,
    DEFAULT_PLUGINS,
    Configuration,
    ExtenderConfig,
    PluginSet,
    ProfileConfig,
)


def to_object(config: SchedulerConfig, configuration: Configuration, known: Mapping[str, set[str]]) -> Obj:
    """A KubeSchedulerConfiguration of what flags say, and of what files that they name do. `known` is every plugin
    there is with its extension points."""
    return {
        "apiVersion": API_VERSION,
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {
            "acceptContentTypes": "",
            "burst": config.kube_api_burst,
            "contentType": "application/json",
            "kubeconfig": config.kubeconfig,
            "qps": config.kube_api_qps,
        },
        "enableContentionProfiling": False,
        "enableProfiling": False,
        **({"extenders": [_extender(each) for each in configuration.extenders]} if configuration.extenders else {}),
        "leaderElection": {
            "leaderElect": config.leader_elect,
            "leaseDuration": format_duration(config.leader_elect_lease_duration),
            "renewDeadline": format_duration(config.leader_elect_renew_deadline),
            "resourceLock": "leases",
            "resourceName": config.leader_elect_resource_name,
            "resourceNamespace": config.leader_elect_resource_namespace,
            "retryPeriod": format_duration(config.leader_elect_retry_period),
        },
        "podInitialBackoffSeconds": _whole(configuration.initial_backoff),
        "podMaxBackoffSeconds": _whole(configuration.max_backoff),
        "profiles": [_profile(each, known) for each in configuration.profiles],
    }


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def _profile(profile: ProfileConfig, known: Mapping[str, set[str]]) -> Obj:
    plugins = {
        # A policy names all plugins of a rule, at points that some of them know nothing of.
        point: _plugins(
            PluginSet(
                tuple(each for each in chosen.enabled if point in (*known[each[0]], "multiPoint")), chosen.disabled
            )
        )
        for point, chosen in profile.plugins.items()
    }
    if profile.only:
        plugins["multiPoint"] = {**plugins.get("multiPoint", {}), "disabled": [{"name": "*"}]}
    elif "multiPoint" not in plugins:
        plugins["multiPoint"] = _plugins(PluginSet(tuple(DEFAULT_PLUGINS.items())))
    found: Obj = {"schedulerName": profile.scheduler_name, "plugins": plugins}
    if profile.args:
        found["pluginConfig"] = [{"name": name, "args": dict(args)} for name, args in profile.args.items()]
    return found


def _plugins(chosen: PluginSet) -> Obj:
    found: Obj = {}
    if chosen.enabled:
        found["enabled"] = [{"name": name, **({"weight": weight} if weight else {})} for name, weight in chosen.enabled]
    if chosen.disabled:
        found["disabled"] = [{"name": name} for name in sorted(chosen.disabled)]
    return found


def _extender(extender: ExtenderConfig) -> Obj:
    found: dict[str, Any] = {
        "urlPrefix": extender.url_prefix,
        "filterVerb": extender.filter_verb,
        "prioritizeVerb": extender.prioritize_verb,
        "bindVerb": extender.bind_verb,
        "preemptVerb": extender.preempt_verb,
        "weight": extender.weight,
        "nodeCacheCapable": extender.node_cache_capable,
        "ignorable": extender.ignorable,
        "httpTimeout": format_duration(extender.timeout),
        "managedResources": [
            {"name": name, "ignoredByScheduler": ignored} for name, ignored in extender.managed_resources
        ],
        "tlsConfig": dict(extender.tls),
    }
    return {key: value for key, value in found.items() if value}
