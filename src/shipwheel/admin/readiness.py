"""Waiting for a cluster to come up, and knowing when to give up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from shipwheel.admin import addons
from shipwheel.admin.errors import ClusterError
from shipwheel.admin.kernel import alive
from shipwheel.admin.klog import last_words, tail
from shipwheel.admin.layout import Layout, Settings
from shipwheel.admin.status import NOT_SIMULATED, admin_client, components
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, is_condition_true, name_of
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.resources import NODES, SERVICE_ACCOUNTS

TIMEOUT = 60.0
SECONDS_A_NODE = 0.02
HOPELESS = 3
"""Starts that fail in a row, after which nobody need wait any longer."""
POLL = 0.03
ROLE_LABEL = "node-role.kubernetes.io/control-plane"


async def api_server(layout: Layout, settings: Settings, supervisor: int) -> None:
    """Until the API server is ready, and what every cluster contains is there. Raises `ClusterError`."""
    async with admin_client(layout) as client:
        await _poll(lambda: _is_ready(client), layout, supervisor, "the API server")
        await addons.install(client, settings)


async def everything(layout: Layout, settings: Settings, supervisor: int | None) -> None:
    """Until pods can be created and run. `supervisor` is a child of ours, if we started it. Raises `ClusterError`."""
    async with admin_client(layout) as client:
        await _poll(lambda: _is_ready(client), layout, supervisor, "the API server")
        await nodes(layout, settings, supervisor)
        await _poll(lambda: _takes_pods(client), layout, supervisor, "the default service account")


async def nodes(layout: Layout, settings: Settings, supervisor: int | None = None) -> None:
    """Until all nodes that shall run are ready. Raises `ClusterError`."""
    async with admin_client(layout) as client:
        what = "the node" if len(settings.running_nodes) == 1 else "a node"
        await _poll(lambda: _has_nodes(client, settings), layout, supervisor, what)


async def simulated_nodes(layout: Layout, settings: Settings, supervisor: int | None = None) -> None:
    """Until all of them are registered, which they are ready. Raises `ClusterError`."""
    expected = len(settings.nodes) + settings.simulated_nodes
    timeout = TIMEOUT + SECONDS_A_NODE * settings.simulated_nodes
    async with admin_client(layout) as client:
        await _poll(lambda: _are_nodes(client, expected), layout, supervisor, "a simulated node", timeout)


async def _are_nodes(client: Client, expected: int) -> bool:
    try:
        page = await client.call("GET", NODES.path(), query={"limit": "1"})
    except (ApiError, ConnectionFailed):
        return False
    return len(page["items"]) + page["metadata"].get("remainingItemCount", 0) >= expected


async def _poll(
    done: Callable[[], Awaitable[bool]],
    layout: Layout,
    supervisor: int | None,
    what: str,
    timeout: float = TIMEOUT,
) -> None:
    deadline = time.monotonic() + timeout
    while not await done():
        if supervisor is not None and not alive(supervisor):
            raise ClusterError(f"the supervisor has ended:\n{tail(layout.log('supervisor'))}")
        for each in components(layout):
            if each.restarts >= HOPELESS and not each.running:
                raise ClusterError(f"{each.name} {each.last_exit}: {last_words(each.log)}\n(see {each.log})")
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} does not come up:\n{_complaints(layout)}")
        await asyncio.sleep(POLL)


async def _is_ready(client: Client) -> bool:
    try:
        await client.request("GET", "/readyz", timeout=2)
    except (ApiError, ConnectionFailed):
        return False
    return True


async def _has_nodes(client: Client, settings: Settings) -> bool:
    machine = {each.name for each in settings.nodes if not each.address}
    try:
        found = (await client.list(NODES, label_selector=NOT_SIMULATED))["items"]
        for each in found:
            if name_of(each) in machine:
                await _complete(client, each)
    except (ApiError, ConnectionFailed):
        return False
    ready = {name_of(each) for each in found if is_condition_true(each, "Ready")}
    return ready >= {each.name for each in settings.running_nodes}


async def _takes_pods(client: Client) -> bool:
    """Whether a pod would be let in: it needs its namespace's service account."""
    try:
        await client.get(SERVICE_ACCOUNTS, "default", "default")
    except (ApiError, ConnectionFailed):
        return False
    return True


async def _complete(client: Client, node: Obj) -> None:
    """What a node may not say of itself: that it is one of the control plane."""
    if ROLE_LABEL not in (node["metadata"].get("labels") or {}):
        await client.patch(NODES, name_of(node), "", {"metadata": {"labels": {ROLE_LABEL: ""}}})


def _complaints(layout: Layout) -> str:
    """The end of every component's log."""
    return "\n".join(f"--- {each.stem}\n{tail(each)}" for each in sorted(layout.logs.glob("*.log")))
