"""What a producing process measures of itself: a warm-up, then a window in which everything is counted.

Owns: the window's begin and end, the CPU time and the latencies in it, the profiler around it. Refuses to know: which
client produces.

Invariant: counted are acknowledged records only, between the first and the last look at the clock of the window; CPU
time is user and system of all threads of the process in exactly that window.
"""

import json
import resource
import sys
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, process_time
from typing import TypeAlias

from tests.bench.figures import percentile
from tests.bench.kafka.sampling import Profiler
from tests.bench.machine import resident_bytes

__all__ = ["SAMPLE_EVERY", "Figures", "Meter", "Stopwatch", "announce", "ask"]

#: A pipelining client takes the time of one record in so many: two clock readings a record would be part of the result.
SAMPLE_EVERY = 64

Figures: TypeAlias = dict[str, float]


class Meter:
    """Counts for one run.

    Attributes:
        records: Acknowledged since the start; the workload adds to it.
        latencies: Seconds from the call to the acknowledgement, of records in the window; the workload appends.
    """

    def __init__(self, warmup_s: float, measure_s: float, profiler: Profiler | None = None) -> None:
        self.records = 0
        self.latencies = array("d")
        self._measure_s = measure_s
        self._turn_s = perf_counter() + warmup_s
        self._measuring = False
        self._over = False
        self._profiler = profiler
        self._begin = (0, 0.0, 0.0, 0.0)
        self._end = (0, 0.0, 0.0, 0.0)

    @contextmanager
    def profiled(self) -> Iterator[None]:
        """Run the block under the profiler, where there is one: for a workload that has a window of its own."""
        if self._profiler is None:
            yield
            return
        self._profiler.enable()
        try:
            yield
        finally:
            self._profiler.disable()

    def over(self) -> bool:
        """Look at the clock; True once the window has ended. Cheap: call it once for every few records."""
        if perf_counter() < self._turn_s:
            return False
        if not self._measuring:
            self._measuring = True
            del self.latencies[:]
            announce("begin")
            self._begin = self._now()
            self._turn_s = self._begin[1] + self._measure_s
            if self._profiler is not None:
                self._profiler.enable()
            return False
        if not self._over:
            self._over = True
            self._end = self._now()
            if self._profiler is not None:
                self._profiler.disable()
            announce("end")
        return True

    def figures(self) -> Figures:
        """What the window gave; only after `over` has returned True."""
        records, wall_s, user_s, system_s = (end - begin for begin, end in zip(self._begin, self._end, strict=True))
        ordered = sorted(self.latencies)
        return {
            "records": records,
            "wall_s": wall_s,
            "cpu_user_s": user_s,
            "cpu_system_s": system_s,
            "rate": records / wall_s,
            "cpu_us": (user_s + system_s) / records * 1e6 if records else float("nan"),
            "cpu_share": (user_s + system_s) / wall_s,
            "p50_ms": percentile(ordered, 0.50) * 1e3,
            "p99_ms": percentile(ordered, 0.99) * 1e3,
            "samples": len(ordered),
            "rss_bytes": resident_bytes(),
        }

    def _now(self) -> tuple[int, float, float, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return self.records, perf_counter(), used.ru_utime, used.ru_stime


class Stopwatch:
    """Times one cancellation of many, by the wall and in CPU time."""

    def __init__(self) -> None:
        self._begin = perf_counter(), process_time()

    def figures(self, count: int) -> Figures:
        """What has passed since it was made, for so many."""
        cancel_s, cpu_s = perf_counter() - self._begin[0], process_time() - self._begin[1]
        return {"count": count, "cancel_s": cancel_s, "cancel_cpu_s": cpu_s, "cancel_us": cpu_s / count * 1e6}


def announce(event: str, **figures: float) -> None:
    """Tell the program that started this process."""
    sys.stdout.write(json.dumps({"event": event, **figures}) + "\n")
    sys.stdout.flush()


def ask(event: str) -> None:
    """Ask the program that started this process for something (``pause``: stop the broker), and wait until it is done.

    Blocks the whole process, on purpose: nothing is to happen meanwhile.
    """
    announce(event)
    if not sys.stdin.readline():
        raise SystemExit("the benchmark that started this process is gone")
