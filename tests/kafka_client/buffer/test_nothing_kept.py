"""What waited in the budget's line is forgotten when it ends: runs are invisible to Python's collector of cycles."""

import gc

import trio

from kafka_client.buffer.budget import Waiting
from kafka_client.buffer.delivery import Delivery
from kafka_client.config import ProducerConfig
from kafka_client.outcome import Record
from kafka_client.producer import open_producer
from kafka_client.testing import open_fake_cluster


def alive() -> int:
    gc.collect()
    return sum(isinstance(found, Waiting | Delivery) for found in gc.get_objects())


async def test_delivery_that_waited_and_was_cut_by_partition_is_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    before = alive()
    async with open_fake_cluster(topics={"events": 12}) as cluster:
        config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers, queue_max_bytes=20_000)
        async with open_producer(config, connector=cluster.connector) as producer:

            async def send(client: int) -> None:
                records = [Record("events", b"x" * 100, key=f"{client}-{n}".encode()) for n in range(50)]
                await producer.send_many(records)

            async with trio.open_nursery() as nursery:
                for client in range(20):
                    nursery.start_soon(send, client)
            assert len(cluster.values("events")) == 1000
            assert alive() == before
