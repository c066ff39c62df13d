"""What a partition needs of its topic and of the whole producer, as protocols.

So the state machine of one partition runs in a test without either.

Owns: the names. Refuses to know: who implements them (`kafka_client.sending.topic`, `kafka_client.sending.dispatch`).
"""

from typing import TYPE_CHECKING, Literal, Protocol

from kafka_client.config import ProducerConfig
from kafka_client.wire.error_codes import ErrorRow
from kafka_client.wire.produce import LeaderHint

from .batch import InFlightAccount, SealedBatch
from .hold import Hold
from .identity import ProducerIdentity

if TYPE_CHECKING:
    from .partition import PartitionState

__all__ = ["LeaderNews", "Office", "Standing", "TopicView"]


class TopicView(Protocol):
    """What a partition needs of its topic."""

    name: str
    hold: Hold


class Standing(Protocol):
    """What a partition needs of the errors that stand until people mend them."""

    hold: Hold
    """The producer's."""

    def topic_error(self, topic: TopicView, row: ErrorRow, detail: str, now: float) -> None:
        """An operator-level error of a topic."""
        ...

    def producer_error(self, row: ErrorRow, detail: str, now: float) -> None:
        """An operator-level error of everything."""
        ...

    def topic_works(self, topic: TopicView) -> None:
        """A batch of the topic was acknowledged: whatever stood against it or the producer is over."""
        ...

    def reason_for(self, topic: TopicView) -> str | None:
        """The reason of outcomes while an operator-level error stands."""
        ...


class LeaderNews(Protocol):
    """Who takes a leader that a broker named."""

    def leader_named(self, partition: "PartitionState", hint: LeaderHint) -> bool:
        """A broker named the new leader (KIP-951); True if that was news."""
        ...


class Office(Protocol):
    """What a partition needs of the whole producer."""

    config: ProducerConfig
    identity: ProducerIdentity
    account: InFlightAccount

    @property
    def standing(self) -> Standing:
        """Errors that stand."""
        ...

    @property
    def leaders(self) -> LeaderNews:
        """Who leads what."""
        ...

    def backoff_s(self, failures: int) -> float:
        """A pause with full jitter before attempt ``failures + 1``."""
        ...

    def wall_clock_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...

    def want_metadata(self) -> None:
        """Metadata is stale."""
        ...

    def in_use(self, partition: "PartitionState") -> None:
        """The partition has something that ends in time: it was queued since the partition was last found idle."""
        ...

    def batch_retried(self, batch: SealedBatch, code: int | None, reason: str) -> None:
        """Tell the observer."""
        ...

    def batch_ended(self, batch: SealedBatch, outcome: Literal["delivered", "not_sent", "unknown"], now: float) -> None:
        """Tell the observer."""
        ...

    def room_made(self) -> None:
        """Bytes in flight were given back."""
        ...

    def starved(self) -> None:
        """A seal has to wait for bytes in flight of other partitions."""
        ...
