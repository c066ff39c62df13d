"""Questions and readers against the strict fake cluster, in virtual time."""

from collections.abc import AsyncIterator

import pytest
import trio

from kafka_client.admin import EARLIEST, LATEST, Admin, NewTopic, PartitionReader, open_admin
from kafka_client.config import ProducerConfig
from kafka_client.errors import BrokerError, ConnectionLost
from kafka_client.network.connection import open_connection
from kafka_client.testing import Api, FakeCluster, open_fake_cluster
from kafka_client.wire import produce
from kafka_client.wire.record_batch import encode_batch, encode_record_tail

NOW_MS = 1_700_000_000_000


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with open_fake_cluster(brokers=2, topics={"events": 2}, clock=lambda: NOW_MS / 1000) as cluster:
        yield cluster


@pytest.fixture
async def admin(cluster: FakeCluster) -> AsyncIterator[Admin]:
    config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers)
    async with open_admin(config, connector=cluster.connector) as admin:
        yield admin


async def send(cluster: FakeCluster, *values: bytes, partition: int = 0, step_ms: int = 0) -> None:
    """Produce straight to the partition's leader, without a producer id."""
    config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers)
    leader = cluster.partition("events", partition).leader
    tails = [encode_record_tail(b"key", value, [("h", b"x")]) for value in values]
    records = encode_batch(tails, [NOW_MS + step_ms * index for index in range(len(values))], codec="zstd")
    batch = produce.PartitionBatch("events", cluster.topics["events"].topic_id.bytes, partition, records)
    async with open_connection(f"fake-{leader}", 9092, config=config, connector=cluster.connector) as connection:
        answer = await connection.exchange(produce, produce.ProduceRequest(batches=[batch], timeout_ms=1000))
    assert answer.partitions[0].error_code == 0


async def values(reader: PartitionReader, count: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    async for record in reader:
        found.append(record.value)
        if len(found) == count:
            break
    return found


async def test_metadata_without_topics_names_the_brokers(admin: Admin, autojump_clock: trio.testing.MockClock) -> None:
    answer = await admin.metadata()
    assert [broker.host for broker in answer.brokers] == ["fake-1", "fake-2"]
    assert list(answer.topics) == []


async def test_topic_that_does_not_exist_is_a_broker_error_and_is_not_created(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(BrokerError, match=r"UNKNOWN_TOPIC_OR_PARTITION \(3\): topic nope") as caught:
        await admin.topic("nope")
    assert caught.value.retriable
    assert set(cluster.topics) == {"events"}


async def test_created_topic_is_there_and_creating_it_again_is_an_error_unless_ok(
    admin: Admin, autojump_clock: trio.testing.MockClock
) -> None:
    new = NewTopic(name="made", partitions=5, replication_factor=1)
    [created] = await admin.create_topics([new])
    assert (created.name, created.error_code) == ("made", 0)
    assert len((await admin.topic("made")).partitions) == 5
    with pytest.raises(BrokerError, match="TOPIC_ALREADY_EXISTS") as caught:
        await admin.create_topics([new])
    assert not caught.value.retriable
    [again] = await admin.create_topics([new], exist_ok=True)
    assert again.error_code == 36


async def test_topic_configs_by_name(admin: Admin, autojump_clock: trio.testing.MockClock) -> None:
    found = await admin.describe_topic_configs("events", ["max.message.bytes"])
    assert set(found) == {"max.message.bytes"}
    assert int(found["max.message.bytes"].value or "") > 0


async def test_topic_configs_of_no_topic_is_a_broker_error(
    admin: Admin, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(BrokerError, match="UNKNOWN_TOPIC_OR_PARTITION"):
        await admin.describe_topic_configs("nope")


async def test_offsets_of_every_partition_whoever_leads_it(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    await send(cluster, b"a", b"b", b"c", partition=0, step_ms=10)
    await send(cluster, b"d", partition=1)
    assert await admin.list_offsets("events", EARLIEST) == {0: 0, 1: 0}
    assert await admin.list_offsets("events") == {0: 3, 1: 1}


async def test_offsets_at_a_time_and_after_the_last_record(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    await send(cluster, b"a", b"b", b"c", partition=0, step_ms=10)
    assert (await admin.list_offsets("events", NOW_MS + 5))[0] == 1
    assert await admin.list_offsets("events", NOW_MS + 1000) == {0: 3, 1: 0}


async def test_reader_yields_what_is_there_and_what_comes(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    await send(cluster, b"a", b"b")
    async with admin.read_partition("events", 0, EARLIEST) as reader:
        assert await values(reader, 2) == [b"a", b"b"]
        await send(cluster, b"c")
        [record] = await reader.receive()
        assert (record.topic, record.partition, record.offset, record.timestamp_ms) == ("events", 0, 2, NOW_MS)
        assert (record.key, record.value, record.headers) == (b"key", b"c", (("h", b"x"),))
        await trio.sleep(2)
        assert repr(reader) == "<PartitionReader events/0 at 3 of 3>"


async def test_reader_from_the_latest_offset_sees_what_is_sent_once_its_block_is_entered(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    await send(cluster, b"old")
    async with admin.read_partition("events", 0, LATEST) as reader:
        await send(cluster, b"new")
        assert await values(reader, 1) == [b"new"]


async def test_reader_from_the_middle_of_a_batch_skips_its_beginning(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    await send(cluster, b"a", b"b", b"c")
    async with admin.read_partition("events", 0, 1) as reader:
        assert await values(reader, 2) == [b"b", b"c"]


async def test_reader_follows_a_leader_that_moves(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    await send(cluster, b"a")
    async with admin.read_partition("events", 0, 0) as reader:
        assert await values(reader, 1) == [b"a"]
        cluster.move_leader("events", 0, 2)
        await send(cluster, b"b")
        assert await values(reader, 1) == [b"b"]


async def test_reader_goes_on_after_its_connection_was_closed(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    async with admin.read_partition("events", 0, 0) as reader:
        await send(cluster, b"a")
        assert await values(reader, 1) == [b"a"]
        for _ in range(3):
            cluster.close_connections()
            await trio.sleep(1)
        await send(cluster, b"b")
        assert await values(reader, 1) == [b"b"]


async def test_reader_that_is_not_read_from_loses_nothing_when_connections_end(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    sent = [b"%d" % number for number in range(20)]
    async with admin.read_partition("events", 0, 0) as reader:
        for value in sent:
            await send(cluster, value)
            await trio.sleep(1)
            cluster.close_connections()
        assert await values(reader, 20) == sent


async def test_reader_beyond_the_end_is_a_broker_error(admin: Admin, autojump_clock: trio.testing.MockClock) -> None:
    async with admin.read_partition("events", 0, 1000) as reader:
        with pytest.raises(BrokerError, match="OFFSET_OUT_OF_RANGE"):
            await reader.receive()


async def test_reader_of_a_topic_that_does_not_exist_raises_at_once_or_waits_for_it(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(BrokerError, match="UNKNOWN_TOPIC_OR_PARTITION"):
        async with admin.read_partition("nope", 0, LATEST):
            pytest.fail("entered")
    async with admin.read_partition("later", 0, 0) as reader:
        await trio.sleep(30)
        cluster.create_topic("later", 1)
        with trio.move_on_after(30):
            await reader.receive()
        assert reader.high_watermark == 0


async def test_reader_errors_of_its_block_leave_it_as_they_were_raised(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(KeyError, match="of the block"):
        async with admin.read_partition("events", 0, 0):
            raise KeyError("of the block")
    await trio.sleep(1)
    assert cluster.connections_open == 0


async def test_nobody_there_is_a_loss_that_names_every_server(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    cluster.stop_broker(1)
    cluster.stop_broker(2)
    with pytest.raises(ConnectionLost, match=r"fake-1:9092.*; .*fake-2:9092"):
        await admin.metadata()


async def test_one_of_two_servers_is_enough(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    cluster.stop_broker(1)
    assert len((await admin.metadata()).brokers) >= 1


async def test_a_question_that_is_cancelled_leaves_nothing(
    admin: Admin, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.move_on_after(1) as scope:
        with cluster.faults.delay(60, api=Api.METADATA):
            await admin.metadata()
    assert scope.cancelled_caught
    await trio.sleep(100)
    assert cluster.connections_open == 0
