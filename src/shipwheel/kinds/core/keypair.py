"""Whether a certificate and a private key belong together, in the words of Go's crypto/tls."""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from shipwheel.kinds.pem import blocks


def key_pair_complaint(certificate: bytes, key: bytes) -> str:
    """What is wrong with the pair, both in PEM; empty when nothing is."""
    chain, skipped = _blocks(certificate, lambda kind: kind == "CERTIFICATE")
    if not chain:
        return _no_certificate(skipped)
    keys, skipped = _blocks(key, lambda kind: kind == "PRIVATE KEY" or kind.endswith(" PRIVATE KEY"))
    if not keys:
        return _no_key(skipped)
    try:
        public = x509.load_pem_x509_certificate(chain[0]).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "x509: malformed certificate"
    try:
        private = load_pem_private_key(keys[0], password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "tls: failed to parse private key"
    its_public = private.public_key()
    if type(its_public) is not type(public):
        return "tls: private key type does not match public key type"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if its_public.public_bytes(*form) != public.public_bytes(*form):
        return "tls: private key does not match public key"
    return ""


def _blocks(text: bytes, wanted: Callable[[str], bool]) -> tuple[list[bytes], list[str]]:
    """The PEM blocks of the wanted kinds, and the kinds of those before the first of them."""
    found: list[bytes] = []
    skipped: list[str] = []
    for block in blocks(text):
        if wanted(block.kind):
            found.append(block.text)
        elif not found:
            skipped.append(block.kind)
    return found, skipped


def _no_certificate(skipped: list[str]) -> str:
    if not skipped:
        return "tls: failed to find any PEM data in certificate input"
    if len(skipped) == 1 and skipped[0].endswith("PRIVATE KEY"):
        return (
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM "
            "inputs may have been switched"
        )
    return (
        'tls: failed to find "CERTIFICATE" PEM block in certificate input after skipping PEM blocks of the '
        f"following types: [{' '.join(skipped)}]"
    )


def _no_key(skipped: list[str]) -> str:
    if not skipped:
        return "tls: failed to find any PEM data in key input"
    if skipped == ["CERTIFICATE"]:
        return "tls: found a certificate rather than a key in the PEM for the private key"
    return (
        'tls: failed to find PEM block with type ending in "PRIVATE KEY" in key input after skipping PEM blocks '
        f"of the following types: [{' '.join(skipped)}]"
    )
