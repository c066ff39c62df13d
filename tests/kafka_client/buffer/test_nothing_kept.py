"""What ended is forgotten, although Python's collector of cycles sees neither deliveries nor runs."""

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from kafka_client import Delivered, Delivery, NotSent, Outcome, Producer, Unknown
from kafka_client.buffer.budget import Waiting
from kafka_client.buffer.segment import Parcel, Segment
from kafka_client.config import ProducerConfig
from kafka_client.outcome import Record
from kafka_client.producer import open_producer
from kafka_client.testing import FakeCluster, open_fake_cluster


def alive() -> int:
    """Whatever a delivery or a run that is kept would keep."""
    gc.collect()
    return sum(isinstance(found, Waiting | Parcel | Segment) for found in gc.get_objects())


@asynccontextmanager
async def open_small(queue_max_bytes: int = 20_000) -> AsyncIterator[tuple[Producer, FakeCluster]]:
    """A producer that knows its topic."""
    async with open_fake_cluster(topics={"events": 12}) as cluster:
        config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers, queue_max_bytes=queue_max_bytes)
        async with open_producer(config, connector=cluster.connector) as producer:
            await producer.send(Record("events", b"warm", partition=0))
            yield producer, cluster


async def test_delivery_that_waited_and_was_cut_by_partition_is_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_small() as (producer, cluster):
        before = alive()

        async def send(client: int) -> None:
            records = [Record("events", b"x" * 100, key=f"{client}-{n}".encode()) for n in range(50)]
            await producer.send_many(records)

        async with trio.open_nursery() as nursery:
            for client in range(20):
                nursery.start_soon(send, client)
        assert len(cluster.values("events")) == 1001
        assert alive() == before


async def test_single_records_that_were_taken_back_or_delivered_are_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_small(queue_max_bytes=5_000) as (producer, _):
        before = alive()
        deliveries = [producer.delivery([Record("events", b"x" * 100, partition=n % 12)]) for n in range(200)]
        for delivery in deliveries[::3]:
            delivery.withdraw()
        for delivery in deliveries:
            await delivery.wait()
        assert sum(isinstance(delivery.outcomes[0], Delivered) for delivery in deliveries) == 133
        del deliveries, delivery
        assert alive() == before


@pytest.mark.parametrize("reason", ["overloaded", "too_large"])
async def test_bulk_delivery_that_was_refused_is_forgotten(reason: str, autojump_clock: trio.testing.MockClock) -> None:
    async with open_fake_cluster(topics={"events": 1}) as cluster:
        config = ProducerConfig(
            bootstrap_servers=cluster.bootstrap_servers,
            queue_max_bytes=20_000,
            max_waiting_bytes=1_000,
            record_max_bytes=2_000,
            batch_max_bytes=5_000,
        )
        async with open_producer(config, connector=cluster.connector) as producer:
            hold = producer.delivery([Record("events", b"x" * 1_500)] * 12)
            before = alive()
            for _ in range(10):
                refused = producer.delivery([Record("events", b"y" * 1_000)] * (5 if reason == "overloaded" else 50))
                assert refused.unsettled == 0
                assert isinstance(refused.outcomes[-1], NotSent)
                assert refused.outcomes[-1].reason.startswith(reason)
            del refused
            assert alive() == before
            hold.withdraw()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("end", ["delivered", "withdrawn", "detached"])
async def test_on_resolved_that_refers_to_its_delivery_is_forgotten_with_it(
    count: int, end: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_small() as (producer, _):

        def deliver() -> "tuple[Delivery, weakref.ref[object]]":
            delivery = producer.delivery([Record("events", b"x", partition=0)] * count)

            def told(index: int, outcome: Outcome) -> None:
                assert delivery.outcomes[index] is not outcome

            delivery.on_resolved(told)
            return delivery, weakref.ref(told)

        delivery, told = deliver()
        if end == "detached":
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            assert producer.statistics().in_flight_batches
        if end != "delivered":
            delivery.withdraw()
            expected = NotSent("withdrawn") if end == "withdrawn" else Unknown("withdrawn")
            assert delivery.outcomes == [expected] * count
        del delivery
        await trio.sleep(10)
        assert told() is None
