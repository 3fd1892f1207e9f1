"""A server's side of TLS."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping, Sequence


class ServerContext(ssl.SSLContext):
    """Tells of handshakes that came to nothing, of which nobody else hears: `failed` is called for each."""

    failed: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, *_: object) -> None:
        context = self

        class Handshake(ssl.SSLObject):
            def do_handshake(self) -> None:
                try:
                    super().do_handshake()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except ssl.SSLError:
                    context.failed()
                    raise

        self.sslobject_class = Handshake


def server_tls(
    certificate: str,
    key: str,
    *,
    client_ca: Mapping[str, str] | list[str] | None = None,
    client_certificate: bool = False,
    minimum: str = "",
    ciphers: Sequence[str] = (),
) -> ServerContext:
    """A server's TLS context from PEM files. With `client_ca` (PEM texts) a client may show a certificate, which
    one of these CAs must have signed; `client_certificate` makes showing one a must. `minimum` is `VersionTLS12`, the
    default, or `VersionTLS13`; `ciphers` are those of TLS 1.2, by their IANA names. ValueError for what is unknown."""
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _version(minimum)
    if ciphers:
        context.set_ciphers(":".join(_cipher(name) for name in ciphers))
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0
    if client_ca:
        for pem in client_ca.values() if isinstance(client_ca, Mapping) else client_ca:
            context.load_verify_locations(cadata=pem)
        context.verify_mode = ssl.CERT_REQUIRED if client_certificate else ssl.CERT_OPTIONAL
    return context


def _version(name: str) -> ssl.TLSVersion:
    match name:
        case "" | "VersionTLS12":
            return ssl.TLSVersion.TLSv1_2
        case "VersionTLS13":
            return ssl.TLSVersion.TLSv1_3
        case "VersionTLS10" | "VersionTLS11":
            raise ValueError(f'TLS version "{name}" is not offered any more')
        case _:
            raise ValueError(f'unknown tls version "{name}"')


def _cipher(name: str) -> str:
    """OpenSSL's name of a TLS 1.2 cipher suite; those of TLS 1.3 cannot be chosen, in Go neither."""
    known = re.fullmatch(r"TLS_(ECDHE_(?:ECDSA|RSA)|RSA)_WITH_(\w+)", name)
    cipher = _CIPHERS.get(known[2]) if known else None
    if known is None or cipher is None:
        raise ValueError(f"Cipher suite {name} not supported or doesn't exist")
    exchange = "" if known[1] == "RSA" else known[1].replace("_", "-") + "-"
    return exchange + cipher


_CIPHERS = {
    "AES_128_CBC_SHA": "AES128-SHA",
    "AES_256_CBC_SHA": "AES256-SHA",
    "AES_128_CBC_SHA256": "AES128-SHA256",
    "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "CHACHA20_POLY1305": "CHACHA20-POLY1305",
    "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
}
