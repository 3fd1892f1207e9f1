"""Devices: what drivers offer, what is asked for, what was given (KEP-4381)."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, dig, text
from shipwheel.kinds.declare import STATUS, served

_GROUP = "resource.k8s.io"


def _state(claim: Obj, now: datetime) -> str:
    deleted = bool(claim["metadata"].get("deletionTimestamp"))
    states = ["deleted"] if deleted else []
    if dig(claim, "status", "allocation"):
        states.append("allocated")
        if dig(claim, "status", "reservedFor"):
            states.append("reserved")
    elif not deleted:
        states.append("pending")
    return ",".join(states)


RESOURCES = (
    Resource(
        kind="DeviceClass",
        plural="deviceclasses",
        singular="deviceclass",
        namespaced=False,
        versions=(served(_GROUP, "v1", "DeviceClass"),),
        strategy=Strategy(),
        columns=(NAME, AGE),
    ),
    Resource(
        kind="ResourceClaim",
        plural="resourceclaims",
        singular="resourceclaim",
        versions=(served(_GROUP, "v1", "ResourceClaim"),),
        strategy=Strategy(),
        columns=(NAME, Column("State", _state), AGE),
        subresources=(STATUS,),
    ),
    Resource(
        kind="ResourceClaimTemplate",
        plural="resourceclaimtemplates",
        singular="resourceclaimtemplate",
        versions=(served(_GROUP, "v1", "ResourceClaimTemplate"),),
        strategy=Strategy(),
        columns=(NAME, AGE),
    ),
    Resource(
        kind="ResourceSlice",
        plural="resourceslices",
        singular="resourceslice",
        namespaced=False,
        versions=(served(_GROUP, "v1", "ResourceSlice"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Node", text("spec", "nodeName")),
            Column("Driver", text("spec", "driver")),
            Column("Pool", text("spec", "pool", "name")),
            AGE,
        ),
        selectable={
            "spec.nodeName": lambda each: each["spec"].get("nodeName", ""),
            "spec.driver": lambda each: each["spec"].get("driver", ""),
        },
    ),
)
