"""What the rules depend on besides services: settings, the Node object, this machine's addresses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from shipwheel.api.meta import Obj
from shipwheel.network.proxy.config import Config
from shipwheel.network.proxy.model import IPFamily, family_of
from shipwheel.network.proxy.rules import Facts, LocalDetection

ZONE_LABEL = "topology.kubernetes.io/zone"


def facts_of(config: Config, node: Obj | None, service_cidrs: Sequence[str], family: IPFamily) -> Facts:
    """What the rules of one family depend on besides services."""
    node_ips = [address for address in _node_ips(config, node) if family_of(address) == family]
    return Facts(
        family=family,
        local_detection=_local_detection(config, node, family),
        masquerade_all=config.masquerade_all,
        masquerade_mark=1 << config.masquerade_bit,
        node_ip=node_ips[0] if node_ips else "",
        node_port_ips=_node_port_ips(config, node_ips, family),
        service_cidrs=tuple(sorted(cidr for cidr in service_cidrs if family_of(cidr) == family)),
    )


def _local_detection(config: Config, node: Obj | None, family: IPFamily) -> LocalDetection:
    match config.detect_local_mode:
        case "BridgeInterface":
            return LocalDetection.by_bridge(config.bridge_interface)
        case "InterfaceNamePrefix":
            return LocalDetection.by_prefix(config.interface_prefix)
        case "ClusterCIDR":
            cidrs: Sequence[str] = config.cluster_cidrs
        case "NodeCIDR":
            cidrs = ((node or {}).get("spec") or {}).get("podCIDRs") or ()
        case _:
            cidrs = ()
    for cidr in cidrs:
        if family_of(cidr) == family:
            return LocalDetection.by_cidr(cidr)
    return LocalDetection()


def _node_ips(config: Config, node: Obj | None) -> list[str]:
    if not ip_address(config.bind_address).is_unspecified:
        return [config.bind_address]
    addresses = ((node or {}).get("status") or {}).get("addresses") or ()
    return [each["address"] for each in addresses if each["type"] == "InternalIP"]


def _node_port_ips(config: Config, node_ips: Sequence[str], family: IPFamily) -> tuple[str, ...] | None:
    """The addresses that NodePorts answer on; None: all."""
    wanted = config.node_port_addresses
    if not wanted:
        return None
    if wanted == ("primary",):
        return tuple(node_ips)
    networks = [ip_network(each, strict=False) for each in wanted if family_of(each) == family]
    if not networks or any(each.prefixlen == 0 for each in networks):
        return None
    addresses = (ip_address(each) for each in local_addresses() if family_of(each) == family)
    chosen = [each for each in addresses if not each.is_loopback and any(each in net for net in networks)]
    return tuple(sorted(str(each) for each in chosen))


def local_addresses() -> list[str]:
    """This machine's addresses, as iproute2 lists them."""
    listing = subprocess.run(["ip", "-json", "address"], capture_output=True, check=True).stdout
    return [each["local"] for link in json.loads(listing) for each in link["addr_info"] if "local" in each]


def zone_of(node: Obj | None) -> str:
    """The zone that a Node object says it is in."""
    labels = ((node or {}).get("metadata") or {}).get("labels") or {}
    return labels.get(ZONE_LABEL, "")


def differ(new: Obj | None, old: Obj | None) -> bool:
    """Whether what the rules depend on changed; a node reports its condition all the time."""

    def relevant(node: Obj | None) -> tuple[object, ...]:
        spec, status = (node or {}).get("spec") or {}, (node or {}).get("status") or {}
        return zone_of(node), spec.get("podCIDRs"), status.get("addresses")

    return relevant(new) != relevant(old)
