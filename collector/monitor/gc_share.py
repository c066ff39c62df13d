"""How much of the process's CPU the garbage collector takes, and its longest pause.

Owns: one callback in `gc.callbacks` while it is open. Refuses to know: whether that is much.

The incident that this project answers had a process that spent four fifths of its CPU in the collector while every
other number looked merely slow; so this one is on the first line of the dashboard.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["GcShare"]


class GcShare:
    """Counts collections and the seconds spent in them, by generation; `tick` turns them into a share.

    Seconds are CPU time, as the share is of CPU time: a clock on the wall also counts the time in which others had the
    core. A pause is what the loop feels, by the wall.
    """

    def __init__(self) -> None:
        self.collections_total = [0, 0, 0]
        self.seconds_total = [0.0, 0.0, 0.0]
        self.longest_s = 0.0
        self.share = 0.0
        """Of the CPU time between the last two ticks, 0…1."""
        self._started: tuple[float, float] | None = None
        """By the wall, and of this thread's CPU."""
        self._last_gc = 0.0
        self._last_cpu = time.process_time()

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Count inside the block."""
        gc.callbacks.append(self._callback)
        try:
            yield
        finally:
            gc.callbacks.remove(self._callback)

    def tick(self) -> None:
        """Close a window and compute its share; called by the sampler once a second or so."""
        cpu, collected = time.process_time(), sum(self.seconds_total)
        used = cpu - self._last_cpu
        self.share = min((collected - self._last_gc) / used, 1.0) if used > 0 else 0.0
        self._last_cpu, self._last_gc = cpu, collected

    def _callback(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._started = time.perf_counter(), time.thread_time()
        elif self._started is not None:
            paused_s = time.perf_counter() - self._started[0]
            generation = min(info["generation"], 2)
            self.collections_total[generation] += 1
            self.seconds_total[generation] += time.thread_time() - self._started[1]
            self.longest_s = max(self.longest_s, paused_s)
            self._started = None

    def __repr__(self) -> str:
        return f"<GcShare {self.share:.1%}, {sum(self.collections_total)} collections>"
