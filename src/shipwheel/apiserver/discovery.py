"""What the server serves, as `/api`, `/apis` and their documents say it; in the old form and aggregated (KEP-3352).

Everything is derived from the scheme and kept until that changes. The aggregated documents have ETags.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

import orjson

from shipwheel.api import codec
from shipwheel.api.errors import method_not_allowed, page_not_found
from shipwheel.api.meta import GroupVersion, GroupVersionKind, Obj
from shipwheel.api.resource import Resource, Subresource, Version
from shipwheel.api.scheme import Scheme
from shipwheel.apiserver.apiservices import PRIORITIES
from shipwheel.apiserver.rendering import plain_not_found, render_object
from shipwheel.client.httpserver import Request, Response

_AGGREGATED = frozenset(
    GroupVersionKind("apidiscovery.k8s.io", version, "APIGroupDiscoveryList") for version in ("v2", "v2beta1")
)
_PREFERRED_GROUPS = ("apiregistration.k8s.io", *filter(None, PRIORITIES))
"""The order of the built-in groups; others follow by name."""


class Discovery:
    def __init__(self, scheme: Scheme, *, address: Callable[[], str]) -> None:
        self._scheme = scheme
        self._address = address
        self._generation = -1
        self._documents: dict[str, tuple[bytes, str]] = {}

    def answer(self, request: Request, path: str) -> Response:
        """`/api`, `/api/v1`, `/apis`, `/apis/GROUP`, `/apis/GROUP/VERSION`. ApiError 404."""
        if self._generation != self._scheme.generation:
            self._documents.clear()
            self._generation = self._scheme.generation
        path = path.rstrip("/")
        group = path.split("/")[2] if path.startswith("/apis/") else ""
        if group and not self._scheme.has_group(group):
            return plain_not_found()
        if request.method != "GET":
            raise method_not_allowed()
        root = path in ("/api", "/apis")
        if len(parts := path.split("/")) == 4 and not self._scheme.in_group_version(GroupVersion(group, parts[3])):
            raise page_not_found()
        if path != "/apis" and not (group and len(parts) == 3):  # those two are answered by no route of their own
            codec.check_route(request.header("accept"), codec.OBJECT_ROUTE)
        form = codec.negotiate(request.header("accept"), targets=_AGGREGATED if root else frozenset())
        if form.as_kind:
            return self._aggregated(request, path, form.version)
        known = self._documents.get(path + form.format)
        if known is None:
            document = self._document(path)
            if path.split("/")[1] == "api" and form.format != "protobuf":
                del document["apiVersion"]  # as upstream has it, for the clients of its first release
            body, _ = render_object(document, form)
            known = self._documents[path + form.format] = (body, "")
        return Response(200, known[0], content_type=form.content_type)

    def groups(self) -> list[str]:
        """The named groups, in the order they are listed."""
        present = {gv.group for gv in self._scheme.group_versions() if gv.group}
        known = [group for group in _PREFERRED_GROUPS if group in present]
        return known + sorted(present - set(known))

    def versions(self, group: str) -> list[str]:
        return sort_versions([gv.version for gv in self._scheme.group_versions() if gv.group == group])

    # The old form.

    def _document(self, path: str) -> Obj:
        parts = path.strip("/").split("/")
        if parts == ["api"]:
            return {
                "kind": "APIVersions",
                "apiVersion": "v1",
                "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._address()}],
            }
        if parts == ["apis"]:
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [self._group(group) for group in self.groups()],
            }
        if parts[0] == "apis" and len(parts) == 2 and parts[1] in self.groups():
            return {"kind": "APIGroup", "apiVersion": "v1", **self._group(parts[1])}
        if parts[0] == "api" and len(parts) == 2:
            return self._resources(GroupVersion("", parts[1]))
        if parts[0] == "apis" and len(parts) == 3:
            return self._resources(GroupVersion(parts[1], parts[2]))
        raise page_not_found()

    def _group(self, group: str) -> Obj:
        versions = [{"groupVersion": f"{group}/{each}", "version": each} for each in self.versions(group)]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def _resources(self, gv: GroupVersion) -> Obj:
        served = self._scheme.in_group_version(gv)
        if not served:
            raise page_not_found()
        listed: list[Obj] = []
        for resource, version in served:
            listed.append(_old_entry(resource, version))
            for sub in _subresources(resource, version):
                listed.append(_old_subresource(resource, version, sub))
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": str(gv), "resources": listed}

    # The aggregated form.

    def _aggregated(self, request: Request, path: str, version: str) -> Response:
        key = f"{path}#{version}"
        known = self._documents.get(key)
        if known is None:
            groups = [""] if path == "/api" else self.groups()
            body = orjson.dumps(
                {
                    "kind": "APIGroupDiscoveryList",
                    "apiVersion": f"apidiscovery.k8s.io/{version}",
                    "metadata": {},
                    "items": [self._aggregated_group(group) for group in groups],
                }
            )
            known = self._documents[key] = (body, f'"{hashlib.sha512(body).hexdigest().upper()}"')
        body, etag = known
        headers = [("ETag", etag), ("Vary", "Accept"), ("Cache-Control", "public")]
        if request.header("if-none-match") == etag:
            return Response(304, headers=headers)
        media = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
        return Response(200, body, content_type=media, headers=headers)

    def _aggregated_group(self, group: str) -> Obj:
        metadata: Obj = {"creationTimestamp": None}
        if group:
            metadata["name"] = group
        return {
            "metadata": metadata,
            "versions": [
                {
                    "version": version,
                    "resources": [
                        _aggregated_entry(resource, served)
                        for resource, served in self._scheme.in_group_version(GroupVersion(group, version))
                    ],
                    "freshness": "Current",
                }
                for version in self.versions(group)
            ],
        }


def _subresources(resource: Resource, version: Version) -> list[Subresource]:
    return sorted(
        (sub for sub in resource.subresources if version.subresources is None or sub.name in version.subresources),
        key=lambda sub: sub.name,
    )


def _names(resource: Resource, version: Version) -> Obj:
    """Short names and categories: not in groups of the past, or kubectl would find a kind twice."""
    names: Obj = {}
    if version.group == resource.group or not version.removed_in:
        if resource.short_names:
            names["shortNames"] = list(resource.short_names)
        if resource.categories:
            names["categories"] = list(resource.categories)
    return names


def _old_entry(resource: Resource, version: Version) -> Obj:
    entry: Obj = {
        "name": resource.plural,
        "singularName": resource.singular or resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": sorted(resource.verbs),
    }
    entry |= _names(resource, version)
    if "watch" in resource.verbs:
        entry["storageVersionHash"] = _storage_hash(resource)
    return entry


def _storage_hash(resource: Resource) -> str:
    gvk = resource.gvk
    digest = hashlib.sha256(f"{gvk.group}/{gvk.version}/{gvk.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def _kind_of(resource: Resource, version: Version, sub: Subresource) -> GroupVersionKind:
    return sub.kind or GroupVersionKind(version.group, version.version, resource.kind)


def _old_subresource(resource: Resource, version: Version, sub: Subresource) -> Obj:
    kind = _kind_of(resource, version, sub)
    entry: Obj = {
        "name": f"{resource.plural}/{sub.name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": kind.kind,
        "verbs": sorted(sub.verbs),
    }
    if kind.group_version != version.group_version:
        if kind.group:
            entry["group"] = kind.group
        entry["version"] = kind.version
    return entry


def _response_kind(kind: GroupVersionKind, version: Version) -> Obj:
    """Group and version are left empty where they are those of the path."""
    if kind.group_version == version.group_version:
        return {"group": "", "version": "", "kind": kind.kind}
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _aggregated_entry(resource: Resource, version: Version) -> Obj:
    entry: Obj = {
        "resource": resource.plural,
        "responseKind": _response_kind(GroupVersionKind(version.group, version.version, resource.kind), version),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular or resource.kind.lower(),
        "verbs": sorted(resource.verbs),
    }
    entry |= _names(resource, version)
    subs = [
        {
            "subresource": sub.name,
            "responseKind": _response_kind(_kind_of(resource, version, sub), version),
            "verbs": sorted(sub.verbs),
        }
        for sub in _subresources(resource, version)
    ]
    if subs:
        entry["subresources"] = subs
    return entry


def sort_versions(versions: list[str]) -> list[str]:
    """The kube-aware order: GA before beta before alpha, newer before older, anything else by name."""

    def key(version: str) -> tuple[int, int, int, str]:
        match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
        if match is None:
            return (1, 0, 0, version)
        stage = {None: 2, "beta": 1, "alpha": 0}[match[2]]
        return (0, -stage, -(int(match[1]) * 1000 + int(match[3] or 0)), version)

    return sorted(dict.fromkeys(versions), key=key)
