"""Large bodies are worked so many bytes at a time, first come, first served, so that others get their turns between.

Owns: who waits. Refuses to know: what a body is, and how long its work takes.

Theory. A POST of 1000 events takes some milliseconds of parsing and encoding. When 32 of them are complete in one pass
of the loop, everybody else waits for all of that, and the answers of all 32 come together at its end. With a quarter of
a megabyte a pass, a single event waits for one of them, the first answers leave early, and the rate is the same.

Invariants: in one pass no more than the limit is let in, but for a larger body alone; nobody overtakes; who is
cancelled leaves the line. While `run` does not run, nobody waits.
"""

from typing import NoReturn

import trio

from kafka_client.cluster.alarm import TaskAlarm

__all__ = ["BYTES_PER_PASS", "LARGE_BYTES", "BodyGate"]

#: One body of 1000 events of 250 bytes, ~4 ms.
BYTES_PER_PASS = 256 * 1024
#: Smaller ones do not wait: 60 events of 250 bytes, ~0.3 ms.
LARGE_BYTES = 16 * 1024


class BodyGate:
    """Of one process."""

    def __init__(self, bytes_per_pass: int = BYTES_PER_PASS) -> None:
        self._limit = bytes_per_pass
        self._used = 0
        self._line: dict[trio.lowlevel.Task, int] = {}
        self._alarm = TaskAlarm()
        self._runs = False

    def __repr__(self) -> str:
        return f"<BodyGate {len(self._line)} waiting>"

    async def enter(self, size_bytes: int) -> None:  # noqa: ASYNC910  # none where there is nobody to wait for
        """Wait for this body's turn; its work is to follow without a pause.

        On cancellation: it leaves the line.
        """
        if not self._runs:
            return  # noqa: ASYNC910  # as above
        if not self._line and self._fits(size_bytes):
            self._take(size_bytes)
            return  # noqa: ASYNC910  # as above
        task = trio.lowlevel.current_task()
        self._line[task] = size_bytes

        def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            self._line.pop(task, None)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    async def run(self) -> NoReturn:
        """Open the gate once in each pass in which somebody waits. On cancellation: everybody is let in."""
        self._runs = True
        try:
            while True:
                await self._alarm.wait()
                # The alarm was rung in an earlier pass: this is another one.
                self._used = 0
                while self._line and self._fits(size := next(iter(self._line.values()))):
                    self._take(size)
                    self._let_in()
        finally:
            self._runs = False
            while self._line:
                self._let_in()

    def _fits(self, size_bytes: int) -> bool:
        return not self._used or self._used + size_bytes <= self._limit

    def _take(self, size_bytes: int) -> None:
        self._used += size_bytes
        self._alarm.ring()

    def _let_in(self) -> None:
        task = next(iter(self._line))
        del self._line[task]
        trio.lowlevel.reschedule(task)
