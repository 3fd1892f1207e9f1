"""From a component's `async def run(...)` to a process: an event loop, and an end on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from typing import Any


def run_component(make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run until it ends or a signal asks it to; being cancelled is how a component ends well."""
    with contextlib.suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_until_signalled(make))


async def _until_signalled(make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await make()


def reasons(error: BaseException) -> list[str]:
    """What went wrong, a line for each of the errors that a group of tasks ended with."""
    if isinstance(error, BaseExceptionGroup):
        return [line for each in error.exceptions for line in reasons(each)]
    return [str(error) or type(error).__name__]


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where there is one."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
