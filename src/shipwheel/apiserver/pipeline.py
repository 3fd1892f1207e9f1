"""A request's way through the API server, top to bottom.

authenticate → (impersonate) → take a place in its flow → authorize → find the kind → decode, convert, default →
mutating admission → validate → validating admission → store → answer. The first half is here; what happens to an
object is `registry`'s, and `reads`' for those that change nothing. No body is read before its sender is known and
allowed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from shipwheel.api import codec
from shipwheel.api.clock import Clock
from shipwheel.api.codec import MediaType
from shipwheel.api.errors import (
    ApiError,
    bad_request,
    internal,
    method_not_allowed,
    method_not_supported,
    page_not_found,
)
from shipwheel.api.meta import GroupVersionKind, Obj
from shipwheel.api.resource import Call, Resource, Subresource, UserInfo, Version
from shipwheel.api.scheme import Scheme
from shipwheel.api.selectors import parse_field_selector
from shipwheel.api.table import partial_metadata
from shipwheel.apiserver.authn.impersonation import impersonate, wants_impersonation
from shipwheel.apiserver.authn.requests import Authenticator
from shipwheel.apiserver.authz.chain import Authorizer
from shipwheel.apiserver.authz.questions import attributes_of, forbidden_to
from shipwheel.apiserver.bodies import body_kind, decode_body, read_body
from shipwheel.apiserver.flowcontrol.places import REFUSAL, FlowControl, TooMany, lasts_long
from shipwheel.apiserver.flowcontrol.watches import Watches
from shipwheel.apiserver.intake import WriteOptions, take_in_call, take_in_view
from shipwheel.apiserver.listing import answer_list
from shipwheel.apiserver.listoptions import list_options
from shipwheel.apiserver.metadata import serial_uids
from shipwheel.apiserver.pretty import prettify, wants_pretty
from shipwheel.apiserver.reads import Reader
from shipwheel.apiserver.rendering import (
    PLAIN_TEXT,
    Rendering,
    Renderings,
    plain_not_found,
    render_object,
    render_table,
)
from shipwheel.apiserver.requestinfo import RequestInfo, request_info
from shipwheel.apiserver.requestmetrics import RequestMetrics
from shipwheel.apiserver.storing import Written
from shipwheel.apiserver.timing import OutOfTime, allotted, in_time, read_in_time
from shipwheel.apiserver.watchsocket import over_websocket
from shipwheel.apiserver.writes import Writer, write_options
from shipwheel.client.httpserver import (
    Answer,
    BodyTooLarge,
    ClientGone,
    Request,
    Response,
    Stream,
    Upgrade,
    in_task,
)
from shipwheel.client.streams.websocket import is_websocket
from shipwheel.store.base import StoreError

log = logging.getLogger(__name__)

_OPTIONS = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}
_PARTIAL = frozenset(GroupVersionKind("meta.k8s.io", each, "PartialObjectMetadata") for each in ("v1", "v1beta1"))
"""What answers that are made by a kind's own code can be turned into."""
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_CONNECT_METHODS = _METHODS | {"HEAD", "OPTIONS"}
_NO_CACHE = ("Cache-Control", "no-cache, private")
PathHandler = Callable[[Request, UserInfo], Awaitable[Answer]]


class Pipeline:
    """The handler of every request. Paths that are no resources are in `paths`; what is not there is asked of
    `elsewhere` (aggregated API servers, custom resources' discovery) before it is a 404."""

    def __init__(
        self,
        *,
        scheme: Scheme,
        authenticator: Authenticator,
        authorizer: Authorizer,
        flow: FlowControl,
        watches: Watches,
        reader: Reader,
        writer: Writer,
        server: Any,
        metrics: RequestMetrics,
        clock: Clock,
        request_timeout: float,
    ) -> None:
        self.scheme = scheme
        self.authenticator = authenticator
        self.authorizer = authorizer
        self.flow = flow
        self.watches = watches
        self.reader = reader
        self.writer = writer
        self.server = server
        self.metrics = metrics
        self.clock = clock
        self.request_timeout = request_timeout
        self.paths: dict[str, PathHandler] = {}
        self.prefixes: dict[str, PathHandler] = {}
        self.renderings = Renderings(scheme, reader.forms)
        self._audit_ids = serial_uids()

    async def __call__(self, request: Request) -> Answer:
        started = self.clock.monotonic()
        info = request_info(request)
        try:
            answer = await self._through(request, info)
        except ApiError as error:
            if isinstance(error, OutOfTime):
                self.metrics.terminated(info, error.code)
            answer = self._refusal(request, info, error)
        except TooMany as error:
            self.metrics.terminated(info, 429)
            headers = [("Retry-After", str(error.retry_after)), *error.headers]
            answer = Response(429, REFUSAL.encode(), content_type=PLAIN_TEXT, headers=headers)
        except BodyTooLarge:
            answer = self._refusal(request, info, ApiError(413, "RequestEntityTooLarge", "request entity too large"))
        except ClientGone:
            raise
        except StoreError as error:
            log.warning("%s %s failed: %s", request.method, request.raw_path, error)
            answer = self._refusal(request, info, internal(str(error)))
        except Exception as error:
            log.exception("%s %s failed", request.method, request.raw_path)
            answer = self._refusal(request, info, internal(str(error) or type(error).__name__))
        self.metrics.observe(info, request, answer, self.clock.monotonic() - started)
        if isinstance(answer, Response) and answer.content_type == "application/json" and wants_pretty(request):
            prettify(answer)
        self._mark(request, answer)
        return answer

    def _mark(self, request: Request, answer: Answer) -> None:
        """What every answer says of itself: by which name the audit log knows its request, and that nobody is to keep
        it unless it says otherwise."""
        if isinstance(answer, Upgrade):
            return
        given = answer.headers or ()
        marks = [("Audit-Id", request.header("audit-id") or next(self._audit_ids))]
        if not any(name.lower() == "cache-control" for name, _ in given):
            marks.append(_NO_CACHE)
        if answer.content_type == PLAIN_TEXT:
            marks.append(("X-Content-Type-Options", "nosniff"))
        if request.context is not None:
            marks.extend(request.context.headers)
        answer.headers = [*marks, *given]

    async def _through(self, request: Request, info: RequestInfo) -> Answer:
        seconds = allotted(request, self.request_timeout)
        if request.method == "GET" and not info.subresource and not self.reader.cache.store.shared:
            return await self._stages(request, info, seconds)
        await in_task()  # it will wait for the store or for others; a plain read does not
        answering = self._stages(request, info, seconds)
        return await (answering if lasts_long(info) else in_time(seconds, answering))

    async def _stages(self, request: Request, info: RequestInfo, seconds: float) -> Answer:
        user = await self.authenticator.authenticate(request)
        self.metrics.authenticated(user)
        if wants_impersonation(request):
            user = await impersonate(request, user, self.authorizer)
        place = self.flow.admit(info, user, request)
        if place.turn is not None:
            await self.flow.wait(place, seconds / 4)
        request.context = place
        end = place.leave
        try:
            if info.verb == "watch":
                end = _each(self.watches.begin(info, request), place.leave)
            await self._authorize(request, info, user)
            if info.is_resource:
                answer = await self._resource(request, info, user)
            else:
                answer = await self._path(request, info, user)
        except BaseException:
            end()
            raise
        if isinstance(answer, Response):
            end()
        elif lasts_long(info):
            answer.over = _each(self.metrics.begin_long(info), end)
        else:
            answer.over = end
            if isinstance(answer, Stream):
                answer.run = read_in_time(seconds, answer.run, partial(self.metrics.aborted, info))
        return answer

    async def _authorize(self, request: Request, info: RequestInfo, user: UserInfo) -> None:
        decision = await self.authorizer.authorize(attributes_of(request, info, user))
        self.metrics.authorized(decision.allowed)
        if not decision.allowed:
            raise forbidden_to(info, user, decision.reason)

    # Paths that are no resources.

    async def _path(self, request: Request, info: RequestInfo, user: UserInfo) -> Answer:
        handler = self.paths.get(info.path)
        if handler is None:
            handler = next((each for prefix, each in self.prefixes.items() if info.path.startswith(prefix)), None)
        return plain_not_found() if handler is None else await handler(request, user)

    # Resources.

    async def _resource(self, request: Request, info: RequestInfo, user: UserInfo) -> Answer:
        found = self.scheme.at(info.group, info.version, info.resource)
        if found is None:
            elsewhere = await self.server.serve_elsewhere(request, info, user)
            if elsewhere is not None:
                if info.verb == "watch":
                    request.context.leave()  # how it begins is the other server's work
                return elsewhere
            if info.group and not self.scheme.has_group(info.group):
                return plain_not_found()
            raise page_not_found()
        resource, version = found
        if resource.namespaced and info.name and not info.namespace:
            raise page_not_found()
        if info.namespace and not resource.namespaced and info.resource != "namespaces":
            raise page_not_found()
        namespace = info.namespace if resource.namespaced else ""
        if version.deprecation:
            self.metrics.deprecated(info, version)
        try:
            answer = await self._verb(request, info, user, resource, version, namespace)
        except ApiError as error:
            if version.deprecation and error.code != 405:
                error.warnings.insert(0, version.deprecation)
            raise
        if version.deprecation:
            _add_header(answer, "Warning", _warning(version.deprecation))
        return answer

    async def _verb(
        self, request: Request, info: RequestInfo, user: UserInfo, resource: Resource, version: Version, namespace: str
    ) -> Answer:
        if info.subresource:
            subresource = resource.subresource(info.subresource)
            if subresource is None or (
                version.subresources is not None and subresource.name not in version.subresources
            ):
                raise page_not_found()
            return await self._subresource(request, info, user, resource, version, namespace, subresource)
        if info.verb not in resource.verbs or not _is_routed(request, info):
            raise _no_such_route(resource, info)
        if resource.call is not None:
            return await self._call_kind(request, info, user, resource, version, namespace)
        if info.verb == "get":
            form = self.renderings.asked_for(request, resource, version, info.verb)
            entry = await self.reader.get(resource, namespace, info.name, request.parameter("resourceVersion"))
            return Response(200, form.one(entry), content_type=form.content_type)
        if info.verb in ("list", "watch"):
            return await self._list(request, info, resource, version, namespace)
        if resource.namespaced and not namespace:
            raise _no_such_route(resource, info)
        return await self._write(request, info, user, resource, version, namespace, None)

    async def _list(
        self, request: Request, info: RequestInfo, resource: Resource, version: Version, namespace: str
    ) -> Answer:
        options = list_options(request, resource, version)
        if info.name:
            options = replace(options, fields=parse_field_selector(f"metadata.name={info.name}"))
        form = self.renderings.asked_for(request, resource, version, info.verb)
        if info.verb == "watch":
            begun = request.context.leave
            watch = await self.reader.watch(request, resource, namespace, options, form, begun=begun)
            return over_websocket(request, watch) if is_websocket(request) else watch
        selection = await self.reader.select(resource, namespace, options)
        return await answer_list(request, selection, form, self.clock.now(), self.reader.turns)

    async def _write(
        self,
        request: Request,
        info: RequestInfo,
        user: UserInfo,
        resource: Resource,
        version: Version,
        namespace: str,
        subresource: Subresource | None,
    ) -> Answer:
        form = self.renderings.asked_for(request, resource, version, info.verb)

        async def check_access(verb: str) -> None:
            ask = attributes_of(request, info, user, verb=verb)
            decision = await self.authorizer.authorize(ask)
            if not decision.allowed:
                raise forbidden_to(info, user, decision.reason, verb=verb)

        kind = _OPTIONS.get(info.verb, "DeleteOptions")
        options = write_options(request, user, kind, check_access=check_access)
        try:
            return await self._carry_out(request, info, resource, version, namespace, subresource, form, options)
        except ApiError as error:
            error.warnings.extend(dict.fromkeys(options.warnings))
            raise

    async def _carry_out(
        self,
        request: Request,
        info: RequestInfo,
        resource: Resource,
        version: Version,
        namespace: str,
        subresource: Subresource | None,
        form: Rendering,
        options: WriteOptions,
    ) -> Answer:
        if info.verb == "deletecollection":
            selection = await self.writer.delete_collection(request, resource, version, namespace, options)
            answer = await answer_list(request, selection, form, self.clock.now(), self.reader.turns)
            answer.headers = [*(answer.headers or ()), *(_warnings(options) or ())]
            return answer
        if info.verb == "delete":
            written = await self.writer.delete(request, resource, version, namespace, info.name, options)
            return self._deleted(request, resource, form, written, options)
        if info.verb == "create":
            written = await self.writer.create(request, resource, version, namespace, options)
        elif info.verb == "update":
            written = await self.writer.update(request, resource, version, namespace, info.name, subresource, options)
        else:
            written = await self.writer.patch(request, resource, version, namespace, info.name, subresource, options)
        status = 201 if written.created else 200
        if subresource is not None and subresource.read is not None:
            body, media = self._view(request, subresource, written.entry.decode(), form)
            return Response(status, body, content_type=media, headers=_warnings(options))
        return Response(status, form.one(written.entry), content_type=form.content_type, headers=_warnings(options))

    def _deleted(
        self, request: Request, resource: Resource, form: Rendering, written: Written, options: WriteOptions
    ) -> Response:
        if not written.gone or resource.strategy.returns_deleted:
            return Response(200, form.one(written.entry), content_type=form.content_type, headers=_warnings(options))
        details: Obj = {"name": written.entry.name, "kind": resource.plural, "uid": _uid_of(written)}
        if resource.group:
            details["group"] = resource.group
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        }
        body, media = render_object(status, form.form)
        return Response(200, body, content_type=media, headers=_warnings(options))

    async def _subresource(
        self,
        request: Request,
        info: RequestInfo,
        user: UserInfo,
        resource: Resource,
        version: Version,
        namespace: str,
        sub: Subresource,
    ) -> Answer:
        if not (info.verb in sub.verbs and request.method in _METHODS) and not (
            sub.connect and request.method in _CONNECT_METHODS and len(sub.verbs) > 2
        ):
            raise _no_such_route(resource, info)
        if sub.call is not None:
            if sub.connect and request.parameter("dryRun"):
                raise bad_request("dryRun is not supported")
            return await self._call_subresource(request, info, user, resource, version, namespace, sub)
        if info.verb == "get":
            entry = await self.reader.get(resource, namespace, info.name)
            form = self.renderings.asked_for(request, resource, version, info.verb)
            if sub.read is None:
                return Response(200, form.one(entry), content_type=form.content_type)
            body, media = self._view(request, sub, entry.decode(), form)
            return Response(200, body, content_type=media)
        return await self._write(request, info, user, resource, version, namespace, sub)

    def _view(self, request: Request, sub: Subresource, obj: Obj, form: Rendering) -> tuple[bytes, str]:
        """What a subresource of another kind shows of an object, in the form that was asked for."""
        assert sub.read is not None
        view, wanted = sub.read(obj), form.form
        if wanted.as_kind == "Table":
            include = request.parameter("includeObject")
            return render_table(view, sub.columns, wanted, include, self.clock.now()), codec.JSON
        if wanted.as_kind:
            view = partial_metadata(view, version=wanted.version)
        return render_object(view, wanted)

    async def _call_subresource(
        self,
        request: Request,
        info: RequestInfo,
        user: UserInfo,
        resource: Resource,
        version: Version,
        namespace: str,
        sub: Subresource,
    ) -> Answer:
        options = write_options(request, user, "CreateOptions")
        body: Obj | None = None
        if not sub.connect and info.verb != "get":
            gvk, schema = body_kind(resource, version, sub)
            raw = await read_body(request)
            sent = decode_body(raw, request.header("content-type"), gvk, options, also=sub.also)
            body = take_in_view(schema, gvk.kind, sent, options)
        call = self._make_call(request, info, user, resource, version, namespace, body, options)
        assert sub.call is not None
        return self._called(request, await sub.call(self.server, call), info, options)

    async def _call_kind(
        self, request: Request, info: RequestInfo, user: UserInfo, resource: Resource, version: Version, namespace: str
    ) -> Answer:
        accept = request.header("accept")
        codec.check_route(accept, codec.OBJECT_ROUTE)
        options = write_options(request, user, "CreateOptions")
        body: Obj | None = None
        if info.verb == "create":
            gvk = GroupVersionKind(version.group, version.version, resource.kind)
            raw = await read_body(request)
            sent = decode_body(raw, request.header("content-type"), gvk, options)
            body = take_in_call(resource, version, namespace, sent, options)
        call = self._make_call(request, info, user, resource, version, namespace, body, options)
        assert resource.call is not None
        answer = await resource.call(self.server, call)
        if isinstance(answer, dict) and answer.get("kind") == resource.kind:
            if version.from_storage is not None:
                answer = version.from_storage(answer)
            answer["apiVersion"] = version.api_version
        if isinstance(answer, dict) and resource.columns and (form := codec.negotiate(accept)).as_kind == "Table":
            include = request.parameter("includeObject")
            rows = render_table(answer, resource.columns, form, include, self.clock.now())
            return Response(200, rows)
        return self._called(request, answer, info, options)

    def _make_call(
        self,
        request: Request,
        info: RequestInfo,
        user: UserInfo,
        resource: Resource,
        version: Version,
        namespace: str,
        body: Obj | None,
        options: WriteOptions,
    ) -> Call:
        return Call(
            user, resource, version, namespace, info.name, info.verb, request.method, body, info.rest, request.query,
            options.dry_run, request,
        )  # fmt: skip

    def _called(self, request: Request, answer: Any, info: RequestInfo, options: WriteOptions) -> Answer:
        """What a kind's own code answered, as HTTP: it is an answer already, or an object."""
        if isinstance(answer, Response | Stream | Upgrade):
            return answer
        form = codec.negotiate(request.header("accept"), targets=_PARTIAL)
        status = answer.get("code") if answer.get("kind") == "Status" and answer.get("code") else None
        body, media = render_object(partial_metadata(answer, version=form.version) if form.as_kind else answer, form)
        return Response(
            status or (201 if info.verb == "create" else 200), body, content_type=media, headers=_warnings(options)
        )

    # Forms.

    def _refusal(self, request: Request, info: RequestInfo, error: ApiError) -> Response:
        status = error.to_status()
        headers = [*error.headers.items(), *(("Warning", _warning(text)) for text in error.warnings)]
        try:
            form = codec.negotiate(request.header("accept"))
        except ApiError:
            form = MediaType()
        body, media = render_object(status, form)
        return Response(error.code, body, content_type=media, headers=headers)


def _each(*calls: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        for call in calls:
            call()

    return run


def _is_routed(request: Request, info: RequestInfo) -> bool:
    """Whether the method goes with a path that names an object, or with one that does not."""
    if request.method not in _METHODS:
        return False
    return bool(info.name) == (info.verb in ("update", "patch", "delete")) or info.verb in ("get", "list", "watch")


def _no_such_route(resource: Resource, info: RequestInfo) -> ApiError:
    """405: upstream's routes of built-in kinds do not know the kind, those of custom resources do."""
    if resource.custom:
        return method_not_supported(resource.group_resource, info.verb)
    return method_not_allowed()


def _uid_of(written: Written) -> str:
    return orjson.loads(b"{" + written.entry.tail)["metadata"].get("uid", "")


def _warnings(options: WriteOptions) -> list[tuple[str, str]] | None:
    if not options.warnings:
        return None
    return [("Warning", _warning(text)) for text in dict.fromkeys(options.warnings)]


def _warning(text: str) -> str:
    """A `Warning` header's value (RFC 7234, code 299)."""
    escaped = "".join(each for each in text if each.isprintable()).replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


def _add_header(answer: Answer, name: str, value: str) -> None:
    answer.headers = [*(answer.headers or ()), (name, value)]
