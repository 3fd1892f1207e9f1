"""The downward API: what a pod may learn of itself, as text (environment variables and files)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shipwheel.api import quantity
from shipwheel.api.meta import Obj, annotations_of, labels_of
from shipwheel.kubelet import podspec
from shipwheel.kubelet.resources import POD_LEVEL, pod_level

_SUBSCRIPT = re.compile(r"metadata\.(annotations|labels)\['(.*)'\]")
_DIVISORS = {"cpu": 1000}
"""Thousandths of the default divisor, 1, where the resource is counted in thousandths."""


class DownwardFault(Exception):
    """The pod has no such field."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the node knows of a pod beside its object."""

    pod_ips: Sequence[str] = ()
    host_ips: Sequence[str] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)
    """The node's allocatable resources: what a container without a limit may use."""


def field_value(pod: Obj, path: str, facts: PodFacts) -> str:
    """The text of a field (`fieldRef`); maps as lines of `key="value"`."""
    meta = pod["metadata"]
    spec = pod["spec"]
    match path:
        case "metadata.name":
            return meta.get("name", "")
        case "metadata.namespace":
            return meta.get("namespace", "")
        case "metadata.uid":
            return meta.get("uid", "")
        case "metadata.annotations":
            return format_map(annotations_of(pod))
        case "metadata.labels":
            return format_map(labels_of(pod))
        case "spec.nodeName":
            return spec.get("nodeName", "")
        case "spec.serviceAccountName":
            return spec.get("serviceAccountName", "")
        case "status.hostIP":
            return facts.host_ips[0] if facts.host_ips else ""
        case "status.hostIPs":
            return ",".join(facts.host_ips)
        case "status.podIP":
            return facts.pod_ips[0] if facts.pod_ips else ""
        case "status.podIPs":
            return ",".join(facts.pod_ips)
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        listed = annotations_of(pod) if subscript[1] == "annotations" else labels_of(pod)
        return listed.get(subscript[2], "")
    raise DownwardFault(f"unsupported fieldPath: {path}")


def format_map(listed: Mapping[str, str]) -> str:
    """Lines of `key="value"`, sorted by key."""
    return "\n".join(f"{key}={json.dumps(listed[key], ensure_ascii=False)}" for key in sorted(listed))


def resource_value(pod: Obj, container: Obj | None, selector: Obj, facts: PodFacts) -> str:
    """The text of `resourceFieldRef`: a request or a limit, in units of the divisor, rounded up. A container
    without a limit may use what the node can allocate."""
    name = selector.get("containerName")
    if name:
        container = podspec.find_container(pod, name)
    if container is None:
        raise DownwardFault(f"container {name} not found")
    part, _, resource = selector["resource"].partition(".")
    if part not in ("limits", "requests"):
        raise DownwardFault(f"unsupported container resource : {selector['resource']}")
    listed = (container.get("resources") or {}).get(part) or {}
    amount = listed.get(resource)
    if part == "limits" and (amount is None or quantity.parse(amount).is_zero()):
        amount = None
        if resource in POD_LEVEL:
            whole = pod_level(pod, "limits").get(resource)
            amount = str(whole) if whole else facts.allocatable.get(resource)
        elif resource == "ephemeral-storage":
            amount = facts.allocatable.get(resource)
    wanted = quantity.parse(amount if amount is not None else "0")
    divisor = quantity.parse(selector.get("divisor") or "1")
    if divisor.is_zero():
        divisor = quantity.parse("1")
    return str(-(-wanted.nanos // divisor.nanos))
