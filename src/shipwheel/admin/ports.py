"""Ports of this machine, kept for a cluster from their choice until its processes have bound them, and on.

Between the choice and the bind, and whenever a component is started again, somebody else could take its port. So
the supervisor holds each: by a socket that is bound but does not listen, which lets the component bind beside it
and keeps the kernel from giving the port away, and by a name that the other clusters' claims run into. The kernel
lets go of both when the last process that inherited them has ended.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterable
from types import TracebackType


class Claims:
    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.release()

    def port(self, wanted: int, host: str, taken: Iterable[int] = ()) -> int:
        """The port wanted, or any other when that is in use, claimed, or in `taken`."""
        avoid = set(taken)
        while True:
            port = 0 if wanted in avoid else self._take(wanted, host)
            if port and port not in avoid:
                return port
            wanted = 0

    def release(self) -> None:
        """Let go in this process; whoever was forked meanwhile still holds them."""
        while self._held:
            self._held.pop().close()

    def _take(self, wanted: int, host: str) -> int:
        """The port, any when `wanted` is 0; 0 when somebody has it."""
        with contextlib.ExitStack() as sockets:
            place = sockets.enter_context(socket.socket())
            if wanted:
                # As the components do, lest connections that have just ended keep them from it.
                place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                place.bind((host, wanted))
                port = place.getsockname()[1]
                place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if sys.platform == "linux":
                    name = sockets.enter_context(socket.socket(socket.AF_UNIX))
                    name.bind(f"\0shipwheel/port/{port}")
                    self._held.append(name)
            except OSError:
                return 0
            self._held.append(place)
            sockets.pop_all()
            return port
