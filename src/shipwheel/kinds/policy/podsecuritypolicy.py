"""Pod security policies: what pods may be, as it was said until release 1.25."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from shipwheel.api.errors import FieldError, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.columns import NAME, dig
from shipwheel.kinds.declare import older

_ALL = "*"
_RULES = {
    "seLinux": ("MustRunAs", "RunAsAny"),
    "runAsUser": ("MustRunAs", "MustRunAsNonRoot", "RunAsAny"),
    "runAsGroup": ("MayRunAs", "MustRunAs", "RunAsAny"),
    "supplementalGroups": ("MayRunAs", "MustRunAs", "RunAsAny"),
    "fsGroup": ("MayRunAs", "MustRunAs", "RunAsAny"),
}
_WANTED = ("seLinux", "runAsUser", "supplementalGroups", "fsGroup")
_VOLUMES = (
    "*", "awsElasticBlockStore", "azureDisk", "azureFile", "cephFS", "cinder", "configMap", "csi", "downwardAPI",
    "emptyDir", "ephemeral", "fc", "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "hostPath",
    "iscsi", "nfs", "persistentVolumeClaim", "photonPersistentDisk", "portworxVolume", "projected", "quobyte", "rbd",
    "scaleIO", "secret", "storageos", "vsphereVolume", "none",
)  # fmt: skip
_PROC_MOUNTS = ("Default", "Unmasked")
_SYSCTL_PATTERN = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*([a-z0-9][-_a-z0-9]*)?[a-z0-9*]"
_is_sysctl_pattern = re.compile(_SYSCTL_PATTERN).fullmatch
_MAX_SYSCTL = 253


class PodSecurityPolicyStrategy(Strategy):
    allow_unconditional_update = True
    tracks_generation = False

    def default(self, policy: Obj) -> None:
        spec = policy.setdefault("spec", {})
        if spec.get("allowPrivilegeEscalation") is None:
            spec["allowPrivilegeEscalation"] = True

    def validate(self, policy: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = policy["spec"]
        for field, rules in _RULES.items():
            _check_rule(spec.get(field), rules, f"spec.{field}", errors, wanted=field in _WANTED)
        for index, volume in enumerate(spec.get("volumes") or ()):
            if volume not in _VOLUMES:
                errors.append(not_supported(f"spec.volumes[{index}]", volume, _VOLUMES))
        _check_capabilities(spec, errors)
        _check_escalation(spec, errors)
        for index, each in enumerate(spec.get("allowedHostPaths") or ()):
            _check_host_path(each.get("pathPrefix", ""), f"spec.allowedHostPaths[{index}]", errors)
        for index, ports in enumerate(spec.get("hostPorts") or ()):
            _check_range(ports, 0, 65535, f"spec.hostPorts[{index}]", errors)
        for index, kind in enumerate(spec.get("allowedProcMountTypes") or ()):
            if kind not in _PROC_MOUNTS:
                errors.append(not_supported(f"spec.allowedProcMountTypes[{index}]", kind, _PROC_MOUNTS))
        _check_sysctls(spec, errors)
        for field in ("allowedFlexVolumes", "allowedCSIDrivers"):
            key = "driver" if field == "allowedFlexVolumes" else "name"
            for index, each in enumerate(spec.get(field) or ()):
                if not each.get(key):
                    detail = "must specify a driver" if key == "driver" else ""
                    errors.append(required(f"spec.{field}[{index}].{key}", detail))
        return errors


def _check_rule(options: Obj | None, rules: Sequence[str], path: str, errors: Errors, *, wanted: bool) -> None:
    if options is None and not wanted:
        return
    rule = (options or {}).get("rule", "")
    if rule not in rules:
        errors.append(not_supported(f"{path}.rule", rule, tuple(rules)))
    for index, ids in enumerate((options or {}).get("ranges") or ()):
        _check_range(ids, 0, None, f"{path}.ranges[{index}]", errors)


def _check_range(ids: Obj, low: int, high: int | None, path: str, errors: Errors) -> None:
    start, end = ids.get("min", 0), ids.get("max", 0)
    if start < low or (high is not None and start > high):
        errors.append(invalid(f"{path}.min", start, "min is invalid" if high else "min cannot be negative"))
    if end < low or (high is not None and end > high):
        errors.append(invalid(f"{path}.max", end, "max is invalid" if high else "max cannot be negative"))
    if start > end:
        errors.append(invalid(f"{path}.min", start, "min cannot be greater than max"))


def _check_capabilities(spec: Obj, errors: Errors) -> None:
    dropped, added, allowed = (
        spec.get(field) or [] for field in ("requiredDropCapabilities", "defaultAddCapabilities", "allowedCapabilities")
    )
    if _ALL in dropped and _ALL in allowed:
        detail = "must be empty when all capabilities are allowed by a wildcard"
        errors.append(invalid("spec.requiredDropCapabilities", dropped, detail))
    for field, capabilities in (("defaultAddCapabilities", added), ("allowedCapabilities", allowed)):
        for capability in capabilities:
            if capability in dropped:
                detail = f"capability is listed in {field} and requiredDropCapabilities"
                errors.append(invalid(f"spec.{field}", capability, detail))


def _check_escalation(spec: Obj, errors: Errors) -> None:
    if spec.get("defaultAllowPrivilegeEscalation") and not spec.get("allowPrivilegeEscalation"):
        detail = (
            "Cannot set DefaultAllowPrivilegeEscalation to true without also setting AllowPrivilegeEscalation to true"
        )
        errors.append(invalid("spec.defaultAllowPrivilegeEscalation", True, detail))


def _check_host_path(prefix: str, path: str, errors: Errors) -> None:
    if not prefix:
        errors.append(required(path, "is required"))
    elif ".." in prefix.split("/"):
        errors.append(invalid(path, prefix, "must not contain '..'"))


def _check_sysctls(spec: Obj, errors: Errors) -> None:
    allowed, forbidden = spec.get("allowedUnsafeSysctls") or [], spec.get("forbiddenSysctls") or []
    for field, patterns in (("allowedUnsafeSysctls", allowed), ("forbiddenSysctls", forbidden)):
        for index, pattern in enumerate(patterns):
            path = f"spec.{field}[{index}]"
            if not pattern:
                errors.append(invalid(path, pattern, "empty sysctl not allowed"))
            elif len(pattern) > _MAX_SYSCTL or not _is_sysctl_pattern(pattern):
                detail = f"must have at most {_MAX_SYSCTL} characters and match regex ^{_SYSCTL_PATTERN}$"
                errors.append(invalid(path, pattern, detail))
    for index, pattern in enumerate(allowed):
        if pattern in forbidden:
            detail = f"sysctl overlaps with {pattern}"
            errors.append(invalid(f"spec.allowedUnsafeSysctls[{index}]", pattern, detail))


def _rule(field: str) -> Column:
    names = {"seLinux": "SELinux", "runAsUser": "RunAsUser", "fsGroup": "FsGroup", "supplementalGroups": "SupGroup"}

    def value(policy: Obj, now: datetime) -> str:
        return dig(policy, "spec", field, "rule") or ""

    return Column(names[field], value)


RESOURCES = (
    Resource(
        kind="PodSecurityPolicy",
        plural="podsecuritypolicies",
        singular="podsecuritypolicy",
        short_names=("psp",),
        namespaced=False,
        versions=(
            older("policy", "v1beta1", "PodSecurityPolicy", since="1.21", until="1.25"),
            older(
                "extensions", "v1beta1", "PodSecurityPolicy", since="1.10", until="1.16", replacement="policy/v1beta1"
            ),
        ),
        strategy=PodSecurityPolicyStrategy(),
        columns=(
            NAME,
            Column("Priv", lambda policy, now: str(bool(dig(policy, "spec", "privileged"))).lower()),
            Column("Caps", lambda policy, now: ",".join(dig(policy, "spec", "allowedCapabilities") or ())),
            _rule("seLinux"),
            _rule("runAsUser"),
            _rule("fsGroup"),
            _rule("supplementalGroups"),
            Column(
                "ReadOnlyRootFs",
                lambda policy, now: str(bool(dig(policy, "spec", "readOnlyRootFilesystem"))).lower(),
            ),
            Column("Volumes", lambda policy, now: ",".join(dig(policy, "spec", "volumes") or ())),
        ),
        storage_prefix="podsecuritypolicy",
    ),
)
