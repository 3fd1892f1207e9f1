"""The node IPAM loop."""

from __future__ import annotations

from shipwheel.api.meta import Obj, name_of
from shipwheel.client.informer import EventType
from shipwheel.client.resources import NODES
from shipwheel.controllers.config import ControllerManagerConfig
from shipwheel.controllers.framework import Context, Retry
from shipwheel.controllers.node_ipam.ranges import NodeRanges, RangesExhausted, parse_network


def ranges_of(config: ControllerManagerConfig) -> list[NodeRanges]:
    """The ranges that flags describe, one for each family; ValueError when they make no sense."""
    found: list[NodeRanges] = []
    for text in config.cluster_cidr:
        cluster = parse_network(text)
        if cluster.version == 4:
            mask = config.node_cidr_mask_size_ipv4 or config.node_cidr_mask_size or 24
        else:
            mask = config.node_cidr_mask_size_ipv6 or config.node_cidr_mask_size or 64
        found.append(NodeRanges(cluster, mask))
    if len(found) > 2 or len({each.cluster.version for each in found}) != len(found):
        raise ValueError("--cluster-cidr: at most one range of each IP family")
    for text in config.service_cluster_ip_range:
        for each in found:
            each.occupy(parse_network(text))
    return found


class NodeIpamController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._ranges = ranges_of(ctx.config)
        self._reserved: dict[str, list[str]] = {}
        self._nodes = ctx.informer(NODES)
        self._loop = ctx.loop("cidrallocator_node", self.reconcile, workers=30, informers=(self._nodes,))
        self._nodes.add_handler(self._on_node)
        self._allocated = ctx.metrics.counter(
            "node_ipam_controller_cidrset_cidrs_allocations_total",
            "[ALPHA] Counter measuring total number of CIDR allocations.",
            ("clusterCIDR",),
        )

    async def run(self) -> None:
        await self._loop.run()

    def _on_node(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is None:
            assert old is not None
            self._release(name_of(old), old["spec"].get("podCIDRs") or ())
            return
        for text in new["spec"].get("podCIDRs") or ():
            self._occupy(text)
        self._loop.add(new)

    async def reconcile(self, key: str) -> float | None:
        node = self._nodes.get("", key)
        if node is None:
            self._release(key, ())
            return None
        if node["spec"].get("podCIDRs"):
            self._reserved.pop(key, None)
            return None
        reserved = self._reserved.get(key)
        if reserved is None:
            try:
                reserved = self._reserve()
            except RangesExhausted as error:
                reference = {"kind": "Node", "name": key, "uid": node["metadata"]["uid"], "apiVersion": "v1"}
                message = f"Node {key} status is now: CIDRNotAvailable"
                self._ctx.recorder.event(reference, "Normal", "CIDRNotAvailable", message)
                raise Retry(str(error)) from error
            self._reserved[key] = reserved
        # Kept in mind until the node shows it: a write whose answer was lost may have been carried out.
        await self._ctx.client.patch(
            NODES, key, "", {"spec": {"podCIDR": reserved[0], "podCIDRs": reserved}}, kind="strategic"
        )
        return None

    def _reserve(self) -> list[str]:
        taken: list[str] = []
        try:
            for ranges in self._ranges:
                taken.append(str(ranges.allocate()))
                self._allocated.labels(str(ranges.cluster)).inc()
        except RangesExhausted:
            for text in taken:
                self._give_back(text)
            raise
        return taken

    def _release(self, name: str, shown: list[str] | tuple[str, ...]) -> None:
        for text in {*self._reserved.pop(name, ()), *shown}:
            self._give_back(text)

    def _occupy(self, text: str) -> None:
        for ranges in self._ranges:
            ranges.occupy(parse_network(text))

    def _give_back(self, text: str) -> None:
        for ranges in self._ranges:
            ranges.release(parse_network(text))
