"""A machine made of Linux namespaces: network, mounts, host name and processes of its own.

What keeps them is their first process. It does nothing but bury the processes that lose their parent, and whatever
runs in the namespaces outlives the program that made them, as containers must. When the first process is killed the
kernel kills all others with it, and mounts and network are gone: just what happens when a machine loses its power.

The file system is the real machine's, save for what a machine says of itself (its name, its identity, its
processes, its interfaces).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from shipwheel.admin.kernel import alive, children, kill, mounts_below, processes

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_BIND, _MS_MOVE, _MS_REC, _MS_SLAVE, _MS_SHARED = 0x1000, 0x2000, 0x4000, 0x80000, 0x100000
_MNT_DETACH = 2
_PLAIN = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
_MARK = "SHIPWHEEL_NODE"
_END_TIMEOUT = 30.0
_POLL = 0.005


@dataclass(frozen=True, slots=True)
class Namespaces:
    hostname: str
    directory: Path
    """Of their own: the first process's number, and what is said of the machine."""
    hidden: tuple[Path, ...] = ()
    """Mounts below these are others', and are not taken along."""
    files: Mapping[str, str] = field(default_factory=dict)
    """What other files than those about the machine itself say in it, by path."""
    fresh: tuple[Path, ...] = ()
    """Directories of its own, empty at every start."""
    kept: Mapping[Path, Path] = field(default_factory=dict)
    """Directories of its own that outlive it, by their place in it: where the real machine keeps them."""

    @property
    def _pid_file(self) -> Path:
        return self.directory / "init.pid"

    def first(self) -> int | None:
        """The first process, if it lives; as this process sees it."""
        try:
            pid = int(self._pid_file.read_text())
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if self._mark in environment.split(b"\0") else None

    @property
    def _mark(self) -> bytes:
        return os.fsencode(f"{_MARK}={self.directory}")

    def boot(self, identity: Path) -> int:
        """Make the namespaces; the first process. `identity` is a file that keeps the machine's identity over
        reboots. Raises OSError, in this process only."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        if not identity.exists():
            identity.parent.mkdir(parents=True, exist_ok=True)
            identity.write_text(f"{uuid.uuid4().hex}\n")
        report, end = os.pipe()
        between = os.fork()
        if not between:
            os.close(report)
            _leave(end, lambda: self._unshare(end, identity))
        os.close(end)
        with os.fdopen(report, "rb") as failures:
            failure = failures.read().decode(errors="replace")
        os.waitpid(between, 0)
        if failure:
            raise OSError(f"no namespaces for {self.hostname}: {failure}")
        first = self.first()
        if first is None:
            raise OSError(f"the namespaces of {self.hostname} have ended at once")
        return first

    def _unshare(self, end: int, identity: Path) -> None:
        """In the child of `boot`: the first process is its child, and loses it at once."""
        _call("unshare", _CLONE_NEWNET | _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWPID)
        first = os.fork()
        if not first:
            _leave(end, lambda: self._begin(identity))
        self._pid_file.write_text(f"{first}\n")

    def _begin(self, identity: Path) -> None:
        """In the first process."""
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        _mount("none", "/", flags=_MS_REC | _MS_SLAVE)
        self._mount_own(identity)
        # As an init system does, so that pods can hand mounts on to the node and get its own (mountPropagation). What
        # the node mounts stays in it all the same: to the real machine it is a receiver only.
        _mount("none", "/", flags=_MS_REC | _MS_SHARED)
        socket.sethostname(self.hostname)
        # Ignored, and that survives an exec: the kernel itself buries who ends.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        program = shutil.which("sleep") or "/bin/sleep"
        os.execve(program, ["sleep", "infinity"], {_MARK: str(self.directory)})

    def _mount_own(self, identity: Path) -> None:
        """The processes, interfaces and names of this machine in place of the real one's."""
        taken = Path("/proc/self/mountinfo").read_text()
        for directory in self.hidden:
            for point in mounts_below(directory, taken):
                if Path(point) != directory:
                    # One that another mount covers cannot be reached, nor be in the way.
                    with contextlib.suppress(OSError):
                        _call("umount2", os.fsencode(point), _MNT_DETACH)
        _mount("proc", "/proc", kind="proc", flags=_PLAIN)
        self._mount_sys(taken)
        for directory in self.fresh:
            directory.mkdir(parents=True, exist_ok=True)
            _mount("tmpfs", str(directory), kind="tmpfs", flags=_MS_NOSUID | _MS_NODEV)
        for directory, kept in self.kept.items():
            for each in (directory, kept):
                each.mkdir(parents=True, exist_ok=True)
            _mount(str(kept), str(directory), flags=_MS_BIND)
        machine_id = identity.read_text().strip()
        for place, text in {
            "/etc/hostname": self.hostname,
            "/etc/hosts": _hosts(self.hostname),
            "/etc/machine-id": machine_id,
            "/sys/class/dmi/id/product_uuid": str(uuid.UUID(machine_id)),
            "/proc/sys/kernel/random/boot_id": str(uuid.uuid4()),
            **self.files,
        }.items():
            if os.path.exists(place):
                ours = self.directory / Path(place).name
                ours.write_text(f"{text}\n")
                _mount(str(ours), os.path.realpath(place), flags=_MS_BIND)

    def _mount_sys(self, taken: str) -> None:
        """A fresh /sys shows the interfaces of our network, and lacks what is mounted in it: cgroups above all."""
        scratch = self.directory / "sys"
        scratch.mkdir(exist_ok=True)
        _mount("sysfs", str(scratch), kind="sysfs", flags=_PLAIN)
        for point in _outermost(each for each in mounts_below(Path("/sys"), taken) if each != "/sys"):
            _mount(point, str(scratch / Path(point).relative_to("/sys")), flags=_MS_BIND | _MS_REC)
        _mount(str(scratch), "/sys", flags=_MS_MOVE)

    def fork(self) -> int:
        """`os.fork`, the child among the processes of the namespaces; it should `enter` the others first. Raises
        OSError, in the parent only."""
        first = self.first()
        if first is None:
            raise ProcessLookupError(f"{self.hostname} does not run")
        ours, theirs = (os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY) for pid in ("self", first))
        try:
            _call("setns", theirs, _CLONE_NEWPID)
            try:
                child = os.fork()
            except OSError:
                child = -1
            if child:
                _call("setns", ours, _CLONE_NEWPID)
        finally:
            os.close(ours)
            os.close(theirs)
        if child < 0:
            raise OSError(f"no process can be made in the namespaces of {self.hostname}")
        return child

    def enter(self) -> None:
        """Move this process, which must have a single thread, to the namespaces' network, mounts and name. Raises
        OSError."""
        first = self.first()
        if first is None:
            raise ProcessLookupError(f"{self.hostname} does not run")
        kinds = {"net": _CLONE_NEWNET, "uts": _CLONE_NEWUTS, "mnt": _CLONE_NEWNS}
        opened = {name: os.open(f"/proc/{first}/ns/{name}", os.O_RDONLY) for name in kinds}
        for name, descriptor in opened.items():
            _call("setns", descriptor, kinds[name])
            os.close(descriptor)
        os.chdir("/")

    def kill(self) -> None:
        """End all of its processes at once; returns when the last is gone. Harmless when there is none. Raises
        TimeoutError."""
        first = self.first()
        if first is None:
            return
        members = _members(first)
        kill(first)
        deadline = time.monotonic() + _END_TIMEOUT
        # The first is the last one to go. It stays as long as somebody outside does not bury a child that he lost
        # here; that changes nothing: nothing of it is left by then.
        while alive(first) and any(alive(each) for each in members):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the processes of {self.hostname} do not end")
            time.sleep(_POLL)


def _members(first: int) -> set[int]:
    """The other processes of a first process's namespace: its own descendants, and what was put there and its
    descendants."""
    space = _pid_namespace(first)
    found: set[int] = set()
    todo = [first, *(each for each in processes() if _pid_namespace(each) == space)]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children(pid)
    return found - {first}


def _pid_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _outermost(points: Iterable[str]) -> list[str]:
    """Those that are not below another."""
    found: list[str] = []
    for point in sorted(points):
        if not any(Path(point).is_relative_to(each) for each in found):
            found.append(point)
    return found


def _hosts(hostname: str) -> str:
    return f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {hostname}"


def _leave(end: int, action: Callable[[], None]) -> NoReturn:
    """Carry something out and end this process; what went wrong goes to a pipe."""
    status = 1
    try:
        action()
        status = 0
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(end, str(error).encode())
    finally:
        os._exit(status)


def _mount(source: str, target: str, *, kind: str = "none", flags: int = 0) -> None:
    try:
        _call("mount", os.fsencode(source), os.fsencode(target), os.fsencode(kind), flags, None)
    except OSError as error:
        raise OSError(error.errno, f"{source} cannot be mounted on {target}: {error.strerror}") from None


def _call(name: str, *arguments: object) -> None:
    """A function of the C library that says -1 when it fails."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
