"""The producer without its tasks: topics, budget, identity and outboxes, and what metadata does to them.

Owns: everything that is shared between partitions, and the dealing of deliveries into queues. Refuses to know: sockets,
tasks, and what callers do; a sender is asked for by ``start_sender`` only.

Everything in here is synchronous: a change of state is whole when the method returns. Implements what partitions need
(`kafka_client.sending.office.Office`) and what the refresher needs
(`kafka_client.cluster.refresher.ClusterListener`).
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Literal

import trio

from kafka_client.buffer.budget import ByteBudget
from kafka_client.buffer.delivery import Delivery, Tally
from kafka_client.buffer.run import Run
from kafka_client.cluster.snapshot import NULL_TOPIC_ID, BrokerAddress, ClusterSnapshot, LeaderInfo, TopicSnapshot
from kafka_client.config import ProducerConfig
from kafka_client.errors import ConnectionLost, SecurityError
from kafka_client.observe import (
    BatchEnded,
    BatchRetried,
    IdentityChanged,
    LeaderChanged,
    MetadataFailed,
    MetadataRefreshed,
    ProducerObserver,
)
from kafka_client.wire.error_codes import ErrorRow, error_row
from kafka_client.wire.init_producer_id import InitProducerIdResponse
from kafka_client.wire.metadata import MetadataResponse
from kafka_client.wire.produce import LeaderHint, NodeEndpoint

from .batch import InFlightAccount, SealedBatch
from .hold import Hold, OperatorError
from .identity import ProducerIdentity, ProducerState
from .office import TopicView
from .outbox import Outbox
from .partition import UNKNOWN_TOPIC, UNKNOWN_TOPIC_LIMIT, PartitionState
from .topic import TopicState

__all__ = ["Dispatch"]

#: Codes of Metadata for a topic that stay until somebody mends them; it is asked about every operator_retry_s.
TOPIC_ERRORS_TO_MEND = frozenset({17, 29})
#: Codes of InitProducerId that pass by themselves: the coordinator loads, moves, or is busy.
INIT_PRODUCER_ID_PASSING = frozenset({7, 13, 14, 15, 16, 51})
CLUSTER_AUTHORIZATION_FAILED = 31
IDEMPOTENT_WRITE = (
    "InitProducerId is forbidden: grant this principal IdempotentWrite on the cluster "
    "(kafka-acls --add --operation IdempotentWrite --cluster), or Write on a topic where brokers are 2.8 or newer"
)
#: The key of the refresher among the connections that were refused.
CLUSTER = -1


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
        self.hold = Hold(config.operator_retry_s)
        self.budget = ByteBudget(config.queue_max_bytes, config.max_waiting_bytes, self._admit, self._standing)
        self.topics: dict[str, TopicState] = {}
        self.topic_names: dict[bytes, str] = {}
        """By topic id, old ones of re-created topics too: an answer may still name them."""
        self.outboxes: dict[int, Outbox] = {}
        self.snapshot = ClusterSnapshot()
        self.last_cluster_error = ""
        self.refused: dict[int, OperatorError] = {}
        """By broker: connections refused by TLS, or for want of a common version."""
        self.closed = False
        self._starved = False
        self._metadata_failures = 0
        self._id_failures = 0
        self._observer = observer
        self._start_sender = start_sender
        self._want_metadata = want_metadata
        self._want_producer_id = want_producer_id
        self._random = rng

    # Records come in.

    def topic(self, name: str) -> TopicState:
        """The state of a topic, from the first record on."""
        found = self.topics.get(name)
        if found is None:
            found = self.topics[name] = TopicState(name, self, self.budget, self._random)
            known = self.snapshot.topics.get(name)
            if known is not None:
                self._apply_topic(found, known, trio.current_time())
            if not found.partitions:
                self._want_metadata()
        return found

    def stand_in_line(self, delivery: Delivery, runs: Sequence[tuple[str, Run]], cost: int) -> None:
        """The budget is full: wait in the FIFO, or be refused at once. Each run has its topic and its routes."""
        if cost > self.budget.limit_bytes:
            self.refuse(delivery, "too_large: the delivery is larger than queue_max_bytes")
        elif self.budget.try_wait(delivery, runs, cost):
            for _, run in runs:
                delivery.add(run)
        else:
            self.refuse(delivery, "overloaded: max_waiting_bytes wait already")

    def refuse(self, delivery: Delivery, reason: str) -> None:
        """End a delivery of which nothing was queued."""
        self.budget.not_sent_total += delivery.unsettled
        delivery.refuse(self.budget.not_sent(reason))

    def _admit(self, topic: str, run: Run) -> None:
        self.topic(topic).deal(run, trio.current_time())

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

    def leader_named(self, partition: PartitionState, hint: LeaderHint) -> bool:
        """A broker named the new leader (KIP-951); True if that was news."""
        if hint.leader_id not in self.snapshot.brokers or hint.leader_epoch <= partition.leader_epoch:
            return False
        tp = partition.tp
        leader = LeaderInfo(hint.leader_id, hint.leader_epoch)
        self.snapshot = self.snapshot.with_leader(tp.topic, tp.partition, leader)
        self._lead(partition, leader, trio.current_time())
        return True

    def endpoints_named(self, endpoints: Sequence[NodeEndpoint]) -> None:
        """A Produce answer told where new leaders listen."""
        for endpoint in endpoints:
            address = BrokerAddress(endpoint.host, endpoint.port)
            self.snapshot = self.snapshot.with_broker(endpoint.node_id, address)

    def topic_error(self, topic: TopicView, row: ErrorRow, detail: str, now: float) -> None:
        """An operator-level error of a topic."""
        scope = f"topic {topic.name}"
        error = OperatorError(code=row.code, name=row.name, advice=detail or row.advice, scope=scope, since=now)
        if topic.hold.set(error, now):
            self._observer.operator_error(error)

    def producer_error(self, row: ErrorRow, detail: str, now: float) -> None:
        """An operator-level error of everything."""
        self._hold_producer(row.code, row.name, detail or row.advice, now)

    def _hold_producer(self, code: int, name: str, advice: str, now: float) -> None:
        error = OperatorError(code=code, name=name, advice=advice, scope="producer", since=now)
        if self.hold.set(error, now):
            self._observer.operator_error(error)

    def topic_works(self, topic: TopicView) -> None:
        """A batch of the topic was acknowledged: whatever stood against it or the producer is over."""
        self._clear(topic.hold)
        self._clear(self.hold)

    def _clear(self, hold: Hold) -> None:
        error = hold.error
        if error is not None:
            hold.clear()
            self._observer.operator_error_cleared(error)
            self.urge_all()

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
        for outbox in self.outboxes.values():
            if outbox.has_work:
                outbox.urge()

    def standing_reason(self, topic: TopicView) -> str | None:
        """The reason of outcomes while an operator-level error stands."""
        if topic.hold.error is not None:
            return topic.hold.error.reason
        return self._standing()

    def _standing(self) -> str | None:
        if self.hold.error is not None:
            return self.hold.error.reason
        for error in self.refused.values():
            return error.reason
        return None

    # What connections tell.

    def connection_works(self, broker: int) -> None:
        """A connection was opened."""
        error = self.refused.pop(broker, None)
        if error is not None:
            self._observer.operator_error_cleared(error)

    def connection_refused(self, broker: int, name: str, reason: str) -> None:
        """TLS was refused, or there is no common version: an operator's to mend."""
        before = self.refused.get(broker)
        if before is not None and before.advice == reason:
            return
        scope = "producer" if broker == CLUSTER else f"broker {broker}"
        error = OperatorError(code=0, name=name, advice=reason, scope=scope, since=trio.current_time())
        self.refused[broker] = error
        self._observer.operator_error(error)

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
        now = trio.current_time()
        code = response.error_code
        if code == 0:
            self._id_failures = 0
            self._clear(self.hold)
            self.identity.assign(ProducerState(response.producer_id, response.producer_epoch))
            self.urge_all()
            return None
        if code in INIT_PRODUCER_ID_PASSING:
            self._id_failures += 1
            return self.backoff_s(self._id_failures)
        row = error_row(code)
        advice = IDEMPOTENT_WRITE if code == CLUSTER_AUTHORIZATION_FAILED else row.advice
        self._hold_producer(code, row.name, advice, now)
        return self.config.operator_retry_s

    def cluster_failed(self, address: str, error: ConnectionLost) -> None:
        """The broker at this address could not be asked."""
        self.last_cluster_error = str(error)
        if isinstance(error, SecurityError):
            self.connection_refused(CLUSTER, "SECURITY", str(error))
        self._observer.metadata_failed(MetadataFailed(address=address, reason=str(error)))

    def metadata_arrived(self, response: MetadataResponse) -> float | None:
        """Take an answer in; returns after how many seconds to ask again, None when nothing is missing."""
        now = trio.current_time()
        self.last_cluster_error = ""
        self.connection_works(CLUSTER)
        self.snapshot = self.snapshot.merged(response)
        answered = {topic.name for topic in response.topics}
        for name, topic in self.topics.items():
            known = self.snapshot.topics.get(name)
            if known is not None and name in answered:
                self._apply_topic(topic, known, now)
        self._observer.metadata_refreshed(MetadataRefreshed(brokers=len(response.brokers), topics=len(response.topics)))
        missing = [topic for topic in self.topics.values() if self._lacks(topic)]
        if not missing:
            self._metadata_failures = 0
            return None
        self._metadata_failures += 1
        if all(topic.waits_for_operator for topic in missing):
            return self.config.operator_retry_s
        return self.backoff_s(self._metadata_failures)

    def _lacks(self, topic: TopicState) -> bool:
        """Whether records of the topic wait for something that metadata has to tell."""
        return topic.undealt.count > 0 or any(
            partition.leader is None and not partition.idle for partition in topic.all_partitions()
        )

    def _apply_topic(self, topic: TopicState, known: TopicSnapshot, now: float) -> None:
        self._apply_topic_error(topic, known.error_code, now)
        if not known.partitions:
            return
        if known.topic_id != NULL_TOPIC_ID:
            self.topic_names[known.topic_id] = topic.name
            if topic.topic_id not in (NULL_TOPIC_ID, known.topic_id):
                topic.recreated(len(known.partitions))
        topic.topic_id = known.topic_id
        topic.set_partition_count(len(known.partitions))
        nobody = LeaderInfo(None, -1)
        for partition in topic.all_partitions():
            index = partition.tp.partition
            self._lead(partition, known.partitions[index] if index < len(known.partitions) else nobody, now)
        if topic.undealt.count:
            topic.deal_out(now)

    def _apply_topic_error(self, topic: TopicState, code: int, now: float) -> None:
        topic.metadata_misses = topic.metadata_misses + 1 if code == UNKNOWN_TOPIC else 0
        if code in TOPIC_ERRORS_TO_MEND or topic.metadata_misses >= UNKNOWN_TOPIC_LIMIT:
            topic.metadata_error = True
            self.topic_error(topic, error_row(code), "", now)
        elif code == 0 and topic.metadata_error:
            topic.metadata_error = False
            self._clear(topic.hold)

    def _lead(self, partition: PartitionState, leader: LeaderInfo, now: float) -> None:
        number = leader.leader
        if number not in self.snapshot.brokers:
            number = None
        if number != partition.leader:
            tp = partition.tp
            self._observer.leader_changed(
                LeaderChanged(topic=tp.topic, partition=tp.partition, leader=number, leader_epoch=leader.epoch)
            )
        if number is None:
            if partition.leader is not None:
                self.topics[partition.tp.topic].sticky.leave(partition.tp.partition)
            partition.lead_by(None, leader.epoch, None, now)
            return
        outbox = self.outboxes.get(number)
        if outbox is None:
            outbox = self.outboxes[number] = self._start_sender(number)
        partition.lead_by(number, leader.epoch, outbox, now)

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
        for topic in self.topics.values():
            if topic.undealt.count:
                topic.undealt.end_due(now, "timeout: the topic's partitions are unknown")
            for partition in topic.all_partitions():
                if not partition.idle:
                    partition.end_due(now)

    def next_end(self) -> float:
        """The earliest moment at which `end_due` has something to do."""
        earliest = math.inf
        head = self.budget.head()
        if head is not None:
            earliest = head.deadline
        for topic in self.topics.values():
            run = topic.undealt.head()
            if run is not None and run.delivery is not None:
                earliest = min(earliest, run.delivery.deadline)
            for partition in topic.all_partitions():
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
        for topic in self.topics.values():
            topic.undealt.end_all("closed")
            for partition in topic.all_partitions():
                partition.close()

    def __repr__(self) -> str:
        return f"<Dispatch {len(self.topics)} topics, {self.budget!r}>"
