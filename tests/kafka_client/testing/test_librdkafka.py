"""The fake against a client that knows nothing of it: librdkafka, over TCP, on real time.

librdkafka checks what the fake answers (offsets, CRCs when consuming, order of answers); the fake checks librdkafka.
"""

import time

import pytest
import trio
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from kafka_client.testing import Api, FakeCluster, open_fake_cluster

PARTITIONS = 4


def produce(servers: str, codec: str, values: list[bytes]) -> list[tuple[int, int]]:
    """Produce idempotently; (partition, offset) of each, in order of the reports."""
    placed: list[tuple[int, int]] = []

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        placed.append((message.partition() or 0, message.offset() or 0))

    # Batches and retries quick enough for a test; otherwise as an idempotent producer comes.
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "compression.codec": codec,
            "linger.ms": 2,
            "retry.backoff.ms": 20,
            "reconnect.backoff.ms": 20,
            "log_level": 0,
        }
    )
    for number, value in enumerate(values):
        producer.produce(
            "events", key=b"k%d" % (number % 20), value=value, headers=[("h", b"x")], on_delivery=on_delivery
        )
    assert producer.flush(20) == 0
    return placed


def consume(servers: str, count: int) -> list[tuple[int, int, bytes | None]]:
    """(partition, offset, value) of so many records, CRCs checked."""
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": "g", "enable.auto.commit": False, "check.crcs": True, "log_level": 0}
    )
    consumer.assign([TopicPartition("events", partition, 0) for partition in range(PARTITIONS)])
    found: list[tuple[int, int, bytes | None]] = []
    give_up = time.monotonic() + 20
    while len(found) < count and time.monotonic() < give_up:
        message = consumer.poll(0.2)
        if message is not None:
            assert message.error() is None
            found.append((message.partition() or 0, message.offset() or 0, message.value()))
    consumer.close()
    return found


def stored(cluster: FakeCluster) -> list[tuple[int, int, bytes | None]]:
    return sorted((record.partition, record.offset, record.value) for record in cluster.records("events"))


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_librdkafka_produces_and_reads_back(codec: str) -> None:
    values = [b"%d " % number + b"some text that compresses " * 10 for number in range(400)]
    async with open_fake_cluster(brokers=3, topics={"events": PARTITIONS}, listen=True) as cluster:
        servers = ",".join(cluster.tcp_bootstrap_servers)
        placed = await trio.to_thread.run_sync(produce, servers, codec, values)
        assert sorted(placed) == [(partition, offset) for partition, offset, _ in stored(cluster)]
        assert sorted(cluster.values("events")) == sorted(values)
        assert codec in {batch.codec for batch in cluster.seen.batches}
        found = await trio.to_thread.run_sync(consume, servers, len(values))
        assert sorted(found) == stored(cluster)
        assert cluster.seen.violations == []
    assert {record.headers for record in cluster.records("events")} == {(("h", b"x"),)}


async def test_librdkafka_survives_faults_without_loss_or_duplicate() -> None:
    values = [b"v%d" % number for number in range(300)]
    async with open_fake_cluster(brokers=2, topics={"events": PARTITIONS}, listen=True) as cluster:
        cluster.faults.drop_answer(times=3)
        cluster.faults.close_before(times=2, skip=3)
        cluster.faults.append_and_fail(20, times=2, skip=5)
        cluster.faults.fail(19, times=2, skip=7)
        cluster.faults.unknown_tags(times=None, api=None)
        servers = ",".join(cluster.tcp_bootstrap_servers)
        await trio.to_thread.run_sync(produce, servers, "zstd", values)
        assert sorted(cluster.values("events")) == sorted(values)
        assert any(batch.duplicate for batch in cluster.seen.batches)
        assert cluster.seen.violations == []


async def test_librdkafka_follows_a_moved_leader() -> None:
    async with open_fake_cluster(brokers=2, topics={"events": PARTITIONS}, listen=True) as cluster:
        servers = ",".join(cluster.tcp_bootstrap_servers)
        for partition in range(PARTITIONS):
            cluster.partition("events", partition).advertise(1, 0)
            cluster.move_leader("events", partition, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, produce, servers, "none", [b"a", b"b", b"c"])
            await cluster.wait_until(lambda: any(batch.error_code == 6 for batch in cluster.seen.batches))
            for partition in range(PARTITIONS):
                cluster.partition("events", partition).advertise_truth()
        assert sorted(cluster.values("events")) == [b"a", b"b", b"c"]
        assert {request.api for request in cluster.seen.requests} >= {Api.METADATA, Api.PRODUCE}
