"""What answers about the cluster do to topics and partitions: leaders, counts, ids, and errors of topics.

Owns: the snapshot in force, the outbox of each broker, and the pace of asking again while something is missing. Refuses
to know: how metadata is fetched, and what a partition does with its leader.

Rules. A topic that an answer calls unknown keeps its partitions, their sequences and their queues (librdkafka lost
messages there until 1.9): it may be one broker that does not know it yet. Only `UNKNOWN_TOPIC_LIMIT` such answers in a
row make it an operator-level error; its records wait for their own deadlines all the while. Another topic id under the
same name is another topic: its log has never seen us (KIP-516).

An answer about tens of thousands of partitions is taken in with pauses, in which producing goes on: what is known of a
topic and what is done about it change in one step, so between two steps it is as if the answer had been about fewer
topics. A topic that did not change is not looked at, as long as the brokers are the same.

Source: Java's Metadata.updateLatestMetadata; KIP-320 (leader epochs), KIP-516 (topic ids), KIP-951 (leaders named in
Produce answers).
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

import trio

from kafka_client.cluster.snapshot import (
    NOBODY,
    NULL_TOPIC_ID,
    BrokerAddress,
    ClusterSnapshot,
    LeaderInfo,
    TopicSnapshot,
)
from kafka_client.config import ProducerConfig
from kafka_client.observe import LeaderChanged, MetadataRefreshed, ProducerObserver
from kafka_client.wire.error_codes import error_row
from kafka_client.wire.metadata import STEP_PARTITIONS, MetadataResponse, TopicEntry, TopicMetadata
from kafka_client.wire.produce import LeaderHint, NodeEndpoint

from .answers import UNKNOWN_TOPIC, UNKNOWN_TOPIC_LIMIT
from .outbox import Outbox
from .partition import PartitionState
from .standing import StandingErrors
from .topic import TopicState

__all__ = ["Leaders"]

#: INVALID_TOPIC_EXCEPTION and TOPIC_AUTHORIZATION_FAILED stay until somebody mends them; every other code of a topic in
#: Metadata passes by itself (3, 5, 7, 13, 56, 72, 100) or is asked about again in any case.
TOPIC_ERRORS_TO_MEND = frozenset({17, 29})


class Leaders:
    """Who leads what, and whom to send it to."""

    def __init__(
        self,
        config: ProducerConfig,
        observer: ProducerObserver,
        standing: StandingErrors,
        topics: Mapping[str, TopicState],
        *,
        start_sender: Callable[[int], Outbox],
        backoff_s: Callable[[int], float],
    ) -> None:
        self.snapshot = ClusterSnapshot()
        self.outboxes: dict[int, Outbox] = {}
        self.topic_names: dict[bytes, str] = {}
        """By topic id, old ones of re-created topics too: an answer may still name them."""
        self._config = config
        self._observer = observer
        self._standing = standing
        self._topics = topics
        self._start_sender = start_sender
        self._backoff_s = backoff_s
        self._failures = 0
        self._applied_to: frozenset[int] | None = None
        """The brokers by which every topic was last looked at; None: some topic was not, or by others."""

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
            if endpoint.node_id not in self.snapshot.brokers:
                self._applied_to = None
            address = BrokerAddress(endpoint.host, endpoint.port)
            self.snapshot = self.snapshot.with_broker(endpoint.node_id, address)

    def known_entry(self, topic: str) -> TopicEntry | None:
        """The entry that brings nothing new of a topic."""
        known = self.snapshot.topics.get(topic)
        return None if known is None else known.entry

    def metadata_arrived(self, response: MetadataResponse) -> Generator[None, None, float | None]:
        """Take an answer in, pausing where something else may be done first.

        Returns after how many seconds to ask again, None when nothing is missing. Given up in a pause, what was not
        reached stays as it was before the answer.
        """
        brokers = frozenset(broker.id for broker in response.brokers)
        same = brokers == self._applied_to
        self._applied_to = None
        self.snapshot = self.snapshot.with_brokers(response.brokers, response.cluster_id)
        for found in _in_steps(response.topics):
            self.snapshot = self.snapshot.with_topics(found)
            for topic in found:
                self._bring_up(topic.name)
            yield
        if not same:
            for name in response.unchanged:
                self._bring_up(name)
                yield
        names = {*(topic.name for topic in response.topics), *response.unchanged}
        if self.snapshot.brokers.keys() == brokers and all(
            name in names for name in self._topics if name in self.snapshot.topics
        ):
            self._applied_to = brokers
        self._observer.metadata_refreshed(MetadataRefreshed(brokers=len(response.brokers), topics=len(names)))
        missing = [topic for topic in self._topics.values() if _lacks(topic)]
        if not missing:
            self._failures = 0
            return None
        self._failures += 1
        if all(topic.waits_for_operator for topic in missing):
            return self._config.operator_retry_s
        return self._backoff_s(self._failures)

    def _bring_up(self, name: str | None) -> None:
        topic = None if name is None else self._topics.get(name)
        if topic is not None:
            self.apply(topic, self.snapshot.topics[topic.name], trio.current_time())

    def apply(self, topic: TopicState, known: TopicSnapshot, now: float) -> None:
        """Bring a topic up to what is known of it."""
        self._apply_error(topic, known.error_code, now)
        if not known.partitions:
            return
        recreated = False
        if known.topic_id != NULL_TOPIC_ID:
            self.topic_names[known.topic_id] = topic.name
            recreated = topic.topic_id not in (NULL_TOPIC_ID, known.topic_id)
        topic.topic_id = known.topic_id
        if recreated and topic.hold.error is not None and topic.hold.error.code == UNKNOWN_TOPIC:
            self._standing.clear(topic.hold)  # what was missing is there
        gone = topic.resize(len(known.partitions), recreated=recreated)
        for partition in topic.all_partitions():
            index = partition.tp.partition
            self._lead(partition, known.partitions[index] if index < len(known.partitions) else NOBODY, now)
        topic.leaderless = any(partition.leader is None for partition in topic.partitions)
        if topic.undealt.count:
            topic.deal_out(now)
        for partition in gone:
            partition.cut_off(now)

    def _apply_error(self, topic: TopicState, code: int, now: float) -> None:
        topic.metadata_misses = topic.metadata_misses + 1 if code == UNKNOWN_TOPIC else 0
        if code in TOPIC_ERRORS_TO_MEND or topic.metadata_misses >= UNKNOWN_TOPIC_LIMIT:
            topic.metadata_error = True
            if topic.hold.error is None or topic.hold.error.code != code:  # or each answer would put the next try off
                self._standing.topic_error(topic, error_row(code), "", now)
        elif code == 0 and topic.metadata_error:
            topic.metadata_error = False
            self._standing.clear(topic.hold)

    def _lead(self, partition: PartitionState, leader: LeaderInfo, now: float) -> None:
        number = leader.leader
        if number not in self.snapshot.brokers:
            number = None
        tp = partition.tp
        if number != partition.leader:
            self._observer.leader_changed(
                LeaderChanged(topic=tp.topic, partition=tp.partition, leader=number, leader_epoch=leader.epoch)
            )
        if number is None:
            if partition.leader is not None:
                self._topics[tp.topic].sticky.leave(tp.partition)
            partition.lead_by(None, leader.epoch, None, now)
            return
        outbox = self.outboxes.get(number)
        if outbox is None:
            outbox = self.outboxes[number] = self._start_sender(number)
        partition.lead_by(number, leader.epoch, outbox, now)

    def __repr__(self) -> str:
        return f"<Leaders {len(self.snapshot.brokers)} brokers, {len(self._topics)} topics>"


def _lacks(topic: TopicState) -> bool:
    """Whether records of the topic wait for something that metadata has to tell.

    Also while metadata calls it missing or forbidden: nothing is sent then, so no answer to Produce asks for metadata.
    """
    if topic.undealt.count > 0:
        return True
    return bool(topic.metadata_error or topic.leaderless or topic.beyond) and any(
        (partition.leader is None or topic.metadata_error) and not partition.idle
        for partition in topic.all_partitions()
    )


def _in_steps(topics: Iterable[TopicMetadata]) -> Iterator[list[TopicMetadata]]:
    """Some topics at a time: few enough to be quick, and enough for one copy of the snapshot's dictionary."""
    step: list[TopicMetadata] = []
    partitions = 0
    for topic in topics:
        step.append(topic)
        partitions += len(topic.partitions)
        if partitions >= STEP_PARTITIONS:
            yield step
            step, partitions = [], 0
    if step:
        yield step
