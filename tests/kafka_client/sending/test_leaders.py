"""Answers about the cluster that change nothing, or something that another message changed meanwhile."""

import random
from collections.abc import Generator, Sequence
from typing import TypeVar

import trio

from kafka_client import ProducerConfig, Record
from kafka_client.observe import LeaderChanged, MetadataRefreshed, ProducerObserver
from kafka_client.sending.dispatch import Dispatch
from kafka_client.sending.intake import Intake
from kafka_client.sending.outbox import Outbox
from kafka_client.wire.metadata import (
    BrokerMetadata,
    MetadataResponse,
    PartitionMetadata,
    TopicEntry,
    TopicMetadata,
)
from kafka_client.wire.produce import LeaderHint, NodeEndpoint

T = TypeVar("T")


def through(steps: Generator[None, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class Bell:
    def ring(self) -> None:
        pass

    def ring_at(self, time: float) -> None:
        pass


class Cluster(ProducerObserver):
    """A dispatch, and brokers that answer it; an entry is what the topic says."""

    def __init__(self, topics: int = 1, partitions: int = 2) -> None:
        config = ProducerConfig(bootstrap_servers="x:1")
        self.dispatch = Dispatch(
            config,
            self,
            start_sender=lambda broker: Outbox(broker, config, Bell()),
            want_metadata=lambda: None,
            want_producer_id=lambda: None,
            rng=random.Random(1),
        )
        self.names = [f"t{number}" for number in range(topics)]
        self.partitions = partitions
        self.changes: list[tuple[str, int, int | None]] = []
        self.refreshed: list[MetadataRefreshed] = []
        for name in self.names:
            self.dispatch.topic(name)

    def leader_changed(self, event: LeaderChanged) -> None:
        self.changes.append((event.topic, event.partition, event.leader))

    def metadata_refreshed(self, event: MetadataRefreshed) -> None:
        self.refreshed.append(event)

    def answer(
        self,
        *,
        leader: int = 1,
        epoch: int = 5,
        brokers: Sequence[int] = (1, 2),
        code: int = 0,
        names: Sequence[str] | None = None,
    ) -> MetadataResponse:
        """As decoded: entries that are known are passed over."""
        data = b"%d %d %d" % (leader, epoch, code)
        topics, unchanged = [], []
        for name in self.names if names is None else names:
            entry = TopicEntry(12, name.encode() + data)
            if self.dispatch.known_entry(name) == entry:
                unchanged.append(name)
                continue
            partitions = [PartitionMetadata(index, 0, leader, epoch, (), (), ()) for index in range(self.partitions)]
            topics.append(
                TopicMetadata(
                    name=name,
                    id=name.encode().zfill(16),
                    error_code=code,
                    is_internal=False,
                    partitions=[] if code else partitions,
                    entry=entry,
                )
            )
        return MetadataResponse(
            brokers=[BrokerMetadata(number, f"b{number}", 1) for number in brokers],
            controller_id=1,
            cluster_id="c",
            topics=topics,
            unchanged=unchanged,
        )

    def tell(self, **what: object) -> MetadataResponse:
        answer = self.answer(**what)  # type: ignore[arg-type]
        through(self.dispatch.metadata_arrived(answer))
        return answer

    def produce(self, topic: str, partition: int) -> None:
        Intake(self.dispatch).one(Record(topic, b"v", partition=partition))

    def leaders(self) -> set[int | None]:
        return {partition.leader for topic in self.dispatch.topics.values() for partition in topic.all_partitions()}


async def make_cluster(topics: int = 1, partitions: int = 2) -> Cluster:
    """On a running loop: a dispatch reads Trio's clock."""
    await trio.lowlevel.checkpoint()
    return Cluster(topics, partitions)


async def test_answer_without_news_touches_nothing() -> None:
    cluster = await make_cluster(topics=3)
    assert len(cluster.tell().topics) == 3
    cluster.changes.clear()
    snapshot = cluster.dispatch.leaders.snapshot.topics
    assert cluster.tell().unchanged == ["t0", "t1", "t2"]
    assert cluster.changes == []
    assert cluster.dispatch.leaders.snapshot.topics is snapshot
    assert [event.topics for event in cluster.refreshed] == [3, 3]


async def test_leader_that_a_broker_named_is_not_undone_by_an_answer_from_before() -> None:
    cluster = await make_cluster()
    cluster.tell()
    partition = cluster.dispatch.topics["t0"].partitions[0]
    assert cluster.dispatch.leaders.leader_named(partition, LeaderHint(2, 6))
    assert len(cluster.tell().topics) == 1, "it is looked at again, and is old news"
    assert (partition.leader, partition.leader_epoch) == (2, 6)
    cluster.tell(leader=2, epoch=7)
    assert cluster.leaders() == {2}


async def test_answer_without_epochs_is_news_again_after_a_broker_named_another_leader() -> None:
    cluster = await make_cluster()
    cluster.tell(epoch=-1)
    partition = cluster.dispatch.topics["t0"].partitions[0]
    assert cluster.dispatch.leaders.leader_named(partition, LeaderHint(2, 0))
    assert cluster.leaders() == {1, 2}
    cluster.tell(epoch=-1)
    assert cluster.leaders() == {1}


async def test_broker_that_goes_and_comes_back_while_no_topic_changes() -> None:
    cluster = await make_cluster()
    cluster.tell()
    assert cluster.tell(brokers=(2,)).unchanged == ["t0"]
    assert cluster.leaders() == {None}
    assert cluster.tell().unchanged == ["t0"]
    assert cluster.leaders() == {1}


async def test_broker_that_only_an_answer_to_produce_named_is_gone_with_the_next_metadata() -> None:
    cluster = await make_cluster()
    cluster.tell(leader=3)
    assert cluster.leaders() == {None}
    cluster.dispatch.leaders.endpoints_named([NodeEndpoint(3, "b3", 1, None)])
    assert cluster.tell(leader=3, brokers=(1, 2, 3)).unchanged == ["t0"]
    assert cluster.leaders() == {3}
    cluster.dispatch.leaders.endpoints_named([NodeEndpoint(4, "b4", 1, None)])
    partition = cluster.dispatch.topics["t0"].partitions[0]
    assert cluster.dispatch.leaders.leader_named(partition, LeaderHint(4, 6))
    cluster.tell(leader=3, brokers=(1, 2, 3))
    assert cluster.leaders() == {3, None}


async def test_topic_left_out_of_the_answer_that_lost_a_broker_is_looked_at_again() -> None:
    cluster = await make_cluster(topics=2)
    cluster.tell()
    cluster.tell(brokers=(2,), names=["t0"])
    assert cluster.leaders() == {None, 1}
    assert cluster.tell(brokers=(2,)).unchanged == ["t0", "t1"]
    assert cluster.leaders() == {None}


async def test_answers_that_call_a_topic_unknown_are_counted_though_they_are_equal() -> None:
    cluster = await make_cluster()
    cluster.tell()
    for misses in (1, 2, 3):
        assert cluster.tell(code=3).unchanged == []
        assert cluster.dispatch.topics["t0"].metadata_misses == misses
    cluster.tell()
    assert cluster.dispatch.topics["t0"].metadata_misses == 0


async def test_answer_that_is_given_up_half_way_is_made_good_by_the_next() -> None:
    cluster = await make_cluster(topics=4, partitions=100)
    cluster.tell()
    steps = cluster.dispatch.metadata_arrived(cluster.answer(leader=2, epoch=6, brokers=(2,)))
    next(steps)
    steps.close()
    assert cluster.leaders() == {1, 2}
    answer = cluster.tell(leader=2, epoch=6, brokers=(2,))
    assert len(answer.unchanged) == 2
    assert cluster.leaders() == {2}


async def test_broker_named_between_two_steps_is_not_taken_for_one_that_topics_were_looked_at_by() -> None:
    cluster = await make_cluster(topics=4, partitions=100)
    cluster.tell()
    steps = cluster.dispatch.metadata_arrived(cluster.answer(leader=3, epoch=6))
    next(steps)
    cluster.dispatch.leaders.endpoints_named([NodeEndpoint(3, "b3", 1, None)])
    through(steps)
    assert cluster.leaders() == {None, 3}
    assert len(cluster.tell(leader=3, epoch=6, brokers=(1, 2, 3)).unchanged) == 4
    assert cluster.leaders() == {3}


async def test_records_that_wait_for_a_leader_keep_metadata_asked_for() -> None:
    cluster = await make_cluster(topics=2)
    assert through(cluster.dispatch.metadata_arrived(cluster.answer(leader=9))) is None, "nobody produces"
    cluster.produce("t1", 1)
    assert through(cluster.dispatch.metadata_arrived(cluster.answer(leader=9))) is not None
    assert through(cluster.dispatch.metadata_arrived(cluster.answer(epoch=6))) is None
    assert through(cluster.dispatch.metadata_arrived(cluster.answer(epoch=6, brokers=(2,)))) is not None
    cluster.produce("t1", 7)
    assert through(cluster.dispatch.metadata_arrived(cluster.answer(epoch=6))) is not None, "no such partition"
