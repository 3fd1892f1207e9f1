"""Unary gRPC calls over a Unix socket or TCP, with messages from tables instead of generated stubs.

grpcio is heavy (100 ms and 20 MB), so it is imported when the first channel is made.
"""

from __future__ import annotations

from typing import Any

from shipwheel.api.protobuf import Message, decode, encode
from shipwheel.kubelet.runtime.base import RuntimeFault

MAX_MESSAGE = 16 << 20
"""What CRI's parties agree on: node-wide lists are far larger than gRPC's usual 4 MB."""


class Channel:
    """A connection that is made when needed, and again after it broke. Must be closed."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint`: `unix:///run/containerd/containerd.sock`, a bare path, or `host:port`."""
        import grpc.aio

        self._failed = grpc.aio.AioRpcError
        self._channel = grpc.aio.insecure_channel(
            _target(endpoint),
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.max_send_message_length", MAX_MESSAGE),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 3000),
                ("grpc.enable_retries", 0),
                ("grpc.default_authority", "localhost"),
                # Channels of one process must not share a connection: each owner closes its own.
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        self._methods: dict[str, Any] = {}

    async def call(
        self,
        method: str,
        request: Message,
        response: Message,
        obj: dict[str, Any],
        *,
        timeout: float | None,
        wait_for_ready: bool = False,
    ) -> dict[str, Any]:
        """Call `/package.Service/Method`. `timeout` is in seconds; with `wait_for_ready` it covers connecting
        too, else a server that is not there fails at once. Raises RuntimeFault."""
        rpc = self._methods.get(method)
        if rpc is None:
            rpc = self._methods[method] = self._channel.unary_unary(method)
        try:
            raw = await rpc(encode(request, obj), timeout=timeout, wait_for_ready=wait_for_ready)
            return decode(response, raw)
        except self._failed as error:
            raise RuntimeFault(error.code().name, error.details() or "") from error
        except ValueError as error:
            raise RuntimeFault("INTERNAL", f"{method}: {error}") from error

    async def close(self) -> None:
        await self._channel.close()


def _target(endpoint: str) -> str:
    if endpoint.startswith("/"):
        return "unix:" + endpoint
    if endpoint.startswith("unix://"):
        return "unix:" + endpoint.removeprefix("unix://")
    return endpoint.removeprefix("tcp://")
