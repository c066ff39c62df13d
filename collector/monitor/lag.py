"""The loop-lag probe: how late the loop comes back to a task that asked to be woken.

Owns: one task that sleeps ``interval_s`` and compares. Refuses to know: what is done about it (admission sheds above
``max_lag_s``; the client's clock starts earlier by it).

Admission reads `overdue_s`, everybody else `lag_s`: under overload each turn of the loop does ``max_lag_s`` of work,
and sheds the rest of who came, at a fraction of the cost. When admission read the held value too, it shed on for
`HOLD_S` after each long turn, while the loop had nothing to do: of a capacity of 300 requests a second 82 % were used
at twice as many, and 77 % at five times.

Two things make the number honest. A probe that only *measures* is blind exactly while the loop is blocked: whoever runs
first after a blockage (trio shuffles) would read the old value. So `lag_s` is the larger of the last measurement and of
how overdue the probe is at this moment. And a value that falls back to zero with the next good wake-up would let a
burst in between two blockages, so what is read is the highest of the last `HOLD_S`.
"""

from collections.abc import Callable
from typing import NoReturn

import trio

from .instruments import Histogram

__all__ = ["LoopLag"]

HOLD_S = 0.25
"""How long a measured lag stands: five intervals, shorter than the shortest Retry-After by far."""
RECENT_S = 60.0
"""The window of `recent_highest_s`, for people."""

_SLOTS = 12


class LoopLag:
    """Measures the lag; `run` is its task. All durations are seconds."""

    def __init__(self, interval_s: float = 0.05) -> None:
        self.interval_s = interval_s
        self.histogram = Histogram()
        self.highest_s = 0.0
        self._taken_s = 0.0
        self._held_s = 0.0
        self._held_until = -1.0
        self._due: float | None = None
        self._clock: Callable[[], float] = trio.current_time
        self._slots: list[tuple[int, float]] = [(-1, 0.0)] * _SLOTS

    @property
    def lag_s(self) -> float:
        """The lag of this moment. Must be read inside the trio run that the probe lives in; 0 while it does not run."""
        due = self._due
        if due is None:
            return 0.0
        now = self._clock()
        # Read twice for each request: written out, a third of what max() and trio.current_time() cost.
        lag = now - due
        if now < self._held_until and lag < self._held_s:
            return self._held_s
        return lag if lag > 0.0 else 0.0

    @property
    def overdue_s(self) -> float:
        """How long this turn of the loop has taken, as far as it is known; what came before it does not count.

        Read as `lag_s`.
        """
        due = self._due
        if due is None:
            return 0.0
        lag = self._clock() - due
        return lag if lag > 0.0 else 0.0

    @property
    def recent_highest_s(self) -> float:
        """The highest lag of the last minute."""
        if self._due is None:
            return self.highest_s
        oldest = int(trio.current_time() / RECENT_S * _SLOTS) - _SLOTS
        return max((lag for slot, lag in self._slots if slot > oldest), default=0.0)

    def take_highest_s(self) -> float:
        """The highest lag since the last call: what a curve of one point a second must not miss."""
        taken, self._taken_s = max(self._taken_s, self.lag_s), 0.0
        return taken

    async def run(self) -> NoReturn:
        """Probe for ever.

        On cancellation: ends at once; `lag_s` reads 0 from then on.
        """
        self._clock = trio.lowlevel.current_clock().current_time
        try:
            while True:
                self._due = trio.current_time() + self.interval_s
                await trio.sleep_until(self._due)
                self._measured(trio.current_time(), max(trio.current_time() - self._due, 0.0))
        finally:
            self._due = None

    def _measured(self, now: float, lag: float) -> None:
        self.histogram.observe(lag)
        self.highest_s = max(self.highest_s, lag)
        self._taken_s = max(self._taken_s, lag)
        if lag >= self._held_s or now >= self._held_until:
            self._held_s, self._held_until = lag, now + HOLD_S
        slot = int(now / RECENT_S * _SLOTS)
        index = slot % _SLOTS
        known, highest = self._slots[index]
        self._slots[index] = (slot, max(lag, highest) if known == slot else lag)

    def __repr__(self) -> str:
        return f"<LoopLag highest {self.highest_s * 1000:.1f} ms>"
