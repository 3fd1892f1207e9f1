"""The parts of a process: each is started again when it fails, so that the others need not end with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from shipwheel.admin.layout import Layout
from shipwheel.admin.runner import explains_itself, reasons

log = logging.getLogger(__name__)

POLL = 0.02
STEADY = 10.0
"""Seconds that a part of a process must have run for its failure not to count as one of its start."""
RETRY_DELAY = 0.1
HOPELESS = 3
"""Starts that may fail in a row."""


async def kept(name: str, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a part of a process, again when it fails, so that the other parts need not end with it. One that cannot
    even start ends the process after all: then the supervisor knows, and so does `up`."""
    failures = 0
    while True:
        started = time.monotonic()
        try:
            await make()
            log.warning("%s has ended", name)
        except Exception as error:
            log.error("%s failed: %s", name, "; ".join(reasons(error)), exc_info=not explains_itself(error))
            failures = failures + 1 if time.monotonic() - started < STEADY else 1
            if failures >= HOPELESS:
                raise
        await asyncio.sleep(RETRY_DELAY * 2**failures)


async def wait_for_api(layout: Layout, who: str, server: str = "") -> None:
    """Until the API server is ready: asking again is cheaper than to fail and back off."""
    from shipwheel.api.errors import ApiError
    from shipwheel.client.client import Client, ConnectionFailed
    from shipwheel.client.kubeconfig import load_config

    async with Client(load_config(layout.kubeconfig(who), server=server), user_agent="shipwheel") as client:
        while True:
            try:
                await client.request("GET", "/readyz", timeout=2)
                return
            except (ApiError, ConnectionFailed):
                await asyncio.sleep(POLL)
