"""The way to the kubelets: where a node's is, and how the API server shows who it is."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from urllib.parse import urlencode

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.apiserver.forward import Destination

NODES = GroupResource("", "nodes")
ADDRESS_TYPES = ("Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP")
DEFAULT_PORT = 10250


def kubelet_context(*, ca_file: str, certificate: str, key: str) -> ssl.SSLContext:
    """TLS towards kubelets. Without a CA their serving certificates are not checked (upstream's default)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if ca_file:
        context.load_verify_locations(ca_file)
        context.check_hostname = True
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    else:
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate, key)
    return context


def kubelet_of(node: Obj, preferred: Sequence[str], tls: ssl.SSLContext) -> Destination:
    """Where a node's kubelet listens: its first address of the preferred types. ApiError when it has none."""
    status = node.get("status") or {}
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or DEFAULT_PORT
    addresses = status.get("addresses") or ()
    for kind in preferred:
        for address in addresses:
            if address.get("type") == kind and address.get("address"):
                return Destination(address["address"], port, tls)
    types = ", ".join(preferred)
    raise ApiError(500, "InternalError", f"no preferred addresses found; known addresses: [], preferred: [{types}]")


def target(path: str, query: Sequence[tuple[str, str]]) -> str:
    """Path and query as they go over the wire."""
    return f"{path}?{urlencode(query)}" if query else path
