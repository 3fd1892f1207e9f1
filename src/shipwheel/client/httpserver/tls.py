"""A server's side of TLS."""

from __future__ import annotations

import ssl
from collections.abc import Mapping


def server_tls(
    certificate: str,
    key: str,
    *,
    client_ca: Mapping[str, str] | list[str] | None = None,
    client_certificate: bool = False,
) -> ssl.SSLContext:
    """A server's TLS context from PEM files. With `client_ca` (PEM texts) a client may show a certificate, which
    one of these CAs must have signed; `client_certificate` makes showing one a must."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0
    if client_ca:
        for pem in client_ca.values() if isinstance(client_ca, Mapping) else client_ca:
            context.load_verify_locations(cadata=pem)
        context.verify_mode = ssl.CERT_REQUIRED if client_certificate else ssl.CERT_OPTIONAL
    return context
