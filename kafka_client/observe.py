"""What the producer tells about itself: statistics to be read, and an observer to be called.

Owns: the shapes. Refuses to know: metrics, logs, and who looks.

Observer methods are synchronous, must be quick and must not raise: they run inside the producer's tasks, once per batch
or rarer, never per record.
"""

from dataclasses import dataclass

from kafka_client.sending.hold import OperatorError

__all__ = ["BrokerStatistics", "OperatorError", "PartitionStatistics", "ProducerObserver", "ProducerStatistics"]


class ProducerObserver:
    """Override what you want to hear of."""

    def connected(self, broker: int, address: str) -> None:
        """A connection for Produce requests was opened."""

    def disconnected(self, broker: int, address: str, reason: str) -> None:
        """A connection for Produce requests could not be opened, or was lost."""

    def metadata_refreshed(self, brokers: int, topics: int) -> None:
        """An answer about the cluster came."""

    def metadata_failed(self, address: str, reason: str) -> None:
        """The cluster could not be asked."""

    def identity_changed(self, producer_id: int, epoch: int) -> None:
        """New sequences start under another producer id or epoch."""

    def batch_ended(
        self, topic: str, partition: int, outcome: str, *, records: int, size_bytes: int, attempts: int, age_s: float
    ) -> None:
        """A batch was resolved: ``delivered``, ``not_sent`` or ``unknown``; ``age_s`` since it was sealed."""

    def operator_error(self, error: OperatorError) -> None:
        """A state that people have to mend was entered."""

    def operator_error_cleared(self, error: OperatorError) -> None:
        """It is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStatistics:
    """One partition that was produced to."""

    topic: str
    partition: int
    leader: int | None
    """None: no leader is known."""
    queued: int
    """Records that are not sealed."""
    in_flight: int
    """Batches on the wire."""
    sealed: int
    """Batches that are sealed and not resolved, those in flight among them."""
    oldest_age_s: float
    """Since the call that brought the oldest unresolved record, detached ones included; 0 when there is none."""
    answered_age_s: float | None
    """Since the last Produce answer for it; None before the first."""
    unresolved: bool
    """The broker's next sequence is in doubt: nothing new is sealed."""
    epoch: int
    next_sequence: int
    due: bool
    """It waits for time: a backoff, or the next try of an operator-level error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerStatistics:
    """One broker that leads something we produce to."""

    broker: int
    address: str
    connected: bool
    in_flight_requests: int
    requests_total: int
    answers_total: int
    connections_opened_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerStatistics:
    """Everything at one moment. Gauges name a unit, counters end in ``_total``."""

    queue_bytes: int
    """Records admitted and not sealed. Each counts its encoded size and a fixed cost."""
    queued_records: int
    waiting_bytes: int
    """In the FIFO before the budget."""
    waiting_deliveries: int
    waiters: int
    """Tasks in `Delivery.wait`."""
    in_flight_bytes: int
    """Batches sealed and not resolved."""
    in_flight_batches: int
    detached_batches: int
    """Sealed batches of which nobody waits for any record."""
    detached_records: int
    """Sealed records that nobody waits for."""
    detached_bytes: int
    due_times: int
    """Partitions and brokers that wait for time: linger, backoff, throttle, the next try."""
    partitions: tuple[PartitionStatistics, ...]
    brokers: tuple[BrokerStatistics, ...]
    operator_errors: tuple[OperatorError, ...]
    producer_id: int
    """-1 before the first answer to InitProducerId."""
    epoch: int
    epoch_bumps_total: int
    connections_opened_total: int
    attempts_total: int
    """Produce requests written."""
    delivered_total: int
    """Records by the outcome that their callers were told."""
    not_sent_total: int
    unknown_total: int
    late_delivered_total: int
    """Records whose callers were told Unknown, by what became of them when their batch ended."""
    late_not_sent_total: int
    late_unknown_total: int
    last_cluster_error: str
    """Why the cluster could not be asked; empty since the last success."""
