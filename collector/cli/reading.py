"""All partitions of a topic, read at once, for people.

Owns: one reader a partition and their merging. Refuses to know: how events look.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from collector.brokers import producer_config
from collector.config import Config
from kafka_client.admin import EARLIEST, LATEST, Admin, FetchedRecord, open_admin

__all__ = ["open_reading"]


@asynccontextmanager
async def open_reading(
    config: Config, topic: str, *, from_beginning: bool = False
) -> AsyncIterator["trio.MemoryReceiveChannel[list[FetchedRecord]]"]:
    """Read ``topic`` for as long as the block lasts: from its end on, or all of it.

    Order holds within a partition.

    Raises:
        ConnectionLost, BrokerError: The topic cannot be read.

    On cancellation: the connections are closed.
    """
    send, receive = trio.open_memory_channel[list[FetchedRecord]](0)
    async with open_admin(producer_config(config)) as admin:
        starts = await admin.list_offsets(topic, EARLIEST if from_beginning else LATEST)
        async with trio.open_nursery() as nursery:
            for partition, offset in starts.items():
                nursery.start_soon(_read, admin, topic, partition, offset, send)
            yield receive
            nursery.cancel_scope.cancel(reason="the reading is over")


async def _read(
    admin: Admin, topic: str, partition: int, offset: int, send: "trio.MemorySendChannel[list[FetchedRecord]]"
) -> None:
    async with admin.read_partition(topic, partition, offset) as reader:
        while True:
            await send.send(await reader.receive())
