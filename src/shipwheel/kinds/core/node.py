"""Nodes: the machines that pods run on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from shipwheel.api.errors import bad_request
from shipwheel.api.meta import GroupResource, Obj, condition, labels_of
from shipwheel.api.resource import Call, Column, Resource, Server, Strategy
from shipwheel.kinds.columns import AGE, NAME, NONE, UNKNOWN, dig, text
from shipwheel.kinds.core.proxy import proxy_subresource, require_proxyable, target_of
from shipwheel.kinds.declare import STATUS, served

_NODES = GroupResource("", "nodes")
_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE = "kubernetes.io/role"


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
    Column(
        "Container-Runtime", text("status", "nodeInfo", "containerRuntimeVersion", absent=UNKNOWN), priority=1
    ),
)


async def _proxy(server: Server, call: Call) -> Any:
    """`nodes/proxy`: the kubelet's own API, or another port of the machine."""
    scheme, name, port = target_of(call, "node")
    node = await server.get(_NODES, "", name)
    if not port or port == str(dig(node, "status", "daemonEndpoints", "kubeletEndpoint", "Port") or 10250):
        return await server.to_node(name, call.path or "/", call)
    address = _address("InternalIP", node)
    require_proxyable(address)
    if not port.isdigit():
        raise bad_request(f'invalid node request "{call.name}"')
    return await server.to_address(scheme or "http", address, int(port), call.path, call)


RESOURCES = (
    Resource(
        kind="Node",
        plural="nodes",
        singular="node",
        short_names=("no",),
        namespaced=False,
        versions=(served("", "v1", "Node"),),
        strategy=Strategy(),
        columns=COLUMNS,
        subresources=(STATUS, proxy_subresource("NodeProxyOptions", _proxy)),
        selectable={
            "spec.unschedulable": lambda node: (
                "true" if (node.get("spec") or {}).get("unschedulable") else "false"
            ),
        },
        storage_prefix="minions",
    ),
)
