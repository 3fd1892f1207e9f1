"""Which ResourceClaims the node has made ready, for which pods, with which devices (KEP-4381); and how this is written
down, in upstream's form. Pure."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from shipwheel.api.meta import Obj, controller_of
from shipwheel.kubelet.managers import checkpoint
from shipwheel.kubelet.services import ClaimFault

_KIND = {"kind": "DRACheckpoint", "apiVersion": "checkpoint.dra.kubelet.k8s.io/v1"}


@dataclass(frozen=True, slots=True)
class ClaimDevice:
    pool: str
    name: str
    requests: Sequence[str] = ()
    """Those of the claim that it was given for; none: all of them."""
    cdi: Sequence[str] = ()
    share: str = ""

    def serves(self, request: str) -> bool:
        return not request or not self.requests or request in self.requests


@dataclass(slots=True)
class Claim:
    uid: str
    name: str
    namespace: str
    drivers: dict[str, list[ClaimDevice]]
    pods: set[str] = field(default_factory=set)
    prepared: bool = False
    """By this kubelet: what one before it prepared is prepared again, which changes nothing."""

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    @property
    def reference(self) -> Obj:
        """As plugins are told of it."""
        return {"namespace": self.namespace, "uid": self.uid, "name": self.name}


def claim_name(pod: Obj, declared: Obj) -> tuple[str | None, bool]:
    """(the name of the ResourceClaim, whether it must have been made for the pod) of a claim that the pod declares.
    None when it needs none. ClaimFault."""
    if declared.get("resourceClaimName"):
        return declared["resourceClaimName"], False
    meta = pod["metadata"]
    where = f'pod "{meta.get("namespace", "")}/{meta["name"]}"'
    if not declared.get("resourceClaimTemplateName"):
        raise ClaimFault(f'{where}, spec.resourceClaim "{declared["name"]}": none of the supported fields are set')
    for status in (pod.get("status") or {}).get("resourceClaimStatuses") or ():
        if status["name"] == declared["name"]:
            return status.get("resourceClaimName"), True
    raise ClaimFault(f"{where}: ResourceClaim not created yet")


def claims_of(pod: Obj) -> Iterator[tuple[str, bool]]:
    """(name, whether it must have been made for the pod) of all claims of the pod. ClaimFault."""
    for declared in pod["spec"].get("resourceClaims") or ():
        name, owned = claim_name(pod, declared)
        if name is not None:
            yield name, owned
    extended = _extended(pod)
    if extended:
        yield extended["resourceClaimName"], False


def _extended(pod: Obj) -> Obj:
    """The claim that was made for extended resources (KEP-5004)."""
    return (pod.get("status") or {}).get("extendedResourceClaimStatus") or {}


def is_by_claim(pod: Obj, container: Obj, resource: str) -> bool:
    """Whether the container gets the extended resource through a claim, not from a device plugin."""
    return any(
        each.get("containerName") == container["name"] and each.get("resourceName") == resource
        for each in _extended(pod).get("requestMappings") or ()
    )


def requests_of(pod: Obj, container: Obj) -> list[tuple[str, str]]:
    """(claim, request) that the container uses; an empty request is all of the claim. ClaimFault."""
    asked: dict[str, list[str]] = {}
    for each in (container.get("resources") or {}).get("claims") or ():
        asked.setdefault(each["name"], []).append(each.get("request") or "")
    found = []
    for declared in pod["spec"].get("resourceClaims") or ():
        if declared["name"] in asked:
            name, _ = claim_name(pod, declared)
            found += [(name, request) for request in asked[declared["name"]] if name is not None]
    extended = _extended(pod)
    wanted = (container.get("resources") or {}).get("requests") or {}
    for mapping in extended.get("requestMappings") or ():
        if mapping.get("containerName") == container["name"] and mapping.get("resourceName") in wanted:
            found.append((extended["resourceClaimName"], mapping["requestName"]))
    return found


def new_claim(pod: Obj, claim: Obj, *, owned: bool) -> Claim:
    """What is to be remembered of a ResourceClaim; ClaimFault when the pod may not use it."""
    meta, pod_meta = claim["metadata"], pod["metadata"]
    name, uid = meta["name"], pod_meta["uid"]
    if owned:
        owner = controller_of(claim)
        if owner is None or owner.get("uid") != uid:
            raise ClaimFault(
                f"ResourceClaim {meta.get('namespace', '')}/{name} was not created for Pod "
                f"{pod_meta.get('namespace', '')}/{pod_meta['name']} (Pod is not owner)"
            )
    status = claim.get("status") or {}
    if all(each.get("uid") != uid for each in status.get("reservedFor") or ()):
        raise ClaimFault(f"pod {pod_meta['name']} ({uid}) is not allowed to use ResourceClaim {name} ({meta['uid']})")
    if status.get("allocation") is None:
        raise ClaimFault(f"ResourceClaim {name}: not allocated")
    results = (status["allocation"].get("devices") or {}).get("results") or ()
    return Claim(meta["uid"], name, meta.get("namespace", ""), {each["driver"]: [] for each in results})


def read_device(wire: Obj) -> ClaimDevice:
    """From a plugin's answer."""
    return ClaimDevice(
        wire.get("pool_name", ""),
        wire.get("device_name", ""),
        tuple(wire.get("request_names", ())),
        tuple(wire.get("cdi_device_ids", ())),
        wire.get("share_id", ""),
    )


def to_checkpoint(claims: Iterable[Claim]) -> Obj:
    listed = [
        {
            "ClaimUID": each.uid,
            "ClaimName": each.name,
            "Namespace": each.namespace,
            "PodUIDs": {uid: {} for uid in sorted(each.pods)},
            "DriverState": {
                driver: {"Devices": [_device_json(device) for device in devices] or None}
                for driver, devices in each.drivers.items()
            },
        }
        for each in claims
    ]
    data = json.dumps({**_KIND, "ClaimInfoStateList": listed}, separators=(",", ":"))
    return {"Data": data, "Checksum": zlib.crc32(data.encode())}


def _device_json(device: ClaimDevice) -> Obj:
    return {
        "PoolName": device.pool,
        "DeviceName": device.name,
        "ShareID": device.share or None,
        "RequestNames": list(device.requests),
        "CDIDeviceIDs": list(device.cdi),
    }


def from_checkpoint(content: Obj) -> list[Claim]:
    """checkpoint.Corrupt when it is not what was written."""
    try:
        checkpoint.verify(content["Checksum"], zlib.crc32(content["Data"].encode()))
        data: Obj = json.loads(content["Data"])
        return [
            Claim(
                each["ClaimUID"],
                each["ClaimName"],
                each["Namespace"],
                {
                    driver: [_read_device_json(device) for device in state.get("Devices") or ()]
                    for driver, state in (each["DriverState"] or {}).items()
                },
                set(each["PodUIDs"] or ()),
            )
            for each in data["ClaimInfoStateList"] or ()
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise checkpoint.Corrupt(str(error)) from error


def _read_device_json(stored: Obj) -> ClaimDevice:
    return ClaimDevice(
        stored.get("PoolName", ""),
        stored.get("DeviceName", ""),
        tuple(stored.get("RequestNames") or ()),
        tuple(stored.get("CDIDeviceIDs") or ()),
        stored.get("ShareID") or "",
    )
