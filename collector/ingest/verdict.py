"""From the outcomes of records to the one verdict on a request: 200, 400 or 503, and the counts that go with it.

Owns: which mixture of outcomes answers what, the forms of ``X-Collector-Outcome`` and
``X-Collector-Unknown``. Refuses to know: HTTP, websockets, how an answer looks in a dialect.

Invariants: a request is accepted only if every event of it is delivered, spooled, or rejected for good; whatever is not
proved absent is unknown; the counts of a verdict add up to the events of its request.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from collector.dialects.base import ClientFault, Parsed
from collector.ingest.ledger import Counts
from collector.spool.base import Stored
from kafka_client.outcome import Delivered, NotSent, Outcome, Unknown

__all__ = ["UNKNOWN_HEADER_BYTES", "Fate", "Kind", "Status", "Verdict", "all_delivered", "judge", "ranges", "status_of"]

#: What became of one event: Kafka's word on it, or the spool's.
Fate: TypeAlias = Outcome | Stored

#: `X-Collector-Unknown` names positions up to this many bytes, then "…".
UNKNOWN_HEADER_BYTES = 1024

#: First words of NotSent reasons that are final for one record: sending it again would end alike.
FINAL_REASONS = frozenset(
    {
        "too_large",
        "rejected",
        "CORRUPT_MESSAGE",
        "MESSAGE_TOO_LARGE",
        "RECORD_LIST_TOO_LARGE",
        "INVALID_TIMESTAMP",
        "INVALID_RECORD",
    }
)


class Status(enum.IntEnum):
    """What became of one event, best first: the worst of a batch is its maximum."""

    DELIVERED = 0
    SPOOLED = 1
    REJECTED = 2
    NOT_SENT = 3
    UNKNOWN = 4

    @property
    def word(self) -> str:
        return self.name.lower()


class Kind(enum.Enum):
    """What the client is told."""

    ACCEPTED = enum.auto()
    REFUSED = enum.auto()
    UNAVAILABLE = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one request ended. ``unknown_positions`` ascend; ``fault`` is the first rejection, if there was one."""

    counts: Counts
    unknown_positions: Sequence[int] = ()
    fault: ClientFault | None = None
    reason: str = ""
    """Why the first event that is not accepted is not."""

    @property
    def kind(self) -> Kind:
        """Accepted, unless something may be worth sending again (unavailable) or nothing was good (refused)."""
        counts = self.counts
        if counts.not_sent or counts.unknown:
            return Kind.UNAVAILABLE
        if counts.rejected and not (counts.delivered or counts.spooled or counts.deduplicated or counts.dropped):
            return Kind.REFUSED
        return Kind.ACCEPTED

    @property
    def worst(self) -> Status:
        """The status a websocket batch is acknowledged with."""
        counts = self.counts
        if counts.unknown:
            return Status.UNKNOWN
        if counts.not_sent:
            return Status.NOT_SENT
        if counts.rejected:
            return Status.REJECTED
        return Status.SPOOLED if counts.spooled else Status.DELIVERED

    def outcome_line(self) -> str:
        """``delivered=N, spooled=N, rejected=N, not_sent=N, unknown=N``: the header, and the end of a 503's message."""
        return outcome_line(self.counts)

    def unknown_line(self) -> str:
        """``3,17-20``: the header ``X-Collector-Unknown``, at most 1 kB and then ``…``."""
        return ranges(self.unknown_positions, UNKNOWN_HEADER_BYTES)


# As many as batches have sizes; a verdict is frozen, and making one costs 3 µs.
@lru_cache(maxsize=4096)
def all_delivered(events: int) -> Verdict:
    """The usual verdict: so many events, and Kafka has them all."""
    return Verdict(counts=Counts(delivered=events))


def outcome_line(counts: Counts) -> str:
    """The five counts in the form of ``X-Collector-Outcome``; what was settled before is delivered, for a client."""
    return (
        f"delivered={counts.delivered + counts.deduplicated}, spooled={counts.spooled}, rejected={counts.rejected}, "
        f"not_sent={counts.not_sent}, unknown={counts.unknown}"
    )


def status_of(fate: Fate | None) -> Status:
    """A fate in the client's words; None (no outcome, a bug elsewhere) proves nothing, so it is unknown."""
    match fate:
        case Delivered():
            return Status.DELIVERED
        case Stored():
            return Status.SPOOLED
        case NotSent(reason):
            return Status.REJECTED if first_word(reason) in FINAL_REASONS else Status.NOT_SENT
        case Unknown() | None:
            return Status.UNKNOWN


def first_word(reason: str) -> str:
    """The word of a reason, without the prose that may follow a colon."""
    return reason.partition(":")[0].strip()


def judge(parsed: Parsed, fates: Sequence[Fate | None], deduplicated: int = 0) -> Verdict:
    """The verdict on a request; ``fates`` are of its good events, in the order of ``parsed.events``.

    ``deduplicated`` events more were settled before, and are not among ``parsed.events``.
    """
    if parsed.accept_only:
        return Verdict(counts=Counts(dropped=len(parsed.events) + len(parsed.rejections)))
    tally = [0] * len(Status)
    unknown: list[int] = []
    fault: ClientFault | None = None
    reason = ""
    if parsed.rejections:
        first = parsed.rejections[0]
        fault = ClientFault(first.code, first.message)
        tally[Status.REJECTED] = len(parsed.rejections)
    for event, fate in zip(parsed.events, fates, strict=True):
        status = status_of(fate)
        tally[status] += 1
        if status <= Status.SPOOLED:
            continue
        why = fate.reason if isinstance(fate, NotSent | Unknown) else "no outcome"
        if status is Status.REJECTED:
            fault = fault or ClientFault(first_word(why).lower(), f"event {event.position}: {why}")
        else:
            reason = reason or why
            if status is Status.UNKNOWN:
                unknown.append(event.position)
    return Verdict(
        counts=Counts(
            delivered=tally[Status.DELIVERED],
            spooled=tally[Status.SPOOLED],
            rejected=tally[Status.REJECTED],
            not_sent=tally[Status.NOT_SENT],
            unknown=tally[Status.UNKNOWN],
            deduplicated=deduplicated,
        ),
        unknown_positions=tuple(unknown),
        fault=fault,
        reason=reason,
    )


def ranges(positions: Iterable[int], max_bytes: int) -> str:
    """Ascending positions as ``3,17-20``, cut at a comma to at most ``max_bytes``, and then ``…``."""
    parts: list[str] = []
    size = 0
    start = end = -1

    def flush() -> bool:
        nonlocal size
        part = str(start) if start == end else f"{start}-{end}"
        size += len(part) + (1 if parts else 0)
        if size > max_bytes:
            parts.append("…")
            return False
        parts.append(part)
        return True

    for position in positions:
        if position == end + 1 and start >= 0:
            end = position
            continue
        if start >= 0 and not flush():
            return ",".join(parts)
        start = end = position
    if start >= 0:
        flush()
    return ",".join(parts)
