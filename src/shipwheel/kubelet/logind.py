"""systemd-logind, which says that the machine is about to shut down and waits for those who asked it to.

Protocol: https://www.freedesktop.org/wiki/Software/systemd/inhibit/. A delay lock is a file descriptor; closing it lets
the shutdown go on. logind itself waits no longer than its `InhibitDelayMaxSec`, which is raised where it is too short.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jeepney import DBusAddress, Message
    from jeepney.io.blocking import DBusConnection

OVERRIDE = Path("/etc/systemd/logind.conf.d/99-kubelet.conf")
_BUS = "org.freedesktop.login1"
_MANAGER = "org.freedesktop.login1.Manager"
_TIMEOUT = 10.0
_TRIES = 5
_FIRST_PAUSE = 0.1
_SIGHUP = 1


class LogindError(Exception):
    """logind is not there, or does not do what it is asked for."""


@asynccontextmanager
async def connected(override: Path = OVERRIDE) -> AsyncIterator[Logind]:
    """Speak to the logind of the system bus ($DBUS_SYSTEM_BUS_ADDRESS). LogindError when there is none."""
    from jeepney.auth import AuthenticationError
    from jeepney.io.blocking import open_dbus_connection

    try:
        connection = await asyncio.to_thread(open_dbus_connection, "SYSTEM", enable_fds=True)
    except (OSError, KeyError, RuntimeError, AuthenticationError) as error:
        raise LogindError(f"the system bus cannot be reached: {error}") from error
    try:
        yield Logind(connection, override)
    finally:
        connection.close()


class Logind:
    """Methods raise LogindError, and are called one after another."""

    def __init__(self, connection: DBusConnection, override: Path) -> None:
        self._connection = connection
        self._override = override

    async def delay(self) -> float:
        """The seconds that it waits at most."""
        from jeepney import Properties

        (_, value), *_ = await self._call(Properties(_manager()).get("InhibitDelayMaxUSec"))
        return value / 1e6

    async def raise_delay(self, seconds: float) -> None:
        """Have it wait so long, by a file of configuration; returns when it does."""
        from jeepney import DBusAddress, new_method_call

        try:
            self._override.parent.mkdir(parents=True, exist_ok=True)
            self._override.write_text(f"# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={seconds:.0f}\n")
        except OSError as error:
            raise LogindError(f"failed writing logind shutdown inhibit override file {error}") from error
        systemd = DBusAddress(
            "/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager"
        )
        reload = new_method_call(systemd, "KillUnit", "ssi", ("systemd-logind.service", "all", _SIGHUP))
        await self._call(reload)
        pause = _FIRST_PAUSE
        for _ in range(_TRIES):
            if await self.delay() >= seconds:
                return
            await asyncio.sleep(pause)
            pause *= 2
        raise LogindError(
            f"node shutdown manager was timed out after {_TRIES} attempts waiting for logind InhibitDelayMaxSec to "
            f"update to {seconds:.0f}s (ShutdownGracePeriod), current value is {await self.delay():.0f}s"
        )

    async def inhibit(self) -> Lock:
        """Have the next shutdown wait for us."""
        from jeepney import new_method_call

        asked = ("shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay")
        descriptor, *_ = await self._call(new_method_call(_manager(), "Inhibit", "ssss", asked))
        return Lock(descriptor.to_raw_fd())

    async def shutdowns(self) -> AsyncIterator[bool]:
        """True when a shutdown begins, False when it was called off. LogindError when the bus is gone."""
        from jeepney import MatchRule, message_bus

        rule = MatchRule(type="signal", interface=_MANAGER, member="PrepareForShutdown", path="/org/freedesktop/login1")
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        with self._connection.filter(rule, queue=deque()) as told:
            await self._call(message_bus.AddMatch(rule))
            loop.add_reader(self._connection.sock, readable.set)
            try:
                while True:
                    readable.clear()
                    self._receive()
                    while told:
                        yield bool(told.popleft().body[0])
                    await readable.wait()
            finally:
                loop.remove_reader(self._connection.sock)

    def _receive(self) -> None:
        """Take what has come, without waiting."""
        try:
            while True:
                self._connection.recv_messages(timeout=0)
        except TimeoutError:
            return
        except (OSError, EOFError) as error:
            raise LogindError(f"the system bus is gone: {error}") from error

    async def _call(self, message: Message) -> tuple[Any, ...]:
        from jeepney import DBusErrorResponse
        from jeepney.wrappers import unwrap_msg

        ask = self._connection.send_and_get_reply
        try:
            return unwrap_msg(await asyncio.to_thread(ask, message, timeout=_TIMEOUT))
        except (DBusErrorResponse, OSError, EOFError) as error:
            raise LogindError(str(error)) from error


class Lock:
    """Holds back a shutdown until it is released."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Harmless when it was released."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _manager() -> DBusAddress:
    from jeepney import DBusAddress

    return DBusAddress("/org/freedesktop/login1", _BUS, _MANAGER)
