"""The producer without its tasks: topics, budget and identity, and what is told to and by those who have tasks.

Owns: everything that is shared between partitions, and the dealing of deliveries into queues. Refuses to know: sockets,
tasks, and what callers do; a sender is asked for by ``start_sender`` only.

Everything in here is synchronous: a change of state is whole when the method returns. Implements what partitions need
(`kafka_client.sending.office.Office`) and what the refresher needs
(`kafka_client.cluster.refresher.ClusterListener`).
"""

import math
import random
import time
from collections.abc import Callable, Generator, Sequence
from typing import Literal

import trio

from kafka_client.buffer.budget import ByteBudget
from kafka_client.buffer.delivery import Delivery, Tally
from kafka_client.buffer.segment import Parcel
from kafka_client.config import ProducerConfig
from kafka_client.errors import ConnectionLost, SecurityError
from kafka_client.observe import BatchEnded, BatchRetried, IdentityChanged, MetadataFailed, ProducerObserver
from kafka_client.wire.error_codes import error_row
from kafka_client.wire.error_names import is_retriable
from kafka_client.wire.init_producer_id import InitProducerIdResponse
from kafka_client.wire.metadata import MetadataResponse, TopicEntry

from .batch import InFlightAccount, SealedBatch
from .identity import ProducerIdentity, ProducerState
from .leaders import Leaders
from .outbox import Outbox
from .partition import PartitionState
from .standing import CLUSTER, StandingErrors
from .topic import TopicState

__all__ = ["Dispatch"]

#: InitProducerId is asked for a new id at once, as Java's InitProducerIdHandler does.
INVALID_PRODUCER_EPOCH = 47
CLUSTER_AUTHORIZATION_FAILED = 31
IDEMPOTENT_WRITE = (
    "InitProducerId is forbidden: grant this principal IdempotentWrite on the cluster "
    "(kafka-acls --add --operation IdempotentWrite --cluster), or Write on a topic where brokers are 2.8 or newer"
)


class Dispatch:
    """Everything that partitions share."""

    def __init__(
        self,
        config: ProducerConfig,
        observer: ProducerObserver,
        *,
        start_sender: Callable[[int], Outbox],
        want_metadata: Callable[[], None],
        want_producer_id: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self.config = config
        self.identity = ProducerIdentity(self._identity_changed)
        self.account = InFlightAccount(config.in_flight_max_bytes)
        self.tally = Tally()
        self.standing = StandingErrors(config, observer, self.urge_all)
        self.budget = ByteBudget(config.queue_max_bytes, config.max_waiting_bytes, self._admit, self.standing.reason)
        self.topics: dict[str, TopicState] = {}
        self.leaders = Leaders(
            config, observer, self.standing, self.topics, start_sender=start_sender, backoff_s=self.backoff_s
        )
        self.last_cluster_error = ""
        self.closed = False
        self._in_use: dict[PartitionState, None] = {}
        """At least every partition that is not idle: of tens of thousands most are, and time is kept for the others."""
        self._starved = False
        self._id_failures = 0
        self._observer = observer
        self._want_metadata = want_metadata
        self._want_producer_id = want_producer_id
        self._random = rng

    # Records come in.

    def topic(self, name: str) -> TopicState:
        """The state of a topic, from the first record on."""
        found = self.topics.get(name)
        if found is None:
            found = self.topics[name] = TopicState(name, self, self.budget, self._random)
            known = self.leaders.snapshot.topics.get(name)
            if known is not None:
                self.leaders.apply(found, known, trio.current_time())
            if not found.partitions:
                self._want_metadata()
        return found

    def stand_in_line(self, delivery: Delivery, parcels: Sequence[Parcel], cost: int) -> None:
        """The budget is full: wait in the FIFO, or be refused at once."""
        if cost > self.budget.limit_bytes:
            self.refuse(delivery, "too_large: the delivery is larger than queue_max_bytes")
        elif not self.budget.try_wait(delivery, parcels, cost):
            self.refuse(delivery, "overloaded: max_waiting_bytes wait already")

    def refuse(self, delivery: Delivery, reason: str) -> None:
        """End a delivery of which nothing was queued."""
        self.budget.not_sent_total += delivery.unsettled
        delivery.refuse(self.budget.not_sent(reason))

    def _admit(self, parcel: Parcel) -> None:
        self.topic(parcel.topic).deal(parcel, trio.current_time())

    # What partitions need.

    def backoff_s(self, failures: int) -> float:
        """A pause with full jitter."""
        config = self.config
        longest = min(config.retry_backoff_max_s, config.retry_backoff_min_s * 2.0 ** min(failures - 1, 16))
        return self._random.uniform(0, longest)

    def wall_clock_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def want_metadata(self) -> None:
        """Metadata is stale."""
        self._want_metadata()

    def in_use(self, partition: PartitionState) -> None:
        """The partition has something that ends in time."""
        self._in_use[partition] = None

    def batch_retried(self, batch: SealedBatch, code: int | None, reason: str) -> None:
        """Tell the observer."""
        self._observer.batch_retried(
            BatchRetried(
                topic=batch.partition.topic,
                partition=batch.partition.partition,
                attempt=batch.attempts,
                records=batch.count,
                code=code,
                reason=reason,
                tainted=batch.tainted,
            )
        )

    def batch_ended(self, batch: SealedBatch, outcome: Literal["delivered", "not_sent", "unknown"], now: float) -> None:
        """Tell the observer."""
        self._observer.batch_ended(
            BatchEnded(
                topic=batch.partition.topic,
                partition=batch.partition.partition,
                outcome=outcome,
                records=batch.count,
                size_bytes=len(batch.wire),
                attempts=batch.attempts,
                age_s=now - batch.sealed_at,
                waited_s=batch.sealed_at - batch.called_at,
            )
        )

    def starved(self) -> None:
        """A seal has to wait for bytes in flight of other partitions."""
        self._starved = True

    def room_made(self) -> None:
        """Bytes in flight were given back."""
        if self._starved and not self.account.full:
            self._starved = False
            self.urge_all()
        if self.budget.on_less is not None:
            self.budget.on_less()

    def urge_all(self) -> None:
        """Something that held everybody up is over."""
        for outbox in self.leaders.outboxes.values():
            if outbox.has_work:
                outbox.urge()

    # What the refresher tells.

    def wanted_topics(self) -> list[str]:
        """Every topic that was ever produced to."""
        return list(self.topics)

    @property
    def wants_producer_id(self) -> bool:
        """Whether InitProducerId is to be asked."""
        return self.identity.wanted

    def producer_id_arrived(self, response: InitProducerIdResponse) -> float | None:
        """Take a producer id, or enter the state that says why there is none."""
        code = response.error_code
        if code == 0:
            self._id_failures = 0
            self.standing.clear(self.standing.hold)
            self.identity.assign(ProducerState(response.producer_id, response.producer_epoch))
            self.urge_all()
            return None
        if is_retriable(code) or code == INVALID_PRODUCER_EPOCH:
            self._id_failures += 1
            return self.backoff_s(self._id_failures)
        advice = IDEMPOTENT_WRITE if code == CLUSTER_AUTHORIZATION_FAILED else ""
        self.standing.producer_error(error_row(code), advice, trio.current_time())
        return self.config.operator_retry_s

    def cluster_failed(self, address: str, error: ConnectionLost) -> None:
        """The broker at this address could not be asked."""
        self.last_cluster_error = str(error)
        if isinstance(error, SecurityError):
            self.standing.security_refused(CLUSTER, error)
        self._observer.metadata_failed(MetadataFailed(address=address, reason=str(error)))

    def known_entry(self, topic: str) -> TopicEntry | None:
        """The entry that brings nothing new of a topic."""
        return self.leaders.known_entry(topic)

    def metadata_arrived(self, response: MetadataResponse) -> Generator[None, None, float | None]:
        """Take an answer in; returns after how many seconds to ask again, None when nothing is missing."""
        self.last_cluster_error = ""
        self.standing.connection_works(CLUSTER)
        return self.leaders.metadata_arrived(response)

    def _identity_changed(self) -> None:
        if self.identity.wanted:
            self._want_producer_id()
        else:
            current = self.identity.current
            self._observer.identity_changed(IdentityChanged(producer_id=current.producer_id, epoch=current.epoch))

    # Time, and the end.

    def end_due(self, now: float) -> None:
        """End whatever is past its deadline: waiting, undealt, queued, sealed."""
        budget = self.budget
        while (head := budget.head()) is not None and head.deadline <= now:
            head.end("timeout: no room in the queue within delivery_timeout_s")
        # Copies: what ends makes room for others, and calls ``on_resolved``: both may bring a topic not used before.
        for topic in list(self.topics.values()):
            if topic.undealt.count:
                topic.undealt.end_due(now, "timeout: the topic's partitions are unknown")
        for partition in list(self._in_use):
            if not partition.idle:
                partition.end_due(now)
            elif not partition.announced:  # or it would not say so when something is queued
                del self._in_use[partition]

    def next_end(self) -> float:
        """The earliest moment at which `end_due` has something to do."""
        earliest = math.inf
        head = self.budget.head()
        if head is not None:
            earliest = head.deadline
        for topic in self.topics.values():
            run = topic.undealt.head()
            if run is not None:
                earliest = min(earliest, run.deadline)
        for partition in self._in_use:
            if not partition.idle:
                earliest = min(earliest, partition.next_end())
        return earliest

    @property
    def quiet(self) -> bool:
        """Nothing waits, is queued, or is sealed."""
        return not (self.budget.used_bytes or self.budget.waiting_bytes or self.account.batches)

    def close(self) -> None:
        """End everything, once: queued NotSent("closed"), sealed Unknown("closed")."""
        if self.closed:
            return
        self.closed = True
        # The line first: ending what is queued would let it in.
        for delivery in self.budget.deliveries():
            delivery.end("closed")
        for topic in list(self.topics.values()):
            topic.undealt.end_all("closed")
            for partition in list(topic.all_partitions()):
                partition.close()

    def __repr__(self) -> str:
        return f"<Dispatch {len(self.topics)} topics, {self.budget!r}>"
