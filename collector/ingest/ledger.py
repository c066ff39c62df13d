"""Ledger A: what clients were told, event by event, and what is still to be told.

Owns: the counters of the conservation of events. Refuses to know: Kafka, requests, why something ended as it did.

Invariant, true after every call: received = delivered + spooled + rejected + refused + unknown + deduplicated + dropped
+ in_work. It is kept by there being two moves only, both synchronous and whole: `Ledger.open` (received and in_work
grow) and `Entry.close` (in_work shrinks by what the others grow). What could not be parsed is counted in requests and
bytes, and late resolutions in counters of their own; neither rewrites what a client was told.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

__all__ = ["Counts", "Entry", "Ledger", "LedgerStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many events of one request ended in which way."""

    delivered: int = 0
    spooled: int = 0
    rejected: int = 0
    not_sent: int = 0
    unknown: int = 0
    deduplicated: int = 0
    dropped: int = 0

    @property
    def total(self) -> int:
        return (
            self.delivered
            + self.spooled
            + self.rejected
            + self.not_sent
            + self.unknown
            + self.deduplicated
            + self.dropped
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatistics:
    """One reading of the ledger. All counts are events unless the name says otherwise."""

    received_total: int
    delivered_total: int
    spooled_total: int
    rejected_total: int
    refused_total: int
    """Proved absent from the log: answered 503, not_sent."""
    unknown_total: int
    deduplicated_total: int
    dropped_total: int
    """By rule: accepted and not enqueued (an SDK's own metrics)."""
    in_work: int
    difference: int
    """received less everything else: 0, always."""
    unparsed_requests_total: int
    unparsed_bytes_total: int
    late_delivered_total: int
    late_not_sent_total: int
    late_unknown_total: int
    late_spooled_total: int
    """Answered unknown because the disk was slow; the row was committed after the answer."""
    unresolved: int
    """Answered unknown, and the batch has not ended yet or has ended unknown."""
    bad_written_total: int
    bad_dropped_total: int
    """Rejected events that did not reach the bad topic: it was away, or its rate limit was."""


class Entry:
    """The events of one request between being read and being answered for. Close it exactly once.

    As a context manager it closes itself as unknown if nobody has: a bug then shows as unknown, never as a difference.
    """

    __slots__ = ("_closed", "_events", "_ledger")

    def __init__(self, ledger: "Ledger", events: int) -> None:
        self._ledger = ledger
        self._events = events
        self._closed = False

    def __repr__(self) -> str:
        return f"<Entry of {self._events} events, {'closed' if self._closed else 'in work'}>"

    def __enter__(self) -> "Entry":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._closed:
            self.close(Counts(unknown=self._events))

    @property
    def closed(self) -> bool:
        return self._closed

    def close_delivered(self) -> None:
        """As `close`, where all of them were delivered."""
        if self._closed:
            raise ValueError("the entry is closed already")
        self._closed = True
        self._ledger._close_delivered(self._events)

    def close(self, counts: Counts) -> None:
        """Write down how the events ended. Raises ValueError when ``counts`` are not of as many events."""
        if self._closed:
            raise ValueError("the entry is closed already")
        if counts.total != self._events:
            raise ValueError(f"{counts.total} events accounted for, {self._events} received")
        self._closed = True
        self._ledger._close(self._events, counts)


class Ledger:
    """The process's ledger A."""

    def __init__(self) -> None:
        self._received = 0
        self._delivered = 0
        self._spooled = 0
        self._rejected = 0
        self._refused = 0
        self._unknown = 0
        self._deduplicated = 0
        self._dropped = 0
        self._in_work = 0
        self._unparsed_requests = 0
        self._unparsed_bytes = 0
        self._late_delivered = 0
        self._late_not_sent = 0
        self._late_unknown = 0
        self._late_spooled = 0
        self.look_back: Callable[[], None] = _nothing
        """Asks for late commits, before the books are read."""
        self._bad_written = 0
        self._bad_dropped = 0

    def __repr__(self) -> str:
        return f"<Ledger received={self._received} in_work={self._in_work} difference={self.difference}>"

    @property
    def difference(self) -> int:
        """What the books do not explain: 0, always."""
        told = self._delivered + self._spooled + self._rejected + self._refused + self._unknown
        return self._received - told - self._deduplicated - self._dropped - self._in_work

    @property
    def unresolved(self) -> int:
        """Events answered unknown whose end is still not known."""
        self.look_back()
        return self._unknown - self._late_delivered - self._late_not_sent - self._late_spooled

    def open(self, events: int) -> Entry:
        """``events`` events were understood and are in work now."""
        self._received += events
        self._in_work += events
        return Entry(self, events)

    def _close(self, events: int, counts: Counts) -> None:
        self._in_work -= events
        self._delivered += counts.delivered
        self._spooled += counts.spooled
        self._rejected += counts.rejected
        self._refused += counts.not_sent
        self._unknown += counts.unknown
        self._deduplicated += counts.deduplicated
        self._dropped += counts.dropped

    def _close_delivered(self, events: int) -> None:
        self._in_work -= events
        self._delivered += events

    def unparsed(self, size_bytes: int) -> None:
        """A request was shed, refused or lost before its events could be counted."""
        self._unparsed_requests += 1
        self._unparsed_bytes += size_bytes

    def late(self, *, delivered: int = 0, not_sent: int = 0, unknown: int = 0, spooled: int = 0) -> None:
        """Batches ended, or rows were committed, that had been answered unknown."""
        self._late_delivered += delivered
        self._late_not_sent += not_sent
        self._late_unknown += unknown
        self._late_spooled += spooled

    def bad(self, *, written: int = 0, dropped: int = 0) -> None:
        """Rejected events went to the bad topic, or did not."""
        self._bad_written += written
        self._bad_dropped += dropped

    def statistics(self) -> LedgerStatistics:
        """The books as they are now."""
        self.look_back()
        return LedgerStatistics(
            received_total=self._received,
            delivered_total=self._delivered,
            spooled_total=self._spooled,
            rejected_total=self._rejected,
            refused_total=self._refused,
            unknown_total=self._unknown,
            deduplicated_total=self._deduplicated,
            dropped_total=self._dropped,
            in_work=self._in_work,
            difference=self.difference,
            unparsed_requests_total=self._unparsed_requests,
            unparsed_bytes_total=self._unparsed_bytes,
            late_delivered_total=self._late_delivered,
            late_not_sent_total=self._late_not_sent,
            late_unknown_total=self._late_unknown,
            late_spooled_total=self._late_spooled,
            unresolved=self.unresolved,
            bad_written_total=self._bad_written,
            bad_dropped_total=self._bad_dropped,
        )


def _nothing() -> None:
    """Without a spool nothing is committed late."""
