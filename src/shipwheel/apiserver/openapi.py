"""The OpenAPI documents, made when asked for and kept until the kinds change."""

from __future__ import annotations

import hashlib

import orjson

from shipwheel.api import openapi
from shipwheel.api.errors import page_not_found
from shipwheel.api.meta import GroupVersion
from shipwheel.api.scheme import Scheme
from shipwheel.client.httpserver import Request, Response

_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


class OpenApi:
    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme
        self._generation = -1
        self._made: dict[str, tuple[bytes, str]] = {}

    def _kept(self, name: str) -> tuple[bytes, str] | None:
        if self._generation != self._scheme.generation:
            self._made.clear()
            self._generation = self._scheme.generation
        return self._made.get(name)

    def _keep(self, name: str, body: bytes) -> tuple[bytes, str]:
        digest = hashlib.sha512(body).hexdigest().upper()
        self._made[name] = (body, digest)
        return self._made[name]

    def index(self, request: Request) -> Response:
        """`/openapi/v3`: where each group and version's document is, with its hash."""
        known = self._kept("")
        if known is None:
            paths = {}
            for gv in self._scheme.group_versions():
                path = f"apis/{gv}" if gv.group else f"api/{gv.version}"
                paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={self._document(gv)[1]}"}
            known = self._keep("", orjson.dumps({"paths": paths}))
        return Response(200, known[0])

    def v3(self, request: Request) -> Response:
        parts = request.path.removeprefix("/openapi/v3/").strip("/").split("/")
        if parts[0] == "api" and len(parts) == 2:
            gv = GroupVersion("", parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            gv = GroupVersion(parts[1], parts[2])
        else:
            raise page_not_found()
        if gv not in self._scheme.group_versions():
            raise page_not_found()
        body, digest = self._document(gv)
        etag = f'"{digest}"'
        headers = [("ETag", etag), ("Vary", "Accept")]
        if request.parameter("hash") == digest:
            headers.append(("Cache-Control", "public, immutable"))
        if request.header("if-none-match") == etag:
            return Response(304, headers=headers)
        return Response(200, body, headers=headers)

    def _document(self, gv: GroupVersion) -> tuple[bytes, str]:
        name = str(gv)
        return self._kept(name) or self._keep(name, orjson.dumps(openapi.build_v3(self._scheme, gv)))

    def v2(self, request: Request) -> Response:
        accept = request.header("accept")
        protobuf = "proto-openapi.spec.v2" in accept
        name = "v2.pb" if protobuf else "v2"
        known = self._kept(name)
        if known is None:
            document = openapi.build_v2(self._scheme)
            known = self._keep(name, openapi.encode_v2(document) if protobuf else orjson.dumps(document))
        body, digest = known
        etag = f'"{digest}"'
        headers = [("ETag", etag), ("Vary", "Accept")]
        if request.header("if-none-match") == etag:
            return Response(304, headers=headers)
        media = _V2_PROTOBUF if protobuf else "application/json"
        return Response(200, body, content_type=media, headers=headers)
