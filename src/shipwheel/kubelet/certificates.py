"""A node's certificates: keys, what is asked for with them, where they are kept and when they are due for renewal.

Keys never leave the node. Files are upstream's: `kubelet-client-current.pem` (`kubelet-server-current.pem`) is a link
to the newest of the dated files beside it, each holding a certificate and its key.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
CLIENT_USAGES = ("digital signature", "client auth")
SERVING_USAGES = ("digital signature", "server auth")
NODES_GROUP = "system:nodes"
EARLIEST, LATEST = 0.7, 0.9
"""Parts of a certificate's life between which it is renewed, so that nodes set up together do not ask together."""


class CertificateError(Exception):
    """A file that is not what it should be."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate, with its chain, and its key; PEM."""

    certificate: bytes
    key: bytes

    def renewal(self, share: float) -> datetime:
        """When to renew it; `share` in [0, 1] chooses within the span in which that may be."""
        leaf = self._leaf()
        begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        return begins + (ends - begins) * (EARLIEST + (LATEST - EARLIEST) * share)

    def valid(self, now: datetime) -> bool:
        leaf = self._leaf()
        return leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc

    def names(self) -> tuple[str, frozenset[str]]:
        """(common name, DNS names and addresses)."""
        from cryptography import x509
        from cryptography.x509.oid import NameOID

        leaf = self._leaf()
        common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        try:
            listed = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            listed = x509.SubjectAlternativeName([])
        hosts = frozenset(str(each.value) for each in listed)
        return (str(common[0].value) if common else "", hosts)

    def _leaf(self) -> x509.Certificate:
        from cryptography import x509

        try:
            return x509.load_pem_x509_certificates(self.certificate)[0]
        except ValueError as error:
            raise CertificateError(f"unable to parse certificate: {error}") from error


def new_key() -> bytes:
    """A private key (ECDSA on P-256), PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def request_for(key: bytes, node: str, hosts: Sequence[str] = ()) -> bytes:
    """A certificate request of the node's, signed with its key; PEM. `hosts` are DNS names and addresses."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, NODES_GROUP),
            x509.NameAttribute(NameOID.COMMON_NAME, user_of(node)),
        ]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(each) for each in hosts]), critical=False
        )
    private = serialization.load_pem_private_key(key, password=None)
    signed = builder.sign(private, hashes.SHA256())  # type: ignore[arg-type]
    return signed.public_bytes(serialization.Encoding.PEM)


def _general_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def public_part(key: bytes) -> bytes:
    """A private key's public one, PEM."""
    from cryptography.hazmat.primitives import serialization

    public = serialization.load_pem_private_key(key, password=None).public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def user_of(node: str) -> str:
    return f"system:node:{node}"


class CertificateStore:
    """The certificates of one purpose (`kubelet-client`) in a directory."""

    def __init__(self, directory: Path, purpose: str) -> None:
        self._directory = directory
        self._purpose = purpose

    @property
    def current_path(self) -> Path:
        return self._directory / f"{self._purpose}-current.pem"

    def current(self) -> Pair | None:
        """The newest pair; None when there is none, CertificateError when it cannot be read."""
        try:
            content = self.current_path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CertificateError(f"{self.current_path}: {error.strerror}") from error
        return split(content)

    def keep(self, pair: Pair, now: datetime) -> None:
        """Make a pair the current one; OSError when it cannot be written."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._directory / f"{self._purpose}-{now:%Y-%m-%d-%H-%M-%S}.pem"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(pair.certificate.rstrip() + b"\n" + pair.key)
        scratch = self._directory / f"{self._purpose}-updated.pem"
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(file)
        scratch.replace(self.current_path)


def split(content: bytes) -> Pair:
    """The certificates and the key of one PEM file."""
    certificates, key = [], b""
    for block in content.split(b"-----BEGIN ")[1:]:
        text = b"-----BEGIN " + block
        if block.startswith(b"CERTIFICATE-----"):
            certificates.append(text)
        elif b"PRIVATE KEY-----" in block.partition(b"\n")[0]:
            key = text
    if not certificates or not key:
        raise CertificateError("a certificate and its key were expected in one file")
    return Pair(b"".join(certificates), key)
