"""What the API says about a pod that is accepted but probably not meant so."""

from __future__ import annotations

import json
from collections.abc import Iterator

from shipwheel.api.ip import ip_warnings
from shipwheel.api.memo import remembered
from shipwheel.api.meta import Obj
from shipwheel.api.quantity import parse
from shipwheel.kinds.core.claimspec import claim_spec_warnings
from shipwheel.kinds.core.nodelabels import DEPRECATED, term_warnings
from shipwheel.kinds.core.podmeta import (
    APPARMOR,
    SECCOMP_CONTAINER,
    SECCOMP_POD,
    apparmor_from_annotation,
)
from shipwheel.kinds.core.podspec import containers_with_paths

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_NULL_SELECTOR = "a null labelSelector results in matching no pod"

_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": (
        'non-functional in v1.16+; use the "priorityClassName" field instead'
    ),
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
_PORT_FIELDS = (
    ("Name", "name", ""),
    ("HostPort", "hostPort", 0),
    ("ContainerPort", "containerPort", 0),
    ("Protocol", "protocol", ""),
    ("HostIP", "hostIP", ""),
)
_VOLUMES = {
    # field: (name in the message, what became of it)
    "photonPersistentDisk": ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    "gitRepo": ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    "scaleIO": ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    "flocker": ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    "storageos": ("storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    "quobyte": ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    "glusterfs": ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    "cephfs": ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    "rbd": ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
}
SECCOMP = 'non-functional in v1.27+; use the "seccompProfile" field instead'
APPARMOR_FIELD = 'deprecated since v1.30; use the "appArmorProfile" field instead'


def pod_warnings(metadata: Obj, spec: Obj, path: str = "") -> list[str]:
    """`path` leads to the pod template; it is empty for a pod."""
    return list(_warnings((metadata.get("annotations") or {}, spec), path))


@remembered
def _warnings(template: tuple[Obj, Obj], path: str) -> list[str]:
    """Of a pod's annotations and its spec."""
    annotations, spec = template
    prefix = f"{path}." if path else ""
    containers = containers_with_paths(spec, f"{prefix}spec")
    warnings = list(_placement(spec, f"{prefix}spec"))
    warnings += [
        f"{prefix}metadata.annotations[{key}]: {text}" for key, text in _ANNOTATIONS.items() if key in annotations
    ]
    if spec.get("volumes"):
        warnings += _of_volumes(spec["volumes"], f"{prefix}spec")
    warnings += _duplicates(spec, f"{prefix}spec")
    warnings += _fractions(spec.get("overhead"), f"{prefix}spec.overhead")
    if annotations:
        warnings += _profiles(annotations, spec, containers, prefix)
    for here, container in containers:
        warnings += _of_container(container, here)
    warnings += _ports(containers)
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        detail = "must be >= 0; negative values are invalid and will be treated as 1"
        warnings.append(f"{prefix}spec.terminationGracePeriodSeconds: {detail}")
    warnings += _pod_affinity(spec, f"{prefix}spec.affinity")
    for index, server in enumerate((spec.get("dnsConfig") or {}).get("nameservers") or ()):
        warnings += ip_warnings(server, f"{prefix}spec.dnsConfig.nameservers[{index}]")
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        warnings += ip_warnings(alias.get("ip", ""), f"{prefix}spec.hostAliases[{index}].ip")
    return warnings


def _placement(spec: Obj, path: str) -> Iterator[str]:
    for key in spec.get("nodeSelector") or ():
        if key in DEPRECATED:
            yield f"{path}.nodeSelector[{key}]: {DEPRECATED[key]}"
    nodes = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    here = f"{path}.affinity.nodeAffinity"
    for index, term in enumerate((nodes.get(_REQUIRED) or {}).get("nodeSelectorTerms") or ()):
        yield from term_warnings(term, f"{here}.{_REQUIRED}.nodeSelectorTerms[{index}]")
    for index, preferred in enumerate(nodes.get(_PREFERRED) or ()):
        term, where = preferred.get("preference") or {}, f"{here}.{_PREFERRED}[{index}].preference"
        yield from term_warnings(term, where, check_values=True)
    for index, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        where, key = f"{path}.topologySpreadConstraints[{index}]", constraint.get("topologyKey", "")
        if key in DEPRECATED:
            yield f"{where}.topologyKey: {key} is {DEPRECATED[key]}"
        if constraint.get("labelSelector") is None:
            yield f"{where}.labelSelector: {_NULL_SELECTOR}"


def _pod_affinity(spec: Obj, path: str) -> Iterator[str]:
    for field in ("podAffinity", "podAntiAffinity"):
        affinity = (spec.get("affinity") or {}).get(field) or {}
        for index, term in enumerate(affinity.get(_REQUIRED) or ()):
            if term.get("labelSelector") is None:
                yield f"{path}.{field}.{_REQUIRED}[{index}].labelSelector: {_NULL_SELECTOR}"
        for index, weighted in enumerate(affinity.get(_PREFERRED) or ()):
            if (weighted.get("podAffinityTerm") or {}).get("labelSelector") is None:
                where = f"{path}.{field}.{_PREFERRED}[{index}].podAffinityTerm.labelSelector"
                yield f"{where}: {_NULL_SELECTOR}"


def _duplicates(spec: Obj, path: str) -> Iterator[str]:
    seen = set()
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        address = alias.get("ip", "")
        if address in seen:
            yield f"{path}.hostAliases[{index}].ip: duplicate ip {json.dumps(address)}"
        seen.add(address)
    seen = set()
    for index, secret in enumerate(spec.get("imagePullSecrets") or ()):
        name = secret.get("name", "")
        if name in seen:
            yield f"{path}.imagePullSecrets[{index}].name: duplicate name {json.dumps(name)}"
        seen.add(name)
        if not name:
            yield f'{path}.imagePullSecrets[{index}].name: invalid empty name ""'


def _profiles(annotations: Obj, spec: Obj, containers: list[tuple[str, Obj]], prefix: str) -> Iterator[str]:
    of_pod = spec.get("securityContext") or {}
    where = f"{prefix}metadata.annotations"
    if of_pod.get("seccompProfile") is None and SECCOMP_POD in annotations:
        yield f"{where}[{SECCOMP_POD}]: {SECCOMP}"
    for _, container in containers:
        own, name = container.get("securityContext") or {}, container.get("name", "")
        key = SECCOMP_CONTAINER + name
        if own.get("seccompProfile") is None and key in annotations:
            yield f"{where}[{key}]: {SECCOMP}"
        key = APPARMOR + name
        # A pod's annotation has been copied to the field by now; a template's has not.
        said = apparmor_from_annotation(annotations.get(key, ""))
        known = of_pod.get("appArmorProfile")
        own_profile = own.get("appArmorProfile")
        if key in annotations and (said is None or said != known) and own_profile in (None, said):
            yield f"{where}[{key}]: {APPARMOR_FIELD}"


def _fractions(amounts: Obj | None, path: str) -> Iterator[str]:
    for name in ("memory", "ephemeral-storage"):
        amount = (amounts or {}).get(name)
        if amount is not None and parse(amount).milli_value() % 1000:
            yield f'{path}[{name}]: fractional byte value "{amount}" is invalid, must be an integer'


def _of_container(container: Obj, path: str) -> Iterator[str]:
    resources = container.get("resources")
    if resources:
        yield from _fractions(resources.get("limits"), f"{path}.resources.limits")
        yield from _fractions(resources.get("requests"), f"{path}.resources.requests")
    seen = set()
    for index, variable in enumerate(container.get("env") or ()):
        name, value = variable.get("name", ""), variable.get("value") or ""
        reference = f"$({name})"
        hides = variable.get("valueFrom") is not None or value == reference or reference not in value
        if name in seen and hides:
            detail = f"hides previous definition of {json.dumps(name)}, which may be dropped when using apply"
            yield f"{path}.env[{index}]: {detail}"
        seen.add(name)


def _ports(containers: list[tuple[str, Obj]]) -> Iterator[str]:
    ports = [
        (f"{path}.ports[{index}]", port)
        for path, container in containers
        for index, port in enumerate(container.get("ports") or ())
    ]
    same: dict[tuple[int, str], list[tuple[str, Obj]]] = {}
    for here, port in ports:
        host_ip, host_port = port.get("hostIP", ""), port.get("hostPort", 0)
        if host_ip and not host_port:
            shown = " ".join(f"{field}:{port.get(key, empty)}" for field, key, empty in _PORT_FIELDS)
            yield f"{here}: hostIP set without hostPort: {{{shown}}}"
        others = same.setdefault((port.get("containerPort", 0), port.get("protocol", "")), [])
        for where, other in others:
            other_ip, other_port = other.get("hostIP", ""), other.get("hostPort", 0)
            if (host_ip, host_port) == (other_ip, other_port):
                yield f"{here}: duplicate port definition with {where}"
            elif not host_port or not other_port:
                yield f"{here}: overlapping port definition with {where}"
            elif host_port == other_port and bool(host_ip) != bool(other_ip):
                yield f"{here}: dangerously ambiguous port definition with {where}"
        others.append((here, port))
    named: dict[str, str] = {}
    for here, port in ports:
        name = port.get("name")
        if name in named:
            yield (
                f"{here}: duplicate port name {json.dumps(name)} with {named[name]}, services and probes that "
                f"select ports by name will use {named[name]}"
            )
        elif name:
            named[name] = here


# Volumes


def _of_volumes(volumes: list[Obj], path: str) -> Iterator[str]:
    for index, volume in enumerate(volumes):
        here = f"{path}.volumes[{index}]"
        for kind, (shown, text) in _VOLUMES.items():
            if volume.get(kind) is not None:
                yield f"{here}.{shown}: {text}"
        template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
        if template is not None:
            where = f"{here}.ephemeral.volumeClaimTemplate.spec"
            yield from claim_spec_warnings(template.get("spec") or {}, where)
    for volume in volumes:
        yield from _overlaps(volume)


def _overlaps(volume: Obj) -> Iterator[str]:
    """Files of one volume where one would be a directory of another."""
    name = json.dumps(volume.get("name", ""))
    single = (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName"))
    for kind, word, key in single:
        source = volume.get(kind)
        if source and source.get("items"):
            described = f"{word} {json.dumps(source.get(key, ''))}"
            for overlap in _colliding(_files(source["items"], "")):
                yield f"volume {name} ({described}): overlapping paths: {overlap}"
    downward = volume.get("downwardAPI") or {}
    for overlap in _colliding(_files(downward.get("items") or [], "")):
        yield f"volume {name} (DownwardAPI): overlapping paths: {overlap}"
    files = []
    for source in (volume.get("projected") or {}).get("sources") or ():
        if all(each is None for each in source.values()):
            yield f"volume {name} (Projected) has no sources provided"
        files += _projected_files(source)
    for overlap in _colliding(files):
        yield f"volume {name} (Projected): overlapping paths: {overlap}"


def _files(items: list[Obj], source: str) -> list[tuple[str, str]]:
    return [(item.get("path", "").rstrip("/"), source) for item in items]


def _projected_files(source: Obj) -> list[tuple[str, str]]:
    for kind, word in (("configMap", "ConfigMap"), ("secret", "Secret")):
        keys = source.get(kind)
        if keys and keys.get("items"):
            return _files(keys["items"], f"{word} {json.dumps(keys.get('name', ''))}")
    if (downward := source.get("downwardAPI")) and downward.get("items"):
        return _files(downward["items"], "DownwardAPI")
    if token := source.get("serviceAccountToken"):
        return _files([token], "ServiceAccountToken")
    return []


def _colliding(files: list[tuple[str, str]]) -> Iterator[str]:
    for index, (file, source) in enumerate(files):
        for other, other_source in files[:index]:
            if file and other and (f"{other}/".startswith(f"{file}/") or f"{file}/".startswith(f"{other}/")):
                yield f"{_shown(file, source)} with {_shown(other, other_source)}"


def _shown(file: str, source: str) -> str:
    return f"{json.dumps(file)} ({source})" if source else json.dumps(file)
