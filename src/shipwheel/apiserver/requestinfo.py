"""What a request is about, read from its method and path alone (upstream's RequestInfo).

The verb is what authorization, flow control, audit and metrics speak of: `get`, `list`, `watch`, `create`, `update`,
`patch`, `delete`, `deletecollection` on resources; the lower-case HTTP method on other paths.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from shipwheel.client.httpserver import Request

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NAMESPACE_SUBRESOURCES = {"status", "finalize"}


class RequestInfo(NamedTuple):
    """`rest` is the path after a subresource, not decoded: `/metrics` of `pods/x/proxy/metrics`."""

    verb: str
    path: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    rest: str = ""


@lru_cache(maxsize=4096)
def _parse(method: str, raw_path: str, is_watch: bool) -> RequestInfo:
    raw_parts = raw_path.strip("/").split("/")
    if "%" in raw_path:
        path, parts = unquote(raw_path), [unquote(part) for part in raw_parts]
    else:
        path, parts = raw_path, raw_parts
    if parts[0] == "api" and len(parts) >= 3:
        group, version, parts = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(verb=method.lower(), path=path)
    verb = _VERBS.get(method, "")
    if parts[0] == "watch" and len(parts) > 1:
        # The deprecated form of ?watch=true.
        verb, parts, is_watch = "watch", parts[1:], True
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
            parts = parts[2:]
    resource = parts[0]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 else ""
    rest = "/".join(["", *raw_parts[len(raw_parts) - len(parts) + 3 :]]) if len(parts) > 3 else ""
    if raw_path.endswith("/"):
        rest += "/"
    if not name:
        if verb == "get":
            verb = "watch" if is_watch else "list"
        elif verb == "delete":
            verb = "deletecollection"
    elif verb == "get" and is_watch:
        verb = "watch"
    return RequestInfo(verb, path, True, group, version, namespace, resource, subresource, name, rest)


def request_info(request: Request) -> RequestInfo:
    """Read a request's method and path."""
    is_watch = "watch" in request.raw_query and bool(request.flag("watch"))
    return _parse(request.method, request.raw_path, is_watch)
