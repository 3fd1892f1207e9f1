"""The OpenAPI documents, made when asked for and kept until the kinds change.

Making one takes a good part of a second, so it is done in a thread, and a document's hash is taken of what it is made
from: the index names all of them without making any.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import orjson

from shipwheel import __version__
from shipwheel.api import codec, openapi
from shipwheel.api.errors import page_not_found
from shipwheel.api.meta import GroupVersion, Obj
from shipwheel.api.resource import UserInfo
from shipwheel.api.scheme import Scheme
from shipwheel.client.httpserver import Request, Response

_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""Clients ask for it with `v2@v1.0`, but that is no media type."""


class OpenApi:
    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme
        self._generation = -1
        self._made: dict[str, asyncio.Future[bytes]] = {}

    async def index(self, request: Request, user: UserInfo) -> Response:
        """`/openapi/v3`: where each group and version's document is, with its hash."""
        paths = {}
        for gv in self._scheme.group_versions():
            path = f"apis/{gv}" if gv.group else f"api/{gv.version}"
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={self._digest([gv])}"}
        digest = self._digest([])
        for path in openapi.root_paths(self._scheme):
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
        paths = dict(sorted(paths.items()))
        return Response(200, orjson.dumps({"paths": paths}))

    async def v3(self, request: Request, user: UserInfo) -> Response:
        """`/openapi/v3/apis/GROUP/VERSION`."""
        path = request.path.removeprefix("/openapi/v3/")
        if path in openapi.root_paths(self._scheme):
            return await self._v3(request, path, [], lambda: openapi.build_v3_root(self._scheme, path))
        parts = path.strip("/").split("/")
        if parts[0] == "api" and len(parts) == 2:
            gv = GroupVersion("", parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            gv = GroupVersion(parts[1], parts[2])
        else:
            raise page_not_found()
        if gv not in self._scheme.group_versions():
            raise page_not_found()
        return await self._v3(request, str(gv), [gv], lambda: openapi.build_v3(self._scheme, gv))

    async def _v3(
        self, request: Request, name: str, versions: list[GroupVersion], build: Callable[[], Obj]
    ) -> Response:
        digest = self._digest(versions)
        headers = [("Cache-Control", "public, immutable")] if request.parameter("hash") == digest else []
        return await self._answer(request, name, digest, lambda: orjson.dumps(build()), headers=headers)

    async def v2(self, request: Request, user: UserInfo) -> Response:
        """`/openapi/v2`, in JSON or, for old clients, protobuf."""
        digest = self._digest(self._scheme.group_versions())
        if "proto-openapi.spec.v2" in request.header("accept"):
            return await self._answer(
                request,
                "v2.pb",
                digest,
                lambda: openapi.encode_v2(openapi.build_v2(self._scheme)),
                content_type=_V2_PROTOBUF,
            )
        return await self._answer(request, "v2", digest, lambda: orjson.dumps(openapi.build_v2(self._scheme)))

    async def _answer(
        self,
        request: Request,
        name: str,
        digest: str,
        make: Callable[[], bytes],
        *,
        content_type: str = "application/json",
        headers: list[tuple[str, str]] | None = None,
    ) -> Response:
        if content_type == codec.JSON and not codec.takes_json(request.header("accept")):
            return Response(406, b"", content_type="")
        etag = f'"{digest}"'
        headers = [("ETag", etag), ("Vary", "Accept"), *(headers or ())]
        if request.header("if-none-match") == etag:
            return Response(304, headers=headers)
        if self._generation != self._scheme.generation:
            self._made.clear()
            self._generation = self._scheme.generation
        made = self._made.get(name)
        if made is None or (made.done() and made.exception() is not None):
            made = self._made[name] = asyncio.get_running_loop().run_in_executor(None, make)
        return Response(200, await asyncio.shield(made), content_type=content_type, headers=headers)

    def _digest(self, versions: list[GroupVersion]) -> str:
        """Changes whenever a document of these would."""
        facts = hashlib.sha512(__version__.encode())
        for gv in versions:
            for resource, version in self._scheme.in_group_version(gv):
                subresources = ",".join(sub.name for sub in resource.subresources)
                facts.update(f"{gv} {resource.plural} {resource.kind} {resource.verbs} {subresources}\n".encode())
                if resource.custom:
                    facts.update(orjson.dumps(version.schema.to_openapi()))
        return facts.hexdigest().upper()
