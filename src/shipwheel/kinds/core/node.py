"""Nodes: the machines that pods run on."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from shipwheel.api.ages import UNKNOWN
from shipwheel.api.errors import (
    FieldError,
    FieldErrorType,
    bad_request,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
)
from shipwheel.api.ip import cidr_warnings
from shipwheel.api.meta import GroupResource, Obj, condition, labels_of
from shipwheel.api.names import is_valid_label_value
from shipwheel.api.objectmeta import validate_label_name
from shipwheel.api.quantity import parse
from shipwheel.api.resource import Call, Column, Resource, Server, WriteContext, keep
from shipwheel.kinds.checks import NEGATIVE, Errors, check_cidr, check_positive
from shipwheel.kinds.columns import AGE, NAME, NONE, dig, text
from shipwheel.kinds.core.proxy import proxy_subresource, require_proxyable, target_of
from shipwheel.kinds.core.resources import default_resource_list, is_integer_resource
from shipwheel.kinds.declare import STATUS, served
from shipwheel.kinds.strategies import BuiltinStrategy

_NODES = GroupResource("", "nodes")
_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE = "kubernetes.io/role"
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_FEATURE = re.compile("[A-Z][A-Za-z0-9]*(/[A-Za-z][A-Za-z0-9]*)*").fullmatch
_MAX_FEATURE = 253


class NodeStrategy(BuiltinStrategy):
    tracks_generation = False

    def default(self, node: Obj) -> None:
        status = node.get("status") or {}
        if status.get("capacity"):
            default_resource_list(status["capacity"])
            if status.get("allocatable") is None:
                status["allocatable"] = dict(status["capacity"])
        default_resource_list(status.get("allocatable"))
        spec = node.get("spec") or {}
        first, networks = spec.get("podCIDR"), spec.get("podCIDRs")
        if first and (not networks or networks[0] != first):
            spec["podCIDRs"] = [first]
        elif networks and not first:
            spec["podCIDR"] = networks[0]

    def prepare_for_create(self, node: Obj, ctx: WriteContext) -> None:
        """A node comes with its status: kubelets report who they are in one go."""
        (node.get("spec") or {}).pop("configSource", None)
        (node.get("status") or {}).pop("config", None)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "status")
        (new.get("spec") or {}).pop("configSource", None)

    def prepare_for_status_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        super().prepare_for_status_update(new, old, ctx)
        (new.get("status") or {}).pop("config", None)

    def validate(self, node: Obj) -> list[FieldError]:
        errors: Errors = []
        spec, status = node.get("spec") or {}, node.get("status") or {}
        _check_taints(spec.get("taints") or [], errors)
        _check_status(status, errors)
        swap = (status.get("nodeInfo") or {}).get("swap") or {}
        check_positive(swap.get("capacity"), "metadata.nodeSwapStatus.capacity", errors)
        _check_pod_networks(spec.get("podCIDRs") or [], "spec.podCIDRs", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return self.validate(new) + self._validate_change(new, old)

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return self._validate_change(new, old)

    def _validate_change(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        status = new.get("status") or {}
        _check_status(status, errors)
        addresses = status.get("addresses") or []
        for index, address in enumerate(addresses):
            if address in addresses[:index]:
                errors.append(duplicate(f"status.addresses[{index}]", address))
        _check_set_once(new.get("spec") or {}, old.get("spec") or {}, errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        spec = new.get("spec") or {}
        warnings = []
        if spec.get("externalID"):
            warnings.append("spec.externalID: this field is deprecated, and is unused by Kubernetes")
        for index, network in enumerate(spec.get("podCIDRs") or ()):
            warnings += cidr_warnings(network, f"spec.podCIDRs[{index}]")
        return warnings


def _check_taints(taints: list[Obj], errors: Errors) -> None:
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        path = f"metadata.taints[{index}]"
        key, value, effect = (taint.get(field, "") for field in ("key", "value", "effect"))
        errors += validate_label_name(key, f"{path}.key")
        complaints = is_valid_label_value(value)
        if complaints:
            errors.append(invalid(f"{path}.value", value, ";".join(complaints)))
        if not effect:
            errors.append(required(f"{path}.effect"))
        elif effect not in _EFFECTS:
            errors.append(not_supported(f"{path}.effect", effect, _EFFECTS))
        if (key, effect) in seen:
            detail = "taints must be unique by key and effect pair"
            errors.append(FieldError(FieldErrorType.DUPLICATE, path, detail, taint))
        seen.add((key, effect))


def _check_status(status: Obj, errors: Errors) -> None:
    for field in ("capacity", "allocatable"):
        for name, value in (status.get(field) or {}).items():
            amount = parse(value)
            if amount.nanos < 0:
                errors.append(invalid(f"status.{field}.{name}", value, NEGATIVE))
            if is_integer_resource(name) and amount.milli_value() % 1000:
                errors.append(invalid(f"status.{field}.{name}", value, "must be an integer"))
    _check_features(status.get("declaredFeatures") or [], "status.declaredFeatures", errors)


def _check_features(features: list[str], path: str, errors: Errors) -> None:
    """Features that a kubelet declares (KEP-5328): each once, in order."""
    for index, feature in enumerate(features):
        if len(feature) > _MAX_FEATURE:
            detail = f'invalid feature name "{feature}": must be no more than {_MAX_FEATURE} characters'
            errors.append(invalid(f"{path}[{index}]", feature, detail))
        elif not _FEATURE(feature):
            detail = (
                f'invalid feature name "{feature}": must start with an UpperCamelCase segment, with subsequent '
                "segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only "
                "alphanumeric characters and slashes"
            )
            errors.append(invalid(f"{path}[{index}]", feature, detail))
        if index and feature == features[index - 1]:
            errors.append(duplicate(f"{path}[{index}]", feature))
        elif index and feature < features[index - 1]:
            errors.append(invalid(f"{path}[{index}]", feature, "list must be sorted alphabetically"))


def _check_pod_networks(networks: list[str], path: str, errors: Errors) -> None:
    for index, network in enumerate(networks):
        check_cidr(network, f"{path}[{index}]", errors)
    families = [":" in network for network in networks]
    if len(families) > 1 and (len(families) > 2 or families[0] == families[1]):
        errors.append(invalid(path, networks, "may specify no more than one CIDR for each IP family"))


def _check_set_once(new: Obj, old: Obj, errors: Errors) -> None:
    networks, before = new.get("podCIDRs") or [], old.get("podCIDRs") or []
    changes = [a for a, b in zip(networks, before, strict=False) if a != b]
    if before and len(networks) != len(before):
        changes = [""]
    for _ in changes:
        detail = 'node updates may not change podCIDR except from "" to valid'
        errors.append(forbidden("spec.podCIDRs", detail))
    if old.get("providerID") and new.get("providerID") != old["providerID"]:
        detail = 'node updates may not change providerID except from "" to valid'
        errors.append(forbidden("spec.providerID", detail))
    if new.get("externalID", "") != old.get("externalID", ""):
        errors.append(forbidden("spec.externalID", "may not be updated"))


def _status_word(node: Obj, now: datetime) -> str:
    ready = condition(node, "Ready")
    word = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return f"{word},SchedulingDisabled" if (node.get("spec") or {}).get("unschedulable") else word


def _roles(node: Obj, now: datetime) -> str:
    roles = set()
    for key, value in labels_of(node).items():
        if key.startswith(_ROLE_PREFIX):
            roles.add(key.removeprefix(_ROLE_PREFIX))
        elif key == _ROLE:
            roles.add(value)
    return ",".join(sorted(roles - {""})) or NONE


def _address(kind: str, node: Obj) -> str:
    addresses = (node.get("status") or {}).get("addresses") or ()
    return next((each["address"] for each in addresses if each.get("type") == kind), NONE)


def _kernel(node: Obj, now: datetime) -> str:
    info = dig(node, "status", "nodeInfo") or {}
    version = info.get("kernelVersion") or UNKNOWN
    return f"{version} ({info['architecture']})" if info.get("architecture") else version


COLUMNS = (
    NAME,
    Column("Status", _status_word),
    Column("Roles", _roles),
    AGE,
    Column("Version", text("status", "nodeInfo", "kubeletVersion")),
    Column("Internal-IP", lambda node, now: _address("InternalIP", node), priority=1),
    Column("External-IP", lambda node, now: _address("ExternalIP", node), priority=1),
    Column("OS-Image", text("status", "nodeInfo", "osImage", absent=UNKNOWN), priority=1),
    Column("Kernel-Version", _kernel, priority=1),
    Column("Container-Runtime", text("status", "nodeInfo", "containerRuntimeVersion", absent=UNKNOWN), priority=1),
)


async def _proxy(server: Server, call: Call) -> Any:
    """`nodes/proxy`: the kubelet's own API, or another port of the machine."""
    scheme, name, port = target_of(call, "node")
    node = await server.get(_NODES, "", name)
    if not port or port == str(dig(node, "status", "daemonEndpoints", "kubeletEndpoint", "Port") or 10250):
        return await server.to_node(name, call.target, call)
    address = _address("InternalIP", node)
    require_proxyable(address)
    if not port.isdigit():
        raise bad_request(f'invalid node request "{call.name}"')
    return await server.to_address(scheme or "http", address, int(port), call.target, call)


RESOURCES = (
    Resource(
        kind="Node",
        plural="nodes",
        singular="node",
        short_names=("no",),
        namespaced=False,
        versions=(served("", "v1", "Node"),),
        strategy=NodeStrategy(),
        columns=COLUMNS,
        subresources=(STATUS, proxy_subresource("NodeProxyOptions", _proxy)),
        selectable={
            "spec.unschedulable": lambda node: "true" if (node.get("spec") or {}).get("unschedulable") else "false",
        },
        storage_prefix="minions",
    ),
)
