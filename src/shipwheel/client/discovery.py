"""What an API server serves: the aggregated discovery document (KEP-3352), or where a server has none, the
older one group version at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import orjson

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersion, GroupVersionKind, GroupVersionResource, Obj
from shipwheel.client.httpclient import Response

_ACCEPT = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


@dataclass(frozen=True, slots=True)
class ApiResource:
    """One kind at one of its versions. `preferred`: the version is its group's first that has this kind."""

    gvr: GroupVersionResource
    kind: GroupVersionKind
    namespaced: bool
    verbs: frozenset[str]
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()
    preferred: bool = False


@dataclass(frozen=True)
class Discovery:
    """All kinds served. `stale` are group versions whose own server (an aggregated one) did not answer, so
    that their kinds may be missing."""

    resources: tuple[ApiResource, ...]
    stale: tuple[GroupVersion, ...] = ()

    def preferred(self) -> Iterator[ApiResource]:
        """Each kind once, at its preferred version."""
        return (each for each in self.resources if each.preferred)

    @cached_property
    def by_kind(self) -> dict[GroupVersionKind, ApiResource]:
        return {each.kind: each for each in self.resources}

    @cached_property
    def by_gvr(self) -> dict[GroupVersionResource, ApiResource]:
        return {each.gvr: each for each in self.resources}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A discovery with the documents it was made of, and their ETags, by path."""

    discovery: Discovery
    etags: dict[str, str]
    documents: dict[str, Obj]


class _Requester(Protocol):
    async def request(self, method: str, path: str, *, accept: str = ..., headers: Any = ...) -> Response: ...

    async def call(self, method: str, path: str) -> Obj: ...


async def discover(client: _Requester, known: Fetched | None) -> Fetched:
    """Fetch what changed since `known`; ApiError and ConnectionFailed as any request."""
    etags: dict[str, str] = {}
    documents: dict[str, Obj] = {}
    changed = False
    for path in ("/api", "/apis"):
        old = known.etags.get(path, "") if known else ""
        conditional = [("If-None-Match", old)] if old else []
        response = await client.request("GET", path, accept=_ACCEPT, headers=conditional)
        if response.status == 304 and known:
            etags[path], documents[path] = old, known.documents[path]
            continue
        changed = True
        documents[path] = orjson.loads(response.body)
        etags[path] = response.header("ETag")
    if known and not changed:
        return known
    if all(document.get("kind") == "APIGroupDiscoveryList" for document in documents.values()):
        return Fetched(_from_aggregated(documents.values()), etags, documents)
    return Fetched(await _one_by_one(client, documents), {}, documents)


def _from_aggregated(documents: Iterable[Obj]) -> Discovery:
    resources: list[ApiResource] = []
    stale: list[GroupVersion] = []
    for document in documents:
        for group in document.get("items") or ():
            name = group["metadata"].get("name", "")
            seen: set[str] = set()
            for version in group.get("versions") or ():
                if version.get("freshness") == "Stale":
                    stale.append(GroupVersion(name, version["version"]))
                for entry in version.get("resources") or ():
                    plural = entry["resource"]
                    resources.append(_aggregated(name, version["version"], entry, plural not in seen))
                    seen.add(plural)
    return Discovery(tuple(resources), tuple(stale))


def _aggregated(group: str, version: str, entry: Obj, preferred: bool) -> ApiResource:
    kind = entry.get("responseKind") or {}
    return ApiResource(
        GroupVersionResource(group, version, entry["resource"]),
        GroupVersionKind(kind.get("group") or group, kind.get("version") or version, kind.get("kind", "")),
        entry.get("scope") == "Namespaced",
        frozenset(entry.get("verbs") or ()),
        entry.get("singularResource", ""),
        tuple(entry.get("shortNames") or ()),
        tuple(entry.get("categories") or ()),
        frozenset(sub["subresource"] for sub in entry.get("subresources") or ()),
        preferred,
    )


async def _one_by_one(client: _Requester, documents: dict[str, Obj]) -> Discovery:
    groups: list[tuple[str, list[str]]] = [("", list(documents["/api"].get("versions") or ()))]
    for group in documents["/apis"].get("groups") or ():
        preferred = (group.get("preferredVersion") or {}).get("version", "")
        versions = [each["version"] for each in group.get("versions") or ()]
        groups.append((group["name"], sorted(versions, key=lambda version: version != preferred)))
    resources: list[ApiResource] = []
    stale: list[GroupVersion] = []
    for name, versions in groups:
        seen: set[str] = set()
        for version in versions:
            try:
                listing = await client.call("GET", f"/apis/{name}/{version}" if name else f"/api/{version}")
            except ApiError:
                stale.append(GroupVersion(name, version))
                continue
            entries = listing.get("resources") or ()
            subresources: dict[str, set[str]] = {}
            for entry in entries:
                plural, slash, sub = entry["name"].partition("/")
                if slash:
                    subresources.setdefault(plural, set()).add(sub)
            for entry in entries:
                if "/" in entry["name"]:
                    continue
                plural = entry["name"]
                resources.append(
                    ApiResource(
                        GroupVersionResource(name, version, plural),
                        GroupVersionKind(entry.get("group") or name, entry.get("version") or version, entry["kind"]),
                        bool(entry.get("namespaced")),
                        frozenset(entry.get("verbs") or ()),
                        entry.get("singularName", ""),
                        tuple(entry.get("shortNames") or ()),
                        tuple(entry.get("categories") or ()),
                        frozenset(subresources.get(plural, ())),
                        plural not in seen,
                    )
                )
                seen.add(plural)
    return Discovery(tuple(resources), tuple(stale))
