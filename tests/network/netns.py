"""Network namespaces for tests: machines and pods that share nothing with the one we run on."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
_serial = itertools.count()


class Namespace:
    def __init__(self, label: str) -> None:
        self.name = f"swt-{os.getpid()}-{next(_serial)}-{label}"
        run("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command: str, stdin: str = "") -> str:
        return run("ip", "netns", "exec", self.name, *command, stdin=stdin)

    def do(self, action: Callable[[], T]) -> T:
        """Call something in a thread that is in the namespace; the sockets it makes stay there."""
        result: list[T] = []
        failure: list[BaseException] = []

        def work() -> None:
            try:
                with open(f"/run/netns/{self.name}") as handle:
                    if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                result.append(action())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def close(self) -> None:
        run("ip", "netns", "del", self.name)


def run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


@contextmanager
def namespaces(*labels: str) -> Iterator[list[Namespace]]:
    made: list[Namespace] = []
    try:
        for label in labels:
            made.append(Namespace(label))
        yield made
    finally:
        for each in made:
            each.close()


def connect(node: Namespace, other: Namespace, *, here: str, there: str) -> None:
    """A veth pair with an address on each end, as `ptp` ties a pod to its node; the default route leads here."""
    link = f"v{next(_serial)}"
    run("ip", "link", "add", link, "netns", node.name, "type", "veth", "peer", "name", "eth0", "netns", other.name)
    node.run("ip", "addr", "add", f"{here}/32", "dev", link)
    node.run("ip", "link", "set", link, "up")
    node.run("ip", "route", "add", f"{there}/32", "dev", link)
    other.run("ip", "addr", "add", f"{there}/32", "dev", "eth0")
    other.run("ip", "link", "set", "eth0", "up")
    other.run("ip", "route", "add", f"{here}/32", "dev", "eth0")
    other.run("ip", "route", "add", "default", "via", here, "dev", "eth0")
