"""Paths that are no resources: discovery, OpenAPI, version, health, metrics, the token issuer's documents."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson

from shipwheel import KUBERNETES_VERSION
from shipwheel.api import codec
from shipwheel.api.errors import method_not_allowed
from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.discovery import Discovery
from shipwheel.apiserver.openapi import OpenApi
from shipwheel.apiserver.pipeline import PathHandler, Pipeline
from shipwheel.apiserver.rendering import plain_not_found
from shipwheel.client.httpserver import Answer, Request, Response
from shipwheel.client.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from shipwheel.apiserver.server import ApiServer

_JWKS = "application/jwk-set+json"


class Documents:
    def __init__(self, server: ApiServer) -> None:
        self._server = server
        config = server.config
        self.discovery = Discovery(server.scheme, address=lambda: f"{config.advertise_address}:{config.secure_port}")
        self.openapi = OpenApi(server.scheme)

    def install(self, pipeline: Pipeline) -> None:
        """Tell the pipeline of every path here."""
        paths, prefixes = pipeline.paths, pipeline.prefixes
        paths["/version"] = paths["/version/"] = _answering(_get_only(self._version))
        paths["/metrics"] = _answering(self._metrics)
        paths["/metrics/slis"] = _answering(self._results)
        paths["/openid/v1/jwks"] = _answering(_get_only(self._keys))
        paths["/.well-known/openid-configuration"] = _answering(_get_only(self._issuer))
        paths["/"] = paths["/index.html"] = _answering(self._index)
        for name in ("healthz", "livez", "readyz"):
            paths[f"/{name}"] = self._health(name)
            for check in self._server.health.checks(name):
                paths[f"/{name}/{check}"] = paths[f"/{name}"]
        for path in ("/api", "/apis"):
            paths[path] = _answering(lambda request: self.discovery.answer(request, request.path))
            prefixes[f"{path}/"] = paths[path]
        paths["/openapi/v2"] = self.openapi.v2
        paths["/openapi/v3"] = self.openapi.index
        prefixes["/openapi/v3/"] = self.openapi.v3
        self._roots = sorted(paths.keys() - {"/", "/index.html", "/version/"})

    def _version(self, request: Request) -> Response:
        codec.check_route(request.header("accept"), (codec.JSON,))
        major, minor, _ = KUBERNETES_VERSION.lstrip("v").split(".")
        version = {
            "major": major,
            "minor": minor,
            "emulationMajor": major,
            "emulationMinor": minor,
            "minCompatibilityMajor": major,
            "minCompatibilityMinor": str(int(minor) - 1),
            "gitVersion": KUBERNETES_VERSION,
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": platform.python_implementation(),
            "platform": f"{platform.system().lower()}/{_machine()}",
        }
        return Response(200, orjson.dumps(version, option=orjson.OPT_INDENT_2))

    def _metrics(self, request: Request) -> Response:
        return Response(200, self._server.metrics.exposition(), content_type=CONTENT_TYPE)

    def _results(self, request: Request) -> Response:
        return Response(200, self._server.health.results.exposition(), content_type=CONTENT_TYPE)

    def _keys(self, request: Request) -> Response:
        if self._server.tokens is None:
            return plain_not_found()
        codec.check_route(request.header("accept"), (_JWKS,))
        headers = [("Cache-Control", "public, max-age=3600")]
        body = orjson.dumps({"keys": self._server.tokens.keys})
        return Response(200, body, content_type=_JWKS, headers=headers)

    def _issuer(self, request: Request) -> Response:
        if self._server.tokens is None:
            return plain_not_found()
        codec.check_route(request.header("accept"), (codec.JSON,))
        config = self._server.config
        default = f"https://{config.advertise_address}:{config.secure_port}/openid/v1/jwks"
        document = {
            "issuer": config.service_account_issuer[0],
            "jwks_uri": config.service_account_jwks_uri or default,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({key["alg"] for key in self._server.tokens.keys}),
        }
        return Response(200, orjson.dumps(document), headers=[("Cache-Control", "public, max-age=3600")])

    def _index(self, request: Request) -> Response:
        paths = list(self._roots)
        for gv in self._server.scheme.group_versions():
            if gv.group:
                paths += [f"/apis/{gv.group}", f"/apis/{gv.group}/{gv.version}"]
            else:
                paths.append(f"/api/{gv.version}")
        return Response(200, orjson.dumps({"paths": sorted(set(paths))}, option=orjson.OPT_INDENT_2))

    def _health(self, name: str) -> PathHandler:
        async def answer(request: Request, user: UserInfo) -> Answer:
            single = request.path[len(name) + 2 :].strip("/")
            await self._server.health.probe()
            return self._server.health.answer(request, name, single)

        return answer


def _answering(make: Callable[[Request], Response]) -> PathHandler:
    async def answer(request: Request, user: UserInfo) -> Answer:
        return make(request)

    return answer


def _get_only(make: Callable[[Request], Response]) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        if request.method != "GET":
            raise method_not_allowed()
        return make(request)

    return answer


def _machine() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
