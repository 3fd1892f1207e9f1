"""The process that keeps a cluster's components running.

It has imported everything when it forks them: they share that memory, and start without reading a file. When one
ends it is started again, at once the first time and then ever more slowly. When the supervisor itself is killed
its children end with it (the kernel sees to that), so that there is never half a cluster that nobody watches.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shipwheel.admin import klog
from shipwheel.admin.pki import write_private
from shipwheel.admin.runner import explains_itself, reasons

log = logging.getLogger(__name__)

SECOND_DELAY = 0.5
MAX_DELAY = 30.0
STEADY = 30.0
"""Seconds that a program must have run for its failure not to be one of a row."""
STEADY_IF_KILLED = 1.0
"""The same for one that was killed, or told to end: whoever does that wants it back soon, however often it is done."""
STOP_TIMEOUT = 15.0
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15


@dataclass(frozen=True, slots=True)
class Program:
    """One process: what it is called and what it does; `main` returns when it is done, or raises."""

    name: str
    main: Callable[[], None]
    fork: Callable[[], int] = os.fork
    """How its process is made, where a plain child would not do. Raises OSError in the parent only."""


@dataclass(slots=True)
class State:
    """What `status` shows of a process."""

    name: str
    pid: int = 0
    started: float = 0.0
    """Seconds since 1970."""
    restarts: int = 0
    last_exit: str = ""
    failures: int = 0
    """In a row: since it last ran for a while."""
    last_error: str = ""
    """The last line it wrote before it failed; empty when it was killed."""


class Supervisor:
    def __init__(
        self,
        programs: Sequence[Program],
        *,
        log_file: Callable[[str], Path],
        state: Path,
        reload: Callable[[], Sequence[Program]] | None = None,
    ) -> None:
        """`reload` is asked on SIGHUP which programs there shall be from then on."""
        self._programs = {each.name: each for each in programs}
        self._states = {each.name: State(each.name) for each in programs}
        self._due: dict[str, float] = dict.fromkeys(self._programs, 0.0)
        self._log_file = log_file
        self._state_file = state
        self._reload = reload
        self._changed = False
        self._stopping = False
        self._wake: tuple[int, int] = (-1, -1)
        self._self = -1

    def run(self) -> None:
        """Until SIGTERM or SIGINT; then end the programs in the reverse of their order."""
        gc.collect()
        gc.freeze()
        self._self = open_self()
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake[1])
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._change)
        while not self._stopping:
            self._start_due()
            self._write_state()
            self._sleep()
            self._reap()
            if self._changed:
                self._take_changes()
        self._end_all()
        self._state_file.unlink(missing_ok=True)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _change(self, *_: object) -> None:
        self._changed = True

    def _take_changes(self) -> None:
        """Have the programs run that shall run from now on. Those that shall not are killed: they are given up,
        not ended well."""
        self._changed = False
        if self._reload is None:
            return
        try:
            wanted = {each.name: each for each in self._reload()}
        except Exception:
            log.exception("the change cannot be read; everything stays as it is")
            return
        for name in self._programs.keys() - wanted.keys():
            state = self._states.pop(name)
            self._due.pop(name, None)
            if state.pid:
                os.kill(state.pid, signal.SIGKILL)
                os.waitpid(state.pid, 0)
        for name in wanted.keys() - self._programs.keys():
            self._states[name] = State(name)
            self._due[name] = 0.0
        self._programs = wanted

    def _start_due(self) -> None:
        for name, due in list(self._due.items()):
            if due <= time.monotonic():
                del self._due[name]
                self._start(name)

    def _start(self, name: str) -> None:
        state = self._states[name]
        state.started = time.time()
        try:
            state.pid = self._fork(self._programs[name])
        except OSError as error:
            log.exception("%s cannot be started", name)
            self._ended(state, f"cannot be started: {error}", failed=True)

    def _fork(self, program: Program) -> int:
        pid = program.fork()
        if pid:
            return pid
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            for end in self._wake:
                os.close(end)
            end_with(self._self)
            set_title(program.name)
            redirect(self._log_file(program.name))
            klog.configure()
            program.main()
            status = 0
        except KeyboardInterrupt:
            status = 0
        except BaseException as error:
            own = logging.getLogger(program.name)
            if not explains_itself(error):
                own.error("ended by an error", exc_info=True)
            own.critical("%s", "; ".join(reasons(error)))
        finally:
            logging.shutdown()
            os._exit(status)
        raise AssertionError

    def _sleep(self) -> None:
        due = min(self._due.values(), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        with contextlib.suppress(InterruptedError):
            select.select([self._wake[0]], [], [], timeout)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake[0], 4096)

    def _reap(self) -> None:
        by_pid = {state.pid: state for state in self._states.values() if state.pid}
        for pid, code in _all_ended():
            state = by_pid.get(pid)
            if state is None:
                continue
            failed = os.WIFEXITED(code) and os.WEXITSTATUS(code) != 0
            state.pid = 0
            state.last_error = klog.last_words(self._log_file(state.name)) if failed else ""
            self._ended(state, _describe(code), failed=failed)

    def _ended(self, state: State, how: str, *, failed: bool) -> None:
        state.last_exit = how
        log.warning("%s %s", state.name, how)
        if self._stopping:
            return
        state.failures = failures_in_a_row(state.failures, time.time() - state.started, failed=failed)
        self._due[state.name] = time.monotonic() + back_off(state.failures, failed=failed)
        state.restarts += 1

    def _end_all(self) -> None:
        """One after the other, the last one started first: a node must still reach its API server."""
        for name in reversed(self._programs):
            state = self._states[name]
            if state.pid:
                _end(state.pid)
                state.pid = 0

    def _write_state(self) -> None:
        document = {
            "pid": os.getpid(),
            "components": [asdict(state) for state in self._states.values()],
        }
        write_private(self._state_file, json.dumps(document).encode(), mode=0o644)


def failures_in_a_row(before: int, ran: float, *, failed: bool) -> int:
    """With the one of now, after a program ran for so many seconds."""
    return 1 if ran > (STEADY if failed else STEADY_IF_KILLED) else before + 1


def back_off(failures: int, *, failed: bool) -> float:
    """Seconds to wait before a program that failed, or was killed, so often in a row is started again."""
    longest = MAX_DELAY if failed else SECOND_DELAY
    return 0.0 if failures <= 1 else min(SECOND_DELAY * 2.0 ** min(failures - 2, 16), longest)


def daemonize(run: Callable[[], None], *, log_file: Path) -> int:
    """Run something in a process of its own session that outlives us; its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        set_title("shipwheel")
        redirect(log_file)
        klog.configure()
        run()
        status = 0
    except BaseException as error:
        log.error("the supervisor ended by an error", exc_info=True)
        log.critical("%s", "; ".join(reasons(error)))
    finally:
        logging.shutdown()
        os._exit(status)
    raise AssertionError


def read_state(path: Path) -> dict[str, Any] | None:
    """What a supervisor wrote last; None when there is nothing to read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


class Lock:
    """Held by the supervisor and its children as long as one of them lives; the kernel lets go of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def take(self) -> bool:
        """False when somebody else has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let go in this process; whoever was forked meanwhile still holds it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def is_held(self) -> bool:
        if not self._path.exists() or not self.take():
            return self._path.exists()
        self.release()
        return False


def open_self() -> int:
    """A descriptor by which children, in whatever PID namespace, can tell whether this process still lives; -1 on
    systems that have none."""
    try:
        return os.pidfd_open(os.getpid())
    except (OSError, AttributeError):
        return -1


def end_with(parent: int) -> None:
    """Have the kernel end this process when its parent (by `open_self`) dies; on systems without that, nothing
    happens."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if parent >= 0 and select.select([parent], [], [], 0)[0]:
            os.kill(os.getpid(), signal.SIGTERM)


def set_title(name: str) -> None:
    """What `ps -o comm` and `top` show."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def redirect(log_file: Path) -> None:
    """stdin from nowhere, stdout and stderr to the end of a file."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    target = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(nothing, 0)
    os.dup2(target, 1)
    os.dup2(target, 2)
    for descriptor in (nothing, target):
        if descriptor > 2:
            os.close(descriptor)
    # Whatever stood in for them until now.
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _all_ended() -> Iterator[tuple[int, int]]:
    """The children that have ended: (pid, wait status)."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def _end(pid: int) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGTERM)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                log.warning("process %d does not end; killing it", pid)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(0.01)


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with code {os.WEXITSTATUS(status)}"
