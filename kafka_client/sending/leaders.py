"""What answers about the cluster do to topics and partitions: leaders, counts, ids, and errors of topics.

Owns: the snapshot in force, the outbox of each broker, and the pace of asking again while something is missing. Refuses
to know: how metadata is fetched, and what a partition does with its leader.

Rules. A topic that an answer calls unknown keeps its partitions, their sequences and their queues (librdkafka lost
messages there until 1.9): it may be one broker that does not know it yet. Only `UNKNOWN_TOPIC_LIMIT` such answers in a
row make it an operator-level error; its records wait for their own deadlines all the while. Another topic id under the
same name is another topic: its log has never seen us (KIP-516).

Source: Java's Metadata.updateLatestMetadata; KIP-320 (leader epochs), KIP-516 (topic ids), KIP-951 (leaders named in
Produce answers).
"""

from collections.abc import Callable, Mapping, Sequence

import trio

from kafka_client.cluster.snapshot import NULL_TOPIC_ID, BrokerAddress, ClusterSnapshot, LeaderInfo, TopicSnapshot
from kafka_client.config import ProducerConfig
from kafka_client.observe import LeaderChanged, MetadataRefreshed, ProducerObserver
from kafka_client.wire.error_codes import error_row
from kafka_client.wire.metadata import MetadataResponse
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

    def metadata_arrived(self, response: MetadataResponse) -> float | None:
        """Take an answer in; returns after how many seconds to ask again, None when nothing is missing."""
        now = trio.current_time()
        self.snapshot = self.snapshot.merged(response)
        answered = {topic.name for topic in response.topics}
        for name, topic in self._topics.items():
            known = self.snapshot.topics.get(name)
            if known is not None and name in answered:
                self.apply(topic, known, now)
        self._observer.metadata_refreshed(MetadataRefreshed(brokers=len(response.brokers), topics=len(response.topics)))
        missing = [topic for topic in self._topics.values() if _lacks(topic)]
        if not missing:
            self._failures = 0
            return None
        self._failures += 1
        if all(topic.waits_for_operator for topic in missing):
            return self._config.operator_retry_s
        return self._backoff_s(self._failures)

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
        topic.resize(len(known.partitions), now, recreated=recreated)
        nobody = LeaderInfo(None, -1)
        for partition in topic.all_partitions():
            index = partition.tp.partition
            self._lead(partition, known.partitions[index] if index < len(known.partitions) else nobody, now)
        if topic.undealt.count:
            topic.deal_out(now)

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
    return topic.undealt.count > 0 or any(
        (partition.leader is None or topic.metadata_error) and not partition.idle
        for partition in topic.all_partitions()
    )
