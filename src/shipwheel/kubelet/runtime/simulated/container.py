"""One simulated container: a program, and how far it has come.

Nothing runs by itself. Whoever looks at a container first lets it catch up with the clock; its program is then
run up to that moment, and what it says goes to its log, with the time at which it would have said it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from shipwheel.kubelet.runtime.base import Container, ContainerConfig, LinuxResources, Sandbox, SandboxConfig
from shipwheel.kubelet.runtime.simulated.life import Life, PodLife
from shipwheel.kubelet.runtime.simulated.shell import program
from shipwheel.kubelet.runtime.simulated.world import FOREVER, Output, Program, Sleep, World

SHORT_RUN = Sleep(1.0)
"""What an unknown program takes in a pod that is meant to finish."""
SECOND = 1_000_000_000

Listener = Callable[[Output], None]


@dataclass(slots=True)
class SimulatedSandbox:
    sandbox: Sandbox
    config: SandboxConfig
    life: PodLife


@dataclass(slots=True)
class SimulatedContainer:
    state: Container
    config: ContainerConfig
    sandbox: SimulatedSandbox
    life: Life
    finishes: bool
    """The pod is meant to end by itself."""
    resources: LinuxResources
    files: dict[str, bytes] = field(default_factory=dict)
    listeners: list[Listener] = field(default_factory=list)
    _program: Program | None = None
    _reached: float = 0.0
    """Seconds since the start up to which the program has run."""
    _end: tuple[float, int] | None = None
    """(seconds since the start, exit code) of an end from outside."""
    _unfinished: dict[str, bytes] = field(default_factory=dict)
    """By stream, what was said since the last line feed."""

    @property
    def running(self) -> bool:
        return self.state.state == "RUNNING"

    def world(self, now: Callable[[], datetime]) -> World:
        """What a program sees here."""
        config, pod = self.config, self.sandbox.config
        return World(
            env={"HOSTNAME": pod.hostname or pod.name, **dict(config.env)},
            hostname=pod.hostname or pod.name,
            files=self.files,
            mounts={each.container_path: (each.host_path, each.readonly) for each in config.mounts},
            working_dir=config.working_dir or "/",
            user=config.run_as_user or 0,
            now=now,
            kill=lambda signal: self.end(now().timestamp() - self.state.started_at / SECOND, 128 + signal),
        )

    def start(self, now: int) -> None:
        self.state = replace(self.state, state="RUNNING", started_at=now)
        self._log(b"")
        limit = self.resources.memory_limit_bytes
        if limit and self.life.memory > limit:
            self._finish(0.0, 137, "OOMKilled")
            return
        self._program = self._choose()

    def _choose(self) -> Program:
        """What runs: the declaration, else the command, as far as it is known."""
        if self.life.declared or self.life.logs:
            return _declared(self.life)
        command = [*self.config.command, *self.config.args]
        # Time inside is the program's own: it may be run later than it happens.
        world = self.world(lambda: _moment(self.state.started_at + int(self._reached * SECOND)))
        known = program(command, world, unknown=lambda words: self._unknown()) if command else None
        return known or self._unknown()

    def _unknown(self) -> Program:
        yield SHORT_RUN if self.finishes else FOREVER
        return 0

    def catch_up(self, now: int) -> None:
        """Let everything happen that should have by now."""
        if not self.running or self._program is None:
            return
        elapsed = (now - self.state.started_at) / SECOND
        until = min(elapsed, self._end[0]) if self._end else elapsed
        said: list[bytes] = []
        while self._reached <= until:
            try:
                event = next(self._program)
            except StopIteration as end:
                self._log(b"".join(said))
                self._finish(self._reached, end.value, "")
                return
            if isinstance(event, Sleep):
                self._reached += event.seconds
            else:
                said.append(self._said(event))
        self._log(b"".join(said))
        if self._end and elapsed >= self._end[0]:
            self._finish(*self._end, "")

    def end(self, at: float, code: int) -> None:
        """Let it end from outside, so many seconds after its start."""
        if self._end is None or at < self._end[0]:
            self._end = (max(at, 0.0), code)

    def _finish(self, after: float, code: int, reason: str) -> None:
        for stream in ("stdout", "stderr"):
            if self._unfinished.get(stream):
                self._log(self._said(Output(stream, b"\n")))
        self._program = None
        self.state = replace(
            self.state,
            state="EXITED",
            finished_at=self.state.started_at + int(after * SECOND),
            exit_code=code,
            reason=reason or ("Completed" if code == 0 else "Error"),
            message=self.life.message if self._end is None else "",
        )

    # The log

    def _said(self, output: Output) -> bytes:
        """The log lines that an output completes."""
        for listener in self.listeners:
            listener(output)
        *lines, rest = (self._unfinished.get(output.stream, b"") + output.data).split(b"\n")
        self._unfinished[output.stream] = rest
        stamp = _stamp(self.state.started_at + int(self._reached * SECOND))
        return b"".join(b"%b %b F %b\n" % (stamp, output.stream.encode(), line) for line in lines)

    def _log(self, lines: bytes) -> None:
        """Append to the log file; no file is held open, so that it can be rotated at any time."""
        path = self.state.log_path
        if not path or (not lines and os.path.exists(path)):
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "ab") as file:
            file.write(lines)

    def touch_log(self) -> None:
        self._log(b"")


def _declared(life: Life) -> Program:
    run = float("inf") if life.run is None else life.run
    passed = 0.0
    for line in life.logs:
        if passed > run:
            break
        yield Output("stdout", line.encode() + b"\n")
        wait = min(life.every, run - passed)
        yield Sleep(wait)
        passed += wait
    yield Sleep(max(run - passed, 0.0))
    return life.exit


def _moment(nanoseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)


def _stamp(nanoseconds: int) -> bytes:
    seconds, rest = divmod(nanoseconds, SECOND)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{rest:09d}Z".encode()
