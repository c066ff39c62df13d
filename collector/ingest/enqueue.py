"""From parsed events to outcomes: what the requests of one process have together.

Owns: the numbering of events (``seq``), the rejected ones' way to the bad topic, the shares of a request's time, what
is counted late. Refuses to know: HTTP, websockets, the stages of one request (`collector.ingest.work`).

Invariant: a good event never waits for the bad topic being away longer than `BAD_WAIT_S`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeAlias

import trio
from msgspec import Struct

from collector.config import Config, DeadlinesConfig
from collector.dialects.base import Event, Parsed, Rejection
from collector.ingest.bad_limit import BadLimit
from collector.ingest.bad_record import bad_record
from collector.ingest.ledger import Ledger
from collector.ingest.record import RecordContext, encode_events
from collector.ingest.retry_memory import RetryMemory
from collector.ingest.spooling import Rows
from collector.ingest.verdict import Fate
from collector.ingest.ways import Ways
from collector.ingest.work import Work
from collector.log import get_logger
from collector.spool.base import Stored
from kafka_client.buffer.encoded import Encoded
from kafka_client.outcome import Delivered, NotSent, Outcome, Record, Unknown

__all__ = ["DeliveryLike", "FailedInWork", "Ingest", "Patience", "ProducerLike", "Until", "Work"]

log = get_logger("ingest")

#: How long an answer may wait for the bad topic after its good events are settled.
BAD_WAIT_S = 0.25

#: One log line about a bad topic that does not take events in so many seconds.
BAD_LOG_S = 10.0

LateFn: TypeAlias = Callable[[str], None]


class DeliveryLike(Protocol):
    """What ingest uses of `kafka_client`'s delivery."""

    @property
    def outcomes(self) -> Sequence[Outcome | None]: ...
    @property
    def delivered(self) -> bool: ...
    @property
    def unsettled(self) -> int: ...

    def __enter__(self) -> object: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None: ...
    async def wait(self) -> None: ...
    def reschedule(self, task: trio.lowlevel.Task) -> bool: ...
    def stop_waiting(self, raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort: ...
    def withdraw(self, indices: Sequence[int] | None = None) -> None: ...
    def on_resolved(self, fn: Callable[[int, Outcome], object]) -> None: ...


class ProducerLike(Protocol):
    """What ingest uses of `kafka_client.Producer`."""

    def delivery(self, records: Sequence[Record]) -> DeliveryLike: ...
    def delivery_encoded(self, encoded: Encoded) -> DeliveryLike: ...


class Until(Struct, frozen=True, gc=False):
    """The moments of one request, on Trio's clock."""

    kafka_at: float
    """Kafka's share is over; what it has not taken goes to the disk, where there is one."""
    work_at: float
    """The work is over; the answer follows."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one request may take from its complete body: for Kafka, for the disk, then being answered."""

    kafka_s: float
    spool_s: float
    answer_s: float

    @classmethod
    def of(cls, deadlines: DeadlinesConfig, timeout_s: float | None = None) -> "Patience":
        """The shares of the deadline; a shorter ``timeout_s`` of the client's shrinks all parts in proportion."""
        whole = deadlines.enqueue_s
        scale = 1.0 if timeout_s is None or timeout_s >= whole else timeout_s / whole
        return cls(deadlines.kafka_s * scale, deadlines.spool_s * scale, deadlines.answer_s * scale)

    @property
    def work_s(self) -> float:
        """For Kafka and the disk together. Without a spool all of it is Kafka's."""
        return self.kafka_s + self.spool_s

    def until(self, began: float) -> Until:
        """When the shares are over, if they began at ``began``: the body was complete, less the lag of that moment."""
        return Until(began + self.kafka_s, began + self.work_s)


class FailedInWork(Exception):
    """A bug, its cause, met a request whose events are in the ledger: it is not to be counted as unparsed."""


class Ingest:
    """Makes records of events and hands them to the producer.

    Args:
        late: told the word of each late resolution: ``delivered``, ``not_sent``, ``unknown`` or ``spooled``.
        ways: to the spool; None: there is none, and all the time is Kafka's.
    """

    def __init__(
        self, *, config: Config, producer: ProducerLike, ledger: Ledger, late: LateFn, ways: Ways | None = None
    ) -> None:
        self.producer = producer
        self.ledger = ledger
        self.ways = ways
        self.memory = RetryMemory(config.retry_memory)
        self._config = config
        self._late = late
        self._uncommitted: list[Rows] = []
        self._seq = 0
        self._bad_limit = BadLimit(config.limits.bad_events_per_s)
        self._bad_logged_at = -BAD_LOG_S
        self._bad_unlogged = 0

    def __repr__(self) -> str:
        return f"<Ingest seq={self._seq} {self.ledger!r}>"

    def begin(self, parsed: Parsed, context: RecordContext, kafka_at: float) -> Work:
        """Take responsibility for a request's events: they are in the ledger, and nothing is queued yet."""
        return Work(self, parsed, context, kafka_at)

    def open(self, parsed: Parsed, context: RecordContext, kafka_at: float) -> Work:
        """Queue the good events in order before returning: synchronous, because calls must follow each other.

        Raises:
            FailedInWork: a bug, after the ledger had the events; they are settled.
        """
        work = self.begin(parsed, context, kafka_at)
        try:
            work.enqueue()
        except Exception as error:
            work.settle()
            raise FailedInWork from error
        return work

    def number(self, events: int) -> int:
        """The number of the first of so many events."""
        first_seq = self._seq + 1
        self._seq += events
        return first_seq

    def encode(
        self, events: Sequence[Event], parsed: Parsed, context: RecordContext, first_seq: int, doubtful: Collection[int]
    ) -> Encoded:
        """Encode a run of ``parsed.events``; equal arguments give equal records."""
        return encode_events(events, parsed, context, first_seq, self._config, doubtful)

    def told_late(self, fate: Fate) -> None:
        """What became of an event that was told unknown."""
        match fate:
            case Delivered():
                self.ledger.late(delivered=1)
                self._late("delivered")
            case NotSent():
                self.ledger.late(not_sent=1)
                self._late("not_sent")
            case Unknown():
                self.ledger.late(unknown=1)
                self._late("unknown")
            case Stored():
                self.ledger.late(spooled=1)
                self._late("spooled")

    def look_back_at(self, rows: Rows) -> None:
        """A commit of these may still come, of which nobody tells; `look_back` asks."""
        self.look_back()
        self._uncommitted.append(rows)

    def look_back(self) -> None:
        """Count the commits that came after their events were told unknown. Cheap; before the books are read."""
        if self._uncommitted:
            self._uncommitted = [rows for rows in self._uncommitted if rows.look_back()]

    async def write_bad(self, parsed: Parsed, rejections: Sequence[Rejection], context: RecordContext) -> None:
        """Send rejected events to the bad topic, as far as its rate limit and `BAD_WAIT_S` allow; never raises for one.

        On cancellation: what is not settled is withdrawn and counted as dropped.
        """
        records: list[Record] = []
        if self._config.kafka.bad_topic is not None:
            allowed = self._bad_limit.take(parsed.app, len(rejections))
            records = [bad_record(rejection, parsed, context, self._config) for rejection in rejections[:allowed]]
        self.ledger.bad(dropped=len(rejections) - len(records))
        if not records:
            return  # noqa: ASYNC910  # nothing to write
        delivery = self.producer.delivery(records)
        try:
            with delivery, trio.move_on_after(BAD_WAIT_S):
                await delivery.wait()
        finally:
            written = sum(1 for outcome in delivery.outcomes if isinstance(outcome, Delivered))
            self.ledger.bad(written=written, dropped=len(records) - written)
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
