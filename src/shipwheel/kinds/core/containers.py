"""Containers: regular, init and ephemeral ones.

What all three share is checked in one place; what each of them may not have, beside it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from shipwheel.api.errors import (
    duplicate,
    forbidden,
    invalid,
    not_found_field,
    not_supported,
    required,
    too_many,
)
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_valid_port_name
from shipwheel.kinds.checks import (
    Errors,
    check_enum,
    check_label,
    check_no_backsteps,
    check_one_of,
    check_only,
    check_range,
    check_relative_path,
)
from shipwheel.kinds.core.env import check_env, check_env_from, default_env
from shipwheel.kinds.core.images import default_pull_policy
from shipwheel.kinds.core.probes import PROBES, check_lifecycle, check_probes, default_probes
from shipwheel.kinds.core.resources import check_resource_requirements, default_resource_list
from shipwheel.kinds.core.security import check_security_context

PROTOCOLS = ("SCTP", "TCP", "UDP")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")
_RESTART_POLICIES = ("Always", "Never", "OnFailure")
_RULE_ACTIONS = ("Restart", "RestartAllContainers")
_MAX_RULES = 20
_MAX_EXIT_CODES = 255
_EPHEMERAL_FIELDS = frozenset(
    (
        "name", "image", "command", "args", "workingDir", "envFrom", "env", "volumeMounts", "volumeDevices",
        "terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy", "securityContext", "stdin",
        "stdinOnce", "tty", "targetContainerName",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the pod says that its containers are judged by."""

    volumes: dict[str, Obj] = field(default_factory=dict)
    """The good ones, by name."""
    claims: Collection[str] = ()
    grace_period: int | None = None
    restart_policy: str = "Always"
    os_name: str | None = None
    host_users: bool = True


# Defaults


def default_container(container: Obj) -> None:
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = default_pull_policy(container.get("image", ""))
    if not container.get("terminationMessagePath"):
        container["terminationMessagePath"] = "/dev/termination-log"
    if not container.get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "File"
    if "env" in container:
        default_env(container)
    default_probes(container)
    resources = container.get("resources")
    if resources:
        default_resource_list(resources.get("limits"))
        default_resource_list(resources.get("requests"))


# Validation


def check_containers(containers: list[Obj], facts: PodFacts, path: str, errors: Errors) -> None:
    """The regular containers."""
    if not containers:
        errors.append(required(path))
        return
    names: set[str] = set()
    for index, container in enumerate(containers):
        here = f"{path}[{index}]"
        _check_common(container, facts, here, errors)
        name = container.get("name", "")
        if name in names:
            errors.append(duplicate(f"{here}.name", name))
        names.add(name)
        _check_hooks(container, facts, here, errors)
        _check_restart_policy(container, here, errors)
    _check_host_ports(containers, path, errors)


def check_init_containers(
    containers: list[Obj], regular: list[Obj], facts: PodFacts, path: str, errors: Errors
) -> None:
    """The init containers, of which those that restart always (sidecars, KEP-753) may have probes and hooks."""
    names = {container.get("name", "") for container in regular}
    for index, container in enumerate(containers):
        here = f"{path}[{index}]"
        _check_common(container, facts, here, errors)
        _check_restart_policy(container, here, errors)
        name = container.get("name", "")
        if name in names:
            errors.append(duplicate(f"{here}.name", name))
        elif name:
            names.add(name)
        _check_host_ports([container], path, errors)
        if container.get("restartPolicy") == "Always":
            _check_hooks(container, facts, here, errors)
            continue
        for hook in ("lifecycle", *PROBES):
            if container.get(hook) is not None:
                detail = "may not be set for init containers without restartPolicy=Always"
                errors.append(forbidden(f"{here}.{hook}", detail))
        for position, policy in enumerate(container.get("resizePolicy") or ()):
            if policy.get("restartPolicy") == "RestartContainer":
                where = f"{here}.resizePolicy[{position}].restartPolicy"
                detail = "must not be set to 'RestartContainer' for non-sidecar initContainers"
                errors.append(invalid(where, "RestartContainer", detail))


def check_ephemeral_containers(spec: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    """Containers that join a running pod to look at it (KEP-277)."""
    others = {each.get("name", "") for name in ("containers", "initContainers") for each in spec.get(name) or ()}
    names = set(others)
    for index, container in enumerate(spec.get("ephemeralContainers") or ()):
        here = f"{path}[{index}]"
        _check_common(container, facts, here, errors)
        check_image_padding(container, here, errors)
        name = container.get("name", "")
        if name in names:
            errors.append(duplicate(f"{here}.name", name))
        names.add(name)
        target = container.get("targetContainerName")
        if target and target not in others:
            errors.append(not_found_field(f"{here}.targetContainerName", target))
        refusal = "cannot be set for an Ephemeral Container"
        check_only(container, _EPHEMERAL_FIELDS, refusal, here, errors)
        for position, mount in enumerate(container.get("volumeMounts") or ()):
            for sub in ("subPath", "subPathExpr"):
                if mount.get(sub):
                    errors.append(forbidden(f"{here}.volumeMounts[{position}].{sub}", refusal))


def check_image_padding(container: Obj, path: str, errors: Errors) -> None:
    image = container.get("image", "")
    if image.strip() != image:
        errors.append(invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))


def _check_common(container: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    get = container.get
    name = get("name")
    if not name:
        errors.append(required(f"{path}.name"))
    else:
        check_label(name, f"{path}.name", errors)
    if not get("image"):
        errors.append(required(f"{path}.image"))
    check_enum(get("terminationMessagePolicy"), _MESSAGE_POLICIES, f"{path}.terminationMessagePolicy", errors)
    check_enum(get("imagePullPolicy"), _PULL_POLICIES, f"{path}.imagePullPolicy", errors)
    if ports := get("ports"):
        _check_ports(ports, f"{path}.ports", errors)
    if variables := get("env"):
        check_env(variables, f"{path}.env", errors)
    if sources := get("envFrom"):
        check_env_from(sources, f"{path}.envFrom", errors)
    mounts, devices = get("volumeMounts"), get("volumeDevices")
    if mounts or devices:
        _check_mounts(container, facts.volumes, f"{path}.volumeMounts", errors)
        _check_devices(container, facts.volumes, f"{path}.volumeDevices", errors)
    if resources := get("resources"):
        check_resource_requirements(resources, f"{path}.resources", errors, claims=facts.claims)
    if policies := get("resizePolicy"):
        _check_resize_policy(policies, facts.restart_policy, f"{path}.resizePolicy", errors)
    if context := get("securityContext"):
        check_security_context(context, f"{path}.securityContext", errors, host_users=facts.host_users)


def _check_hooks(container: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    lifecycle = container.get("lifecycle")
    if lifecycle is not None:
        check_lifecycle(lifecycle, facts.grace_period, facts.os_name, f"{path}.lifecycle", errors)
    check_probes(container, facts.grace_period, path, errors)


def _check_ports(ports: list[Obj], path: str, errors: Errors) -> None:
    names = set()
    for index, port in enumerate(ports):
        here = f"{path}[{index}]"
        name = port.get("name")
        if name:
            complaints = is_valid_port_name(name)
            for complaint in complaints:
                errors.append(invalid(f"{here}.name", name, complaint))
            if not complaints and name in names:
                errors.append(duplicate(f"{here}.name", name))
            names.add(name)
        if not port.get("containerPort"):
            errors.append(required(f"{here}.containerPort"))
        else:
            check_range(port["containerPort"], 1, 65535, f"{here}.containerPort", errors)
        if port.get("hostPort"):
            check_range(port["hostPort"], 1, 65535, f"{here}.hostPort", errors)
        check_enum(port.get("protocol"), PROTOCOLS, f"{here}.protocol", errors)


def _check_host_ports(containers: list[Obj], path: str, errors: Errors) -> None:
    """A port of the machine is given out once."""
    taken = set()
    for index, container in enumerate(containers):
        for position, port in enumerate(container.get("ports") or ()):
            number = port.get("hostPort")
            if number:
                key = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{number}"
                if key in taken:
                    errors.append(duplicate(f"{path}[{index}].ports[{position}].hostPort", key))
                taken.add(key)


def _check_mounts(container: Obj, volumes: dict[str, Obj], path: str, errors: Errors) -> None:
    devices = {each.get("name", ""): each.get("devicePath") for each in container.get("volumeDevices") or ()}
    parent = path
    paths = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        here = f"{path}[{index}]"
        name, where = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            errors.append(required(f"{here}.name"))
        if name not in volumes:
            errors.append(not_found_field(f"{here}.name", name))
        if not where:
            errors.append(required(f"{here}.mountPath"))
        if where in paths:
            errors.append(invalid(f"{here}.mountPath", where, "must be unique"))
        paths.add(where)
        if name in devices:
            errors.append(invalid(f"{here}.name", name, "must not already exist in volumeDevices"))
        if where in devices.values():
            detail = "must not already exist as a path in volumeDevices"
            errors.append(invalid(f"{here}.mountPath", where, detail))
        sub_path, expression = mount.get("subPath"), mount.get("subPathExpr")
        if sub_path:
            check_relative_path(sub_path, f"{parent}.subPath", errors)
        if expression:
            if sub_path:
                detail = "subPathExpr and subPath are mutually exclusive"
                errors.append(invalid(f"{here}.subPathExpr", expression, detail))
            check_relative_path(expression, f"{parent}.subPathExpr", errors)
        _check_propagation(mount, container, parent, errors)


def _check_propagation(mount: Obj, container: Obj, path: str, errors: Errors) -> None:
    propagation, recursive = mount.get("mountPropagation"), mount.get("recursiveReadOnly")
    if propagation is not None:
        here = f"{path}.mountPropagation"
        check_one_of(propagation, ("Bidirectional", "HostToContainer", "None"), here, errors)
        privileged = (container.get("securityContext") or {}).get("privileged")
        if propagation == "Bidirectional" and not privileged:
            detail = "Bidirectional mount propagation is available only to privileged containers"
            errors.append(forbidden(here, detail))
    if recursive is not None and recursive != "Disabled":
        here = f"{path}.recursiveReadOnly"
        if recursive not in ("Enabled", "IfPossible"):
            errors.append(not_supported(here, recursive, ("Disabled", "Enabled", "IfPossible")))
            return
        if not mount.get("readOnly"):
            errors.append(forbidden(here, "may only be specified when readOnly is true"))
        if propagation not in (None, "None"):
            detail = "may only be specified when mountPropagation is None or not specified"
            errors.append(forbidden(here, detail))


def _check_devices(container: Obj, volumes: dict[str, Obj], path: str, errors: Errors) -> None:
    mounts = {each.get("name", ""): each.get("mountPath") for each in container.get("volumeMounts") or ()}
    names, paths = set(), set()
    for index, device in enumerate(container.get("volumeDevices") or ()):
        here = f"{path}[{index}]"
        name, where = device.get("name", ""), device.get("devicePath", "")
        volume = volumes.get(name)
        if not name:
            errors.append(required(f"{here}.name"))
        if name in names:
            errors.append(invalid(f"{here}.name", name, "must be unique"))
        if volume is None:
            errors.append(not_found_field(f"{here}.name", name))
        elif volume.get("persistentVolumeClaim") is None and volume.get("ephemeral") is None:
            detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            errors.append(invalid(f"{here}.name", name, detail))
        if not where:
            errors.append(required(f"{here}.devicePath"))
        if where in paths:
            errors.append(invalid(f"{here}.devicePath", where, "must be unique"))
        backsteps: Errors = []
        check_no_backsteps(where, path, backsteps)
        if where and backsteps:
            errors.append(invalid(f"{here}.devicePath", where, "can not contain backsteps ('..')"))
        else:
            paths.add(where)
        if name in mounts:
            errors.append(invalid(f"{here}.name", name, "must not already exist in volumeMounts"))
        if where in mounts.values():
            detail = "must not already exist as a path in volumeMounts"
            errors.append(invalid(f"{here}.devicePath", where, detail))
        if name:
            names.add(name)


def _check_resize_policy(policies: list[Obj], restart_policy: str, path: str, errors: Errors) -> None:
    seen = set()
    for index, policy in enumerate(policies):
        resource, restart = policy.get("resourceName", ""), policy.get("restartPolicy", "")
        if resource in seen:
            errors.append(duplicate(f"{path}[{index}]", resource))
        seen.add(resource)
        check_enum(resource, ("cpu", "memory"), path, errors)
        check_enum(restart, ("NotRequired", "RestartContainer"), path, errors)
        if restart_policy == "Never" and restart != "NotRequired":
            detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'"
            errors.append(invalid(path, restart, detail))


def _check_restart_policy(container: Obj, path: str, errors: Errors) -> None:
    """A container's own restart policy, and the rules by exit code that make exceptions of it (KEP-5307)."""
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or ()
    if policy is None:
        if rules:
            detail = "must specify restartPolicy when restart rules are used"
            errors.append(required(f"{path}.restartPolicy", detail))
    elif policy not in _RESTART_POLICIES:
        errors.append(not_supported(f"{path}.restartPolicy", policy, _RESTART_POLICIES))
    if not rules:
        return
    if len(rules) > _MAX_RULES:
        errors.append(too_many(f"{path}.restartPolicyRules", len(rules), _MAX_RULES))
    for index, rule in enumerate(rules):
        here = f"{path}.restartPolicyRules[{index}]"
        check_one_of(rule.get("action", ""), _RULE_ACTIONS, f"{here}.action", errors)
        codes = rule.get("exitCodes")
        if codes is None:
            errors.append(required(f"{here}.exitCodes", "must be specified"))
            continue
        check_one_of(codes.get("operator", ""), ("In", "NotIn"), f"{here}.exitCodes.operator", errors)
        values = codes.get("values") or ()
        if len(values) > _MAX_EXIT_CODES:
            errors.append(too_many(f"{here}.exitCodes.values", len(values), _MAX_EXIT_CODES))
