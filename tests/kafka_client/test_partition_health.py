"""What a caller who has somewhere else to go learns of partitions: where a key goes, and who stands still."""

import pytest
import trio

from kafka_client import Delivered, PartitionHealth, ProducerConfig, Record, open_producer
from kafka_client.wire.murmur2 import key_hash


async def test_nothing_is_known_of_a_topic_before_its_metadata(scenario, autojump_clock) -> None:
    async with scenario(partitions=4) as s:
        assert s.producer.partition_health("events") is None
        assert s.producer.partition_of("events", b"k") is None
        await s.outcome(b"v")
        assert s.producer.partition_of("events", None) is None
        assert s.producer.partition_of("events", b"k") == key_hash(b"k") % 4
        outcome = await s.outcome(b"keyed", key=b"k", partition=None)
        assert outcome.partition.partition == s.producer.partition_of("events", b"k")
        assert len(s.producer.partition_health("events")) == 4
        assert s.producer.partition_health("other") is None


async def test_idle_is_not_ill(scenario, autojump_clock) -> None:
    async with scenario(partitions=2) as s:
        await s.outcome(b"v")
        answered_at = trio.current_time()
        await trio.sleep(100)
        answered, untouched = s.producer.partition_health("events")
        assert answered == PartitionHealth(1, False, None, answered_at)
        assert untouched == PartitionHealth(1, False, None, None)


async def test_oldest_is_the_detached_batch_or_what_is_queued(scenario, autojump_clock) -> None:
    async with scenario(partitions=2) as s:
        await s.outcome(b"warm-up", partition=0)
        s.cluster.faults.delay(10.0)
        handed_over_at = trio.current_time()
        with s.deliver(b"slow", partition=0) as delivery, trio.move_on_after(1):
            await delivery.wait()
        await trio.sleep(4)
        stalled, idle = s.producer.partition_health("events")
        assert (stalled.oldest_at, idle.oldest_at) == (handed_over_at, None), "a detached batch is unresolved too"
        await s.settle()
        assert s.producer.partition_health("events")[0].oldest_at is None
        assert s.producer.partition_health("events")[0].answered_at == pytest.approx(handed_over_at + 10)

        s.cluster.move_leader("events", 1, None)
        s.deliver(b"finds out", partition=1)
        await trio.sleep(1)
        handed_over_at = trio.current_time()
        waiting = s.deliver(b"waits", partition=1)
        health = s.producer.partition_health("events")[1]
        assert health.leader is None
        assert health.oldest_at <= handed_over_at
        waiting.withdraw()
        s.cluster.move_leader("events", 1, 1)


async def test_answers_count_whatever_they_say(scenario, autojump_clock) -> None:
    async with scenario() as s:
        await s.outcome(b"warm-up")
        fault = s.cluster.faults.fail(19, times=None)  # NOT_ENOUGH_REPLICAS
        s.deliver(b"refused")
        await trio.sleep(20)
        health = s.producer.partition_health("events")[0]
        assert trio.current_time() - health.oldest_at == 20
        assert trio.current_time() - health.answered_at < 2
        fault.remove()


async def test_operator_errors_of_topic_and_connection_are_told(scenario, autojump_clock) -> None:
    async with scenario(partitions=2, operator_retry_s=5.0) as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.fail(29)  # TOPIC_AUTHORIZATION_FAILED
        delivery = s.deliver(b"forbidden")
        await trio.sleep(1)
        assert [health.operator_error for health in s.producer.partition_health("events")] == [True, True]
        with delivery:
            await delivery.wait()
        assert isinstance(delivery.outcomes[0], Delivered)
        assert [health.operator_error for health in s.producer.partition_health("events")] == [False, False]


async def test_refused_connection_stands_against_what_its_broker_leads(scenario, autojump_clock) -> None:
    async with scenario(partitions=2, brokers=2) as s:
        await s.outcome(b"one", partition=0)
        await s.outcome(b"two", partition=1)
        standing = s.producer._dispatch.standing
        leaders = [health.leader for health in s.producer.partition_health("events")]
        assert len(set(leaders)) == 2
        standing.connection_refused(leaders[1], "SECURITY", "the certificate has expired")
        assert [health.operator_error for health in s.producer.partition_health("events")] == [False, True]
        standing.connection_works(leaders[1])
        assert [health.operator_error for health in s.producer.partition_health("events")] == [False, False]


async def test_topic_without_partitions_is_unknown(autojump_clock) -> None:
    async def nobody(host: str, port: int) -> trio.abc.HalfCloseableStream:  # noqa: ASYNC124
        raise ConnectionRefusedError

    async with open_producer(ProducerConfig(bootstrap_servers="a:1", close_grace_s=0.1), connector=nobody) as producer:
        producer.delivery([Record("events", b"v")])
        assert producer.partition_health("events") is None
