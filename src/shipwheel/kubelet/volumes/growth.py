"""Growth of a claim's file system on its node, once the volume itself has grown (KEP-1790).

Whoever expands the volume writes the new size into the PersistentVolume; what is left to do here shows in the claim,
whose status still has the old one.
"""

from __future__ import annotations

from dataclasses import dataclass

from shipwheel.api import quantity
from shipwheel.api.meta import Obj
from shipwheel.kubelet.volumes.base import Cluster, Host, Request


@dataclass(frozen=True, slots=True)
class Growth:
    claim: Obj
    size: str
    """What the claim's status is to say."""
    announced: bool
    """Somebody waits for `NodeResizeInProgress`."""

    @property
    def bytes(self) -> int:
        return quantity.value(self.size)

    async def begin(self, cluster: Cluster) -> None:
        if self.announced:
            await cluster.resizing(self.claim, "NodeResizeInProgress")


def due(request: Request) -> Growth | None:
    """What a volume's file system has to grow to; None when there is nothing to do, or nothing that can be done."""
    claim, pv = request.claim, request.pv
    if claim is None or pv is None or request.read_only:
        return None
    status = claim.get("status") or {}
    size = (pv["spec"].get("capacity") or {}).get("storage", "0")
    known = quantity.value((status.get("capacity") or {}).get("storage", "0"))
    if not 0 < known < quantity.value(size):
        return None
    state = (status.get("allocatedResourceStatuses") or {}).get("storage", "")
    if state not in ("", "NodeResizePending", "NodeResizeInProgress"):
        return None
    return Growth(claim, size, announced=state == "NodeResizePending")


def tell(request: Request, host: Host) -> None:
    """The event of a file system that has grown."""
    text = f'MountVolume.NodeExpandVolume succeeded for volume "{request.spec_name}" {host.node_name}'
    host.record(request.pod, "Normal", "FileSystemResizeSuccessful", text)
