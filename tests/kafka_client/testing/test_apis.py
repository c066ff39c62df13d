"""The other APIs, each version against kio's own reader."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module

import pytest
import trio

from kafka_client.testing import VERSIONS_OF_KAFKA_4_1, Api, FakeCluster, open_fake_cluster

Batch = Callable[..., bytes]


def unasked(version: int) -> dict[str, bool]:
    """Metadata's flags for authorized operations, where this version has them and kio no default."""
    cluster = {"include_cluster_authorized_operations": False} if 8 <= version <= 10 else {}
    return {**cluster, "include_topic_authorized_operations": False} if version >= 8 else {}


def versions(api: Api) -> range:
    low, high = VERSIONS_OF_KAFKA_4_1[api]
    return range(low, high + 1)


@pytest.mark.parametrize("version", versions(Api.API_VERSIONS))
async def test_api_versions(client, version: int) -> None:
    software = {"client_software_name": "raw", "client_software_version": "1.0"} if version >= 3 else {}
    answer = await client.call(Api.API_VERSIONS, version, **software)
    offered = {key.api_key: (key.min_version, key.max_version) for key in answer.api_keys}
    assert offered == {int(api): window for api, window in VERSIONS_OF_KAFKA_4_1.items()}
    assert answer.error_code.value == 0


async def test_api_versions_too_new_is_answered_in_version_zero(client) -> None:
    request = bytearray(client.request(Api.API_VERSIONS, 4, client_software_name="raw", client_software_version="1"))
    request[6:8] = (99).to_bytes(2)
    await client.stream.send_all(request)
    answer = client.read(Api.API_VERSIONS, 0, await client.receive_frame())
    assert answer.error_code.value == 35
    assert [(key.api_key, key.max_version) for key in answer.api_keys] == [(18, 4)]


async def test_api_never_offered_closes_the_connection(connect) -> None:
    async with open_fake_cluster(versions={Api.API_VERSIONS: (0, 2), Api.PRODUCE: (3, 9)}) as cluster:
        client = type(await connect())(cluster, await cluster.connector("fake-1", 9092))
        assert await client.call(Api.METADATA, 9, topics=None, **unasked(9)) is None
        client = type(client)(cluster, await cluster.connector("fake-1", 9092))
        await client.stream.send_all(client.produce_request(b"x", version=10))
        assert await client.receive_frame() is None
        assert "PRODUCE version 10 was never offered (3…9 were)" in cluster.seen.violations[1]


@pytest.mark.parametrize("version", versions(Api.METADATA))
async def test_metadata(client, cluster: FakeCluster, version: int) -> None:
    schema = import_module(f"kio.schema.metadata.v{version}.request")
    by_id = {"topic_id": None} if version >= 10 else {}
    names = tuple(schema.MetadataRequestTopic(name=name, **by_id) for name in ("events", "nope"))
    answer = await client.call(Api.METADATA, version, topics=names, **unasked(version))
    assert [(broker.node_id, broker.host, broker.port) for broker in answer.brokers] == [
        (1, "fake-1", 9092),
        (2, "fake-2", 9092),
    ]
    events, nope = answer.topics
    assert (events.name, events.error_code.value, nope.name, nope.error_code.value) == ("events", 0, "nope", 3)
    assert [(part.partition_index, part.leader_id) for part in events.partitions] == [(0, 1), (1, 2)]
    if version >= 10:
        assert events.topic_id == cluster.topics["events"].topic_id
        assert nope.topic_id is None


@pytest.mark.parametrize("version", [12, 13])
async def test_metadata_by_topic_id(client, cluster: FakeCluster, version: int) -> None:
    schema = import_module(f"kio.schema.metadata.v{version}.request")
    ids = (cluster.topics["events"].topic_id, uuid.uuid4())
    topics = tuple(schema.MetadataRequestTopic(name=None, topic_id=topic_id) for topic_id in ids)
    answer = await client.call(Api.METADATA, version, topics=topics, **unasked(version))
    assert [(topic.name, topic.error_code.value) for topic in answer.topics] == [("events", 0), (None, 100)]


async def test_metadata_lies_when_told(client, cluster: FakeCluster) -> None:
    async def topics():
        return (await client.call(Api.METADATA, 12, topics=None, **unasked(12))).topics

    cluster.partition("events", 0).advertise(2, 7)
    assert [(part.leader_id, part.leader_epoch) for part in (await topics())[0].partitions] == [(2, 7), (2, 0)]
    cluster.partition("events", 0).advertise_truth()
    cluster.move_leader("events", 0, None)
    part = (await topics())[0].partitions[0]
    assert (part.error_code.value, part.leader_id, part.leader_epoch) == (5, -1, 1)
    cluster.topics["events"].error_code = 29
    assert (await topics())[0].error_code.value == 29
    cluster.topics["events"].hidden = True
    assert await topics() == ()
    cluster.faults.no_brokers()
    cluster.faults.fail(129, api=Api.METADATA, skip=1)
    assert (await client.call(Api.METADATA, 13, topics=None, **unasked(13))).brokers == ()
    assert (await client.call(Api.METADATA, 13, topics=None, **unasked(13))).error_code.value == 129


async def test_recreated_topic_has_another_id_and_an_empty_log(client, batch: Batch, cluster: FakeCluster) -> None:
    old = cluster.topics["events"].topic_id
    await client.produce(batch([b"a"]))
    cluster.delete_topic("events")
    cluster.create_topic("events", 1)
    assert cluster.topics["events"].topic_id != old
    assert cluster.records("events") == []


@pytest.mark.parametrize("version", versions(Api.INIT_PRODUCER_ID))
async def test_init_producer_id(client, version: int) -> None:
    old = {"producer_id": 5, "producer_epoch": 6} if version >= 3 else {}
    call = {"transactional_id": None, "transaction_timeout": timedelta(0), **old}
    answers = [await client.call(Api.INIT_PRODUCER_ID, version, **call) for _ in range(2)]
    assert [(answer.producer_id, answer.producer_epoch) for answer in answers] == [(1000, 0), (1001, 0)]


async def test_init_producer_id_refused(client, cluster: FakeCluster) -> None:
    cluster.faults.fail(31, api=Api.INIT_PRODUCER_ID)
    answer = await client.call(Api.INIT_PRODUCER_ID, 4, transactional_id=None, transaction_timeout=timedelta(0),
                               producer_id=-1, producer_epoch=-1)  # fmt: skip
    assert (answer.error_code.value, answer.producer_id) == (31, -1)


def fetch(cluster: FakeCluster, version: int, offset: int, *, min_bytes: int = 0, wait_s: float = 0.0):
    schema = import_module(f"kio.schema.fetch.v{version}.request")
    name = {"topic_id": cluster.topics["events"].topic_id} if version >= 13 else {"topic": "events"}
    part = schema.FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=10_000)
    members = {
        "max_wait": timedelta(seconds=wait_s),
        "min_bytes": min_bytes,
        "topics": (schema.FetchTopic(**name, partitions=(part,)),),
    }
    if version < 15:
        members["replica_id"] = -1
    if version >= 7:
        members["forgotten_topics_data"] = ()
    return members


@pytest.mark.parametrize("version", versions(Api.FETCH))
async def test_fetch(client, batch: Batch, cluster: FakeCluster, version: int) -> None:
    await client.produce(batch([b"a", b"b"]))
    await client.produce(batch([b"c"]))
    answer = await client.call(Api.FETCH, version, **fetch(cluster, version, 2))
    part = answer.responses[0].partitions[0]
    assert (part.error_code.value, part.high_watermark) == (0, 3)
    assert bytes(part.records) == cluster.partition("events", 0).log.batches[1].raw


async def test_fetch_waits_for_records(
    connect, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    reader, writer = await connect(1), await connect(1)
    async with trio.open_nursery() as nursery:

        async def write_later() -> None:
            await trio.sleep(3)
            await writer.produce(batch([b"a"]))

        nursery.start_soon(write_later)
        answer = await reader.call(Api.FETCH, 11, **fetch(cluster, 11, 0, min_bytes=1, wait_s=10))
    assert trio.current_time() == 3
    assert len(answer.responses[0].partitions[0].records) > 0
    answer = await reader.call(Api.FETCH, 11, **fetch(cluster, 11, 1, min_bytes=1, wait_s=10))
    assert trio.current_time() == 13
    assert bytes(answer.responses[0].partitions[0].records) == b""


async def test_fetch_out_of_range(client, batch: Batch, cluster: FakeCluster) -> None:
    await client.produce(batch([b"a"]))
    await client.produce(batch([b"b"]))
    cluster.partition("events", 0).log.delete_before(1)
    for offset, code, start in ((0, 1, -1), (1, 0, 1), (2, 0, 1), (3, 1, -1)):
        answer = await client.call(Api.FETCH, 12, **fetch(cluster, 12, offset))
        part = answer.responses[0].partitions[0]
        assert (part.error_code.value, part.log_start_offset) == (code, start)


@pytest.mark.parametrize("version", versions(Api.LIST_OFFSETS))
async def test_list_offsets(client, batch: Batch, cluster: FakeCluster, version: int) -> None:
    now = 1_700_000_000_000
    for step in range(3):
        await client.produce(batch([b"x"], timestamp_ms=now + step * 10))
    cluster.partition("events", 0).log.delete_before(1)
    schema = import_module(f"kio.schema.list_offsets.v{version}.request")
    found = []
    for timestamp in (-2, -1, now + 5, now + 15, now + 99, -3):
        part = schema.ListOffsetsPartition(partition_index=0, timestamp=timestamp)
        isolation = {"isolation_level": 0} if version >= 2 else {}
        timeout = {"timeout": timedelta(0)} if version >= 10 else {}
        topics = (schema.ListOffsetsTopic(name="events", partitions=(part,)),)
        answer = await client.call(Api.LIST_OFFSETS, version, replica_id=-1, topics=topics, **isolation, **timeout)
        found.append(answer.topics[0].partitions[0].offset)
    assert found == [1, 3, 1, 2, -1, 2]


@pytest.mark.parametrize("version", versions(Api.FIND_COORDINATOR))
async def test_find_coordinator_finds_none(client, version: int) -> None:
    kind = {"key_type": 0} if version >= 1 else {}
    key = {"coordinator_keys": ("g",)} if version >= 4 else {"key": "g"}
    answer = await client.call(Api.FIND_COORDINATOR, version, **key, **kind)
    found = answer.coordinators[0] if version >= 4 else answer
    assert (found.error_code.value, found.node_id) == (15, -1)


@pytest.mark.parametrize("version", versions(Api.CREATE_TOPICS))
async def test_create_topics(client, cluster: FakeCluster, version: int) -> None:
    schema = import_module(f"kio.schema.create_topics.v{version}.request")

    def topic(name: str, partitions: int, factor: int):
        return schema.CreatableTopic(
            name=name,
            num_partitions=partitions,
            replication_factor=factor,
            assignments=(),
            configs=(schema.CreatableTopicConfig(name="retention.ms", value="1000"),),
        )

    wanted = (topic("new", 3, 2), topic("events", 1, 1), topic("a/b", 1, 1), topic("zero", 0, 1), topic("wide", 1, 3))
    answer = await client.call(Api.CREATE_TOPICS, version, topics=wanted)
    assert [each.error_code.value for each in answer.topics] == [0, 36, 17, 37, 38]
    assert len(cluster.topics["new"].partitions) == 3
    assert cluster.topics["new"].configs == {"retention.ms": "1000"}


@pytest.mark.parametrize("version", versions(Api.DESCRIBE_CONFIGS))
async def test_describe_configs(client, cluster: FakeCluster, version: int) -> None:
    cluster.topics["events"].configs["min.insync.replicas"] = "2"
    schema = import_module(f"kio.schema.describe_configs.v{version}.request")
    keys = ("min.insync.replicas", "max.message.bytes")
    wanted = tuple(
        schema.DescribeConfigsResource(resource_type=2, resource_name=name, configuration_keys=keys)
        for name in ("events", "nope")
    )
    answer = await client.call(Api.DESCRIBE_CONFIGS, version, resources=wanted)
    events, nope = answer.results
    assert {config.name: config.value for config in events.configs} == {
        "min.insync.replicas": "2",
        "max.message.bytes": "1048588",
    }
    assert nope.error_code.value == 3


async def test_auto_created_topic(connect) -> None:
    async with open_fake_cluster(topics={}, auto_create_topics=4) as cluster:
        client = type(await connect())(cluster, await cluster.connector("fake-1", 9092))
        schema = import_module("kio.schema.metadata.v9.request")
        wanted = {"topics": (schema.MetadataRequestTopic(name="fresh"),), **unasked(9)}
        first, second = [await client.call(Api.METADATA, 9, **wanted) for _ in range(2)]
        assert (first.topics[0].error_code.value, first.topics[0].partitions) == (3, ())
        assert len(second.topics[0].partitions) == 4
