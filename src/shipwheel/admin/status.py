"""How a cluster is: its processes as the supervisor wrote them down, its nodes as its API server knows them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipwheel.admin.layout import Layout
from shipwheel.admin.supervisor import STEADY, Lock, read_state
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.kubeconfig import load_config
from shipwheel.client.resources import NODES

NOT_SIMULATED = "!shipwheel.dev/simulated"
KEEPS_FAILING = 2
"""Failures in a row."""


@dataclass(frozen=True, slots=True)
class Component:
    """A process of a cluster."""

    name: str
    pid: int
    running: bool
    restarts: int
    started: float
    memory: int
    """Bytes that are its own: what it shares with the others is counted in parts."""
    last_exit: str
    failing: str
    """Why it keeps failing; empty when it does not."""
    log: Path


def is_running(layout: Layout) -> bool:
    return Lock(layout.lock).is_held


def components(layout: Layout) -> list[Component]:
    """The processes of the cluster, as the supervisor last wrote them down."""
    state = read_state(layout.state) if is_running(layout) else None
    if state is None:
        return []
    return [
        Component(
            name=each["name"],
            pid=each["pid"],
            running=bool(each["pid"]) and _exists(each["pid"]),
            restarts=each["restarts"],
            started=each["started"],
            memory=_memory_of(each["pid"]) if each["pid"] else 0,
            last_exit=each["last_exit"],
            failing=_failing(each),
            log=layout.log(each["name"]),
        )
        for each in state["components"]
    ]


def _failing(state: dict[str, Any]) -> str:
    """An older version's supervisor does not say."""
    if state.get("failures", 0) < KEEPS_FAILING or (state["pid"] and time.time() - state["started"] > STEADY):
        return ""
    return state["last_error"] or state["last_exit"]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _memory_of(pid: int) -> int:
    """Proportional resident memory in bytes; 0 where the kernel does not say."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


@contextlib.asynccontextmanager
async def admin_client(layout: Layout) -> AsyncIterator[Client]:
    """A client with all rights."""
    config = load_config(layout.kubeconfig("admin"))
    async with Client(config, user_agent="shipwheel") as client:
        yield client


def list_nodes(layout: Layout) -> list[Obj]:
    """The cluster's nodes, but for the simulated ones; none when its API server does not answer."""

    async def ask() -> list[Obj]:
        async with admin_client(layout) as client:
            return (await client.list(NODES, label_selector=NOT_SIMULATED))["items"]

    try:
        return asyncio.run(ask())
    except (ApiError, ConnectionFailed):
        return []
