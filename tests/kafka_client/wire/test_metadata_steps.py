"""Metadata decoded with pauses, and what is known passed over: the same as decoded at one go."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_client.errors import ProtocolError
from kafka_client.wire import metadata
from kafka_client.wire.metadata import STEP_PARTITIONS, MetadataResponse, TopicEntry

VERSIONS = range(metadata.MIN_VERSION, metadata.MAX_VERSION + 1)


def in_steps(
    body: bytes, version: int, known: Callable[[str], TopicEntry | None] = lambda name: None
) -> tuple[MetadataResponse, int]:
    """The response, and how often it paused."""
    steps = metadata.decode_steps(body, version, known)
    pauses = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, pauses
        pauses += 1


def entries(response: MetadataResponse) -> dict[str, TopicEntry]:
    return {topic.name: topic.entry for topic in response.topics if topic.name is not None and topic.entry is not None}


def topic(name: str, partitions: int = 2, *, leader: int = 1, replicas: int = 3) -> dict[str, Any]:
    return {
        "error_code": 0,
        "name": name,
        "topic_id": bytes(16),
        "is_internal": False,
        "partitions": [
            {
                "error_code": 0,
                "partition_index": index,
                "leader_id": leader,
                "leader_epoch": 2,
                "replica_nodes": [1] * replicas,
                "isr_nodes": [1] * replicas,
                "offline_replicas": [],
            }
            for index in range(partitions)
        ],
        "topic_authorized_operations": 0,
    }


def answer(*topics: dict[str, Any]) -> dict[str, Any]:
    return {
        "throttle_time_ms": 0,
        "brokers": [{"node_id": 1, "host": "b1", "port": 9092, "rack": None}],
        "cluster_id": "c",
        "controller_id": 1,
        "topics": list(topics),
        "cluster_authorized_operations": 0,
        "error_code": 0,
    }


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_what_is_known_and_what_is_decoded_are_the_answer(codec: Any, version: int, data: st.DataObject) -> None:
    """A second answer that has some topics of the first as they were, in any order, and others anew."""
    oracle = codec("Metadata", "Response", version)
    first, second = data.draw(oracle.values()), data.draw(oracle.values())
    both = (first["topics"] or []) + (second["topics"] or [])
    second["topics"] = data.draw(st.permutations(both))
    before = metadata.decode_response(oracle.encode(first), version)
    body = oracle.encode(second)
    whole = metadata.decode_response(body, version)
    known = entries(before)
    found, _ = in_steps(body, version, known.get)
    assert (found.brokers, found.cluster_id, found.controller_id) == (
        whole.brokers,
        whole.cluster_id,
        whole.controller_id,
    )
    assert (found.error_code, found.throttle_time_ms) == (whole.error_code, whole.throttle_time_ms)
    decoded = iter(found.topics)
    passed_over = []
    for one in whole.topics:
        if one.name is not None and known.get(one.name) == one.entry:
            passed_over.append(one.name)
        else:
            assert next(decoded) == one
    assert next(decoded, None) is None
    assert list(found.unchanged) == passed_over
    assert set(passed_over) == set(known)


@pytest.mark.parametrize("version", VERSIONS)
def test_topic_that_changed_in_any_byte_is_decoded(codec: Any, version: int) -> None:
    oracle = codec("Metadata", "Response", version)
    known = entries(metadata.decode_response(oracle.encode(answer(topic("a"), topic("b"), topic("c"))), version))
    changed = topic("b")
    changed["partitions"][1]["leader_id"] = 7
    found, _ = in_steps(oracle.encode(answer(topic("c"), changed, topic("a"), topic("new"))), version, known.get)
    assert list(found.unchanged) == ["c", "a"]
    assert [one.name for one in found.topics] == ["b", "new"]
    assert found.topics[0].partitions[1].leader == 7


def test_entry_of_another_version_is_no_other_entrys_beginning(codec: Any) -> None:
    """Version 5 adds an array at a partition's end: an entry of version 4 looks like the beginning of it."""
    one = topic("a", partitions=1)
    old = metadata.decode_response(codec("Metadata", "Response", 4).encode(answer(one)), 4)
    body = codec("Metadata", "Response", 5).encode(answer(one))
    entry = entries(old)["a"]
    assert entry.data in body
    found, _ = in_steps(body, 5, {"a": entry}.get)
    assert found.unchanged == []
    assert [len(each.partitions) for each in found.topics] == [1]


@pytest.mark.parametrize("version", [4, 8, 12, 13])
def test_it_pauses_within_a_topic_and_between_topics(codec: Any, version: int) -> None:
    oracle = codec("Metadata", "Response", version)
    _, pauses = in_steps(oracle.encode(answer(topic("large", 10 * STEP_PARTITIONS))), version)
    assert pauses >= 9
    body = oracle.encode(answer(*(topic(f"t{number}") for number in range(50))))
    found, pauses = in_steps(body, version)
    assert pauses >= 50
    again, pauses = in_steps(body, version, entries(found).get)
    assert (again.topics, len(again.unchanged), pauses) == ([], 50, 50)


@pytest.mark.parametrize("version", VERSIONS)
def test_answer_that_is_cut_short_is_refused_however_much_is_known(codec: Any, version: int) -> None:
    body = codec("Metadata", "Response", version).encode(answer(topic("a"), topic("b")))
    known = entries(metadata.decode_response(body, version))
    for length in range(len(body)):
        with pytest.raises(ProtocolError):
            in_steps(body[:length], version, known.get)
