"""Making certificates from requests, with a CA of the cluster."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from shipwheel.api.meta import Obj

_BACKDATE = timedelta(minutes=5)
"""So that the certificate is good on machines whose clocks are a little behind."""
_SHORT = timedelta(hours=8)
_LEAST = timedelta(minutes=10)

_KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_EXTENDED = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
    "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3",
    "netscape sgc": "2.16.840.1.113730.4.1",
}


class CannotSign(ValueError):
    """The request cannot be signed."""


@dataclass(frozen=True)
class Authority:
    """A CA: certificate and key as PEM."""

    certificate: str
    key: str

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        return (
            x509.load_pem_x509_certificate(self.certificate.encode()),
            load_pem_private_key(self.key.encode(), None),
        )

    def sign(self, csr: Obj, longest: timedelta, now: datetime) -> str:
        """The certificate for a request, as PEM; CannotSign, ValueError."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        ca, key = self._loaded
        spec = csr["spec"]
        request = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        if not request.is_signature_valid:
            raise CannotSign("unable to verify certificate request signature")
        begin, end = validity(spec.get("expirationSeconds"), longest, ca.not_valid_after_utc, now)
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(ca.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False)
        )
        builder = _with_usages(builder, spec.get("usages") or ())
        try:
            alternatives = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            builder = builder.add_extension(alternatives.value, critical=alternatives.critical)
        except x509.ExtensionNotFound:
            pass
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def validity(seconds: int | None, longest: timedelta, ca_end: datetime, now: datetime) -> tuple[datetime, datetime]:
    """From when to when a certificate is good: as long as was asked for, but not shorter than ten minutes, not
    longer than the signer gives, and not beyond its CA."""
    wanted = longest if seconds is None else min(max(timedelta(seconds=seconds), _LEAST), longest)
    end = min(now + (wanted if wanted < _SHORT else wanted - _BACKDATE), ca_end)
    if now >= ca_end:
        shown = ca_end.astimezone(UTC).isoformat()
        raise CannotSign(f"refusing to sign a certificate that expired in the past: NotAfter={shown}")
    return now - _BACKDATE, end


def split_usages(usages: Iterable[str]) -> tuple[set[str], list[str]]:
    """(names of key usage bits, OIDs of extended usages); CannotSign for one that is neither."""
    usages = list(usages)
    unknown = [usage for usage in usages if usage not in _KEY_USAGES and usage not in _EXTENDED]
    if unknown:
        raise CannotSign(f"unrecognized usage values: {unknown}")
    extended = sorted({_EXTENDED[usage] for usage in usages if usage in _EXTENDED})
    return {_KEY_USAGES[usage] for usage in usages if usage in _KEY_USAGES}, extended


def _with_usages(builder: Any, usages: Sequence[str]) -> Any:
    from cryptography import x509

    bits, extended = split_usages(usages)
    if bits:
        flags = {name: name in bits for name in set(_KEY_USAGES.values())}
        builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
    if extended:
        purposes = [x509.ObjectIdentifier(oid) for oid in extended]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder


def expiry_of(csr: Obj) -> datetime | None:
    """When the certificate of an issued request ends; None when there is none that can be read."""
    from cryptography import x509

    encoded = (csr.get("status") or {}).get("certificate")
    if not encoded:
        return None
    try:
        return x509.load_pem_x509_certificate(base64.b64decode(encoded)).not_valid_after_utc
    except ValueError:
        return None
