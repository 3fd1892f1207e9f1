"""What a CertificateSigningRequest asks for, and whether its signer may give it."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from shipwheel.api.clock import parse_time
from shipwheel.api.meta import Obj, is_condition_true

API_CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY_UNKNOWN = "kubernetes.io/legacy-unknown"
SIGNERS = (API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN)

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Asked:
    """The parts of a PKCS #10 request that rules are about."""

    common_name: str
    organizations: tuple[str, ...]
    dns_names: tuple[str, ...]
    addresses: tuple[str, ...]
    emails: tuple[str, ...]
    uris: tuple[str, ...]


def parse(csr: Obj) -> Asked:
    """Read `spec.request`; ValueError when it is no PEM of a certificate request."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    request = x509.load_pem_x509_csr(base64.b64decode(csr["spec"]["request"]))
    names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    organizations = request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    try:
        alternatives = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        alternatives = x509.SubjectAlternativeName([])
    return Asked(
        str(names[-1].value) if names else "",
        tuple(str(each.value) for each in organizations),
        tuple(alternatives.get_values_for_type(x509.DNSName)),
        tuple(str(each) for each in alternatives.get_values_for_type(x509.IPAddress)),
        tuple(alternatives.get_values_for_type(x509.RFC822Name)),
        tuple(alternatives.get_values_for_type(x509.UniformResourceIdentifier)),
    )


def complaint(signer: str, asked: Asked, usages: Iterable[str]) -> str:
    """Why a signer refuses a request; empty when it does not."""
    usages = set(usages)
    if signer == KUBELET_CLIENT:
        return _kubelet_client_complaint(asked, usages)
    if signer == KUBELET_SERVING:
        return _kubelet_serving_complaint(asked, usages)
    if signer == API_CLIENT:
        for usage in sorted(usages - {"digital signature", "key encipherment", "client auth"}):
            return f"invalid usage for client certificate: {usage}"
        if "client auth" not in usages:
            return "missing required usage for client certificate: client auth"
    return ""


def _kubelet_client_complaint(asked: Asked, usages: set[str]) -> str:
    if asked.organizations != ("system:nodes",):
        return "subject organization is not system:nodes"
    for values, what in (
        (asked.dns_names, "DNS"),
        (asked.emails, "Email"),
        (asked.addresses, "IP"),
        (asked.uris, "URI"),
    ):
        if values:
            return f"{what} subjectAltNames are not allowed"
    if not asked.common_name.startswith("system:node:"):
        return "subject common name does not begin with system:node:"
    return _usages_complaint(usages, "client auth")


def _kubelet_serving_complaint(asked: Asked, usages: set[str]) -> str:
    if asked.organizations != ("system:nodes",):
        return "subject organization is not system:nodes"
    if not asked.dns_names and not asked.addresses:
        return "DNS or IP subjectAltName is required"
    if asked.emails:
        return "Email subjectAltNames are not allowed"
    if asked.uris:
        return "URI subjectAltNames are not allowed"
    problem = _usages_complaint(usages, "server auth")
    if problem:
        return problem
    if not asked.common_name.startswith("system:node:"):
        return "subject common name does not begin with system:node:"
    return ""


def _usages_complaint(usages: set[str], auth: str) -> str:
    wanted = {auth, "digital signature", "key encipherment"}
    if usages in (wanted, wanted - {"key encipherment"}):
        return ""
    return f"usages did not match [{' '.join(sorted(wanted))}]"


@dataclass(frozen=True, slots=True)
class Recognized:
    """A request that may be approved without asking a person, if its sender may `create` this."""

    subresource: str
    message: str


def recognized(csr: Obj, asked: Asked) -> list[Recognized]:
    """As what a request can be approved: a kubelet's own renewal, or a kubelet's first certificate."""
    spec = csr["spec"]
    if spec.get("signerName") != KUBELET_CLIENT or complaint(KUBELET_CLIENT, asked, spec.get("usages") or ()):
        return []
    found = []
    if spec.get("username") == asked.common_name:
        message = "Auto approving self kubelet client certificate after SubjectAccessReview."
        found.append(Recognized("selfnodeclient", message))
    message = "Auto approving kubelet client certificate after SubjectAccessReview."
    return [*found, Recognized("nodeclient", message)]


def is_decided(csr: Obj) -> bool:
    return any(entry["type"] in ("Approved", "Denied") for entry in (csr.get("status") or {}).get("conditions") or ())


def is_issued(csr: Obj) -> bool:
    return bool((csr.get("status") or {}).get("certificate"))


def is_to_be_signed(csr: Obj) -> bool:
    conditions = {entry["type"] for entry in (csr.get("status") or {}).get("conditions") or ()}
    return (
        "Approved" in conditions
        and "Denied" not in conditions
        and not is_condition_true(csr, "Failed")
        and not is_issued(csr)
    )


def is_spent(csr: Obj, now: datetime, expires: datetime | None) -> bool:
    """It has been dealt with, or has been waiting in vain, long enough to be deleted. `expires`: of the
    certificate that was issued."""
    conditions = (csr.get("status") or {}).get("conditions") or ()
    if not conditions:
        return _older(csr["metadata"].get("creationTimestamp"), _DAY, now)
    issued = is_issued(csr)
    for entry in conditions:
        since = entry.get("lastUpdateTime")
        if entry["type"] in ("Denied", "Failed") and _older(since, _HOUR, now):
            return True
        if entry["type"] == "Approved":
            if _older(since, _HOUR if issued else _DAY, now):
                return True
            if issued and expires is not None and now > expires:
                return True
    return False


def _older(since: str | None, age: timedelta, now: datetime) -> bool:
    return bool(since) and now - parse_time(since or "") > age
