"""The one thread that waits for the disk, and how long it has.

Owns: that calls come one after the other, the clock of the one under way. Refuses to know: what is called, what a hang
means for whom.

Invariant: the clock runs from the moment the disk is asked until the thread is back, whoever waits for it and whether
anybody still does: a commit, a reader, a copying of the log.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import trio

__all__ = ["DiskThread"]

T = TypeVar("T")


class DiskThread:
    """Calls functions that block.

    Args:
        inline: Call them without a thread: for ":memory:", so that virtual time can wait for it.
    """

    def __init__(self, *, inline: bool) -> None:
        self._inline = inline
        self._limiter = trio.CapacityLimiter(1)
        self._began: float | None = None

    def __repr__(self) -> str:
        return f"<DiskThread {'at rest' if self._began is None else 'at work'}>"

    @property
    def waiting_s(self) -> float:
        """How long the call under way has been waiting for the disk; 0 without one."""
        began = self._began  # the thread may be back between two looks at it
        return 0.0 if began is None else time.perf_counter() - began

    async def call(self, fn: Callable[..., T], *args: object) -> T:
        """Call it with these arguments. On cancellation: the thread is abandoned, its result too."""
        if self._inline:
            await trio.lowlevel.checkpoint()
            return fn(*args)
        return await trio.to_thread.run_sync(self._timed, fn, *args, abandon_on_cancel=True, limiter=self._limiter)

    def _timed(self, fn: Callable[..., T], *args: object) -> T:
        self._began = time.perf_counter()
        try:
            return fn(*args)
        finally:
            self._began = None
