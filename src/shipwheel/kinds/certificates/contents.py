"""Whether the bytes in a signing request are what they shall be."""

from __future__ import annotations

import base64

from shipwheel.kinds.pem import blocks


def request_complaint(encoded: str) -> str:
    """What is wrong with a certificate request (PEM, in base64); empty when it is well signed."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    found = blocks(base64.b64decode(encoded))
    if not found or found[0].kind != "CERTIFICATE REQUEST":
        return "PEM block type must be CERTIFICATE REQUEST"
    try:
        is_signed = x509.load_pem_x509_csr(found[0].text).is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return f"asn1: structure error: {error}"
    return "" if is_signed else "x509: signature verification failed"


def certificate_complaint(encoded: str) -> str:
    """What is wrong with a certificate (PEM, in base64); empty when nothing is."""
    from cryptography import x509

    found = blocks(base64.b64decode(encoded))
    for block in found:
        if block.kind != "CERTIFICATE":
            return f'only CERTIFICATE PEM blocks are allowed, found "{block.kind}"'
        if block.has_headers:
            return "no PEM block headers are permitted"
        try:
            x509.load_pem_x509_certificate(block.text)
        except ValueError as error:
            return f"x509: malformed certificate: {error}"
    return "" if found else "must contain at least one CERTIFICATE PEM block"


_CLIENT_USAGES = ({"digital signature", "client auth"}, {"digital signature", "key encipherment", "client auth"})
_SERVING_USAGES = ({"digital signature", "server auth"}, {"digital signature", "key encipherment", "server auth"})


def signer_of_kubelet(encoded: str, usages: list[str]) -> str:
    """The signer for a request that a kubelet makes for itself, empty for any other request."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    if request_complaint(encoded):
        return ""
    request = x509.load_pem_x509_csr(blocks(base64.b64decode(encoded))[0].text)
    organizations = [each.value for each in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    names = [each.value for each in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if organizations != ["system:nodes"] or not names or not str(names[0]).startswith("system:node:"):
        return ""
    try:
        alternatives = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        alternatives = x509.SubjectAlternativeName([])
    kinds = {type(each) for each in alternatives}
    if not kinds and set(usages) in _CLIENT_USAGES:
        return "kubernetes.io/kube-apiserver-client-kubelet"
    if kinds and kinds <= {x509.DNSName, x509.IPAddress} and set(usages) in _SERVING_USAGES:
        return "kubernetes.io/kubelet-serving"
    return ""
