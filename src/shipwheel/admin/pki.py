"""The cluster's keys and certificates, in the files and under the names that kubeadm gives them.

Three authorities that do not trust one another (the cluster's, etcd's, the front proxy's) sign what the
components show each other. Which certificate is signed by whom, for what and with which names is a table
(`leaves`), taken from the Kubernetes documentation, "PKI certificates and requirements". `ensure` makes what
is missing, renews what is about to expire or lacks a name, and refuses what is damaged: it never replaces an
authority, because everything issued by it would be lost with it.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_VALIDITY = timedelta(days=3650)
LEAF_VALIDITY = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
BACKDATE = timedelta(minutes=5)
"""Certificates are valid a little before they are made, for machines whose clocks differ."""

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


class PkiError(Exception):
    """A file that cannot be used; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Authority:
    file: str
    """Without `.crt` and `.key`, relative to the PKI directory."""
    common_name: str


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a certificate says. `hosts` are DNS names and IP addresses."""

    common_name: str
    usages: tuple[x509.ObjectIdentifier, ...]
    organization: str = ""
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyPair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


KUBERNETES_CA = Authority("ca", "kubernetes-ca")
ETCD_CA = Authority("etcd/ca", "etcd-ca")
FRONT_PROXY_CA = Authority("front-proxy-ca", "kubernetes-front-proxy-ca")

MASTERS = "system:masters"
NODES = "system:nodes"


def leaves(api_hosts: Sequence[str], etcd_hosts: Sequence[str]) -> dict[str, tuple[Authority, Leaf]]:
    """The certificates that live in files of their own: file name -> (who signs, what it says)."""
    both = (SERVER, CLIENT)
    return {
        "apiserver": (KUBERNETES_CA, Leaf("kube-apiserver", (SERVER,), hosts=tuple(api_hosts))),
        "apiserver-kubelet-client": (KUBERNETES_CA, Leaf("kube-apiserver-kubelet-client", (CLIENT,))),
        "front-proxy-client": (FRONT_PROXY_CA, Leaf("front-proxy-client", (CLIENT,))),
        "etcd/server": (ETCD_CA, Leaf("kube-etcd", both, hosts=tuple(etcd_hosts))),
        "etcd/peer": (ETCD_CA, Leaf("kube-etcd-peer", both, hosts=tuple(etcd_hosts))),
        "etcd/healthcheck-client": (ETCD_CA, Leaf("kube-etcd-healthcheck-client", (CLIENT,))),
        "apiserver-etcd-client": (ETCD_CA, Leaf("kube-apiserver-etcd-client", (CLIENT,))),
    }


def api_server_hosts(
    *, node_name: str, addresses: Iterable[str], service_ip: str, domain: str = "cluster.local"
) -> tuple[str, ...]:
    """Every name and address under which clients reach the API server."""
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{domain}")
    return _unique((node_name, *names, "localhost", "127.0.0.1", "::1", service_ip, *addresses))


def user(name: str, *groups: str) -> Leaf:
    """A client certificate: its common name is the user, its organization the group."""
    return Leaf(name, (CLIENT,), organization=groups[0] if groups else "")


ADMIN = user("kubernetes-admin", MASTERS)
CONTROLLER_MANAGER = user("system:kube-controller-manager")
SCHEDULER = user("system:kube-scheduler")
PROXY = user("system:kube-proxy")


def node_user(node_name: str) -> Leaf:
    return user(f"system:node:{node_name}", NODES)


def node_server(node_name: str, addresses: Iterable[str]) -> Leaf:
    """The kubelet's serving certificate."""
    hosts = _unique((node_name, *addresses))
    return Leaf(f"system:node:{node_name}", (SERVER,), organization=NODES, hosts=hosts)


def ensure(directory: Path, *, api_hosts: Sequence[str], etcd_hosts: Sequence[str], now: datetime) -> list[Path]:
    """Make the whole tree of keys and certificates, or what is missing of it, and check the rest.

    Returns the certificates and keys written. Raises `PkiError` for what is damaged or expired and cannot be
    made anew without breaking what depends on it.
    """
    written: list[Path] = []
    for authority in (KUBERNETES_CA, ETCD_CA, FRONT_PROXY_CA):
        written += _ensure_authority(directory, authority, now)
    for file, (authority, leaf) in leaves(api_hosts, etcd_hosts).items():
        written += ensure_leaf(directory / file, load(directory / authority.file), leaf, now)
    return written + _ensure_service_account_key(directory / "sa")


def ensure_leaf(file: Path, authority: KeyPair, leaf: Leaf, now: datetime) -> list[Path]:
    """Keep the certificate at `file` (without suffix) if it will do, or issue it."""
    if _exists(file) and says(load(file).certificate, authority, leaf, now):
        return []
    return _write(file, issue(authority, leaf, now))


def says(certificate: x509.Certificate, authority: KeyPair, leaf: Leaf, now: datetime) -> bool:
    """Whether a certificate still says what `leaf` asks for, long enough, signed by `authority`."""
    return (
        certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE
        and certificate.subject == _subject(leaf.common_name, leaf.organization)
        and set(_normal(leaf.hosts)) <= set(_hosts_of(certificate))
        and _signed_by(certificate, authority.certificate)
    )


def load(file: Path) -> KeyPair:
    """Read `file`.crt and `file`.key; PkiError if either is missing or damaged, or they do not match."""
    certificate_file, key_file = _files(file)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except (OSError, ValueError) as error:
        raise PkiError(f"couldn't load the certificate file {certificate_file}: {_why(error)}") from error
    try:
        key = load_pem_private_key(key_file.read_bytes(), None)
    except (OSError, ValueError) as error:
        raise PkiError(f"couldn't load the private key file {key_file}: {_why(error)}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"the private key file {key_file} is not in ECDSA format")
    if certificate.public_key() != key.public_key():
        raise PkiError(f"the private key {key_file} does not belong to the certificate {certificate_file}")
    return KeyPair(certificate, key)


def issue(authority: KeyPair, leaf: Leaf, now: datetime) -> KeyPair:
    """A new key and a certificate for it, signed by `authority`."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    builder = (
        _builder(_subject(leaf.common_name, leaf.organization), issuer.subject, key, now, LEAF_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(leaf.usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if leaf.hosts:
        names = [_general_name(host) for host in leaf.hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return KeyPair(builder.sign(authority.key, hashes.SHA256()), key)


def new_authority(common_name: str, now: datetime) -> KeyPair:
    """A self-signed authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject(common_name, "")
    builder = (
        _builder(name, name, key, now, AUTHORITY_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
    )
    return KeyPair(builder.sign(key, hashes.SHA256()), key)


def write_private(file: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace a file's content in one step, readable by its owner only (unless `mode` says otherwise)."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def _ensure_authority(directory: Path, authority: Authority, now: datetime) -> list[Path]:
    file = directory / authority.file
    if not _exists(file):
        return _write(file, new_authority(authority.common_name, now))
    certificate = load(file).certificate
    period = f"NotBefore: {certificate.not_valid_before_utc}, NotAfter: {certificate.not_valid_after_utc}"
    if now < certificate.not_valid_before_utc:
        raise PkiError(f"{file}.crt: the certificate is not valid yet: {period}")
    if now >= certificate.not_valid_after_utc:
        raise PkiError(f"{file}.crt: the certificate has expired: {period}")
    return []


def _ensure_service_account_key(file: Path) -> list[Path]:
    """`sa.key` signs service accounts' tokens, `sa.pub` verifies them."""
    private, public = file.with_suffix(".key"), file.with_suffix(".pub")
    if private.exists():
        try:
            key = load_pem_private_key(private.read_bytes(), None)
        except (OSError, ValueError) as error:
            raise PkiError(f"couldn't load the private key file {private}: {_why(error)}") from error
        if public.exists():
            try:
                matches = load_pem_public_key(public.read_bytes()) == key.public_key()
            except (OSError, ValueError) as error:
                raise PkiError(f"couldn't load the public key file {public}: {_why(error)}") from error
            if not matches:
                raise PkiError(f"the public key {public} does not belong to the private key {private}")
            return []
        written = [public]
    else:
        if public.exists():
            raise PkiError(f"the private key {private} is missing, but its public key {public} is there")
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(private, key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        written = [private, public]
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_private(public, pem)
    return written


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, validity: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + validity)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_cert_sign=sign_certificates,
        crl_sign=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str, organization: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _hosts_of(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *(str(each) for each in addresses)]


def _normal(hosts: Iterable[str]) -> list[str]:
    return [str(name.value) for name in map(_general_name, hosts)]


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _files(file: Path) -> tuple[Path, Path]:
    return file.with_name(file.name + ".crt"), file.with_name(file.name + ".key")


def _exists(file: Path) -> bool:
    """Either half counts: one without the other is damage that `load` reports."""
    return any(each.exists() for each in _files(file))


def _write(file: Path, pair: KeyPair) -> list[Path]:
    certificate_file, key_file = _files(file)
    write_private(key_file, pair.key_pem)
    write_private(certificate_file, pair.certificate_pem, mode=0o644)
    return [certificate_file, key_file]


def _unique(hosts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(host for host in hosts if host))


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{(error.strerror or 'cannot be read').lower()}"
    return "it holds no usable PEM block"
