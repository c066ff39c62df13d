"""One sample a second: the curves of the dashboard, and the live latencies.

Owns: the rings of samples. Refuses to know: how they are drawn.

Latencies since the start hide a bad minute behind a good day, so the dashboard shows those of the last `WINDOW_S`: the
difference between two readings of the same histogram.
"""

import time
from collections import deque
from collections.abc import Mapping
from typing import NoReturn

import trio

from .instruments import Histogram
from .ledger_view import LedgerView
from .monitor import SAMPLE_S, STAGES, Monitor, Sample, Stage
from .statistics import JsonValue
from .tasks import Stillness

__all__ = ["Sampler"]

WINDOW_S = 10
LOOK_EVERY = 5
"""Samples between two looks at which tasks moved: a look costs ~1 us a task."""

# Gauges that the dashboard draws as curves, where the sources have them.
_CURVES = {
    "queue_bytes": ("producer", "queue_bytes"),
    "in_flight_bytes": ("producer", "in_flight_bytes"),
    "in_work_bytes": ("admission", "in_work_bytes"),
    "connections": ("connections", "open"),
    "spool_rows": ("spool", "rows"),
    "spool_bytes": ("spool", "bytes"),
    "spool_oldest_age_s": ("spool", "oldest_age_s"),
    "replayed": ("replay", "delivered_total"),
}


class Sampler:
    """Takes the samples; `run` is its task."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.stillness = Stillness()
        self._counts: deque[dict[Stage, list[int]]] = deque(maxlen=WINDOW_S + 1)
        self._taken = 0
        self._tasks = 0
        self._cpu = time.process_time()
        self._at = time.monotonic()

    async def run(self) -> NoReturn:
        """Sample for ever. On cancellation: ends at once; the samples stay."""
        while True:
            if self._taken % LOOK_EVERY == 0:
                self._tasks = await self.stillness.look()
            self.take()
            await trio.sleep(SAMPLE_S)

    def take(self) -> Sample:
        """One sample, now."""
        monitor = self._monitor
        self._taken += 1
        monitor.gc.tick()
        cpu, at = time.process_time(), time.monotonic()
        passed = at - self._at
        cpu_share = (cpu - self._cpu) / passed if passed > 0 else 0.0
        self._cpu, self._at = cpu, at
        self._counts.append({name: list(monitor.stages[name].counts) for name in STAGES})
        readings = self._readings()
        moment = time.time()
        monitor.ledgers.note(moment, readings.get("ledger"), readings.get("spool"))
        sample = Sample(
            at=moment,
            lag_s=monitor.lag.take_highest_s(),
            gc_share=monitor.gc.share,
            cpu_share=cpu_share,
            tasks=self._tasks,
            values=_curves(readings),
        )
        monitor.samples.append(sample)
        return sample

    def live_stages(self) -> dict[str, JsonValue]:
        """Count, median and 99th percentile of each stage over the last `WINDOW_S` seconds."""
        stages: dict[str, JsonValue] = {}
        for name in STAGES:
            now = self._monitor.stages[name]
            window = Histogram(now.bounds)
            before = self._counts[0][name] if self._counts else [0] * len(now.counts)
            window.counts = [count - earlier for count, earlier in zip(now.counts, before, strict=True)]
            window.highest = now.highest
            stages[name] = {
                "count": window.total,
                "total": now.total,
                "p50_s": window.quantile(0.5),
                "p99_s": window.quantile(0.99),
                "highest_s": now.highest,
            }
        return stages

    def _readings(self) -> dict[str, object]:
        readings: dict[str, object] = {}
        for source, read in list(self._monitor.sources.items()):
            try:
                readings[source] = read()
            except Exception:  # the monitor's rim: one room's failing statistics() costs its own curve only
                self._monitor.error(f"statistics of {source}")
        return readings


def _curves(readings: Mapping[str, object]) -> dict[str, float]:
    values: dict[str, float] = {}
    if "ledger" in readings:
        ledger = LedgerView.of(readings["ledger"])
        values.update(ledger.outcomes, received=ledger.received, in_work=ledger.in_work, difference=ledger.difference)
    for name, (source, attribute) in _CURVES.items():
        value: object = getattr(readings.get(source), attribute, None)
        if isinstance(value, (int, float)):
            values[name] = float(value)
    return values
