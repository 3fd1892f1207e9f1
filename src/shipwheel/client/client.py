"""The client of an API server that every component uses.

A thin layer on `httpclient.Transport`: it knows paths, verbs, content types, which failures to try again, and how to
make an `ApiError` of a refusal. Objects go in and come out as plain dictionaries. What a test puts in the
place of a server is a `Transport`, so that everything here is always in the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote, unquote, urlencode, urlsplit

import orjson

from shipwheel.api.clock import Clock, SystemClock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.credentials import Credentials, tls_context
from shipwheel.client.discovery import Discovery, Fetched, discover
from shipwheel.client.httpclient import ConnectionFailed, Pool, Response, Stream, Transport
from shipwheel.client.kubeconfig import ClientConfig, ConfigError
from shipwheel.client.metrics import ClientMetrics
from shipwheel.client.ratelimit import TokenBucket

__all__ = ["ApiError", "Client", "ConnectionFailed", "PatchKind", "WatchEvent"]

PatchKind = Literal["merge", "json", "strategic", "apply"]
Query = Mapping[str, str | Sequence[str]]

_PATCH_TYPES: dict[PatchKind, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_JSON = "application/json"
_META_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_META = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_MAX_RETRIES = 10
_TIMEOUT = 60.0
_WATCH_GRACE = 30.0
"""Seconds that a watch may be silent past its time before we hang up ourselves."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    object: Obj


class Client:
    """Speaks to one API server as one identity; an async context manager.

    Every method raises ApiError when the server refuses and ConnectionFailed when it cannot be reached. `qps`
    and `burst` limit the requests sent (0: unlimited), as upstream's `--kube-api-qps` and `--kube-api-burst`.
    Answers of 429 and 5xx that carry Retry-After are asked again up to ten times, as client-go does.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        user_agent: str,
        qps: float = 0,
        burst: int = 0,
        clock: Clock | None = None,
        metrics: ClientMetrics | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.config = config
        self.clock: Clock = clock or SystemClock()
        self._user_agent = user_agent
        self._credentials = Credentials(config, self.clock)
        self._certificate: tuple[bytes, bytes] | None = None
        self._given = transport
        self._transport = transport
        self._bucket = TokenBucket(qps, burst or int(qps) or 1, self.clock) if qps > 0 else None
        self._metrics = metrics
        self._host = urlsplit(config.server).netloc
        self._prefix = _path_prefix(config.server)
        self._discovery: Fetched | None = None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; watches under way end with ConnectionFailed."""
        transport, self._transport = self._transport, self._given
        if transport is not None:
            await transport.close()

    async def use_certificate(self, certificate: bytes, key: bytes) -> None:
        """Show another client certificate (PEM) from now on; what is under way with the old one is broken off."""
        self._credentials.certificate = (certificate, key)
        await self.close()

    # Objects

    async def get(
        self, gvr: GroupVersionResource, name: str, namespace: str = "", *, subresource: str = "",
        resource_version: str = "", metadata_only: bool = False,
    ) -> Obj:  # fmt: skip
        query = {"resourceVersion": resource_version} if resource_version else None
        accept = _META if metadata_only else _JSON
        return await self.call("GET", gvr.path(namespace, name, subresource), query=query, accept=accept)

    async def list(
        self,
        gvr: GroupVersionResource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        resource_version: str = "",
        resource_version_match: str = "",
        metadata_only: bool = False,
    ) -> Obj:
        """The whole list object. With `limit` it is fetched in pages of that size and joined; when a page has
        expired, all of it is fetched again at once."""
        query = _selectors(label_selector, field_selector)
        if resource_version:
            query["resourceVersion"] = resource_version
        if resource_version_match:
            query["resourceVersionMatch"] = resource_version_match
        if limit:
            query["limit"] = str(limit)
        accept = _META_LIST if metadata_only else _JSON
        path = gvr.path(namespace)
        whole = await self.call("GET", path, query=query, accept=accept)
        items = whole.get("items")
        if items is None:
            items = whole["items"] = []
        query.pop("resourceVersion", None)
        query.pop("resourceVersionMatch", None)
        while following := whole["metadata"].pop("continue", ""):
            whole["metadata"].pop("remainingItemCount", None)
            try:
                page = await self.call("GET", path, query=query | {"continue": following}, accept=accept)
            except ApiError as error:
                if error.code != 410:
                    raise
                query.pop("limit", None)
                return await self.call("GET", path, query=query, accept=accept)
            items.extend(page.get("items") or ())
            whole["metadata"] = page["metadata"]
        return whole

    async def create(
        self,
        gvr: GroupVersionResource,
        obj: Obj,
        namespace: str = "",
        *,
        subresource: str = "",
        name: str = "",
        dry_run: bool = False,
        field_manager: str = "",
    ) -> Obj:
        """Create an object, or (with `subresource` and `name`) post to a subresource of one."""
        if not namespace and not (gvr.resource == "namespaces" and not gvr.group):
            namespace = (obj.get("metadata") or {}).get("namespace", "")
        query = _write_options(dry_run, field_manager)
        return await self.call("POST", gvr.path(namespace, name, subresource), query=query, body=obj)

    async def update(
        self,
        gvr: GroupVersionResource,
        obj: Obj,
        *,
        subresource: str = "",
        dry_run: bool = False,
        field_manager: str = "",
    ) -> Obj:
        """Replace the object that `obj` names; its resourceVersion, if set, must be the current one."""
        meta = obj["metadata"]
        path = gvr.path(meta.get("namespace", ""), meta["name"], subresource)
        return await self.call("PUT", path, query=_write_options(dry_run, field_manager), body=obj)

    async def patch(
        self,
        gvr: GroupVersionResource,
        name: str,
        namespace: str,
        patch: Any,
        *,
        kind: PatchKind = "merge",
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
        metadata_only: bool = False,
    ) -> Obj:
        """Apply a patch: a mapping, or for `json` a list of operations."""
        query = _write_options(dry_run, field_manager)
        if force:
            query["force"] = "true"
        return await self.call(
            "PATCH",
            gvr.path(namespace, name, subresource),
            query=query,
            body=patch,
            content_type=_PATCH_TYPES[kind],
            accept=_META if metadata_only else _JSON,
        )

    async def delete(
        self,
        gvr: GroupVersionResource,
        name: str,
        namespace: str = "",
        *,
        grace_period: int | None = None,
        propagation: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> Obj:
        """Delete an object, only if it is still the one with `uid` and `resource_version`. `propagation` is
        Foreground, Background or Orphan. Returns the object, or a Status when it is gone at once."""
        options = _delete_options(grace_period, propagation, uid, resource_version, dry_run)
        return await self.call("DELETE", gvr.path(namespace, name), body=options)

    async def delete_collection(
        self,
        gvr: GroupVersionResource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        grace_period: int | None = None,
        propagation: str | None = None,
    ) -> Obj:
        options = _delete_options(grace_period, propagation, None, None, False)
        query = _selectors(label_selector, field_selector)
        return await self.call("DELETE", gvr.path(namespace), query=query, body=options)

    async def watch(
        self,
        gvr: GroupVersionResource,
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        bookmarks: bool = True,
        timeout: float | None = None,
        send_initial_events: bool = False,
        metadata_only: bool = False,
    ) -> AsyncIterator[WatchEvent]:
        """Changes after `resource_version`, as they happen, until the server ends the watch (after `timeout`
        seconds if given). ApiError for an ERROR event (410 when the version is too old); ConnectionFailed when
        the connection breaks. `send_initial_events` asks for the present state first (KEP-3157).
        """
        query = _selectors(label_selector, field_selector)
        query["watch"] = "true"
        if resource_version:
            query["resourceVersion"] = resource_version
        if bookmarks or send_initial_events:
            query["allowWatchBookmarks"] = "true"
        if send_initial_events:
            query["sendInitialEvents"] = "true"
            query["resourceVersionMatch"] = "NotOlderThan"
        if timeout:
            query["timeoutSeconds"] = str(int(timeout))
        accept = _META if metadata_only else _JSON
        stream = await self.stream("GET", gvr.path(namespace), query=query, accept=accept)
        try:
            async with asyncio.timeout(timeout + _WATCH_GRACE if timeout else None):
                async for line in _lines(stream):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError.from_status(event["object"])
                    yield WatchEvent(event["type"], event["object"])
        except TimeoutError:
            return
        finally:
            stream.close()

    # Questions about the server

    async def resources(self) -> Discovery:
        """What the server serves, cached and asked for again with its ETag: cheap to repeat."""
        self._discovery = await discover(self, self._discovery)
        return self._discovery.discovery

    async def version(self) -> Obj:
        """`/version`: gitVersion, major, minor, ..."""
        return await self.call("GET", "/version")

    # Requests

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        timeout: float | None = _TIMEOUT,
    ) -> Obj:
        """A request whose answer is JSON, decoded."""
        response = await self.request(
            method, path, query=query, body=body, content_type=content_type, accept=accept, timeout=timeout
        )
        try:
            return orjson.loads(response.body)
        except orjson.JSONDecodeError as error:
            raise ApiError(
                500, "InternalError", f"the server's answer to {method} {path} is not JSON: {error}"
            ) from error

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        timeout: float | None = _TIMEOUT,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Response:
        """A raw request; `body` is sent as it is when it is bytes, else as JSON."""
        target, payload = self._target(path, query), _encode(body)
        attempt = 0
        while True:
            transport, sent = await self._prepare(accept, content_type if payload else "", headers)
            started = self.clock.monotonic()
            try:
                response = await transport.request(method, target, sent, payload, timeout=timeout)
            except ConnectionFailed:
                if self._metrics:
                    self._metrics.failed(self._host, method)
                raise
            if self._metrics:
                self._metrics.answered(self._host, method, response.status, self.clock.monotonic() - started)
            if response.status < 400:
                return response
            attempt += 1
            if not await self._worth_repeating(response, attempt):
                raise _error_of(response.status, response.headers, response.body, method, path)

    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        accept: str = "*/*",
        timeout: float | None = _TIMEOUT,
    ) -> Stream:
        """A request whose answer is read piece by piece (watches, logs). Close the stream when done."""
        target, payload = self._target(path, query), _encode(body)
        attempt = 0
        while True:
            transport, sent = await self._prepare(accept, _JSON if payload else "", ())
            stream = await transport.stream(method, target, sent, payload, timeout=timeout)
            if self._metrics:
                self._metrics.answered(self._host, method, stream.status, 0.0)
            if stream.status < 400:
                return stream
            try:
                text = b"".join([chunk async for chunk in stream])
            finally:
                stream.close()
            attempt += 1
            refusal = Response(stream.status, [(b"retry-after", stream.header("Retry-After").encode())], text)
            if not await self._worth_repeating(refusal, attempt):
                raise _error_of(refusal.status, refusal.headers, text, method, path)

    async def _prepare(
        self, accept: str, content_type: str, extra: Sequence[tuple[str, str]]
    ) -> tuple[Transport, Sequence[tuple[str, str]]]:
        """Wait for a place under the rate limit; the transport to use and the headers to send."""
        if self._bucket:
            await self._bucket.take()
        identity = await self._credentials.headers()
        headers = [("User-Agent", self._user_agent), ("Accept", accept), *identity, *extra]
        if content_type:
            headers.append(("Content-Type", content_type))
        if self._given is None and self._certificate is not self._credentials.certificate:
            self._certificate = self._credentials.certificate
            self._transport = connect(self.config, self._certificate)
        assert self._transport is not None
        return self._transport, headers

    async def _worth_repeating(self, response: Response, attempt: int) -> bool:
        """Whether to send a refused request again; waits as long as the server asked for."""
        if response.status == 401:
            return attempt == 1 and self._credentials.refused()
        if attempt > _MAX_RETRIES or not (response.status == 429 or response.status >= 500):
            return False
        delay = response.header("Retry-After")
        if not delay.isdigit():
            return False
        await self.clock.sleep(int(delay))
        return True

    def _target(self, path: str, query: Query | None) -> str:
        target = self._prefix + quote(path, safe="/:@!$&'()*+,;=~")
        return f"{target}?{urlencode(query, doseq=True)}" if query else target


def connect(config: ClientConfig, certificate: tuple[bytes, bytes] = (b"", b"")) -> Pool:
    """Connections to a server, showing this certificate and its key (PEM) if there is one."""
    url = urlsplit(config.server if "://" in config.server else f"https://{config.server}")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError(f'server "{config.server}" is not an http or https URL')
    secure = url.scheme == "https"
    return Pool(
        url.hostname,
        url.port or (443 if secure else 80),
        tls=tls_context(config, certificate) if secure else None,
        server_name=config.tls_server_name,
    )


def _path_prefix(server: str) -> str:
    return urlsplit(server).path.rstrip("/") if "://" in server else ""


def _encode(body: Any) -> bytes:
    if body is None:
        return b""
    return body if isinstance(body, bytes) else orjson.dumps(body)


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    query = {}
    if label_selector:
        query["labelSelector"] = label_selector
    if field_selector:
        query["fieldSelector"] = field_selector
    return query


def _write_options(dry_run: bool, field_manager: str) -> dict[str, str]:
    query = {}
    if dry_run:
        query["dryRun"] = "All"
    if field_manager:
        query["fieldManager"] = field_manager
    return query


def _delete_options(
    grace_period: int | None,
    propagation: str | None,
    uid: str | None,
    resource_version: str | None,
    dry_run: bool,
) -> Obj | None:
    options: Obj = {}
    if grace_period is not None:
        options["gracePeriodSeconds"] = grace_period
    if propagation:
        options["propagationPolicy"] = propagation
    preconditions = {"uid": uid, "resourceVersion": resource_version}
    preconditions = {key: value for key, value in preconditions.items() if value}
    if preconditions:
        options["preconditions"] = preconditions
    if dry_run:
        options["dryRun"] = ["All"]
    return {"kind": "DeleteOptions", "apiVersion": "v1", **options} if options else None


async def _lines(stream: Stream) -> AsyncIterator[bytes]:
    """The lines of a stream; one cut off by its end is dropped."""
    rest: list[bytes] = []
    async for chunk in stream:
        head, newline, tail = chunk.partition(b"\n")
        if not newline:
            rest.append(chunk)
            continue
        yield b"".join([*rest, head])
        *whole, last = tail.split(b"\n")
        for line in whole:
            yield line
        rest = [last] if last else []


_GENERIC = {
    400: ("BadRequest", "the server rejected our request for an unknown reason"),
    401: ("Unauthorized", "the server has asked for the client to provide credentials"),
    403: ("Forbidden", "unknown"),
    404: ("NotFound", "the server could not find the requested resource"),
    405: ("MethodNotAllowed", "the server does not allow this method on the requested resource"),
    406: ("NotAcceptable", "the server was unable to respond with a content type that the client supports"),
    409: ("Conflict", "the server reported a conflict"),
    410: ("Gone", "the server reported that the resource is gone"),
    413: ("RequestEntityTooLarge", "Request entity too large"),
    415: ("UnsupportedMediaType", "the server was unable to understand the content type of the request"),
    422: ("Invalid", "the server rejected our request due to an error in our request"),
    429: (
        "TooManyRequests",
        "the server has received too many requests and has asked us to try again later",
    ),
    500: ("InternalError", "unknown"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: (
        "Timeout",
        "the server was unable to return a response in the time allotted, but may still be processing the request",
    ),
}


def _error_of(status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, method: str, path: str) -> ApiError:
    """The error in an answer: its Status, or what client-go makes of a body that is none."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    names = {key.decode("latin-1"): value.decode("latin-1") for key, value in headers}
    if isinstance(found, dict) and found.get("kind") == "Status":
        found.setdefault("code", status)
        return ApiError.from_status(found, headers=names)
    unknown = (
        "InternalError" if status >= 500 else "",
        f"the server responded with the status code {status} but did not return more information",
    )
    reason, message = _GENERIC.get(status, unknown)
    text = body.decode(errors="replace").strip()
    if status == 403 and text:
        message = text
    elif status == 500:
        message = f'an error on the server ("{text or "unknown"}") has prevented the request from succeeding'
    if about := _resource_in(path):
        message = f"{message} ({method.lower()} {about})"
    return ApiError(status, reason, message, details={"causes": [{"message": text}]} if text else None, headers=names)


def _resource_in(path: str) -> str:
    """What a request is about, as client-go's messages have it: `pods web`, `deployments.apps`; empty for a path that
    is none of a resource's."""
    parts = [unquote(part) for part in path.partition("?")[0].strip("/").split("/")]
    match parts:
        case ["api", _, *rest]:
            group = ""
        case ["apis", group, _, *rest]:
            pass
        case _:
            return ""
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    if not rest:
        return ""
    resource = f"{rest[0]}.{group}" if group else rest[0]
    return f"{resource} {rest[1]}" if len(rest) > 1 else resource
