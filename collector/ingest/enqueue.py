"""From parsed events to outcomes: stages 4 to 7 of design §6, for one request or one websocket message.

Owns: the records of a request from their making to their outcomes, the numbering of events (``seq``), the rejected
ones' way to the bad topic, the clock of a request. Refuses to know: HTTP, websockets, how a nursery is opened or
answered.

Invariants: whatever happens, `Work.settle` closes the ledger's entry with what the delivery says, once; a good event
never waits for the bad topic being away (`BAD_WAIT_S`); after settling nothing of the request is left in the producer
but what its sealed batches carry.

Non-obvious: outcomes are read after the delivery's block, whether or not the wait was cancelled. An acknowledgement
that lands in the same tick as the deadline still counts, and then the cancellation was for nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeAlias

import trio

from collector.config import Config, DeadlinesConfig
from collector.dialects.base import Parsed, Rejection
from collector.ingest.bad_limit import BadLimit
from collector.ingest.bad_record import bad_record
from collector.ingest.ledger import Ledger
from collector.ingest.record import RecordContext, build_records
from collector.ingest.verdict import Status, Verdict, judge, status_of
from collector.log import get_logger
from kafka_client.outcome import Delivered, NotSent, Outcome, Record, Unknown

__all__ = ["EVENTS_PER_STEP", "DeliveryLike", "Ingest", "Patience", "ProducerLike", "Work"]

log = get_logger("ingest")

#: Records made between two checkpoints: 256 at ~8 µs each keep the loop's lag at 2 ms (design §6, stage 3).
EVENTS_PER_STEP = 256

#: How long an answer may wait for the bad topic after its good events are settled.
BAD_WAIT_S = 0.25

#: One log line about a bad topic that does not take events in so many seconds.
BAD_LOG_S = 10.0

LateFn: TypeAlias = Callable[[str], None]


class DeliveryLike(Protocol):
    """What ingest uses of `kafka_client`'s delivery."""

    @property
    def outcomes(self) -> Sequence[Outcome | None]: ...

    def __enter__(self) -> object: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None: ...
    async def wait(self) -> None: ...
    def withdraw(self) -> None: ...
    def on_resolved(self, fn: Callable[[int, Outcome], object]) -> None: ...


class ProducerLike(Protocol):
    """What ingest uses of `kafka_client.Producer`."""

    def delivery(self, records: Sequence[Record]) -> DeliveryLike: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one request may take from its complete body: waiting for its outcomes, then being answered."""

    work_s: float
    answer_s: float

    @classmethod
    def of(cls, deadlines: DeadlinesConfig, timeout_s: float | None = None) -> "Patience":
        """The shares of the deadline; a shorter ``timeout_s`` of the client's shrinks all parts in proportion.

        Without a spool its part is Kafka's.
        """
        whole = deadlines.enqueue_s
        scale = 1.0 if timeout_s is None or timeout_s >= whole else timeout_s / whole
        return cls((deadlines.kafka_s + deadlines.spool_s) * scale, deadlines.answer_s * scale)

    def deadline(self, lag_s: float) -> float:
        """When the work must end, if the body became complete now; the lag of the moment has passed already."""
        return trio.current_time() - lag_s + self.work_s


class Ingest:
    """Makes records of events and hands them to the producer.

    Args:
        late: told the word of each late resolution: ``delivered``, ``not_sent`` or ``unknown``.
    """

    def __init__(self, *, config: Config, producer: ProducerLike, ledger: Ledger, late: LateFn) -> None:
        self._config = config
        self._producer = producer
        self._ledger = ledger
        self._late = late
        self._seq = 0
        self._bad_limit = BadLimit(config.limits.bad_events_per_s)
        self._bad_logged_at = -BAD_LOG_S
        self._bad_unlogged = 0

    def __repr__(self) -> str:
        return f"<Ingest seq={self._seq} {self._ledger!r}>"

    def begin(self, parsed: Parsed, context: RecordContext) -> "Work":
        """Take responsibility for a request's events: they are in the ledger, and nothing is queued yet."""
        return Work(self, parsed, context)

    def open(self, parsed: Parsed, context: RecordContext) -> "Work":
        """Queue the good events in order before returning: synchronous, because calls must follow each other."""
        work = self.begin(parsed, context)
        work.enqueue()
        return work

    def records(self, parsed: Parsed, context: RecordContext, start: int, stop: int) -> list[Record]:
        """Make the records of these events, numbered in order."""
        first_seq = self._seq + 1
        events = parsed.events if start == 0 and stop >= len(parsed.events) else parsed.events[start:stop]
        self._seq += len(events)
        return build_records(events, parsed, context, first_seq, self._config)

    def resolved_late(self, index: int, outcome: Outcome) -> None:
        """`Delivery.on_resolved`: a batch ended of which somebody was told unknown."""
        match outcome:
            case Delivered():
                self._ledger.late(delivered=1)
                self._late("delivered")
            case NotSent():
                self._ledger.late(not_sent=1)
                self._late("not_sent")
            case Unknown():
                self._ledger.late(unknown=1)
                self._late("unknown")

    async def write_bad(self, parsed: Parsed, rejections: Sequence[Rejection], context: RecordContext) -> None:
        """Send rejected events to the bad topic, as far as its rate limit and `BAD_WAIT_S` allow; never raises for one.

        On cancellation: what is not settled is withdrawn and counted as dropped.
        """
        records: list[Record] = []
        if self._config.kafka.bad_topic is not None:
            allowed = self._bad_limit.take(parsed.app, len(rejections))
            records = [bad_record(rejection, parsed, context, self._config) for rejection in rejections[:allowed]]
        self._ledger.bad(dropped=len(rejections) - len(records))
        if not records:
            return  # noqa: ASYNC910  # nothing to write
        delivery = self._producer.delivery(records)
        try:
            with delivery, trio.move_on_after(BAD_WAIT_S):
                await delivery.wait()
        finally:
            written = sum(1 for outcome in delivery.outcomes if isinstance(outcome, Delivered))
            self._ledger.bad(written=written, dropped=len(records) - written)
            if written < len(records):
                self._bad_topic_away(delivery.outcomes)

    def _bad_topic_away(self, outcomes: Sequence[Outcome | None]) -> None:
        reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, NotSent | Unknown)]
        self._bad_unlogged += len(reasons)
        now = trio.current_time()
        if now - self._bad_logged_at >= BAD_LOG_S:
            log.warning(
                "rejected events did not reach the bad topic",
                topic=self._config.kafka.bad_topic,
                events=self._bad_unlogged,
                reason=reasons[0] if reasons else "",
            )
            self._bad_logged_at = now
            self._bad_unlogged = 0


class Work:
    """The events of one request on their way. `wait` under a deadline, then `settle`."""

    __slots__ = ("_context", "_delivery", "_entry", "_ingest", "_parsed", "_verdict")

    def __init__(self, ingest: Ingest, parsed: Parsed, context: RecordContext) -> None:
        self._ingest = ingest
        self._parsed = parsed
        self._context = context
        self._entry = ingest._ledger.open(len(parsed.events) + len(parsed.rejections))
        self._delivery: DeliveryLike | None = None
        self._verdict: Verdict | None = None

    def __repr__(self) -> str:
        state = "settled" if self._verdict is not None else "waiting" if self._delivery is not None else "new"
        return f"<Work of {len(self._parsed.events)} events, {state}>"

    def enqueue(self) -> None:
        """Make all records and hand them over: from here on they wait in the producer's budget or queue."""
        if not self._parsed.accept_only:
            self._hand_over(self._ingest.records(self._parsed, self._context, 0, len(self._parsed.events)))

    async def enqueue_in_steps(self) -> None:  # noqa: ASYNC910  # without one for few events: `wait` comes next
        """As `enqueue`, with a checkpoint every few hundred events while the records are made.

        On cancellation: nothing was queued; `settle` says not sent.
        """
        count = len(self._parsed.events)
        if count <= EVENTS_PER_STEP or self._parsed.accept_only:
            self.enqueue()
            return  # noqa: ASYNC910  # the same
        records: list[Record] = []
        for start in range(0, count, EVENTS_PER_STEP):
            records += self._ingest.records(self._parsed, self._context, start, start + EVENTS_PER_STEP)
            await trio.lowlevel.checkpoint()
        self._hand_over(records)

    def _hand_over(self, records: Sequence[Record]) -> None:
        if records:
            self._delivery = self._ingest._producer.delivery(records)

    async def wait(self) -> None:
        """Wait for the outcomes, then for the bad topic a little.

        On cancellation: what was not sealed is withdrawn, synchronously; `settle` tells what became of each event.
        """
        rejections: Sequence[Rejection] = self._parsed.rejections
        delivery = self._delivery
        if delivery is None:
            await trio.lowlevel.checkpoint()
        else:
            with delivery:
                await delivery.wait()
            rejections = [*rejections, *self._rejected_by_kafka(delivery.outcomes)]
        if rejections and not self._parsed.accept_only:
            await self._ingest.write_bad(self._parsed, rejections, self._context)

    def _rejected_by_kafka(self, outcomes: Sequence[Outcome | None]) -> list[Rejection]:
        return [
            Rejection(position=event.position, code="rejected", message=outcome.reason, original=event.body)
            for event, outcome in zip(self._parsed.events, outcomes, strict=True)
            if isinstance(outcome, NotSent) and status_of(outcome) is Status.REJECTED
        ]

    def settle(self) -> Verdict:
        """Take back what is open, read the outcomes, close the ledger's entry. Synchronous, idempotent."""
        if self._verdict is not None:
            return self._verdict
        outcomes: Sequence[Outcome | None]
        if self._delivery is not None:
            self._delivery.withdraw()
            outcomes = self._delivery.outcomes
        else:
            outcomes = [NotSent("withdrawn")] * len(self._parsed.events)
        verdict = judge(self._parsed, outcomes)
        self._verdict = verdict
        self._entry.close(verdict.counts)
        if verdict.counts.unknown and self._delivery is not None:
            self._delivery.on_resolved(self._ingest.resolved_late)
        self._delivery = None
        return verdict
