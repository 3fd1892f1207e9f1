"""Calls to an etcd cluster: one member at a time, the next when that one is away.

What matters here is what a failure means. A request that was never sent can go to another member; a read always can. A
write that was sent and not answered may have happened, and only the caller can find out: `OutcomeUnknown`.

grpc is imported when a client is made, not before: it costs 15 MB and 100 ms that the embedded engine does not need.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shipwheel.api.protobuf import decode, encode
from shipwheel.store.base import OutcomeUnknown, StoreError
from shipwheel.store.etcdapi import STATUS, Method

if TYPE_CHECKING:
    import grpc.aio

_PATIENCE = 5.0
"""So long a call looks for a member that answers, in seconds."""
_PAUSE = 0.1
_TIMEOUT = 30.0
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]
_NEEDS_LEADER = (("hasleader", "true"),)
"""Metadata: end a stream when the member has lost its cluster, instead of keeping silent."""


class Refused(StoreError):
    """etcd says no, for a reason of its own. Nothing was written."""


class Unreachable(StoreError):
    """No member could be asked, or none answered what can be asked again."""


class _Member:
    """One endpoint and its channel."""

    def __init__(self, endpoint: str, credentials: grpc.ChannelCredentials | None) -> None:
        import grpc.aio

        self.endpoint = endpoint
        target = _target(endpoint)
        if credentials is not None and not endpoint.startswith(("http://", "unix")):
            self.channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
        else:
            self.channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._ready = grpc.ChannelConnectivity.READY
        self._gone = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)

    async def connected(self) -> bool:
        """Whether there is a connection, after trying to make one."""
        while (state := self.channel.get_state(try_to_connect=True)) is not self._ready:
            if state in self._gone:
                return False
            await self.channel.wait_for_state_change(state)
        return True

    async def trouble(self) -> str:
        """Why there is no connection. Only a call that fails tells."""
        import grpc

        try:
            await self.channel.unary_unary(STATUS.path)(b"", timeout=_PAUSE)
        except grpc.RpcError as error:
            return _details(error)
        return "it answers now"


class Stream:
    """An open stream of a method; `send` and `receive` raise `Unreachable` when it breaks."""

    def __init__(self, method: Method, call: grpc.aio.StreamStreamCall, endpoint: str) -> None:
        self._method = method
        self._call = call
        self._endpoint = endpoint
        self._writing = asyncio.Lock()

    async def send(self, request: dict[str, Any]) -> None:
        import grpc

        try:
            async with self._writing:  # gRPC breaks a stream that is written to while it is written to
                await self._call.write(encode(self._method.request, request))
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            raise Unreachable(f"{self._endpoint}: {_details(error)}") from error

    async def receive(self) -> dict[str, Any]:
        import grpc.aio

        try:
            raw = await self._call.read()
        except grpc.RpcError as error:
            raise Unreachable(f"{self._endpoint}: {_details(error)}") from error
        except asyncio.CancelledError as error:
            raise _cancellation(error, Unreachable(f"{self._endpoint}: the connection was closed")) from None
        if raw is grpc.aio.EOF:
            raise Unreachable(f"{self._endpoint}: {await self._call.details() or 'the stream has ended'}")
        return decode(self._method.response, raw)


class EtcdClient:
    def __init__(self, endpoints: Sequence[str], *, ca_file: str, cert_file: str, key_file: str) -> None:
        """Endpoints are URLs or host:port. Without any file the connection is plain, except to https:// endpoints.

        StoreError when a file cannot be read.
        """
        secure = ca_file or cert_file or any(each.startswith("https://") for each in endpoints)
        credentials = _credentials(ca_file, cert_file, key_file) if secure else None
        self._members = [_Member(endpoint, credentials) for endpoint in endpoints]
        self._current = 0
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        for member in self._members:
            await member.channel.close()

    async def call(self, method: Method, request: dict[str, Any], *, writes: bool = False) -> dict[str, Any]:
        """One request, one answer. Raises `Refused`, `Unreachable`, and `OutcomeUnknown` when it `writes`."""
        import grpc

        raw = encode(method.request, request)
        give_up = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            member = await self._reach(give_up)
            try:
                answer = await member.channel.unary_unary(method.path)(raw, timeout=_TIMEOUT)
            except grpc.RpcError as error:
                failure = _failure(error, member.endpoint, writes=writes)
                if not isinstance(failure, Unreachable) or asyncio.get_running_loop().time() > give_up:
                    raise failure from error
                self._next(member)
                await asyncio.sleep(_PAUSE)
            except asyncio.CancelledError as error:
                closed = f"{member.endpoint}: the connection was closed"
                raise _cancellation(error, (OutcomeUnknown if writes else StoreError)(closed)) from None
            else:
                return decode(method.response, answer)

    @contextlib.asynccontextmanager
    async def stream(self, method: Method) -> AsyncIterator[Stream]:
        """A stream to some member. When it breaks, the next one goes to another."""
        member = await self._reach(asyncio.get_running_loop().time() + _PATIENCE)
        call = member.channel.stream_stream(method.path)(metadata=_NEEDS_LEADER)
        try:
            yield Stream(method, call, member.endpoint)
        except Unreachable:
            self._next(member)
            raise
        finally:
            call.cancel()

    async def _reach(self, give_up: float) -> _Member:
        """A member there is a connection to."""
        loop = asyncio.get_running_loop()
        while True:
            if self._closed:
                raise StoreError("the connections to etcd are closed")
            for _ in self._members:
                member = self._current_member
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(max(give_up, loop.time() + _PAUSE)):
                        if await member.connected():
                            return member
                self._next(member)
            if loop.time() > give_up:
                names = ", ".join(member.endpoint for member in self._members)
                raise Unreachable(f"etcd cannot be reached at {names}: {await self._current_member.trouble()}")
            await asyncio.sleep(_PAUSE)

    @property
    def _current_member(self) -> _Member:
        return self._members[self._current]

    def _next(self, failed: _Member) -> None:
        if self._current_member is failed:
            self._current = (self._current + 1) % len(self._members)


def _target(endpoint: str) -> str:
    """gRPC's name for an endpoint."""
    if "://" not in endpoint:
        return endpoint
    url = urlsplit(endpoint)
    if url.scheme in ("unix", "unixs"):
        return f"unix:{url.netloc}{url.path}"
    return url.netloc if url.port else f"{url.netloc}:2379"


def _credentials(ca_file: str, cert_file: str, key_file: str) -> grpc.ChannelCredentials:
    import grpc

    def content(path: str) -> bytes | None:
        if not path:
            return None
        with open(path, "rb") as file:
            return file.read()

    try:
        return grpc.ssl_channel_credentials(content(ca_file), content(key_file), content(cert_file))
    except OSError as error:
        raise StoreError(f"{error.filename}: {error.strerror}") from error


def _cancellation(error: asyncio.CancelledError, otherwise: StoreError) -> BaseException:
    """grpc says that a call was cancelled: by whoever awaits it, or because its channel was closed?"""
    task = asyncio.current_task()
    return error if task is not None and task.cancelling() else otherwise


def _details(error: BaseException) -> str:
    return getattr(error, "details", lambda: None)() or str(error)


def _failure(error: grpc.RpcError, endpoint: str, *, writes: bool) -> StoreError:
    """What an error answer means for the request."""
    import grpc

    message = f"{endpoint}: {_details(error)}"
    if error.code() in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    ):
        return Refused(_details(error))
    if writes:
        return OutcomeUnknown(message)
    return Unreachable(message)
