"""What the producer tells about itself: events for an observer, and statistics to be read.

Owns: the shapes. Refuses to know: metrics, traces, logs, and who looks.

An observer is a subclass of `ProducerObserver` with the methods that it wants; each gets one frozen event, so that an
event can grow without breaking anybody. The methods are synchronous, must be quick and must not raise: they run inside
the producer's tasks, once or twice per batch or rarer, never per record. Times in events are on Trio's clock.

Events are msgspec Structs: some are made for every batch, and a frozen dataclass takes ten times as long to make.
"""

from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from kafka_client.sending.hold import OperatorError

__all__ = [
    "BatchEnded",
    "BatchRetried",
    "BatchWritten",
    "BrokerConnected",
    "BrokerDisconnected",
    "BrokerStatistics",
    "BrokerThrottled",
    "IdentityChanged",
    "LeaderChanged",
    "MetadataFailed",
    "MetadataRefreshed",
    "OperatorError",
    "PartitionHealth",
    "PartitionStatistics",
    "ProducerObserver",
    "ProducerStatistics",
]


class BrokerConnected(Struct, frozen=True, kw_only=True):
    """A connection for Produce requests was opened."""

    broker: int
    address: str
    """``host:port``."""


class BrokerDisconnected(Struct, frozen=True, kw_only=True):
    """A connection for Produce requests could not be opened, or ended."""

    broker: int
    address: str
    reason: str
    idle: bool
    """Nothing was in flight and nothing waited for it: brokers close such connections after ten minutes."""


class BrokerThrottled(Struct, frozen=True, kw_only=True):
    """A broker asked for a pause (KIP-219); nothing is sent to it meanwhile."""

    broker: int
    pause_s: float


class MetadataRefreshed(Struct, frozen=True, kw_only=True):
    """An answer about the cluster came."""

    brokers: int
    topics: int


class MetadataFailed(Struct, frozen=True, kw_only=True):
    """The cluster could not be asked."""

    address: str
    reason: str


class LeaderChanged(Struct, frozen=True, kw_only=True):
    """Metadata, or a broker's hint (KIP-951), names another leader."""

    topic: str
    partition: int
    leader: int | None
    """None: nobody, for now."""
    leader_epoch: int
    """-1: the broker does not say."""


class IdentityChanged(Struct, frozen=True, kw_only=True):
    """New sequences start under another producer id or epoch."""

    producer_id: int
    epoch: int


class BatchWritten(Struct, frozen=True, kw_only=True):
    """An attempt started: the batch is handed to a connection."""

    broker: int
    topic: str
    partition: int
    attempt: int
    """From 1."""
    records: int
    size_bytes: int
    """On the wire, compressed."""
    producer_id: int
    epoch: int
    base_sequence: int


class BatchRetried(Struct, frozen=True, kw_only=True):
    """An attempt failed and the batch goes out again: as it is, in halves, or without what the broker refused."""

    topic: str
    partition: int
    attempt: int
    """The one that failed, from 1."""
    records: int
    code: int | None
    """Kafka's error code; None: the connection was lost, or the answer said nothing of the batch."""
    reason: str
    """The code's name, or what was lost."""
    tainted: bool
    """It may be in the log already."""


class BatchEnded(Struct, frozen=True, kw_only=True):
    """A batch was resolved."""

    topic: str
    partition: int
    outcome: Literal["delivered", "not_sent", "unknown"]
    records: int
    size_bytes: int
    """On the wire, compressed."""
    attempts: int
    age_s: float
    """Since it was sealed."""
    waited_s: float
    """Before that, its oldest record in the queue."""


class ProducerObserver:
    """Override what you want to hear of."""

    def connected(self, event: BrokerConnected) -> None:
        """A connection for Produce requests was opened."""

    def disconnected(self, event: BrokerDisconnected) -> None:
        """A connection for Produce requests could not be opened, or ended."""

    def throttled(self, event: BrokerThrottled) -> None:
        """A broker asked for a pause."""

    def metadata_refreshed(self, event: MetadataRefreshed) -> None:
        """An answer about the cluster came."""

    def metadata_failed(self, event: MetadataFailed) -> None:
        """The cluster could not be asked."""

    def leader_changed(self, event: LeaderChanged) -> None:
        """A partition that was produced to has another leader, or none."""

    def identity_changed(self, event: IdentityChanged) -> None:
        """New sequences start under another producer id or epoch."""

    def batch_written(self, event: BatchWritten) -> None:
        """An attempt started."""

    def batch_retried(self, event: BatchRetried) -> None:
        """An attempt failed, another follows."""

    def batch_ended(self, event: BatchEnded) -> None:
        """A batch was resolved."""

    def operator_error(self, error: OperatorError) -> None:
        """A state that people have to mend was entered."""

    def operator_error_cleared(self, error: OperatorError) -> None:
        """It is over."""


class PartitionHealth(Struct, frozen=True, gc=False):
    """Whether a partition takes records now, for those who ask many times a second. Times are on Trio's clock."""

    leader: int | None
    """None: no leader is known."""
    operator_error: bool
    """An error that people have to mend stands against its topic, the producer, or connections to its leader."""
    oldest_at: float | None
    """When the oldest unresolved record was handed over, queued or sealed, detached ones included; None: there is
    none."""
    answered_at: float | None
    """When the last Produce answer for it came, whatever it said; None before the first."""


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
