"""Listening, and closing what nobody uses."""

from __future__ import annotations

import asyncio
import socket
import ssl

from shipwheel.client.httpserver.connection import Connection
from shipwheel.client.httpserver.messages import Handler

_SWEEP = 5.0


class HttpServer:
    """Listens and serves until closed.

    `listen` may be called several times (several addresses); it raises OSError when an address cannot be had.
    """

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.closing = False
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None

    async def listen(
        self,
        host: str | None = None,
        port: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
        sock: socket.socket | None = None,
        path: str = "",
        reuse_port: bool = False,
    ) -> int:
        """Accept connections on an address, a socket of the caller's, or a Unix socket at `path`; returns the
        port. With `reuse_port` others may listen on it as well."""
        if path:
            listener = await self.loop.create_unix_server(self._connection, path)
        elif sock is not None:
            listener = await self.loop.create_server(self._connection, sock=sock, ssl=tls, backlog=1024)
        else:
            listener = await self.loop.create_server(
                self._connection, host, port, ssl=tls, backlog=1024, reuse_port=reuse_port or None
            )
        self._listeners.append(listener)
        if self._sweeper is None:
            self._sweep()
        if path:
            return 0
        return listener.sockets[0].getsockname()[1]

    def _connection(self) -> Connection:
        return Connection(self)

    def _sweep(self) -> None:
        """Close connections that have sent no request for too long."""
        now = self.loop.time()
        for connection in list(self.connections):
            if connection.deadline and connection.deadline < now and not connection.busy:
                connection.close()
        self._sweeper = self.loop.call_later(_SWEEP, self._sweep)

    async def close(self, *, grace: float = 0.0) -> None:
        """Stop listening, let requests under way finish for `grace` seconds, then cut the rest off."""
        self.closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            if not connection.busy:
                connection.close()
        if self.connections and grace:
            leaving = [self.loop.create_task(each.gone.wait()) for each in self.connections]
            _, staying = await asyncio.wait(leaving, timeout=grace)
            for task in staying:
                task.cancel()
        working = [each.task for each in self.connections if each.task is not None]
        for connection in list(self.connections):
            connection.abort()
        for each in working:
            each.cancel()
        if working:
            await asyncio.wait(working)
        await asyncio.sleep(0)
