"""What is known of the cluster: one immutable snapshot, and how an answer makes the next one.

Owns: brokers' addresses, partitions' leaders, and which of two facts is newer. Refuses to know: how metadata is
fetched.

Rules. A partition whose leader epoch is lower than the one known, under the same topic id, is old news: a broker that
lags behind answered. At the same epoch the newer answer counts, even if it names another leader: brokers and clones
that keep no epochs always say 0. A partition with LEADER_NOT_AVAILABLE or LISTENER_NOT_FOUND has no leader for us; one
with REPLICA_NOT_AVAILABLE lacks a follower and has the leader that it names. An answer without brokers, and a topic
without an error and without partitions, are failed refreshes, never "it is gone"; a topic that an answer calls unknown
keeps what was known of it. Another topic id means another topic under the same name.

Non-obvious: merging is idempotent, so a topic remembers the entry that it was merged from, and an equal one need not be
decoded again. It forgets it when anything else changes it: then the same entry may again be news (a leader that a
broker without epochs named between two answers). An entry with an error is not remembered: those are counted.

Source: Java's Metadata.updateLatestMetadata, KIP-320; franz-go's TestMetadataZeroPartitionsNoFakeSuccess.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kafka_client.wire.metadata import BrokerMetadata, PartitionMetadata, TopicEntry, TopicMetadata

__all__ = ["NOBODY", "NULL_TOPIC_ID", "BrokerAddress", "ClusterSnapshot", "LeaderInfo", "TopicSnapshot"]

NULL_TOPIC_ID = bytes(16)
#: LEADER_NOT_AVAILABLE, LISTENER_NOT_FOUND: the leader, if one is named, cannot be reached by this listener.
LEADERLESS = frozenset({5, 72})


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class LeaderInfo:
    """Who leads a partition; ``leader`` None: nobody, for now. Epoch -1: the broker does not say."""

    leader: int | None
    epoch: int


NOBODY = LeaderInfo(None, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSnapshot:
    """One topic. ``error_code`` is of the last answer about it; the rest is what was last known."""

    topic_id: bytes
    partitions: tuple[LeaderInfo, ...]
    error_code: int
    entry: TopicEntry | None = None
    """An answer with this entry changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSnapshot:
    """Everything at one moment."""

    brokers: Mapping[int, BrokerAddress] = field(default_factory=dict)
    topics: Mapping[str, TopicSnapshot] = field(default_factory=dict)
    cluster_id: str | None = None

    def with_brokers(self, brokers: Sequence[BrokerMetadata], cluster_id: str | None) -> "ClusterSnapshot":
        """The snapshot after an answer that names these brokers, and no others."""
        known = {broker.id: BrokerAddress(broker.host, broker.port) for broker in brokers}
        return replace(self, brokers=known, cluster_id=cluster_id)

    def with_topics(self, found: Sequence[TopicMetadata]) -> "ClusterSnapshot":
        """The snapshot after an answer about these topics."""
        topics = dict(self.topics)
        for topic in found:
            if topic.name is not None:
                topics[topic.name] = _merged_topic(topics.get(topic.name), topic)
        return replace(self, topics=topics)

    def with_leader(self, topic: str, partition: int, leader: LeaderInfo) -> "ClusterSnapshot":
        """The snapshot after a broker named a new leader (KIP-951)."""
        known = self.topics[topic]
        partitions = (*known.partitions[:partition], leader, *known.partitions[partition + 1 :])
        return replace(self, topics={**self.topics, topic: replace(known, partitions=partitions, entry=None)})

    def with_broker(self, number: int, address: BrokerAddress) -> "ClusterSnapshot":
        """The snapshot with one more broker, or another address of it."""
        return replace(self, brokers={**self.brokers, number: address})


def _merged_topic(known: TopicSnapshot | None, new: TopicMetadata) -> TopicSnapshot:
    if not new.partitions:
        if known is None:
            return TopicSnapshot(topic_id=NULL_TOPIC_ID, partitions=(), error_code=new.error_code)
        return replace(known, error_code=new.error_code or known.error_code, entry=None)
    same = known is not None and (new.id == known.topic_id or NULL_TOPIC_ID in (new.id, known.topic_id))
    # A broker that does not know the partitions' tail yet must not shrink the topic: keys would move.
    before = known.partitions if known is not None and same else ()
    count = max(len(before), max(partition.index for partition in new.partitions) + 1)
    leaders = [*before, *[NOBODY] * (count - len(before))]
    for partition in new.partitions:
        if 0 <= partition.index < count:
            leaders[partition.index] = _newer(leaders[partition.index], partition)
    entry = None if new.error_code else new.entry
    return TopicSnapshot(topic_id=new.id, partitions=tuple(leaders), error_code=new.error_code, entry=entry)


def _newer(known: LeaderInfo, new: PartitionMetadata) -> LeaderInfo:
    if 0 <= new.leader_epoch < known.epoch:
        return known
    leader = new.leader if new.leader >= 0 and new.error_code not in LEADERLESS else None
    epoch = max(new.leader_epoch, known.epoch)
    return known if leader == known.leader and epoch == known.epoch else LeaderInfo(leader, epoch)
