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
