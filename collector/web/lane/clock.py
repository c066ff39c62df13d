"""The lane clock: one task that looks at what has a deadline, in place of a timer for each connection.

Owns: the grid of the request nurseries' deadlines, the time as connections note it, and the ``Date`` field of answers.
Refuses to know: what a connection does about being late.

Invariant: whatever is measured with `now` is never found late too early: `now` is behind the true time, so a moment
noted by it is up to a grid too old, and who looks allows for that.
"""

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import NoReturn

import trio

from collector.ingest.nursery import GRID_S, DeadlineGrid

__all__ = ["LOOK_S", "LaneClock"]

#: How often connections are looked at: idle, slow with a head.
LOOK_S = 0.5


class LaneClock:
    """The time of one server's connections."""

    def __init__(self) -> None:
        self.grid = DeadlineGrid()
        self.now = trio.current_time()
        """The time of the last tick (`trio.current_time`)."""
        self.date = b""
        """The whole field, with its line's end (RFC 9110, 6.6.1)."""
        self._second = 0
        self._tell_date()

    def __repr__(self) -> str:
        return f"<LaneClock {self.grid!r}>"

    async def run(self, look: Callable[[float], None]) -> NoReturn:
        """Tick for ever; ``look(now)`` is called every `LOOK_S`. On cancellation: nothing is late any more."""
        next_look = self.now
        while True:
            now = self.now = trio.current_time()
            self.grid.look(now)
            self._tell_date()
            if now >= next_look:
                next_look = now + LOOK_S
                look(now)
            await trio.sleep(GRID_S)

    def _tell_date(self) -> None:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self.date = b"date: %b\r\n" % formatdate(second, usegmt=True).encode()
