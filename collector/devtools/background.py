"""A part that outlives single tests: an async context manager held open by a thread with a Trio of its own.

Owns: the thread. Refuses to know: what it holds. pytest-trio's fixtures live for one test; a broker that takes
seconds to start should live for all of them.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

import outcome
import trio

__all__ = ["hold_open"]

T = TypeVar("T")


@contextmanager
def hold_open(make: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """Enter what ``make`` returns in another thread, and leave it at the end of the block.

    What is yielded belongs to that thread's Trio: only its synchronous methods may be called from here.

    Raises:
        Whatever entering or leaving raises.
    """
    values: queue.SimpleQueue[T | None] = queue.SimpleQueue()
    entered: list[tuple[trio.lowlevel.TrioToken, trio.Event]] = []

    async def hold() -> None:
        leave = trio.Event()
        async with make() as value:
            entered.append((trio.lowlevel.current_trio_token(), leave))
            values.put(value)
            await leave.wait()

    def run() -> None:
        ended = outcome.capture(trio.run, hold)
        ends.append(ended)
        values.put(None)

    ends: list[outcome.Outcome[None]] = []
    thread = threading.Thread(target=run, name="held open", daemon=True)
    thread.start()
    first = values.get()
    if not entered:
        ends[0].unwrap()
    try:
        yield first  # type: ignore[misc]  # entered: then it is a T
    finally:
        token, leave = entered[0]
        token.run_sync_soon(leave.set)
        thread.join()
        ends[0].unwrap()
