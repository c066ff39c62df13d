"""Which of two facts about the cluster is newer."""

from kafka_client.cluster.snapshot import BrokerAddress, ClusterSnapshot, LeaderInfo
from kafka_client.wire.metadata import BrokerMetadata, MetadataResponse, PartitionMetadata, TopicMetadata

ID_A, ID_B = bytes(15) + b"A", bytes(15) + b"B"


def answer(*partitions: tuple[int, int], topic_id: bytes = ID_A, code: int = 0, brokers: int = 2) -> MetadataResponse:
    return MetadataResponse(
        brokers=[BrokerMetadata(number, f"b{number}", 9092) for number in range(1, brokers + 1)],
        controller_id=1,
        cluster_id="c",
        topics=[
            TopicMetadata(
                name="events",
                id=topic_id,
                error_code=code,
                is_internal=False,
                partitions=[
                    PartitionMetadata(index, 0, leader, epoch, (), (), ())
                    for index, (leader, epoch) in enumerate(partitions)
                ],
            )
        ],
    )


def leaders(snapshot: ClusterSnapshot) -> list[tuple[int | None, int]]:
    return [(leader.leader, leader.epoch) for leader in snapshot.topics["events"].partitions]


def test_newer_leader_epoch_replaces_and_lower_one_is_old_news() -> None:
    snapshot = ClusterSnapshot().merged(answer((1, 5), (2, 5)))
    snapshot = snapshot.merged(answer((2, 6), (1, 4)))
    assert leaders(snapshot) == [(2, 6), (2, 5)]
    assert snapshot.brokers[2] == BrokerAddress("b2", 9092)


def test_no_leader_is_news_when_its_epoch_is_not_lower() -> None:
    snapshot = ClusterSnapshot().merged(answer((1, 5)))
    assert leaders(snapshot.merged(answer((-1, 5)))) == [(None, 5)]
    assert leaders(snapshot.merged(answer((-1, 4)))) == [(1, 5)]


def test_brokers_without_leader_epochs_are_believed() -> None:
    snapshot = ClusterSnapshot().merged(answer((1, -1)))
    assert leaders(snapshot.merged(answer((2, -1)))) == [(2, -1)]


def test_unknown_topic_keeps_what_was_known() -> None:
    snapshot = ClusterSnapshot().merged(answer((1, 5), (2, 5)))
    snapshot = snapshot.merged(answer(code=3))
    assert leaders(snapshot) == [(1, 5), (2, 5)]
    assert snapshot.topics["events"].error_code == 3
    assert ClusterSnapshot().merged(answer(code=3)).topics["events"].partitions == ()


def test_answer_that_lacks_partitions_does_not_shrink_the_topic() -> None:
    snapshot = ClusterSnapshot().merged(answer((1, 5), (2, 5)))
    assert leaders(snapshot.merged(answer((1, 6)))) == [(1, 6), (2, 5)]


def test_topic_created_again_starts_afresh() -> None:
    snapshot = ClusterSnapshot().merged(answer((1, 5), (2, 5)))
    snapshot = snapshot.merged(answer((2, 0), topic_id=ID_B))
    assert leaders(snapshot) == [(2, 0)]
    assert snapshot.topics["events"].topic_id == ID_B


def test_broker_names_a_new_leader() -> None:
    snapshot = ClusterSnapshot().merged(answer((1, 5), (2, 5)))
    snapshot = snapshot.with_broker(3, BrokerAddress("b3", 1)).with_leader("events", 1, LeaderInfo(3, 6))
    assert leaders(snapshot) == [(1, 5), (3, 6)]
    assert snapshot.brokers[3].host == "b3"
