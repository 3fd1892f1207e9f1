"""A cluster by the commands that a user types, and patience."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

BIN = Path(sys.executable).parent
TIMEOUT = 150.0


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def both(self) -> str:
        return self.out + self.err


class Cluster:
    """One cluster, by the commands that a user types."""

    def __init__(self, directory: Path, name: str, *options: str, kubectl: Path = BIN / "kubectl") -> None:
        self.name = name
        self.data = directory / "data"
        self.kubectl_program = kubectl
        self.options = options
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(directory / "kubeconfig"),
            "HOME": str(directory),
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    def shipwheel(self, *arguments: str, check: bool = True) -> Result:
        where = ("--name", self.name, "--data-dir", str(self.data))
        return self.run(str(BIN / "shipwheel"), *arguments, *where, check=check)

    def up(self, *options: str) -> Result:
        return self.shipwheel("up", *self.options, *options)

    def down(self, *options: str) -> Result:
        return self.shipwheel("down", *options)

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True, timeout: float = TIMEOUT) -> str:
        """What kubectl prints; AssertionError when it fails."""
        return self.try_kubectl(*arguments, stdin=stdin, check=check, timeout=timeout).out

    def try_kubectl(self, *arguments: str, stdin: str = "", check: bool = False, timeout: float = TIMEOUT) -> Result:
        return self.run(str(self.kubectl_program), *arguments, stdin=stdin, check=check, timeout=timeout)

    def run(self, *command: str, stdin: str = "", check: bool = True, timeout: float = TIMEOUT) -> Result:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, env=self.environment, timeout=timeout
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
        return Result(done.returncode, done.stdout, done.stderr)

    def get(self, *arguments: str) -> dict[str, Any]:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> str:
        documents = "\n---\n".join(json.dumps(each) for each in objects)
        return self.kubectl("apply", "-f", "-", stdin=documents)

    def processes(self) -> dict[str, int]:
        """The pid of each component."""
        state = json.loads((self.data / "supervisor.json").read_text())
        return {each["name"]: each["pid"] for each in state["components"]} | {"supervisor": state["pid"]}

    def logs(self) -> str:
        return "\n".join(f"--- {each.name}\n{each.read_text()[-3000:]}" for each in (self.data / "logs").glob("*"))


def wait_for(what: Callable[[], Any], *, timeout: float = TIMEOUT, every: float = 0.1) -> Any:
    """What `what` gives as soon as that is true."""
    deadline = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every)
    return found


def page(url: str) -> bytes:
    """What is served there; nothing as long as nobody answers (a container may run before it listens)."""
    try:
        with urlopen(url, timeout=20) as answer:
            return answer.read()
    except OSError:
        return b""


can_run_containers = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("containerd") is None, reason="needs root and containerd"
)
