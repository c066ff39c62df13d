"""What the fake cluster saw: every request, every batch and what became of it.

Owns: the observations that a test asserts on. Refuses to know how they came about.

Invariant: things are in the order in which the brokers took them; nothing here is ever forgotten while the cluster
lives.
"""

from collections import Counter
from dataclasses import dataclass, field

from kafka_client.testing.messages import Api

__all__ = ["BatchSeen", "RequestSeen", "Seen"]


@dataclass(slots=True, eq=False)
class BatchSeen:
    """One partition's batch in one Produce request, and what became of it.

    Attributes:
        producer_id, epoch, base_sequence: As sent; -1 without idempotence, or where the batch could not be read.
        count: Records in it; 0 where the batch could not be read.
        size_bytes: As sent, compressed.
        error_code: What was answered for it; None while nothing was decided (the request was dropped unread, or
        stalls).
        base_offset: Where it stands in the log, or stood already; -1 when nothing was appended.
        appended: It was added to the log by this request.
        duplicate: It was recognised as one of the last five.
        values: The records' values.
    """

    topic: str
    partition: int
    producer_id: int = -1
    epoch: int = -1
    base_sequence: int = -1
    count: int = 0
    size_bytes: int = 0
    codec: str = "none"
    error_code: int | None = None
    message: str | None = None
    base_offset: int = -1
    appended: bool = False
    duplicate: bool = False
    values: tuple[bytes | None, ...] = ()


@dataclass(slots=True, eq=False)
class RequestSeen:
    """One request as a broker read it. Times are `trio.current_time()`.

    Attributes:
        connection: The number of the connection, from 1, in the order in which they were opened.
        answered_at: When its answer was written in full; None if it never was.
        faults: The faults that met it, by name.
        acks, timeout_ms, batches: Of a Produce request.
    """

    time: float
    broker: int
    connection: int
    api: Api
    version: int
    correlation_id: int
    size_bytes: int
    client_id: str | None = None
    answered_at: float | None = None
    faults: list[str] = field(default_factory=list)
    acks: int | None = None
    timeout_ms: int | None = None
    batches: list[BatchSeen] = field(default_factory=list)

    @property
    def injected(self) -> bool:
        """Whether a fault met it, or a state that no healthy broker has; otherwise it got what Apache Kafka gives."""
        return bool(self.faults)


class Seen:
    """All of it."""

    def __init__(self) -> None:
        self.requests: list[RequestSeen] = []
        self.violations: list[str] = []
        """What a correct client never does: unreadable requests, unknown producer ids, sending while throttled…"""
        self.connections_opened_total = 0
        self.connections_refused_total = 0
        self.connections_faulted_total = 0
        """Attempts that a fault refused or let hang."""
        self._attempts: Counter[bytes | None] = Counter()

    @property
    def injected(self) -> bool:
        """Whether any fault met anything; otherwise all of it is what a healthy cluster does."""
        return self.connections_faulted_total > 0 or any(request.injected for request in self.requests)

    @property
    def produce_requests(self) -> list[RequestSeen]:
        """The Produce requests only."""
        return [request for request in self.requests if request.api is Api.PRODUCE]

    @property
    def batches(self) -> list[BatchSeen]:
        """Every batch of every Produce request."""
        return [batch for request in self.produce_requests for batch in request.batches]

    def count_attempt(self, batch: BatchSeen) -> None:
        """Count its records as attempted once more."""
        self._attempts.update(batch.values)

    def attempts_of(self, value: bytes | None) -> int:
        """How many Produce requests carried a record with this value, readable or not, appended or not."""
        return self._attempts[value]
