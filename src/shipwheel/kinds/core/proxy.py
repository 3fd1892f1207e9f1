"""`proxy`: HTTP through the API server to a pod, a service or a node.

The name in the URL may carry a scheme and a port: `name`, `name:port` or `scheme:name:port`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

from shipwheel.api.errors import bad_request
from shipwheel.api.meta import GroupVersionKind
from shipwheel.api.resource import Call, Server, Subresource
from shipwheel.kinds.declare import ANY_METHOD


def proxy_subresource(kind: str, call: Callable[[Server, Call], Awaitable[Any]]) -> Subresource:
    """`kind` is that of the options: `PodProxyOptions`."""
    return Subresource("proxy", ANY_METHOD, kind=GroupVersionKind("", "v1", kind), call=call, connect=True)


def split_scheme_name_port(text: str) -> tuple[str, str, str] | None:
    """(scheme, name, port) of a proxied name, scheme and port empty if absent; None when it is malformed."""
    parts = text.split(":")
    if len(parts) == 1:
        scheme, name, port = "", parts[0], ""
    elif len(parts) == 2:
        scheme, name, port = "", parts[0], parts[1]
    elif len(parts) == 3:
        scheme, name, port = parts
        if scheme not in ("http", "https"):
            return None
    else:
        return None
    return (scheme, name, port) if name else None


def target_of(call: Call, kind: str) -> tuple[str, str, str]:
    """The (scheme, name, port) that a call's name stands for; ApiError 400 when it is malformed."""
    target = split_scheme_name_port(call.name)
    if target is None:
        raise bad_request(f'invalid {kind} request "{call.name}"')
    return target


def require_proxyable(address: str) -> None:
    """Refuse to be a road to loopback and link-local addresses."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        raise bad_request("address not allowed") from None
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        raise bad_request("address not allowed")
