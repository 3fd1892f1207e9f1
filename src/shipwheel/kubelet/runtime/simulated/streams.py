"""exec, attach and port-forward of simulated containers: a small streaming server on the loopback interface.

It starts with the first stream and serves each URL once, as real runtimes do. What is behind a forwarded port
is an HTTP server that says which pod it is.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

from shipwheel.api.clock import Clock
from shipwheel.client.httpserver import Answer, HttpServer, Request, Response
from shipwheel.client.streams import portforward, remotecommand
from shipwheel.client.streams.channel import Channel, read_all
from shipwheel.client.streams.remotecommand import Session, StreamOptions, exit_status
from shipwheel.client.streams.wire import Wire
from shipwheel.kubelet.runtime.simulated import syntax
from shipwheel.kubelet.runtime.simulated.container import SimulatedContainer
from shipwheel.kubelet.runtime.simulated.shell import SHELLS, Exit, Shell, program
from shipwheel.kubelet.runtime.simulated.terminal import Line, Terminal
from shipwheel.kubelet.runtime.simulated.world import Output, Program, World, not_found

_FOLLOW_SECONDS = 0.1
_MAX_STDIN = 64 << 20
_LONGEST_SLEEP = 86400.0

Handler = Callable[[Request], Answer]


class StreamServer:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._server: HttpServer | None = None
        self._port = 0
        self._waiting: dict[str, Handler] = {}

    async def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.close()

    async def _url(self, kind: str, handler: Handler) -> str:
        if self._server is None:
            self._server = HttpServer(self._handle)
            self._port = await self._server.listen("127.0.0.1", 0)
        token = secrets.token_urlsafe(8)
        self._waiting[token] = handler
        return f"http://127.0.0.1:{self._port}/{kind}/{token}"

    async def _handle(self, request: Request) -> Answer:
        handler = self._waiting.pop(request.path.rpartition("/")[2], None)
        if handler is None:
            return Response(404, b"404 page not found\n", content_type="text/plain; charset=utf-8")
        return handler(request)

    async def exec(self, container: SimulatedContainer, command: Sequence[str], options: StreamOptions) -> str:
        async def serve(session: Session) -> None:
            await _Command(container.world(self._clock.now), session, options, self._clock).run(command)

        return await self._url("exec", lambda request: remotecommand.accept(request, options, serve))

    async def attach(self, container: SimulatedContainer, catch_up: Callable[[], None], options: StreamOptions) -> str:
        async def serve(session: Session) -> None:
            said: list[Output] = []
            container.listeners.append(said.append)
            try:
                while container.running:
                    await self._clock.sleep(_FOLLOW_SECONDS)
                    catch_up()
                    while said:
                        await _say(session, said.pop(0), options.tty)
            finally:
                container.listeners.remove(said.append)
            await session.finish(exit_status(container.state.exit_code))

        return await self._url("attach", lambda request: remotecommand.accept(request, options, serve))

    async def port_forward(self, pod: str, ports: Sequence[int], listens: Callable[[], bool]) -> str:
        async def dial(port: int) -> Wire:
            if not listens():
                raise ConnectionRefusedError(111, "Connection refused")
            return _Greeter(pod)

        return await self._url("portforward", lambda request: portforward.accept(request, ports, dial))


async def _say(session: Session, output: Output, tty: bool) -> None:
    channel: Channel | None = session.stdout if tty or output.stream == "stdout" else session.stderr
    if channel is not None:
        await channel.write(output.data.replace(b"\n", b"\r\n") if tty else output.data)


class _Command:
    """A command that a client has the streams of."""

    def __init__(self, world: World, session: Session, options: StreamOptions, clock: Clock) -> None:
        self._world = world
        self._session = session
        self._options = options
        self._clock = clock

    async def run(self, command: Sequence[str]) -> None:
        interactive = self._options.stdin and command[0] in SHELLS and not any("c" in each for each in command[1:2])
        code = await (self._converse() if interactive else self._once(command))
        for channel in (self._session.stdout, self._session.stderr):
            if channel is not None:
                await channel.close()
        await self._session.finish(exit_status(code))

    async def _once(self, command: Sequence[str]) -> int:
        stdin = b""
        if self._session.stdin is not None and not self._options.tty:
            stdin = await read_all(self._session.stdin, _MAX_STDIN)
        running = program(command, self._world, stdin=stdin)
        return await self._play(running or not_found(command))

    async def _play(self, running: Program) -> int:
        """Run a program in real time."""
        while True:
            try:
                event = next(running)
            except StopIteration as end:
                return end.value
            if isinstance(event, Output):
                await _say(self._session, event, self._options.tty)
            else:
                await self._clock.sleep(min(event.seconds, _LONGEST_SLEEP))

    async def _converse(self) -> int:
        """An interactive shell."""
        assert self._session.stdin is not None
        terminal = Terminal(echoes=self._options.tty)
        shell = Shell(self._world, not_found)
        work: asyncio.Task[int] | None = None
        await self._prompt()
        try:
            while data := await self._session.stdin.read():
                shown, entered = terminal.feed(data)
                if shown and self._session.stdout is not None:
                    await self._session.stdout.write(shown)
                for each in entered:
                    if each == "interrupt":
                        if work is not None and not work.done():
                            work.cancel()
                            await asyncio.gather(work, return_exceptions=True)
                        shell.status = 130
                        await self._prompt()
                    elif each == "end":
                        return shell.status
                    elif isinstance(each, Line):
                        if work is not None:
                            await work
                        work = asyncio.create_task(self._line(shell, each.text))
                        # Most lines take no time; only while one does can it be interrupted.
                        await asyncio.wait((work,), timeout=0.05)
                        if work.done() and self._ended(work):
                            return shell.status
            if work is not None and not work.done():
                await work
            if rest := terminal.rest():
                await self._line(shell, rest)
            return shell.status
        finally:
            if work is not None:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    @staticmethod
    def _ended(work: asyncio.Task[int]) -> bool:
        return work.result() < 0

    async def _line(self, shell: Shell, text: str) -> int:
        """Run one line; -1 when it ended the shell."""
        try:
            await self._play(_kept(shell, text))
        except Exit as end:
            shell.status = end.code
            return -1
        await self._prompt()
        return 0

    async def _prompt(self) -> None:
        if self._options.tty and self._session.stdout is not None:
            await self._session.stdout.write(f"{self._world.working_dir} # ".encode())


def _kept(shell: Shell, text: str) -> Program:
    """A line in a shell that goes on afterwards."""
    try:
        script = syntax.parse(text)
    except syntax.Incomprehensible as error:
        yield Output("stderr", f"sh: {error}\n".encode())
        shell.status = 2
        return 2
    return (yield from shell.run(script, b""))


class _Greeter:
    """The `Wire` of a connection to a pod: answers each HTTP request with the pod's name."""

    def __init__(self, pod: str) -> None:
        self._pod = pod
        self._request = b""
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        return await self._answers.get()

    def write(self, data: bytes) -> None:
        self._request += data
        if b"\r\n\r\n" in self._request:
            body = f"Hello from {self._pod}\n".encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            self._answers.put_nowait(f"{head}Connection: close\r\n\r\n".encode() + body)
            self._answers.put_nowait(b"")

    async def drain(self) -> None:
        return None

    def close(self) -> None:
        self._answers.put_nowait(b"")
