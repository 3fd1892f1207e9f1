"""From a component's `async def run(...)` to a process: an event loop, and an end on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from shipwheel.admin.errors import ClusterError

YOUNG_OBJECTS = 10_000
"""How many new containers are looked through for garbage at once. What a component makes is mostly trees, objects of
the API, which reference counting takes away. Python's 700 would have it look again and again through what is in use:
a quarter of an API server's time under load, and most of what it takes to decode a long list."""


def run_component(make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run until it ends or a signal asks it to; being cancelled is how a component ends well."""
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
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
    return [str(each) or type(each).__name__ for each in leaves(error)]


def explains_itself(error: BaseException) -> bool:
    """Whether its message is all there is to say, so that nobody needs a traceback."""
    return all(isinstance(each, ClusterError) for each in leaves(error))


def leaves(error: BaseException) -> Iterator[BaseException]:
    """What went wrong, one by one, where it is a group."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where there is one."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
