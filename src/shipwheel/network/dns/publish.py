"""Where this node's DNS server is found: its EndpointSlice behind the Service kube-system/kube-dns."""

from __future__ import annotations

from collections.abc import Sequence

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client
from shipwheel.client.resources import ENDPOINT_SLICES

NAMESPACE = "kube-system"
SERVICE = "kube-dns"
MANAGER = "dns.shipwheel.dev"


def slice_name(node_name: str) -> str:
    return f"{SERVICE}-{node_name}"


def endpoint_slice(node: Obj, addresses: Sequence[str], port: int) -> Obj:
    """The slice of one node's server, which goes with the node. Its hint keeps pods with the server of their own
    node while there is one everywhere."""
    node_name, uid = node["metadata"]["name"], node["metadata"]["uid"]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": slice_name(node_name),
            "namespace": NAMESPACE,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node_name, "uid": uid}],
            "labels": {
                "kubernetes.io/service-name": SERVICE,
                "endpointslice.kubernetes.io/managed-by": MANAGER,
            },
        },
        "addressType": "IPv6" if ":" in addresses[0] else "IPv4",
        "ports": [
            {"name": "dns", "protocol": "UDP", "port": port},
            {"name": "dns-tcp", "protocol": "TCP", "port": port},
        ],
        "endpoints": [
            {
                "addresses": [each],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": node_name,
                "hints": {"forNodes": [{"name": node_name}]},
            }
            for each in addresses
        ],
    }


async def publish(client: Client, node: Obj, addresses: Sequence[str], port: int) -> None:
    """Make the node's slice say this. Raises `ApiError`, `ConnectionFailed`."""
    wanted = endpoint_slice(node, addresses, port)
    try:
        await client.create(ENDPOINT_SLICES, wanted)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
        meta = wanted["metadata"]
        patch = {key: wanted[key] for key in ("ports", "endpoints")}
        patch["metadata"] = {"ownerReferences": meta["ownerReferences"]}
        await client.patch(ENDPOINT_SLICES, meta["name"], meta["namespace"], patch)
