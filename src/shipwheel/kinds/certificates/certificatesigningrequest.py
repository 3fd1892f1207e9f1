"""Certificate signing requests."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy, Subresource
from shipwheel.kinds.columns import AGE, NAME, NONE, human_duration, text
from shipwheel.kinds.declare import READ_WRITE, STATUS, served


def _condition(request: Obj, now: datetime) -> str:
    status = request.get("status") or {}
    types = {each.get("type") for each in status.get("conditions") or ()}
    word = "Denied" if "Denied" in types else "Approved" if "Approved" in types else "Pending"
    if "Failed" in types:
        word += ",Failed"
    return word + ",Issued" if status.get("certificate") else word


def _duration(request: Obj, now: datetime) -> str:
    seconds = request["spec"].get("expirationSeconds")
    return NONE if seconds is None else human_duration(seconds)


RESOURCES = (
    Resource(
        kind="CertificateSigningRequest",
        plural="certificatesigningrequests",
        singular="certificatesigningrequest",
        short_names=("csr",),
        namespaced=False,
        versions=(served("certificates.k8s.io", "v1", "CertificateSigningRequest"),),
        strategy=Strategy(),
        columns=(
            NAME,
            AGE,
            Column("SignerName", text("spec", "signerName", absent=NONE)),
            Column("Requestor", text("spec", "username")),
            Column("RequestedDuration", _duration),
            Column("Condition", _condition),
        ),
        subresources=(STATUS, Subresource("approval", READ_WRITE)),
        selectable={"spec.signerName": lambda request: request["spec"].get("signerName", "")},
    ),
)
