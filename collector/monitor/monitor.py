"""The monitor: what everyone reports to.

Owns: the counters of the hot path, the lag probe, the GC share, the samples behind the dashboard.
Refuses to know: the other rooms' insides; it reads their ``statistics()`` (frozen dataclasses) and nothing else.

Invariant: nothing here can end or hold up the rest. Reporting is synchronous, a fraction of a microsecond, and cannot
raise; a ``statistics()`` that raises costs its own metrics and is counted.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from collector.config import Config

from .gc_share import GcShare
from .instruments import Counter, Histogram, Spans
from .lag import LoopLag
from .ledger_history import LedgerHistory

__all__ = ["Monitor", "Order", "OrderRefused", "Readiness", "Sample", "Stage"]

Stage: TypeAlias = Literal["body", "parse", "enqueue", "acknowledge", "answer"]

STAGES: tuple[Stage, ...] = ("body", "parse", "enqueue", "acknowledge", "answer")
SAMPLE_S = 1.0
SAMPLES = 180
"""Three minutes of history, so that who opens the dashboard at 3 a.m. sees what led there."""


#: Takes the body of an order, JSON, and returns what was done. Raises `msgspec.MsgspecError` or `OrderRefused`.
Order: TypeAlias = Callable[[bytes], Awaitable[object]]


class OrderRefused(Exception):
    """An operator's order cannot be carried out; the message says why."""


class Readiness(NamedTuple):
    """What ``/readyz`` says: a bool for the load balancer, a word for people (``ready``, ``draining``, ``lag`` …)."""

    ready: bool
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One second of the process, for the dashboard's curves."""

    at: float
    """Seconds since 1970."""
    lag_s: float
    gc_share: float
    cpu_share: float
    tasks: int
    values: dict[str, float] = field(default_factory=dict)
    """What the watched statistics count, by metric name without labels."""


class Monitor:
    """Where the rooms report. Make it with `open_monitor`, or bare in a test: it measures nothing then, but counts.

    The reporting methods are synchronous, take a fraction of a microsecond and never raise.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config if config is not None else Config()
        self.started_at = time.time()
        self.lag = LoopLag()
        self.gc = GcShare()
        self._stages: dict[Stage, Histogram] = {name: Histogram() for name in STAGES}
        self._spans = Spans(list(self._stages.values()))
        self.answers: Counter[tuple[str, int]] = Counter()
        self.sheds: Counter[str] = Counter()
        self.websocket_acks: Counter[str] = Counter()
        self.late_resolutions: Counter[str] = Counter("delivered", "not_sent", "unknown")
        self.errors: Counter[str] = Counter()
        self.sources: dict[str, Callable[[], object]] = {}
        self.orders: dict[str, Order] = {}
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self.ledgers = LedgerHistory()
        self.admin_address: str | None = None
        """``http://host:port`` of the admin listener, once it listens."""
        self.metrics_address: str | None = None
        """The same of ``[metrics] bind``, where one is set."""
        self._readiness: Callable[[], Readiness | tuple[bool, str]] | None = None

    # Reporting

    def stage(self, name: Stage, seconds: float) -> None:
        """One request (or websocket message) spent ``seconds`` in a stage."""
        self._stages[name].observe(seconds)

    def passed(
        self, began: float, complete: float, parsed: float, enqueued: float, acknowledged: float, answered: float
    ) -> None:
        """One request went through all stages; the moments at their ends, and at which the first began."""
        self._spans.note((began, complete, parsed, enqueued, acknowledged, answered))

    def answered(self, api: str, status: int) -> None:
        """One HTTP answer was given; ``api`` is the dialect's name, or ``none`` for an unknown path."""
        counts = self.answers.counts
        answer = (api, status)
        counts[answer] = counts.get(answer, 0) + 1

    def shed(self, reason: str) -> None:
        """One request or message was refused before its work began; ``reason`` is a word (``bytes``, ``lag`` …)."""
        self.sheds.add(reason)

    def websocket_ack(self, status: str, number: int = 1) -> None:
        """``number`` websocket messages were answered with ``status``."""
        self.websocket_acks.add(status, number)

    def late_resolution(self, outcome: str, number: int = 1) -> None:
        """A record answered as unknown was resolved later: ``delivered``, ``not_sent`` or (for good) ``unknown``."""
        self.late_resolutions.add(outcome, number)

    def error(self, where: str) -> None:
        """A bug was caught at a rim (one request, a monitor task) and logged there."""
        self.errors.add(where)

    # Watching

    def watch(self, name: str, read: Callable[[], object]) -> None:
        """Show what ``read()`` returns under ``name`` from now on.

        Every number of the (frozen) dataclass becomes a metric ``collector_<name>_<field>``: a counter where the field
        ends in ``_total``, else a gauge; a mapping or a sequence of dataclasses becomes one with labels (see
        `exposition`). ``ledger``, ``spool``, ``replay``, ``diversion``, ``producer`` and ``admission`` are known to the
        dashboard and the derived metrics.

        Args:
            name: a word; a second call with the same word replaces the first.
            read: synchronous and quick; called at each scrape and once a second.
        """
        self.sources[name] = read

    def watch_readiness(self, read: Callable[[], Readiness | tuple[bool, str]]) -> None:
        """Ask ``read()`` for (ready, status word); without it the admin listener's ``/readyz`` says ``starting``."""
        self._readiness = read

    def offer(self, name: str, order: Order) -> None:
        """Let an operator give this order from now on: ``POST /control/<name>`` on the admin listener.

        Args:
            name: words with slashes; a second call with the same name replaces the first.
        """
        self.orders[name] = order

    # Reading

    @property
    def stages(self) -> dict[Stage, Histogram]:
        """How long each stage took, of every request and message so far."""
        self._spans.count()
        return self._stages

    @property
    def lag_s(self) -> float:
        """The loop lag of this moment, in seconds; 0 while no probe runs."""
        return self.lag.lag_s

    @property
    def overdue_s(self) -> float:
        """How long this turn of the loop has taken already, in seconds; 0 while no probe runs."""
        return self.lag.overdue_s

    @property
    def highest_lag_s(self) -> float:
        """The highest loop lag since the start, in seconds."""
        return self.lag.highest_s

    @property
    def gc_share(self) -> float:
        """Share of the process's CPU that garbage collection took in the last second, 0…1."""
        return self.gc.share

    @property
    def readiness(self) -> Readiness:
        """What ``/readyz`` says now."""
        if self._readiness is None:
            return Readiness(False, "starting")
        return Readiness(*self._readiness())

    def __repr__(self) -> str:
        return f"<Monitor {self.readiness.word}, {len(self.sources)} sources, {len(self.samples)} samples>"
