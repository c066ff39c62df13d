"""Which of two facts about the cluster is newer."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_client.cluster.snapshot import NULL_TOPIC_ID, BrokerAddress, ClusterSnapshot, LeaderInfo
from kafka_client.wire.metadata import BrokerMetadata, MetadataResponse, PartitionMetadata, TopicEntry, TopicMetadata

ID_A, ID_B = bytes(15) + b"A", bytes(15) + b"B"


def answer(
    *partitions: tuple[int, int],
    topic_id: bytes = ID_A,
    code: int = 0,
    brokers: int = 2,
    partition_codes: Mapping[int, int] = MappingProxyType({}),
) -> MetadataResponse:
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
                    PartitionMetadata(index, partition_codes.get(index, 0), leader, epoch, (), (), ())
                    for index, (leader, epoch) in enumerate(partitions)
                ],
            )
        ],
    )


def merged(snapshot: ClusterSnapshot, response: MetadataResponse) -> ClusterSnapshot:
    """The snapshot after this answer."""
    return snapshot.with_brokers(response.brokers, response.cluster_id).with_topics(response.topics)


def leaders(snapshot: ClusterSnapshot) -> list[tuple[int | None, int]]:
    return [(leader.leader, leader.epoch) for leader in snapshot.topics["events"].partitions]


def test_newer_leader_epoch_replaces_and_lower_one_is_old_news() -> None:
    snapshot = merged(ClusterSnapshot(), answer((1, 5), (2, 5)))
    snapshot = merged(snapshot, answer((2, 6), (1, 4)))
    assert leaders(snapshot) == [(2, 6), (2, 5)]
    assert snapshot.brokers[2] == BrokerAddress("b2", 9092)


def test_no_leader_is_news_when_its_epoch_is_not_lower() -> None:
    snapshot = merged(ClusterSnapshot(), answer((1, 5)))
    assert leaders(merged(snapshot, answer((-1, 5)))) == [(None, 5)]
    assert leaders(merged(snapshot, answer((-1, 4)))) == [(1, 5)]


def test_brokers_without_leader_epochs_are_believed() -> None:
    snapshot = merged(ClusterSnapshot(), answer((1, -1)))
    assert leaders(merged(snapshot, answer((2, -1)))) == [(2, -1)]


def test_unknown_topic_keeps_what_was_known() -> None:
    snapshot = merged(ClusterSnapshot(), answer((1, 5), (2, 5)))
    snapshot = merged(snapshot, answer(code=3))
    assert leaders(snapshot) == [(1, 5), (2, 5)]
    assert snapshot.topics["events"].error_code == 3
    assert merged(ClusterSnapshot(), answer(code=3)).topics["events"].partitions == ()


def test_answer_that_lacks_partitions_does_not_shrink_the_topic() -> None:
    snapshot = merged(ClusterSnapshot(), answer((1, 5), (2, 5)))
    assert leaders(merged(snapshot, answer((1, 6)))) == [(1, 6), (2, 5)]


def test_topic_created_again_starts_afresh() -> None:
    snapshot = merged(ClusterSnapshot(), answer((1, 5), (2, 5)))
    snapshot = merged(snapshot, answer((2, 0), topic_id=ID_B))
    assert leaders(snapshot) == [(2, 0)]
    assert snapshot.topics["events"].topic_id == ID_B


def test_broker_names_a_new_leader() -> None:
    snapshot = merged(ClusterSnapshot(), answer((1, 5), (2, 5)))
    snapshot = snapshot.with_broker(3, BrokerAddress("b3", 1)).with_leader("events", 1, LeaderInfo(3, 6))
    assert leaders(snapshot) == [(1, 5), (3, 6)]
    assert snapshot.brokers[3].host == "b3"


@pytest.mark.parametrize("code", [5, 72])
def test_partition_without_a_reachable_leader_has_none_even_if_one_is_named(code: int) -> None:
    snapshot = merged(ClusterSnapshot(), answer((1, 5), (2, 5)))
    assert leaders(merged(snapshot, answer((1, 5), (2, 6), partition_codes={1: code}))) == [(1, 5), (None, 6)]
    assert leaders(merged(snapshot, answer((1, 5), (2, 4), partition_codes={1: code}))) == [(1, 5), (2, 5)]


def test_partition_that_lacks_a_replica_has_its_leader() -> None:
    snapshot = merged(ClusterSnapshot(), answer((1, 5), partition_codes={0: 9}))
    assert leaders(snapshot) == [(1, 5)]


def test_topic_without_an_error_and_without_partitions_is_a_failed_refresh() -> None:
    """franz-go: it was taken for a topic that is gone, and for a success."""
    snapshot = merged(merged(ClusterSnapshot(), answer((1, 5))), answer(code=29))
    after = merged(snapshot, answer())
    assert leaders(after) == [(1, 5)]
    assert after.topics["events"].error_code == 29
    assert merged(ClusterSnapshot(), answer()).topics["events"].partitions == ()


def test_answer_without_ids_keeps_the_epochs_of_one_with_an_id() -> None:
    snapshot = merged(ClusterSnapshot(), answer((1, 5), (1, 5)))
    snapshot = merged(snapshot, answer((2, 4), topic_id=NULL_TOPIC_ID))
    assert leaders(snapshot) == [(1, 5), (1, 5)]


def test_topic_without_a_name_is_not_one_that_was_asked_for() -> None:
    nameless = replace(answer((1, 5)).topics[0], name=None)
    assert merged(ClusterSnapshot(), replace(answer(), topics=[nameless])).topics == {}


ENTRY = TopicEntry(12, b"as it came")


def with_entry(response: MetadataResponse) -> MetadataResponse:
    return replace(response, topics=[replace(response.topics[0], entry=ENTRY)])


def test_topic_remembers_the_entry_that_it_was_merged_from() -> None:
    snapshot = merged(ClusterSnapshot(), with_entry(answer((1, 5))))
    assert snapshot.topics["events"].entry is ENTRY
    assert merged(snapshot, answer((1, 5))).topics["events"].entry is None


def test_entry_is_forgotten_when_a_broker_names_another_leader() -> None:
    snapshot = merged(ClusterSnapshot(), with_entry(answer((1, 5))))
    assert snapshot.with_leader("events", 0, LeaderInfo(2, 6)).topics["events"].entry is None


@pytest.mark.parametrize("code", [3, 29])
@pytest.mark.parametrize("partitions", [(), ((1, 5),)])
def test_entry_with_an_error_is_not_remembered(code: int, partitions: tuple[tuple[int, int], ...]) -> None:
    """Answers that call a topic unknown are counted."""
    for before in (ClusterSnapshot(), merged(ClusterSnapshot(), with_entry(answer((1, 5))))):
        assert merged(before, with_entry(answer(*partitions, code=code))).topics["events"].entry is None


def test_entry_without_partitions_is_not_remembered() -> None:
    snapshot = merged(ClusterSnapshot(), with_entry(answer((1, 5))))
    assert merged(snapshot, with_entry(answer())).topics["events"].entry is None


facts = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), max_size=4)
answers = st.builds(
    lambda partitions, topic_id, code, codes: answer(*partitions, topic_id=topic_id, code=code, partition_codes=codes),
    facts,
    st.sampled_from([NULL_TOPIC_ID, ID_A, ID_B]),
    st.sampled_from([0, 0, 3, 5]),
    st.dictionaries(st.integers(0, 3), st.sampled_from([5, 9, 72]), max_size=2),
)


@given(before=st.lists(answers, max_size=4), last=answers)
def test_answer_that_comes_twice_is_no_news(before: list[MetadataResponse], last: MetadataResponse) -> None:
    """What passing over an equal entry rests on."""
    snapshot = ClusterSnapshot()
    for each in before:
        snapshot = merged(snapshot, each)
    once = merged(snapshot, last)
    assert merged(once, last) == once
