"""`KubeSchedulerConfiguration` v1: read, checked and completed with defaults.

What is wrong is refused with the path of the field, all faults at once. Nothing is taken that has no effect, but for
the two fields that are about looking at some of the nodes only (`parallelism`, `percentageOfNodesToScore`): they are
checked, and all nodes are looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from shipwheel.api.errors import FieldError, FieldErrorType, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.client.flags import parse_duration

log = logging.getLogger(__name__)

API_VERSION = "kubescheduler.config.k8s.io/v1"
DEFAULT_NAME = "default-scheduler"
DEFAULT_PLUGINS: Mapping[str, int] = {
    "SchedulingGates": 0,
    "PrioritySort": 0,
    "NodeUnschedulable": 0,
    "NodeName": 0,
    "TaintToleration": 3,
    "NodeAffinity": 2,
    "NodePorts": 0,
    "NodeResourcesFit": 1,
    "VolumeRestrictions": 0,
    "NodeVolumeLimits": 0,
    "VolumeBinding": 0,
    "VolumeZone": 0,
    "PodTopologySpread": 2,
    "InterPodAffinity": 2,
    "DynamicResources": 2,
    "DefaultPreemption": 0,
    "NodeResourcesBalancedAllocation": 1,
    "ImageLocality": 1,
    "DefaultBinder": 0,
    "NodeDeclaredFeatures": 0,
}
"""In the order they run in, with their weights."""
POINTS = (
    "preEnqueue", "queueSort", "preFilter", "filter", "postFilter", "preScore", "score", "reserve", "permit", "preBind",
    "bind", "postBind", "multiPoint",
)  # fmt: skip


class ConfigurationError(ValueError):
    """The configuration cannot be used; says everything that is wrong with it."""

    def __init__(self, errors: Sequence[FieldError | str]) -> None:
        texts = [str(each) for each in errors]
        super().__init__(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")


@dataclass(frozen=True, slots=True)
class PluginSet:
    """What a profile says about one extension point: (name, weight), and names taken out (`*`: all)."""

    enabled: tuple[tuple[str, int], ...] = ()
    disabled: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileConfig:
    scheduler_name: str = DEFAULT_NAME
    plugins: Mapping[str, PluginSet] = field(default_factory=dict)
    """By extension point; `multiPoint` is about all of them."""
    args: Mapping[str, Obj] = field(default_factory=dict)
    """By plugin."""
    only: bool = False
    """`plugins` is all there is: nothing by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtenderConfig:
    """Times in seconds."""

    url_prefix: str
    filter_verb: str = ""
    prioritize_verb: str = ""
    bind_verb: str = ""
    preempt_verb: str = ""
    weight: int = 1
    node_cache_capable: bool = False
    ignorable: bool = False
    timeout: float = 5.0
    managed_resources: tuple[tuple[str, bool], ...] = ()
    """(resource, whether NodeResourcesFit is to ignore it)"""
    tls: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    profiles: tuple[ProfileConfig, ...] = (ProfileConfig(),)
    extenders: tuple[ExtenderConfig, ...] = ()
    initial_backoff: float = 1.0
    max_backoff: float = 10.0
    flags: Mapping[str, Any] = field(default_factory=dict)
    """What it says about what there are flags for as well, by the names of `SchedulerConfig`."""


def load(path: str, known: Mapping[str, set[str]]) -> Configuration:
    """The configuration in a file. `known` is every plugin there is with its extension points.

    ConfigurationError says what is wrong with it; OSError when it cannot be read.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ConfigurationError([f"{path}: {error}"]) from error
    return parse(content, known)


def parse(content: Any, known: Mapping[str, set[str]]) -> Configuration:
    """See `load`."""
    if not isinstance(content, dict):
        raise ConfigurationError(["the configuration must be an object"])
    if content.get("apiVersion") != API_VERSION or content.get("kind") != "KubeSchedulerConfiguration":
        kind, version = content.get("kind", ""), content.get("apiVersion", "")
        raise ConfigurationError([f'no kind "{kind}" is registered for version "{version}"'])
    reader = Reader()
    configuration = _configuration(reader, content, known)
    if reader.errors:
        raise ConfigurationError(reader.errors)
    return configuration


class Reader:
    """Takes fields out of an object, and takes note of what is wrong with them."""

    def __init__(self) -> None:
        self.errors: list[FieldError | str] = []

    def fields(self, value: Any, path: str, types: Mapping[str, type | tuple[type, ...]]) -> Obj:
        """The fields of an object that may have these, of these types."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.errors.append(invalid(path, value, "must be an object"))
            return {}
        found = {}
        for name, each in value.items():
            here = f"{path}.{name}" if path else str(name)
            if name not in types:
                self.errors.append(f'strict decoding error: unknown field "{here}"')
            elif each is None:
                continue
            elif not isinstance(each, types[name]) or (isinstance(each, bool) and types[name] is int):
                self.errors.append(FieldError(FieldErrorType.TYPE_INVALID, here, "is of the wrong type", each))
            else:
                found[name] = each
        return found

    def duration(self, value: str | None, path: str, default: float) -> float:
        try:
            return parse_duration(value) if value is not None else default
        except ValueError as error:
            self.errors.append(invalid(path, value, str(error)))
            return default


_NUMBER = (int, float)
_TOP: Mapping[str, Any] = {
    "apiVersion": str, "kind": str, "parallelism": int, "leaderElection": dict, "clientConnection": dict,
    "percentageOfNodesToScore": int, "podInitialBackoffSeconds": _NUMBER, "podMaxBackoffSeconds": _NUMBER,
    "profiles": list, "extenders": list, "enableProfiling": bool, "enableContentionProfiling": bool,
    "delayCacheUntilActive": bool,
}  # fmt: skip
_LEADER: Mapping[str, Any] = {
    "leaderElect": bool, "leaseDuration": str, "renewDeadline": str, "retryPeriod": str, "resourceLock": str,
    "resourceName": str, "resourceNamespace": str,
}  # fmt: skip
_CONNECTION: Mapping[str, Any] = {
    "kubeconfig": str, "acceptContentTypes": str, "contentType": str, "qps": _NUMBER, "burst": int,
}  # fmt: skip
_EXTENDER: Mapping[str, Any] = {
    "urlPrefix": str, "filterVerb": str, "preemptVerb": str, "prioritizeVerb": str, "weight": int, "bindVerb": str,
    "enableHTTPS": bool, "tlsConfig": dict, "httpTimeout": str, "nodeCacheCapable": bool, "managedResources": list,
    "ignorable": bool,
}  # fmt: skip
_TLS: Mapping[str, Any] = {
    "insecure": bool, "serverName": str, "certFile": str, "keyFile": str, "caFile": str, "certData": str,
    "keyData": str, "caData": str,
}  # fmt: skip


def _configuration(reader: Reader, content: Obj, known: Mapping[str, set[str]]) -> Configuration:
    given = reader.fields(content, "", _TOP)
    if given.get("parallelism", 16) <= 0:
        detail = "should be an integer value greater than zero"
        reader.errors.append(invalid("parallelism", given["parallelism"], detail))
    _percentage(reader, given.get("percentageOfNodesToScore"), "percentageOfNodesToScore")
    initial, most = given.get("podInitialBackoffSeconds", 1), given.get("podMaxBackoffSeconds", 10)
    if initial <= 0:
        reader.errors.append(invalid("podInitialBackoffSeconds", initial, "must be greater than 0"))
    if most < initial:
        detail = "must be greater than or equal to PodInitialBackoffSeconds"
        reader.errors.append(invalid("podMaxBackoffSeconds", most, detail))
    listed = given.get("profiles") or [{}]
    profiles = tuple(_profile(reader, each, f"profiles[{index}]", known) for index, each in enumerate(listed))
    _together(reader, profiles)
    return Configuration(
        profiles=profiles,
        extenders=_extenders(reader, given.get("extenders") or []),
        initial_backoff=float(initial),
        max_backoff=float(most),
        flags=_flags(reader, given),
    )


def _flags(reader: Reader, given: Obj) -> dict[str, Any]:
    leader = reader.fields(given.get("leaderElection"), "leaderElection", _LEADER)
    found: dict[str, Any] = {}
    for name, flag in (
        ("leaderElect", "leader_elect"),
        ("resourceName", "leader_elect_resource_name"),
        ("resourceNamespace", "leader_elect_resource_namespace"),
    ):
        if name in leader:
            found[flag] = leader[name]
    for name, flag in (
        ("leaseDuration", "leader_elect_lease_duration"),
        ("renewDeadline", "leader_elect_renew_deadline"),
        ("retryPeriod", "leader_elect_retry_period"),
    ):
        if name in leader:
            found[flag] = reader.duration(leader[name], f"leaderElection.{name}", 0.0)
    if leader.get("leaderElect", True) and leader.get("resourceLock", "leases") != "leases":
        path = "leaderElection.resourceLock"
        reader.errors.append(invalid(path, leader["resourceLock"], 'resourceLock value must be "leases"'))
    connection = reader.fields(given.get("clientConnection"), "clientConnection", _CONNECTION)
    _tell_of_what_is_not_there(given, connection)
    for name, flag in (("kubeconfig", "kubeconfig"), ("qps", "kube_api_qps"), ("burst", "kube_api_burst")):
        if name in connection:
            found[flag] = connection[name]
    return found


def _tell_of_what_is_not_there(given: Obj, connection: Obj) -> None:
    """Upstream's own tools write these out, with its defaults; so they are no reason to refuse a file."""
    for name in ("enableProfiling", "enableContentionProfiling"):
        if given.get(name):
            log.warning("%s has no effect: there are no profiling handlers", name)
    if connection.get("contentType", "application/json") not in ("", "application/json"):
        log.warning("clientConnection.contentType has no effect: requests are always JSON")


def _percentage(reader: Reader, value: int | None, path: str) -> None:
    if value is not None and not 0 <= value <= 100:
        reader.errors.append(invalid(path, value, "not in valid range [0-100]"))


def _together(reader: Reader, profiles: Sequence[ProfileConfig]) -> None:
    """Names are unique, and all pods are in one queue."""
    seen: dict[str, int] = {}
    for index, profile in enumerate(profiles):
        first = seen.setdefault(profile.scheduler_name, index)
        if first != index:
            path = f"profiles[{index}].schedulerName"
            reader.errors.append(FieldError(FieldErrorType.DUPLICATE, path, value=f"profiles[{first}].schedulerName"))
        if profile.plugins.get("queueSort", PluginSet()) != profiles[0].plugins.get("queueSort", PluginSet()):
            reader.errors.append(
                invalid(f"profiles[{index}].plugins.queueSort", "", "must be the same for all profiles")
            )


def _profile(reader: Reader, value: Any, path: str, known: Mapping[str, set[str]]) -> ProfileConfig:
    from shipwheel.scheduler.pluginargs import check

    types = {"schedulerName": str, "percentageOfNodesToScore": int, "plugins": dict, "pluginConfig": list}
    given = reader.fields(value, path, types)
    name = given.get("schedulerName", DEFAULT_NAME)
    if not name:
        reader.errors.append(required(f"{path}.schedulerName"))
    _percentage(reader, given.get("percentageOfNodesToScore"), f"{path}.percentageOfNodesToScore")
    points = reader.fields(given.get("plugins"), f"{path}.plugins", dict.fromkeys(POINTS, dict))
    plugins = {
        point: _plugin_set(reader, each, f"{path}.plugins.{point}", point, known) for point, each in points.items()
    }
    args: dict[str, Obj] = {}
    for index, each in enumerate(given.get("pluginConfig") or ()):
        here = f"{path}.pluginConfig[{index}]"
        entry = reader.fields(each, here, {"name": str, "args": dict})
        plugin = entry.get("name", "")
        if plugin in args:
            reader.errors.append(FieldError(FieldErrorType.DUPLICATE, here, value=plugin))
        elif plugin not in known:
            reader.errors.append(not_supported(f"{here}.name", plugin, sorted(known)))
        else:
            args[plugin] = {key: value for key, value in (entry.get("args") or {}).items() if value is not None}
            reader.errors += check(plugin, args[plugin], f"{here}.args")
    return ProfileConfig(scheduler_name=name, plugins=plugins, args=args)


def _plugin_set(reader: Reader, value: Any, path: str, point: str, known: Mapping[str, set[str]]) -> PluginSet:
    given = reader.fields(value, path, {"enabled": list, "disabled": list})
    enabled: list[tuple[str, int]] = []
    for index, each in enumerate(given.get("enabled") or ()):
        here = f"{path}.enabled[{index}]"
        plugin = reader.fields(each, here, {"name": str, "weight": int})
        name, weight = plugin.get("name", ""), plugin.get("weight", 0)
        if name not in known:
            reader.errors.append(not_supported(f"{here}.name", name, sorted(known)))
        elif point != "multiPoint" and point not in known[name]:
            reader.errors.append(invalid(f"{here}.name", name, f"the plugin does not extend {point}"))
        elif name in dict(enabled):
            reader.errors.append(FieldError(FieldErrorType.DUPLICATE, f"{here}.name", value=name))
        if weight < 0:
            reader.errors.append(invalid(f"{here}.weight", weight, "must not be negative"))
        enabled.append((name, weight))
    disabled = set()
    for index, each in enumerate(given.get("disabled") or ()):
        here = f"{path}.disabled[{index}]"
        name = reader.fields(each, here, {"name": str, "weight": int}).get("name", "")
        if name != "*" and name not in known:
            reader.errors.append(not_supported(f"{here}.name", name, ["*", *sorted(known)]))
        disabled.add(name)
    if point == "queueSort" and len(enabled) > 1:
        reader.errors.append(invalid(f"{path}.enabled", len(enabled), "only one queue sort plugin can be enabled"))
    return PluginSet(tuple(enabled), frozenset(disabled))


def _extenders(reader: Reader, values: Sequence[Any]) -> tuple[ExtenderConfig, ...]:
    found = tuple(extender(reader, each, f"extenders[{index}]") for index, each in enumerate(values))
    binders = sum(bool(each.bind_verb) for each in found)
    if binders > 1:
        value = f"found {binders} extenders implementing bind"
        reader.errors.append(invalid("extenders", value, "only one extender can implement bind"))
    managed: set[str] = set()
    for index, each in enumerate(found):
        for place, (resource, _) in enumerate(each.managed_resources):
            if resource in managed:
                path = f"extenders[{index}].managedResources[{place}].name"
                reader.errors.append(invalid(path, resource, "duplicate extender managed resource name"))
            managed.add(resource)
    return found


def extender(reader: Reader, value: Any, path: str) -> ExtenderConfig:
    """One extender."""
    given = reader.fields(value, path, _EXTENDER)
    if not given.get("urlPrefix"):
        reader.errors.append(required(f"{path}.urlPrefix"))
    weight = given.get("weight", 0)
    if given.get("prioritizeVerb") and weight <= 0:
        reader.errors.append(invalid(f"{path}.weight", weight, "must have a positive weight applied to it"))
    managed = []
    for index, each in enumerate(given.get("managedResources") or ()):
        here = f"{path}.managedResources[{index}]"
        resource = reader.fields(each, here, {"name": str, "ignoredByScheduler": bool})
        name = resource.get("name", "")
        if "/" not in name or name.split("/")[0].endswith("kubernetes.io"):
            reader.errors.append(invalid(f"{here}.name", name, "is an invalid extended resource name"))
        managed.append((name, resource.get("ignoredByScheduler", False)))
    prefix = given.get("urlPrefix", "")
    if given.get("enableHTTPS") and prefix.startswith("http://"):
        prefix = "https://" + prefix.removeprefix("http://")
    return ExtenderConfig(
        url_prefix=prefix.rstrip("/"),
        filter_verb=given.get("filterVerb", ""),
        prioritize_verb=given.get("prioritizeVerb", ""),
        bind_verb=given.get("bindVerb", ""),
        preempt_verb=given.get("preemptVerb", ""),
        weight=weight,
        node_cache_capable=given.get("nodeCacheCapable", False),
        ignorable=given.get("ignorable", False),
        timeout=reader.duration(given.get("httpTimeout"), f"{path}.httpTimeout", 5.0) or 5.0,
        managed_resources=tuple(managed),
        tls=reader.fields(given.get("tlsConfig"), f"{path}.tlsConfig", _TLS),
    )


def resolve(profile: ProfileConfig, known: Mapping[str, set[str]]) -> dict[str, list[tuple[str, int]]]:
    """The plugins of a profile at each extension point, in order, with their weights.

    What an extension point says itself comes first (KEP-2787, "multiPoint"): its own plugins are in the place that
    the multi-point gave them, or behind all others; it may take any out, and give another weight.
    """
    everywhere = _merge(
        PluginSet() if profile.only else PluginSet(tuple(DEFAULT_PLUGINS.items())),
        profile.plugins.get("multiPoint", PluginSet()),
        known,
    )
    found: dict[str, list[tuple[str, int]]] = {}
    for point in POINTS[:-1]:
        own = profile.plugins.get(point, PluginSet())
        named = dict(own.enabled)
        chosen = []
        for name, weight in everywhere:
            if point not in known[name]:
                continue
            if name in named:
                chosen.append((name, named.pop(name) or weight or 1))
            elif name not in own.disabled and "*" not in own.disabled:
                chosen.append((name, weight or 1))
        chosen += [(name, weight or 1) for name, weight in own.enabled if name in named and point in known[name]]
        if chosen:
            found[point] = chosen
    return found


def _merge(base: PluginSet, change: PluginSet, known: Mapping[str, set[str]]) -> list[tuple[str, int]]:
    """The base without what is disabled; enabled ones replace theirs in place, or are added."""
    named = dict(change.enabled)
    merged = []
    for name, weight in base.enabled:
        if name not in known:
            continue
        if name in named:
            merged.append((name, named.pop(name) or weight))
        elif name not in change.disabled and "*" not in change.disabled:
            merged.append((name, weight))
    return merged + list(named.items())


def file_flags(path: str) -> Mapping[str, Any]:
    """What a configuration file says about the client and leader election, before any plugin is loaded."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ConfigurationError([f"{path}: {error}"]) from error
    reader = Reader()
    found = _flags(reader, reader.fields(content, "", _TOP)) if isinstance(content, dict) else {}
    if reader.errors:
        raise ConfigurationError(reader.errors)
    return found
