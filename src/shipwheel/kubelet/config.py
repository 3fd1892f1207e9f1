"""The kubelet's settings: `KubeletConfiguration` files (v1beta1) and flags, upstream's names and defaults.

The settings are declared in `settings`, what upstream has and we do not in `fixed_settings`; a name that nobody knows
is refused. A file overrides the defaults, drop-ins override the file as merge patches (RFC 7386), one after another by
their paths, and flags override them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.api.names import is_qualified_name, is_valid_label_value
from shipwheel.api.patch import apply_merge_patch
from shipwheel.client import features
from shipwheel.client.fixed_flags import is_zero, refusal
from shipwheel.client.flags import LOG_FLAGS, Flag, format_duration, parse_duration
from shipwheel.kinds.core.nodelabels import KUBELET_LABELS, KUBELET_PREFIXES, may_label
from shipwheel.kubelet import fixed_settings, node_allocatable
from shipwheel.kubelet.pull_records import POLICIES
from shipwheel.kubelet.settings import KubeletConfig
from shipwheel.kubelet.thresholds import HARD_DEFAULTS, Threshold, ThresholdError, parse_thresholds

KIND, VERSION = "KubeletConfiguration", "kubelet.config.k8s.io/v1beta1"


class ConfigError(Exception):
    """The settings cannot be used; the message says which and why."""


_SETTINGS = {each.name: each for each in dataclasses.fields(KubeletConfig)}
_BY_FILE = {each.metadata["file"]: each for each in _SETTINGS.values() if each.metadata["file"]}
_BY_FLAG = {each.metadata["flag"]: each for each in _SETTINGS.values() if each.metadata["flag"]}


_DEPRECATED = (
    "This parameter should be set via the config file specified by the Kubelet's --config flag. See "
    "https://kubernetes.io/docs/tasks/administer-cluster/kubelet-config-file/ for more information."
)
_NOT_DEPRECATED = ("provider-id", "fail-cgroupv1", "seccomp-default")


def _flag(setting: dataclasses.Field[Any]) -> Flag:
    default: Any = setting.default
    if default is dataclasses.MISSING and callable(setting.default_factory):
        default = setting.default_factory()
    name, kind = setting.metadata["flag"], setting.metadata["kind"]
    if kind == "thresholds":
        kind, default = "string", ",".join(f"{signal}<{amount}" for signal, amount in default.items())
    elif kind == "memory":
        kind, default = "string", ""
    if kind == "headers":
        kind, default = "stringSlice", ()
    in_file = setting.metadata["file"] and name not in _NOT_DEPRECATED
    return Flag(name, kind, default, setting.metadata["help"], deprecated=_DEPRECATED if in_file else "")


FLAGS: tuple[Flag, ...] = (
    Flag("config", "string", "", "The Kubelet will load its initial configuration from this file."),
    Flag("config-dir", "string", "", "Path to a directory with drop-ins (*.conf) that override the file."),
    *(_flag(each) for each in _BY_FLAG.values()),
    *(each.as_flag(deprecated=_DEPRECATED if each.file else "") for each in fixed_settings.BY_FLAG.values()),
    *LOG_FLAGS,
)


def from_flags(values: Mapping[str, Any], given: Iterable[str] = ()) -> KubeletConfig:
    """The settings of a command line, and of the file that `--config` names. ConfigError when a file is wrong."""
    config = KubeletConfig()
    if values.get("config"):
        config = load(Path(values["config"]), config)
    if values.get("config-dir"):
        config = merge_directory(Path(values["config-dir"]), config)
    chosen = set(given) or {name for name in values if name in _BY_FLAG}
    changes = {}
    for name in values:
        if name in _BY_FLAG and name in chosen:
            changes[_BY_FLAG[name].name] = _from_flag(_BY_FLAG[name], values[name])
        elif name in fixed_settings.BY_FLAG and name in chosen:
            _refuse_other(f"--{name}", values[name], fixed_settings.BY_FLAG[name].default)
    return dataclasses.replace(config, **changes)


def _refuse_other(name: str, value: Any, only: Any) -> None:
    if why := refusal(name, value, only):
        raise ConfigError(why)


def _from_flag(setting: dataclasses.Field[Any], value: Any) -> Any:
    if setting.name == "register_with_taints":
        return tuple(parse_taint(each) for each in value)
    if setting.metadata["kind"] == "thresholds":
        return _thresholds(value)
    if setting.metadata["kind"] == "headers":
        return _headers(value)
    if setting.metadata["kind"] == "memory":
        return _memory(value)
    return tuple(value) if isinstance(value, list) else value


def _thresholds(text: str) -> dict[str, str]:
    """`memory.available<1Gi,nodefs.available<10%`."""
    found = {}
    for part in filter(None, text.split(",")):
        signal, less, amount = part.partition("<")
        if not less:
            raise ConfigError(f"malformed pair, expect string<string: {part}")
        found[signal.strip()] = amount.strip()
    return found


def _headers(pairs: Iterable[str]) -> dict[str, list[str]]:
    """`name:value`; a name may be given several times."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon:
            raise ConfigError(f"malformed pair, expect string:string: {pair}")
        found.setdefault(name.strip(), []).append(value.strip())
    return found


def _memory(text: str) -> tuple[Obj, ...]:
    """`0:memory=1Gi,hugepages-1Gi=2Gi;1:memory=2Gi`."""
    found = []
    for part in filter(None, text.split(";")):
        node, colon, rest = part.partition(":")
        limits = dict(each.partition("=")[::2] for each in rest.split(","))
        if not colon or not node.isdigit() or not all(limits.values()):
            raise ConfigError(
                "the reserved memory has incorrect format, expected numaNodeID:type=quantity[,type=quantity...], "
                f"got {part}"
            )
        found.append({"numaNode": int(node), "limits": limits})
    return tuple(found)


def parse_taint(text: str) -> Obj:
    """`key=value:effect`."""
    if not isinstance(text, str):
        return text
    key_value, _, effect = text.rpartition(":")
    key, _, value = key_value.partition("=")
    if not key or effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
        raise ConfigError(f'invalid taint spec: {text}, invalid taint effect: "{effect}"')
    taint = {"key": key, "effect": effect}
    return {**taint, "value": value} if value else taint


def load(path: Path, base: KubeletConfig | None = None) -> KubeletConfig:
    """Read a KubeletConfiguration file over `base`; relative paths in it are relative to it."""
    try:
        return from_object(_read(path), base, directory=path.parent)
    except ConfigError as error:
        raise ConfigError(f"failed to load kubelet config file, path: {path}, error: {error}") from error


def merge_directory(directory: Path, base: KubeletConfig) -> KubeletConfig:
    """`base`, with what the `*.conf` files at and below a directory change. ConfigError when one is wrong."""
    if not directory.is_dir():
        raise ConfigError(
            f'failed to walk through kubelet dropin directory "{directory}": lstat {directory}: '
            "no such file or directory"
        )
    merged = to_object(base)
    for path in sorted(directory.rglob("*.conf"), key=lambda each: each.parts):
        try:
            change = _read(path)
            if not change.get("kind") or not change.get("apiVersion"):
                raise ConfigError("no apiVersion/kind")
            if (change["apiVersion"], change["kind"]) != (VERSION, KIND):
                raise ConfigError(f"unknown apiVersion/kind: {change['apiVersion']}, Kind={change['kind']}")
            from_object(change)
        except ConfigError as error:
            raise ConfigError(f"failed to load kubelet dropin file, path: {path}, error: {error}") from error
        merged = apply_merge_patch(merged, change)
    return from_object(merged)


def _read(path: Path) -> Obj:
    import yaml

    try:
        obj = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f'failed to read kubelet config file "{path}", error: {error.strerror}') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(error)) from error
    if not isinstance(obj, dict):
        raise ConfigError("it is no object")
    return obj


def from_object(obj: Obj, base: KubeletConfig | None = None, *, directory: Path | None = None) -> KubeletConfig:
    kind, version = obj.get("kind"), obj.get("apiVersion")
    if (version, kind) != (VERSION, KIND):
        raise ConfigError(f'no kind "{kind}" is registered for version "{version}"')
    changes: dict[str, Any] = {}
    unknown: list[str] = []
    for place, value in _leaves(obj):
        if place in ("kind", "apiVersion"):
            continue
        setting = _BY_FILE.get(place)
        if setting is not None and _is_unset(setting, place, value):
            continue
        if setting is not None:
            changes[setting.name] = _from_file(setting, place, value, directory)
        elif place in fixed_settings.BY_FILE:
            # Upstream's own tools write what is not set as zero.
            _refuse_other(place, value, value if is_zero(value) else fixed_settings.BY_FILE[place].value)
        else:
            unknown.append(f'unknown field "{place}"')
    if unknown:
        raise ConfigError(f"strict decoding error: {', '.join(unknown)}")
    return dataclasses.replace(base or KubeletConfig(), **changes)


def to_object(config: KubeletConfig) -> Obj:
    """The settings as a KubeletConfiguration."""
    obj: Obj = {"kind": KIND, "apiVersion": VERSION}
    obj |= {place: fixed.value for place, fixed in fixed_settings.BY_FILE.items() if fixed.value}
    for place, setting in _BY_FILE.items():
        value = getattr(config, setting.name)
        if value is None:
            continue
        if setting.metadata["kind"] == "duration":
            value = format_duration(value)
        elif isinstance(value, tuple):
            value = list(value)
        *parents, name = place.split(".")
        part = obj
        for parent in parents:
            part = part.setdefault(parent, {})
        part[name] = value
    return obj


def _leaves(obj: Obj, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(path, value) of everything that is set; maps that are values themselves are not taken apart."""
    for key, value in obj.items():
        place = f"{prefix}{key}"
        if value is None:
            continue
        if isinstance(value, dict) and place not in _BY_FILE and place not in fixed_settings.BY_FILE:
            yield from _leaves(value, f"{place}.")
        else:
            yield place, value


def _from_file(setting: dataclasses.Field[Any], place: str, value: Any, directory: Path | None) -> Any:
    kind = setting.metadata["kind"]
    try:
        match kind:
            case "duration":
                return _seconds(value)
            case "int" if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError("it is no whole number")
            case "bool" if not isinstance(value, bool):
                raise ValueError("it is neither true nor false")
            case "string" | "ip" if not isinstance(value, str):
                raise ValueError("it is no string")
            case "stringSlice" | "memory":
                return tuple(value)
            case "mapStringBool" if all(isinstance(each, bool) for each in value.values()):
                return dict(value)
            case "mapStringBool":
                raise ValueError("its values are neither true nor false")
            case "mapStringString" | "thresholds" | "headers":
                return {str(key): each if isinstance(each, list) else str(each) for key, each in value.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{place}: Invalid value: {value!r}: {error}") from error
    is_path = setting.name in ("static_pod_path", "tls_cert_file", "tls_private_key_file", "client_ca_file")
    if is_path and value and directory is not None:
        return str(directory / value)
    return value


_MEANT_ZERO = frozenset(
    (
        "containerLogMaxFiles",
        "containerLogMaxWorkers",
        "eventRecordQPS",
        "healthzPort",
        "imageGCHighThresholdPercent",
        "imageGCLowThresholdPercent",
        "kubeAPIQPS",
        "maxParallelImagePulls",
        "nodeStatusMaxImages",
        "oomScoreAdj",
        "podPidsLimit",
        "registryPullQPS",
        "resolvConf",
        "userNamespaces.idsPerPod",
    )
)
"""Where a zero is a choice (a pointer in upstream's type). Elsewhere it is what Go writes for what was not set."""


def _is_unset(setting: dataclasses.Field[Any], place: str, value: Any) -> bool:
    scalar = setting.metadata["kind"] in ("duration", "int", "string", "ip")
    return scalar and place not in _MEANT_ZERO and is_zero(value)


def _seconds(value: Any) -> float:
    """Go's `1h30m`, `20s`, `100ms`."""
    return parse_duration(str(value)) if value != 0 else 0.0


def thresholds_of(config: KubeletConfig) -> tuple[Threshold, ...]:
    """The eviction thresholds; ConfigError when one makes no sense."""
    hard = dict(config.eviction_hard)
    if config.merge_default_eviction_settings:
        hard = {**HARD_DEFAULTS, **hard}
    try:
        return parse_thresholds(
            hard,
            config.eviction_soft,
            config.eviction_soft_grace_period,
            config.eviction_minimum_reclaim,
            allocatable=node_allocatable.PODS in config.enforce_node_allocatable,
        )
    except ThresholdError as error:
        raise ConfigError(str(error)) from error


def validate(config: KubeletConfig) -> None:
    """ConfigError for what does not go together, in upstream's words."""
    _check_labels(config.node_labels)
    problems = node_allocatable.problems(config)
    thresholds_of(config)
    if why := features.refusal(config.feature_gates):
        problems.append(why)
    if not 0 <= config.image_gc_high <= 100:
        problems.append(
            f"imageGCHighThresholdPercent (--image-gc-high-threshold) {config.image_gc_high} "
            "must be between 0 and 100, inclusive"
        )
    if not 0 <= config.image_gc_low <= 100:
        problems.append(
            f"imageGCLowThresholdPercent (--image-gc-low-threshold) {config.image_gc_low} "
            "must be between 0 and 100, inclusive"
        )
    if config.image_gc_low >= config.image_gc_high:
        problems.append(
            f"imageGCLowThresholdPercent (--image-gc-low-threshold) {config.image_gc_low} must be less than "
            f"imageGCHighThresholdPercent (--image-gc-high-threshold) {config.image_gc_high}"
        )
    if not -1000 <= config.oom_score_adj <= 1000:
        problems.append(
            f"oomScoreAdj (--oom-score-adj) {config.oom_score_adj} must be between -1000 and 1000, inclusive"
        )
    for name, flag, value in (
        ("registryPullQPS", "registry-qps", config.registry_pull_qps),
        ("registryBurst", "registry-burst", config.registry_burst),
        ("eventRecordQPS", "event-qps", config.event_record_qps),
        ("eventBurst", "event-burst", config.event_burst),
        ("maxOpenFiles", "max-open-files", config.max_open_files),
    ):
        if value < 0:
            problems.append(f"{name} (--{flag}) {value} must not be a negative number")
    if config.container_log_max_files < 2:
        problems.append("containerLogMaxFiles must be greater than 1")
    if config.container_log_max_workers < 1:
        problems.append("containerLogMaxWorkers must be greater than or equal to 1")
    if config.container_log_monitor_interval < 3:
        problems.append("containerLogMonitorInterval must be a positive time duration greater than or equal to 3s")
    if config.image_pull_verification not in POLICIES:
        problems.append(
            f'option "{config.image_pull_verification}" specified for imagePullCredentialsVerificationPolicy. '
            f"Valid options are {', '.join(POLICIES)}"
        )
    if config.preloaded_images and config.image_pull_verification != "NeverVerifyAllowlistedImages":
        problems.append(
            "can't set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVerificationPolicy` is not "
            '"NeverVerifyAllowlistedImages"'
        )
    if config.cloud_provider not in ("", "external"):
        problems.append(f'unsupported cloud provider "{config.cloud_provider}"')
    if config.max_pods < 0:
        problems.append(f"maxPods (--max-pods) {config.max_pods} must not be a negative number")
    if config.node_lease_duration_seconds <= 0:
        problems.append("nodeLeaseDurationSeconds must be greater than 0")
    if not 0 < config.port < 65536:
        problems.append(f"port (--port) {config.port} must be between 1 and 65535, inclusive")
    if not 0 <= config.healthz_port < 65536:
        problems.append(f"healthzPort (--healthz-port) {config.healthz_port} must be between 1 and 65535, inclusive")
    if config.serialize_image_pulls and config.max_parallel_image_pulls > 1:
        problems.append(
            f"maxParallelImagePulls {config.max_parallel_image_pulls} cannot be larger than 1 unless "
            "SerializeImagePulls (--serialize-image-pulls) set to false"
        )
    problems += _shutdown_problems(config)
    if config.authorization_mode not in ("Webhook", "AlwaysAllow"):
        problems.append(f"unknown authorization-mode {config.authorization_mode}")
    if problems:
        raise ConfigError(
            f"failed to validate kubelet configuration, error: [invalid configuration: {', '.join(problems)}]"
        )


def _check_labels(labels: Mapping[str, str]) -> None:
    unknown = [key for key in labels if not may_label(key)]
    if unknown:
        raise ConfigError(
            f"unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [{' '.join(sorted(unknown))}]\n"
            f"--node-labels in the 'kubernetes.io' namespace must begin with an allowed prefix "
            f"({', '.join(KUBELET_PREFIXES)}) or be in the specifically allowed set ({', '.join(KUBELET_LABELS)})"
        )
    wrong = [(key, is_qualified_name(key)) for key in labels]
    wrong += [(value, is_valid_label_value(value)) for value in labels.values()]
    described = [f"'{text}' - {', '.join(complaints)}" for text, complaints in wrong if complaints]
    if described:
        raise ConfigError(f"invalid node labels: {'; '.join(described)}")


def _shutdown_problems(config: KubeletConfig) -> Iterable[str]:
    whole, critical = config.shutdown_grace_period, config.shutdown_grace_period_critical_pods
    shown, shown_critical = format_duration(whole), format_duration(critical)
    if critical > whole:
        yield f"shutdownGracePeriodCriticalPods {{{shown_critical}}} must be <= shutdownGracePeriod {{{shown}}}"
    if whole and whole < 1:
        yield f"shutdownGracePeriod {{{shown}}} must be either zero or otherwise >= 1 sec"
    if critical and critical < 1:
        yield f"shutdownGracePeriodCriticalPods {{{shown_critical}}} must be either zero or otherwise >= 1 sec"
    if config.shutdown_grace_period_by_pod_priority and (whole or critical):
        yield "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time"
