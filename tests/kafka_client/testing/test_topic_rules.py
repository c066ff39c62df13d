"""A topic's configuration, asked for and obeyed; through `RawClient`, whose answers are plain values."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from kafka_client.testing import Api, FakeCluster, RawClient, encode_batch
from kafka_client.testing.configs import BadConfig, TopicConfigs

NOW_MS = 1_700_000_000_000


@pytest.fixture
async def raw(cluster: FakeCluster) -> AsyncIterator[RawClient]:
    stream = await cluster.connector("fake-1", 9092)
    yield RawClient(stream)
    await trio.aclose_forcefully(stream)


async def produce(raw: RawClient, topic: str, *values: bytes, **members: Any) -> Any:
    batch = encode_batch(values, **{"timestamp_ms": NOW_MS, **members})
    parts = [{"index": 0, "records": batch}]
    answer: Any = await raw.call(
        Api.PRODUCE,
        9,
        transactional_id=None,
        acks=-1,
        timeout=1000,
        topic_data=[{"name": topic, "partition_data": parts}],
    )
    return answer["responses"][0]["partition_responses"][0]


async def create(raw: RawClient, name: str, **configs: str) -> Any:
    topic = {
        "name": name,
        "num_partitions": 1,
        "replication_factor": 1,
        "assignments": [],
        "configs": [{"name": key.replace("_", "."), "value": value} for key, value in configs.items()],
    }
    answer: Any = await raw.call(Api.CREATE_TOPICS, 7, timeout=1000, validate_only=0, topics=[topic])
    return answer["topics"][0]


async def test_compacted_topic_wants_keys(raw: RawClient) -> None:
    await create(raw, "c", cleanup_policy="compact")
    refused = await produce(raw, "c", b"a", b"b")
    assert (refused["error_code"], [error["batch_index"] for error in refused["record_errors"]]) == (87, [0, 1])
    assert (await produce(raw, "c", b"a", b"b", key=b"k"))["error_code"] == 0


async def test_log_append_time_is_written_and_told(raw: RawClient, cluster: FakeCluster) -> None:
    await create(raw, "t", message_timestamp_type="LogAppendTime")
    assert (await produce(raw, "t", b"a", timestamp_ms=5))["log_append_time"] == NOW_MS
    assert [record.timestamp_ms for record in cluster.log("t", 0)] == [NOW_MS]
    assert (await produce(raw, "t", b"a", attributes=8))["error_code"] == 32


async def test_limits_of_the_topic_go_before_the_brokers(raw: RawClient) -> None:
    await create(raw, "m", max_message_bytes="100", message_timestamp_before_max_ms="1000")
    assert (await produce(raw, "m", b"x" * 100))["error_code"] == 10
    assert (await produce(raw, "m", b"a", timestamp_ms=NOW_MS - 1001))["error_code"] == 32
    assert (await produce(raw, "m", b"a", timestamp_ms=NOW_MS - 1000))["error_code"] == 0


async def test_bad_configs_are_refused_when_they_are_set(raw: RawClient) -> None:
    assert (await create(raw, "x", no_such_thing="1"))["error_code"] == 40
    assert (await create(raw, "x", cleanup_policy="shred"))["error_code"] == 40
    assert (await create(raw, "x"))["error_code"] == 0
    with pytest.raises(BadConfig, match=r"Invalid value soon for configuration retention\.ms"):
        TopicConfigs()["retention.ms"] = "soon"


async def test_configs_of_broker_and_of_nothing(raw: RawClient) -> None:
    codes = []
    for kind, name in ((4, "1"), (4, "2"), (2, "a/b"), (99, "x")):
        resource = {"resource_type": kind, "resource_name": name, "configuration_keys": None}
        answer: Any = await raw.call(
            Api.DESCRIBE_CONFIGS, 4, resources=[resource], include_synonyms=0, include_documentation=0
        )
        codes.append(answer["results"][0]["error_code"])
    assert codes == [0, 42, 17, 42]


async def test_epochs_and_special_times_of_list_offsets(raw: RawClient, cluster: FakeCluster) -> None:
    cluster.move_leader("events", 0, 1)
    found = []
    for epoch, timestamp in ((0, -1), (1, -1), (2, -1), (-1, -4), (-1, -5), (-1, -6)):
        part = {"partition_index": 0, "current_leader_epoch": epoch, "timestamp": timestamp}
        topics = [{"name": "events", "partitions": [part]}]
        answer: Any = await raw.call(Api.LIST_OFFSETS, 9, replica_id=-1, isolation_level=0, topics=topics)
        row = answer["topics"][0]["partitions"][0]
        found.append((row["error_code"], row["offset"]))
    assert found == [(74, -1), (0, 0), (75, -1), (0, 0), (0, -1), (35, -1)]


async def test_closed_connection_is_no_answer(raw: RawClient, cluster: FakeCluster) -> None:
    cluster.close_connections(reset=True)
    assert await raw.call(Api.METADATA, 12, topics=None, include_topic_authorized_operations=False) is None
    assert repr(raw).startswith("<RawClient ")
