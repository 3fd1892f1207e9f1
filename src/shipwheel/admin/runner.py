"""From a component's `async def run(...)` to a process: an event loop, and an end on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from shipwheel.admin.errors import ClusterError


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
