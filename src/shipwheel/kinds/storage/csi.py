"""What CSI drivers say of themselves: the driver, its presence on a node, the room it has left."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, NONE, UNSET, Value, dig, text
from shipwheel.kinds.declare import served

_GROUP = "storage.k8s.io"


def _flag(field: str, *, default: bool) -> Value:
    def value(driver: Obj, now: datetime) -> bool:
        flag = (driver.get("spec") or {}).get(field)
        return default if flag is None else flag

    return value


def _token_requests(driver: Obj, now: datetime) -> str:
    requests = (driver.get("spec") or {}).get("tokenRequests")
    return UNSET if requests is None else ",".join(each.get("audience", "") for each in requests)


def _modes(driver: Obj, now: datetime) -> str:
    return ",".join((driver.get("spec") or {}).get("volumeLifecycleModes") or ()) or NONE


RESOURCES = (
    Resource(
        kind="CSIDriver",
        plural="csidrivers",
        singular="csidriver",
        namespaced=False,
        versions=(served(_GROUP, "v1", "CSIDriver"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("AttachRequired", _flag("attachRequired", default=True), type="boolean"),
            Column("PodInfoOnMount", _flag("podInfoOnMount", default=False), type="boolean"),
            Column("StorageCapacity", _flag("storageCapacity", default=False), type="boolean"),
            Column("TokenRequests", _token_requests),
            Column("RequiresRepublish", _flag("requiresRepublish", default=False), type="boolean"),
            Column("Modes", _modes),
            AGE,
        ),
    ),
    Resource(
        kind="CSINode",
        plural="csinodes",
        singular="csinode",
        namespaced=False,
        versions=(served(_GROUP, "v1", "CSINode"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Drivers", lambda obj, now: len(dig(obj, "spec", "drivers") or ()), type="integer"),
            AGE,
        ),
    ),
    Resource(
        kind="CSIStorageCapacity",
        plural="csistoragecapacities",
        singular="csistoragecapacity",
        versions=(served(_GROUP, "v1", "CSIStorageCapacity"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("StorageClassName", text("storageClassName")),
            Column("Capacity", text("capacity", absent=UNSET)),
        ),
    ),
)
